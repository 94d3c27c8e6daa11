//! The webhooks that flags give: can they be connected to and, if that is asked for, do they take a test.
//!
//! Those that were added over the API are the running proxy's to test (`POST /webhooks/{id}/test`).

use http::StatusCode;
use tokio::task::JoinSet;

use super::{Finding, shown};
use crate::clock::Clock;
use crate::events::Format;
use crate::events::webhook::{Given, test_of};
use crate::outbound::{Config, Failure, Outbound, Reach, parse_url};

const NOT_ITS_OWN: &str = "see whether it runs, and what is on the way; until it answers, deliveries wait for it";

pub(super) async fn findings(webhooks: &[Given], test: Option<Format>, config: Config, clock: &Clock) -> Vec<Finding> {
    if webhooks.is_empty() && test.is_some() {
        return vec![Finding::warning("webhooks", "there is none to test", "name them with --webhook")];
    }
    let outbound = match Outbound::new(config, clock.clone()) {
        Ok(outbound) => outbound,
        Err(error) => return vec![Finding::refused("webhooks", error)],
    };
    let mut tried = JoinSet::new();
    for (place, given) in webhooks.iter().cloned().enumerate() {
        let (outbound, clock) = (outbound.clone(), clock.clone());
        tried.spawn(async move { (place, try_one(place + 1, &given, test, &outbound, &clock).await) });
    }
    let mut found = tried.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, finding)| finding).collect()
}

async fn try_one(place: usize, given: &Given, test: Option<Format>, outbound: &Outbound, clock: &Clock) -> Finding {
    let check = format!("webhook {place}");
    let url = match parse_url(&given.url, Reach::Anywhere) {
        Ok(url) => url,
        Err(error) => return Finding::wrong(check, format!("its address {error}"), "correct --webhook"),
    };
    // What stands behind the host may be its password.
    let host = url.host().unwrap_or_default().to_owned();
    let began = clock.elapsed();
    let Some(format) = test else {
        return match outbound.connect(&url, Reach::Anywhere).await {
            Ok(()) => {
                let took = shown(clock.elapsed().saturating_sub(began));
                Finding::ok(check, format!("{host} takes connections, in {took}; nothing was sent"))
            }
            Err(failure) => unreached(check, &host, failure),
        };
    };
    let (headers, body) = test_of(given, format, clock.now());
    match outbound.post(&url, headers, body, Reach::Anywhere).await {
        Ok(answer) if answer.status.is_success() => {
            let took = shown(clock.elapsed().saturating_sub(began));
            Finding::ok(check, format!("{host} took the test, in {took}"))
        }
        Ok(answer) => Finding::wrong(
            check,
            format!("{host} answers the test with {}", answer.status.as_u16()),
            remedy_of(answer.status),
        ),
        Err(failure) => unreached(check, &host, failure),
    }
}

fn remedy_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => "redirects are not followed, so give --webhook the address that it leads to",
        401 | 403 => "see whether it checks the signature with another secret than --webhook-secret",
        404 | 405 => "correct the path in --webhook, or have the receiver take POST there",
        410 => "correct --webhook: whoever answers a delivery so is sent nothing more (disabled)",
        429 => "it is sent too much; deliveries wait and try again",
        500..=599 => "its log says why; until that is mended, deliveries wait and try again",
        _ => "see what the receiver wants otherwise; a delivery counts with a 2xx alone",
    }
}

fn unreached(check: String, host: &str, failure: Failure) -> Finding {
    let remedy = match failure {
        Failure::Unresolved => "correct --webhook, or what this machine knows of names (DNS)",
        Failure::Tls => {
            "see that its certificate is for this name, has not expired, and is of an authority that this machine knows"
        }
        _ => NOT_ITS_OWN,
    };
    Finding::wrong(check, format!("{host}: {failure}"), remedy)
}
