//! The addresses that others give: what is taken, and what is refused before anything is looked up.
//!
//! The rules:
//! * A URL is taken as it stands or refused; nothing in it is corrected, because what was meant is not known.
//! * A host is a name of letters, digits, hyphens, underscores and dots, or an address in its usual form. `127.1`, `0x7f000001` and
//!   their like are addresses to some resolvers and names to others, so they are neither here.
//! * This is a courtesy to whoever types the URL. What protects the network is the check at the time of connecting, of the
//!   address itself.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

use super::Reach;
use super::address::{self, Class};

/// Longest URL (bytes).
pub const URL_MAX: usize = 2048;

/// Longest name of a host, and longest part of one (bytes).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Why a URL is refused: a sentence that goes on from what the URL is for. It does not repeat the URL, which may hold secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadUrl {
    /// Over [`URL_MAX`].
    #[error("is longer than {URL_MAX} bytes")]
    TooLong,
    /// Another scheme, or none.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// A user, a password, or a place for them.
    #[error("must not hold a user or a password")]
    Credentials,
    /// `#`.
    #[error("must not hold a fragment (#)")]
    Fragment,
    /// Not a URL.
    #[error("is not a URL with a host, in ASCII and without blanks")]
    Malformed,
    /// A host that no stranger may name.
    #[error("leads to an address that is not public ({0}); only public ones may be named here")]
    NotPublic(Class),
}

/// Reads a URL.
///
/// # Errors
/// What is wrong with it.
pub fn parse_url(text: &str, reach: Reach) -> Result<Uri, BadUrl> {
    if text.len() > URL_MAX {
        return Err(BadUrl::TooLong);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadUrl::Malformed);
    }
    // `Uri` would leave it out without a word.
    if text.contains('#') {
        return Err(BadUrl::Fragment);
    }
    let url: Uri = text.parse().map_err(|_| BadUrl::Malformed)?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(BadUrl::Scheme);
    }
    let authority = url.authority().ok_or(BadUrl::Malformed)?.as_str();
    if authority.contains('@') {
        return Err(BadUrl::Credentials);
    }
    let host = url.host().unwrap_or_default();
    if !authority.strip_prefix(host).is_some_and(is_port) {
        return Err(BadUrl::Malformed);
    }
    let class = match literal(host) {
        Some(address) => address::refused(address),
        None if is_name(host) => is_localhost(host).then_some(Class::Loopback),
        None => return Err(BadUrl::Malformed),
    };
    match (reach, class) {
        (Reach::Public, Some(class)) => Err(BadUrl::NotPublic(class)),
        _ => Ok(url),
    }
}

/// The address that a URL's host is, if it is no name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Nothing, or a colon and a number from 1 to 65535.
fn is_port(rest: &str) -> bool {
    let port = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port > 0)
    };
    rest.is_empty() || rest.strip_prefix(':').is_some_and(port)
}

fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let sound = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= LABEL_MAX && label.bytes().all(plain)
    };
    let last = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    // What ends in a number is an address, says the URL standard, and this one is none in its usual form.
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    host.len() <= NAME_MAX && host.split('.').all(sound) && !number
}

