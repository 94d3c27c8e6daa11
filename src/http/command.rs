//! What a request may change: who is watched, who is forgotten.
//!
//! A page in a browser can make such a request with the credentials that the browser keeps, without its user's will. So these
//! are refused when they come from another site, and take no body but JSON, which no form can send.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method};
use serde::Deserialize;

use super::Edge;
use super::body::Upload;
use super::facts::Facts;
use super::listing::{Wanted, WatchView, jid_in_path};
use super::query::Invalid;
use super::reply::{self, Problem, Reply};
use crate::duration;
use crate::jid::Subject;
use crate::store::{Watch, Watched};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How often somebody may be looked at. What the budget does not allow is not done all the same.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Refuses what a page of another site may have made a browser send.
pub(super) fn check_origin(parts: &Parts) -> Result<(), Problem> {
    let headers = &parts.headers;
    let fetched = headers.get(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none");
    if fetched && is_same_origin(headers, parts.uri.authority().map(Authority::as_str)) {
        Ok(())
    } else {
        Err(Problem::CrossSite)
    }
}

/// Whether `Origin`, where there is one, names the host that was asked. Whether by http or https a proxy in front may know, not we.
fn is_same_origin(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let Some(origin) = headers.get("origin") else { return true };
    let host = authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Refuses a body that is not said to be JSON.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::NotJson) }
}

#[derive(Deserialize)]
struct WatchRequest {
    interval: String,
}

impl Edge {
    /// `PUT|DELETE /avatars/{jid}/watch`.
    pub(super) async fn set_watch(
        &self,
        jid: &str,
        parts: &Parts,
        facts: &Facts<'_>,
        body: Upload,
    ) -> Result<Reply, Problem> {
        check_origin(parts)?;
        let wanted = Wanted::read(parts.uri.query().unwrap_or_default())?;
        let (jid, device) = (jid_in_path(jid)?, wanted.device(facts, &self.default_device)?);
        if parts.method == Method::DELETE {
            self.avatars.unwatch(&jid, device.as_ref()).await?;
            return Ok(reply::no_content());
        }
        check_json(&parts.headers)?;
        let WatchRequest { interval } = body.json().await?;
        let invalid = |what: &str| Invalid::of("interval", what);
        let interval = duration::parse(&interval).map_err(|wrong| invalid(&format!("{wrong}.")))?;
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Err(invalid("must lie between 1s and 365d.").into());
        }
        let device = device.unwrap_or_else(|| self.default_device.clone());
        let watch = Watch { subject: Subject { device, jid }, interval };
        match self.avatars.watch(watch.clone(), self.watch_limit).await? {
            Watched::Done => Ok(reply::json(&WatchView::from(&watch))),
            Watched::TooMany => Err(Problem::TooManyWatches(self.watch_limit)),
        }
    }

    /// `DELETE /avatars/{jid}`.
    pub(super) async fn forget(&self, jid: &str, parts: &Parts, facts: &Facts<'_>) -> Result<Reply, Problem> {
        check_origin(parts)?;
        let wanted = Wanted::read(parts.uri.query().unwrap_or_default())?;
        let (jid, device) = (jid_in_path(jid)?, wanted.device(facts, &self.default_device)?);
        self.avatars.forget(&jid, device.as_ref()).await?;
        Ok(reply::no_content())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_refused(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::delete("/avatars/1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check_origin(&request.body(()).unwrap().into_parts().0).is_err()
    }

    #[test]
    fn other_sites_are_refused() {
        let host = ("host", "proxy.example:8080");
        for allowed in [
            &[host][..],
            &[host, ("origin", "https://Proxy.example:8080")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert!(!is_refused(allowed), "{allowed:?}");
        }
        for refused in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://proxy.example"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(is_refused(&[host, refused]), "{refused:?}");
        }
    }
}
