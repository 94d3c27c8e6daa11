//! Which pages of other origins may read answers: as the gateway's own middleware does it, before credentials are looked at,
//! because browsers send none with a preflight.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use super::facts::Facts;
use super::reply::{self, Reply};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, HEAD, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Origin, Content-Type, Accept, Authorization, X-Device-Id, Cache-Control, If-None-Match, Last-Event-ID",
);
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Age, Cache-Status, ETag, Last-Event-ID, RateLimit, RateLimit-Policy, Retry-After");

/// The origins whose pages may read answers.
pub(super) enum Cors {
    /// All.
    Everybody,
    /// These, and none if there are none.
    Listed(Vec<HeaderValue>),
}

impl Cors {
    /// `*` among the origins means all.
    pub(super) fn new(origins: &[String]) -> Self {
        if origins.iter().any(|origin| origin == "*") {
            return Self::Everybody;
        }
        Self::Listed(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The answer to a preflight, if that is what the request is.
    pub(super) fn preflight(&self, method: &Method, facts: &Facts<'_>) -> Option<Reply> {
        let origin = facts.origin.filter(|_| facts.is_preflight && method == Method::OPTIONS)?;
        let mut reply = reply::no_content();
        let answer = reply.headers_mut();
        answer.append(VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
        if self.allow(origin, answer) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        }
        Some(reply)
    }

    /// Lets the page that asked read the answer, if it may.
    pub(super) fn expose(&self, facts: &Facts<'_>, answer: &mut HeaderMap) {
        if matches!(self, Self::Listed(listed) if !listed.is_empty()) {
            // Also where no page asked: no cache may hand that answer to one.
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = facts.origin
            && self.allow(origin, answer)
        {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    fn allow(&self, origin: &HeaderValue, answer: &mut HeaderMap) -> bool {
        let allowed = match self {
            Self::Everybody => Some(HeaderValue::from_static("*")),
            Self::Listed(listed) => listed
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
                .then(|| origin.clone()),
        };
        let is_allowed = allowed.is_some();
        if let Some(allowed) = allowed {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preflight(origins: &[&str], origin: &'static str) -> Option<String> {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let origin = HeaderValue::from_static(origin);
        let facts = Facts { origin: Some(&origin), is_preflight: true, ..Facts::default() };
        let reply = Cors::new(&origins).preflight(&Method::OPTIONS, &facts)?;
        let allowed = reply.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN)?;
        assert!(reply.headers().contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
        Some(allowed.to_str().unwrap().to_owned())
    }

    #[test]
    fn everybody_or_those_on_the_list() {
        assert_eq!(preflight(&["*"], "https://a.example").as_deref(), Some("*"));
        assert_eq!(preflight(&["https://a.example"], "https://A.example").as_deref(), Some("https://A.example"));
        assert_eq!(preflight(&["https://a.example"], "https://b.example"), None);
        assert_eq!(preflight(&[], "https://a.example"), None);
    }

    #[test]
    fn only_preflights_are_answered_as_such() {
        let cors = Cors::new(&["*".to_owned()]);
        let origin = HeaderValue::from_static("https://a.example");
        let facts = |is_preflight| Facts { origin: Some(&origin), is_preflight, ..Facts::default() };
        assert!(cors.preflight(&Method::OPTIONS, &facts(false)).is_none());
        assert!(cors.preflight(&Method::GET, &facts(true)).is_none());
    }
}
