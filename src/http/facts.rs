//! What the headers of a request say, read in one pass.
//!
//! Looking a header up costs more than passing over all that a client usually sends; on a cache hit that is a good part of the
//! whole. So each header is looked at once, and what matters is noted.

use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, IF_NONE_MATCH, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Version};

use crate::avatars::Ask;

/// The header that names the device; goes before the parameter `device_id`.
const DEVICE: HeaderName = HeaderName::from_static("x-device-id");

/// The headers that matter here. Of those that must not be repeated, the first counts.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) host: Option<&'a HeaderValue>,
    pub(super) host_repeated: bool,
    pub(super) origin: Option<&'a HeaderValue>,
    /// whether it announces a request to come
    pub(super) is_preflight: bool,
    pub(super) device: Option<&'a HeaderValue>,
    pub(super) device_repeated: bool,
    /// `Cache-Control`
    pub(super) ask: Ask,
    /// `If-None-Match`, line by line; `None` spares the allocation that nearly nobody needs
    pub(super) known_tags: Option<Vec<&'a HeaderValue>>,
}

impl<'a> Facts<'a> {
    pub(super) fn read(headers: &'a HeaderMap) -> Self {
        let mut facts = Self::default();
        for (name, value) in headers {
            if name == HOST {
                facts.host_repeated |= facts.host.is_some();
                facts.host = facts.host.or(Some(value));
            } else if name == AUTHORIZATION {
                facts.authorization = facts.authorization.or(Some(value));
            } else if name == DEVICE {
                facts.device_repeated |= facts.device.is_some();
                facts.device = facts.device.or(Some(value));
            } else if name == CACHE_CONTROL {
                directives(&mut facts.ask, value);
            } else if name == IF_NONE_MATCH {
                facts.known_tags.get_or_insert_default().push(value);
            } else if name == ORIGIN {
                facts.origin = facts.origin.or(Some(value));
            } else if name == ACCESS_CONTROL_REQUEST_METHOD {
                facts.is_preflight = true;
            }
        }
        facts.is_preflight &= facts.origin.is_some();
        facts
    }

    /// Whether `Host` is as a request of this version must have it (RFC 9112 section 3.2). Two servers that read different
    /// names out of one request can be played off against one another.
    pub(super) fn host_is_proper(&self, version: Version) -> bool {
        match self.host {
            Some(host) => !self.host_repeated && host.as_bytes().iter().all(|&byte| IN_A_HOST[usize::from(byte)]),
            // HTTP/1.0 has no hosts, HTTP/2 says it elsewhere.
            None => version != Version::HTTP_11,
        }
    }
}

/// Which bytes a host and port are written with (RFC 3986 section 3.2.2). A table, because every request is held against it.
const IN_A_HOST: [bool; 256] = {
    let written = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~%!$&'()*+,;=:[]";
    let (mut table, mut at) = ([false; 256], 0);
    while at < written.len() {
        table[written[at] as usize] = true;
        at += 1;
    }
    table
};

fn directives(ask: &mut Ask, value: &HeaderValue) {
    for directive in value.as_bytes().split(|&byte| byte == b',') {
        let name = directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
        ask.no_cache |= name.eq_ignore_ascii_case(b"no-cache");
        ask.only_if_cached |= name.eq_ignore_ascii_case(b"only-if-cached");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(values: &[&str]) -> Ask {
        let headers: HeaderMap = values.iter().map(|value| (CACHE_CONTROL, value.parse().unwrap())).collect();
        Facts::read(&headers).ask
    }

    #[test]
    fn reads_cache_directives() {
        assert_eq!(ask(&["max-age=0, No-Cache"]), Ask { no_cache: true, only_if_cached: false });
        assert_eq!(ask(&["x", "only-if-cached"]), Ask { no_cache: false, only_if_cached: true });
        assert_eq!(ask(&["no-cached, xno-cache", ""]), Ask::default());
        assert_eq!(ask(&[]), Ask::default());
    }

    #[test]
    fn a_request_has_one_host_that_can_be_one() {
        let proper = |version, hosts: &[&'static str]| {
            let headers: HeaderMap = hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))).collect();
            Facts::read(&headers).host_is_proper(version)
        };
        for host in ["a", "a.example:80", "[::1]:8080", "127.0.0.1", "a_b-c.d", "x%20y", ""] {
            assert!(proper(Version::HTTP_11, &[host]), "{host:?}");
        }
        for host in ["a b", "a/b", "ada@a", "a?b", "a#b", "a\\b", "<a>"] {
            assert!(!proper(Version::HTTP_11, &[host]) && !proper(Version::HTTP_10, &[host]), "{host:?}");
        }
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert!(!proper(version, &["a", "a"]));
            assert_eq!(proper(version, &[]), version != Version::HTTP_11);
        }
    }

    #[test]
    fn notes_what_is_repeated() {
        let mut headers = HeaderMap::new();
        for (name, value) in [(DEVICE, "a"), (DEVICE, "b"), (IF_NONE_MATCH, "\"1\""), (IF_NONE_MATCH, "\"2\"")] {
            headers.append(name, value.parse().unwrap());
        }
        let facts = Facts::read(&headers);
        assert!(facts.device_repeated && facts.device.unwrap() == "a");
        assert_eq!(facts.known_tags.unwrap().len(), 2);
        assert!(!facts.is_preflight);
    }
}
