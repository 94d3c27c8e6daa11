//! Signatures, by which a receiver knows that a delivery is ours and whole. Each delivery carries two kinds.
//!
//! * `X-Hub-Signature-256`, as the gateway signs its own webhooks: HMAC-SHA256 of the body in hexadecimal digits. Its key is the
//!   newest secret's characters as they are.
//! * The headers of Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`. Their key is what stands
//!   behind `whsec_` in base64, or else the secret's characters. While one secret replaces another there is a signature by each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::store::Secret;

/// The longest secret.
const SECRET_MAX: usize = 256;

/// How many random bytes a secret has that is made here.
const SECRET_BYTES: usize = 24;

const PREFIX: &str = "whsec_";

/// A text that is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be 1 to 256 printable ASCII characters without spaces; behind `whsec_` it must be base64")]
pub struct BadSecret;

/// Checks a secret that somebody chose.
///
/// # Errors
/// When it could not be signed with, or not be written in a configuration.
pub fn check(secret: &str) -> Result<(), BadSecret> {
    let plain = (1..=SECRET_MAX).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && !key(secret)?.is_empty() { Ok(()) } else { Err(BadSecret) }
}

/// A new secret from random bytes.
pub(super) fn make(random: [u8; SECRET_BYTES]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(random))
}

/// The key for Standard Webhooks.
fn key(secret: &str) -> Result<Vec<u8>, BadSecret> {
    match secret.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| BadSecret),
        None => Ok(secret.as_bytes().to_vec()),
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> impl AsRef<[u8]> + use<> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

/// The headers of one attempt at `now` to deliver `body` under `id`, signed with those of `secrets` (newest first) that hold.
pub(super) fn headers(secrets: &[Secret], id: &str, now: Timestamp, body: &[u8]) -> HeaderMap {
    let valid = secrets.iter().filter(|secret| secret.until.is_none_or(|until| now < until));
    let time = now.as_millis().div_euclid(1000).to_string();
    let signed: Vec<String> = valid
        .clone()
        .filter_map(|secret| key(&secret.text).ok())
        .map(|key| STANDARD.encode(mac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body])))
        .map(|signature| format!("v1,{signature}"))
        .collect();
    let hub = valid.take(1).map(|secret| format!("sha256={}", hex::encode(mac(secret.text.as_bytes(), &[body]))));
    let standard =
        [("webhook-id", id.to_owned()), ("webhook-timestamp", time), ("webhook-signature", signed.join(" "))];
    hub.map(|signature| ("x-hub-signature-256", signature))
        .chain(standard)
        // Without a secret nothing is signed.
        .filter(|(_, value)| !value.is_empty())
        // An id that is no header's value does not come out of the log.
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use standardwebhooks::Webhook;

    use super::*;
    use crate::clock::Clock;

    fn secret(text: &str) -> Secret {
        Secret { text: text.to_owned(), until: None }
    }

    /// What a receiver with the secret `text` makes of it.
    fn accepts(text: &str, headers: &HeaderMap, body: &str) -> bool {
        let receiver = match text.strip_prefix(PREFIX) {
            Some(_) => Webhook::new(text).unwrap(),
            None => Webhook::from_bytes(text.as_bytes().to_vec()).unwrap(),
        };
        receiver.verify(body.as_bytes(), headers).is_ok()
    }

    #[test]
    fn the_gateways_signature_is_that_of_the_gateway() {
        // Computed with `openssl dgst -sha256 -hmac secret`.
        let headers = headers(&[secret("secret")], "e1", Timestamp::default(), br#"{"event":"message"}"#);
        assert_eq!(
            headers["x-hub-signature-256"],
            "sha256=224d011e83a8b6cd84c326b1cde108c033ca5b12a0d26c693329203600a3a777"
        );
        let made = make([7; SECRET_BYTES]);
        let headers = super::headers(&[secret(&made)], "e1", Timestamp::default(), b"body");
        let by_characters = hex::encode(mac(made.as_bytes(), &[b"body"]));
        assert_eq!(headers["x-hub-signature-256"], format!("sha256={by_characters}"), "with its prefix, as it is");
    }

    #[test]
    fn while_a_secret_is_replaced_receivers_with_either_accept() {
        let now = Clock::system().now();
        let (old, new) = (make([1; SECRET_BYTES]), "plain-and-new");
        let rotating = |until| [secret(new), Secret { text: old.clone(), until: Some(until) }];
        let during = headers(&rotating(now + Duration::from_secs(1)), "e1", now, b"{}");
        assert!(accepts(&old, &during, "{}") && accepts(new, &during, "{}"));
        assert_eq!(during["webhook-signature"].to_str().unwrap().split(' ').count(), 2);
        let after = headers(&rotating(now), "e1", now, b"{}");
        assert!(!accepts(&old, &after, "{}") && accepts(new, &after, "{}"));
        let hub = |headers: &HeaderMap| headers["x-hub-signature-256"].clone();
        assert_eq!(hub(&during), hub(&after), "the gateway's kind has room for one: the newest");
    }

    #[test]
    fn odd_texts_are_no_secrets() {
        for odd in ["", "two words", "tab\t", "ü", "whsec_", "whsec_?", "whsec_YQ", &"a".repeat(SECRET_MAX + 1)] {
            assert_eq!(check(odd), Err(BadSecret), "{odd}");
        }
        for fine in ["s", "secret", "whsec_YQ==", "whsek_?", &make([0; SECRET_BYTES]), &"a".repeat(SECRET_MAX)] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
    }

    proptest! {
        #[test]
        fn a_receiver_accepts_what_was_signed_and_nothing_else(
            plain in "[!-~]{1,64}", random: [u8; SECRET_BYTES], made: bool, id in "[0-9a-z-]{1,40}", body in ".{0,200}",
        ) {
            let text = if made { make(random) } else { plain };
            prop_assume!(check(&text).is_ok());
            let headers = headers(&[secret(&text)], &id, Clock::system().now(), body.as_bytes());
            prop_assert!(accepts(&text, &headers, &body));
            let (longer_body, longer_secret) = (format!("{body} "), format!("{text}x"));
            prop_assert!(!accepts(&text, &headers, &longer_body));
            prop_assert!(made || !accepts(&longer_secret, &headers, &body));
            prop_assert!(!accepts(&make([9; SECRET_BYTES]), &headers, &body) || random == [9; SECRET_BYTES]);
            let mut other = headers.clone();
            other.insert("webhook-id", HeaderValue::from_static("another"));
            prop_assert!(!accepts(&text, &other, &body) || id == "another");
        }
    }
}
