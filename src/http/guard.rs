//! Who gets in.
//!
//! Credentials guard every route that is not open to all. Without credentials on loopback, the name a client calls us by must
//! be loopback's, too: a page in a browser can resolve a name of its own to 127.0.0.1, but cannot lie in `Host`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use subtle::ConstantTimeEq as _;

use super::facts::Facts;
use crate::gateway::Credential;

/// The credentials that open the door; none: it stands open.
pub(super) struct Guard {
    /// `user:password`, and the same in base64 as nearly every client sends it.
    accepted: Vec<(Vec<u8>, String)>,
    /// whether `Host` must be loopback's
    local_only: bool,
}

impl Guard {
    pub(super) fn new(credentials: &[Credential], local_only: bool) -> Self {
        let accepted = credentials.iter().map(|credential| {
            let plain = format!("{}:{}", credential.user, credential.password).into_bytes();
            let encoded = STANDARD.encode(&plain);
            (plain, encoded)
        });
        Self { accepted: accepted.collect(), local_only }
    }

    /// Whether a request carries accepted credentials. Takes the same time whichever byte is wrong.
    pub(super) fn admits(&self, facts: &Facts<'_>) -> bool {
        if self.accepted.is_empty() {
            return true;
        }
        let Some(given) = facts.authorization.and_then(|value| basic(value.as_bytes())) else { return false };
        let encoded =
            self.accepted.iter().fold(false, |found, (_, encoded)| found | is_same(encoded.as_bytes(), given));
        encoded || self.admits_decoded(given)
    }

    /// The same for base64 that is spelled otherwise.
    fn admits_decoded(&self, given: &[u8]) -> bool {
        let Ok(plain) = STANDARD.decode(given) else { return false };
        self.accepted.iter().fold(false, |found, (accepted, _)| found | is_same(accepted, &plain))
    }

    /// Whether the name that a client calls us by is acceptable.
    pub(super) fn knows_host(&self, uri: &Uri, facts: &Facts<'_>) -> bool {
        if !self.local_only {
            return true;
        }
        // A name that is not even text is nobody's.
        let host = uri.host().or_else(|| facts.host.map(|host| host.to_str().unwrap_or_default()));
        host.is_none_or(is_loopback_name)
    }
}

/// Whether two secrets are the same, in a time that tells nothing but whether their lengths are.
///
/// The words are compared by `subtle`, without a branch between them: a quarter of what its comparison of slices takes, which
/// goes byte by byte.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let last = |rest: &[u8]| {
        let mut padded = [0; 8];
        padded[..rest.len()].copy_from_slice(rest);
        word(&padded)
    };
    let words = a_words.iter().zip(b_words);
    a.len() == b.len()
        && words.fold(last(a_rest).ct_eq(&last(b_rest)), |same, (a, b)| same & word(a).ct_eq(&word(b))).into()
}

/// The token behind `Basic `.
fn basic(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then(|| token.trim_ascii())
}

fn is_loopback_name(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').unwrap_or((bracketed, "]")),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    // Behind a name stands a port or nothing.
    let port = if rest.is_empty() { Some(rest) } else { rest.strip_prefix(':') };
    if port.is_none_or(|port| port.bytes().any(|byte| !byte.is_ascii_digit())) {
        return false;
    }
    let name = name.trim_end_matches('.');
    name.parse::<std::net::IpAddr>().map_or_else(
        |_| {
            let name = name.to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        },
        |address| address.is_loopback(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let credential = |user: &str, password: &str| Credential { user: user.into(), password: password.into() };
        Guard::new(&[credential("ada", "s3cret"), credential("bob", "a:b")], true)
    }

    fn admits(value: &str) -> bool {
        let value = http::HeaderValue::from_str(value).unwrap();
        guard().admits(&Facts { authorization: Some(&value), ..Facts::default() })
    }

    #[test]
    fn accepts_what_is_configured_and_nothing_else() {
        assert!(admits(&format!("Basic {}", STANDARD.encode("ada:s3cret"))));
        assert!(admits(&format!("bAsIc  {}", STANDARD.encode("bob:a:b"))));
        for wrong in ["ada:s3cre", "ada:s3creT", "adA:s3cret", "ada:s3crets", "ada:", ":", "", "bob:s3cret"] {
            assert!(!admits(&format!("Basic {}", STANDARD.encode(wrong))), "{wrong}");
        }
        for wrong in ["Basic", "Basic ", "Bearer x", "Basic !!!", "x"] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!guard().admits(&Facts::default()));
        assert!(Guard::new(&[], false).admits(&Facts::default()));
    }

    #[test]
    fn a_host_must_be_known_wherever_it_stands() {
        let knows = |uri: &'static str, host: &[u8]| {
            let host = http::HeaderValue::from_bytes(host).unwrap();
            guard().knows_host(&Uri::from_static(uri), &Facts { host: Some(&host), ..Facts::default() })
        };
        assert!(knows("/", b"localhost:80") && knows("http://127.0.0.1/", b"localhost"));
        assert!(
            !knows("/", b"evil.example")
                && !knows("/", b"localhost\xff")
                && !knows("http://evil.example/", b"localhost")
        );
        assert!(guard().knows_host(&Uri::from_static("/"), &Facts::default()), "HTTP/1.0 has no hosts");
    }

    #[test]
    fn knows_the_names_of_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "localhost.",
        ] {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in ["example.org", "127.0.0.1.example.org", "localhost.example.org:80", "10.0.0.1", "[::2]:80", ""] {
            assert!(!is_loopback_name(host), "{host}");
        }
        for host in ["[::1]example.org", "[::1", "[::1]:80.example.org", "example.org:80.localhost", "localhost:1:1"] {
            assert!(!is_loopback_name(host), "{host}");
        }
    }
}