/// The one name that means the machine itself, whoever is asked (RFC 6761).
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_others_may_name_is_taken_as_it_stands() {
        for text in [
            "https://hooks.example/avatars?key=a%20b&x=@",
            "http://hooks.example:8080/",
            "HTTPS://Hooks.Example",
            "https://xn--mller-kva.example./a//b/../c",
            "http://a_b.example/",
            "http://8.8.8.8/",
            "http://[2606:4700::1111]:81/",
        ] {
            let url = parse_url(text, Reach::Public).unwrap_or_else(|error| panic!("{text} {error}"));
            assert!(url.to_string().trim_end_matches('/').eq_ignore_ascii_case(text.trim_end_matches('/')), "{url}");
        }
        let longest = format!("https://a.example/{}", "a".repeat(URL_MAX - 18));
        assert!(parse_url(&longest, Reach::Public).is_ok());
        assert_eq!(parse_url(&(longest + "a"), Reach::Public), Err(BadUrl::TooLong));
    }

    #[test]
    fn what_is_no_plain_web_address_is_refused_by_name_wherever_it_may_lead() {
        let long_label = format!("http://{}.example/", "a".repeat(64));
        let long_name = format!("http://{}example/", "a.".repeat(130));
        for (text, why) in [
            ("ftp://hooks.example/", BadUrl::Scheme),
            ("hooks.example:80", BadUrl::Scheme),
            ("/hooks", BadUrl::Scheme),
            ("http://ada@hooks.example/", BadUrl::Credentials),
            ("http://ada:s3cret@hooks.example/", BadUrl::Credentials),
            ("http://@hooks.example/", BadUrl::Credentials),
            ("http://hooks.example/#part", BadUrl::Fragment),
            ("http://hooks.example#@a", BadUrl::Fragment),
            ("", BadUrl::Malformed),
            ("http://", BadUrl::Malformed),
            ("http:///path", BadUrl::Malformed),
            ("http://:80/", BadUrl::Malformed),
            ("http://a b/", BadUrl::Malformed),
            ("http://hooks.example/a\r\nhost: b", BadUrl::Malformed),
            ("http://m\u{fc}ller.example/", BadUrl::Malformed),
            ("http://hooks.example/\u{fc}", BadUrl::Malformed),
            ("http://hooks.example:/", BadUrl::Malformed),
            ("http://hooks.example:0/", BadUrl::Malformed),
            ("http://hooks.example:65536/", BadUrl::Malformed),
            ("http://hooks.example:+80/", BadUrl::Malformed),
            ("http://hooks.example:80:80/", BadUrl::Malformed),
            ("http://hooks..example/", BadUrl::Malformed),
            ("http://./", BadUrl::Malformed),
            ("http://127%2e0.0.1/", BadUrl::Malformed),
            ("http://127.0.0.1%2f@hooks.example/", BadUrl::Credentials),
            ("http://127.1/", BadUrl::Malformed),
            ("http://2130706433/", BadUrl::Malformed),
            ("http://0x7f000001/", BadUrl::Malformed),
            ("http://0X7F.1./", BadUrl::Malformed),
            ("http://0177.0.0.01/", BadUrl::Malformed),
            ("http://127.0.0.1./", BadUrl::Malformed),
            ("http://[fe80::1%25eth0]/", BadUrl::Malformed),
            ("http://[127.0.0.1]/", BadUrl::Malformed),
            (&long_label, BadUrl::Malformed),
            (&long_name, BadUrl::Malformed),
        ] {
            for reach in [Reach::Public, Reach::Anywhere] {
                assert_eq!(parse_url(text, reach), Err(why), "{text}");
            }
        }
    }

    #[test]
    fn only_who_runs_the_proxy_may_name_an_address_that_is_not_public() {
        for (text, class) in [
            ("http://localhost:8080/", Class::Loopback),
            ("http://LOCALHOST./", Class::Loopback),
            ("http://a.localhost/", Class::Loopback),
            ("http://127.0.0.1/", Class::Loopback),
            ("http://[::1]/", Class::Loopback),
            ("http://[::ffff:7f00:1]/", Class::Loopback),
            ("http://0.0.0.0/", Class::Unspecified),
            ("http://192.168.1.7/", Class::Private),
            ("http://169.254.169.254/latest/meta-data/", Class::Metadata),
            ("http://[fe80::1]/", Class::LinkLocal),
        ] {
            assert_eq!(parse_url(text, Reach::Public), Err(BadUrl::NotPublic(class)), "{text}");
            assert!(parse_url(text, Reach::Anywhere).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_url() {
        for text in ["http://ada:s3cret@hooks.example/", "s3cret", "http://10.0.0.1/s3cret", "http://a/#s3cret"] {
            let said = parse_url(text, Reach::Public).unwrap_err();
            assert!(!format!("{said} {said:?}").contains("s3cret"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_has_a_host_and_nothing_hidden(
            text in r"(http://|https://)?[a-z0-9.:@#/\[\]%+?_ -]{0,40}"
        ) {
            if let Ok(url) = parse_url(&text, Reach::Public) {
                prop_assert!(!text.contains(['@', '#', ' ']) || url.path_and_query().unwrap().as_str().contains('@'));
                prop_assert!(literal(url.host().unwrap()).is_none_or(|address| address::refused(address).is_none()));
                prop_assert!(parse_url(&url.to_string(), Reach::Public).is_ok());
            }
        }
    }
}
