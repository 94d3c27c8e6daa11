//! The gateway's replies: a line with the status, then the body. Whatever it sends, what comes out can be answered with.
#![no_main]

use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::{MARGIN, dead_at};
use avatar_proxy::gateway::reply::classify;
use avatar_proxy::jid::Variant;
use avatar_proxy::outcome::{Class, Failure, Negative, Outcome, Picture, Rules};
use http::{StatusCode, Uri};
use libfuzzer_sys::fuzz_target;

/// 14 November 2023.
const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fuzz_target!(|bytes: &[u8]| {
    let (line, body) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len()));
    let body = body.get(1..).unwrap_or_default();
    let Ok(status) = StatusCode::from_bytes(line) else { return };
    for bits in 0..4 {
        let asked = Variant::from_bits(bits);
        let said = classify(status, body, asked, NOW);
        assert_eq!(said, classify(status, body, asked, NOW), "the same reply means the same");
        match said {
            Ok(Outcome::Present(picture)) => {
                assert!(status.is_success());
                is_usable(&picture);
            }
            Ok(Outcome::Negative(negative)) => is_the_gateways(&negative, status),
            Err(failure) => is_told_well(&failure, status),
        }
    }
});

fn is_usable(picture: &Picture) {
    let url = picture.url();
    assert!(url.len() <= 4096 && picture.id().len() <= 256 && (1..=64).contains(&picture.kind().len()));
    assert!(!picture.id().contains(char::is_control) && !picture.kind().contains(char::is_control));
    if !url.is_empty() {
        let uri: Uri = url.parse().expect("a client can read it");
        assert!(matches!(uri.scheme_str(), Some("http" | "https")), "a browser would run it");
        assert!(uri.host().is_some_and(|host| !host.is_empty()));
        assert!(url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\`".contains(&byte)));
    }
    assert!(picture.expires_at().is_none_or(|expiry| expiry > NOW + MARGIN), "dead on arrival");
    assert!(dead_at(picture, NOW, &Rules::default()) > NOW, "it can be served");
}

fn is_the_gateways(negative: &Negative, status: StatusCode) {
    assert_eq!(negative.status, status.as_u16());
    assert!((400..600).contains(&negative.status));
    assert!(!matches!(negative.status, 403 | 429), "these say nothing about a person");
    assert!((1..=64).contains(&negative.code.len()) && negative.message.len() <= 1024);
    let message = negative.message.to_ascii_lowercase();
    assert!(!message.contains("rate-overlimit"), "a rate limit is not an answer about a person");
}

fn is_told_well(failure: &Failure, status: StatusCode) {
    let reply = &failure.reply;
    assert!((400..600).contains(&reply.status), "a failure is an error to the client too");
    assert!((1..=64).contains(&reply.code.len()) && reply.message.len() <= 1024);
    assert!(reply.code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)));
    if let Some(results) = &reply.results {
        assert!(results.len() <= 1024);
        serde_json::from_str::<serde::de::IgnoredAny>(results).expect("results are JSON");
    }
    // The log: our own words and the status, nothing of what came.
    let own = failure.detail.strip_suffix(&*format!(", status {}", status.as_u16())).expect("the status is told");
    let words = [
        "no envelope",
        "redirect",
        "unusable picture",
        "expired URL",
        "unexpected",
        "rate limit",
        "credentials refused",
        "replayed",
    ];
    assert!(words.contains(&own), "{own}");
    assert_eq!(reply.status == 429, failure.class == Class::RateLimited);
    assert!(status != 429 || failure.class == Class::RateLimited);
    assert!(status != 403 || failure.class == Class::Credentials);
    let may_retry = matches!(failure.class, Class::Passing | Class::Nonsense);
    assert!(may_retry || !failure.retry, "asking again at once helps nobody here");
}
