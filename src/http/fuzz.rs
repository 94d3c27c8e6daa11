//! The door through which the fuzz targets reach what is private here. It exists only when they are built (`cfg(fuzzing)`).
//!
//! Each function reads what a stranger may send and panics if something is not as it must be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::facts::Facts;
use super::guard::Guard;
use super::listing::{Wanted, jid_in_path};
use super::query::{GATEWAY_NAMES, Invalid, NATIVE_NAMES, Parameters};
use crate::duration;
use crate::events::Start;
use crate::gateway::Credential;
use crate::jid::{Device, Jid, Key};

/// Whose avatar a query asks for. `path` is the jid of the native route; without it the query is the gateway's.
pub fn query(query: &str, path: Option<&str>, device: Option<&[u8]>) {
    let names = if path.is_some() { NATIVE_NAMES } else { GATEWAY_NAMES };
    let device = device.and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
    let facts = Facts { device: device.as_ref(), ..Facts::default() };
    let default = Device::new("main").expect("a short name");

    let read = Parameters::read(query, names);
    agrees_with_a_plain_reading(query, path.is_some(), read.as_ref());
    let asked = read.and_then(|read| read.key(names, path, &facts, &default));
    let key = match asked {
        Ok(key) => key,
        Err(Invalid(message)) => {
            assert!(message.ends_with('.') && message.len() < 140, "{message}");
            assert!(!message.contains(char::is_control), "a reply repeats what it was sent: {message:?}");
            return;
        }
    };
    let name = key.subject.device.as_str();
    assert!(!name.is_empty() && name.len() <= Device::MAX && name.trim() == name && !name.contains(char::is_control));
    assert_eq!(Jid::parse(&key.subject.jid.to_string()), Ok(key.subject.jid));
    assert_eq!(asked_plainly(&key, path.is_some()), key, "the canonical spelling of a question asks the same");
}

/// What asking for `key` in the plainest spelling comes to.
fn asked_plainly(key: &Key, native: bool) -> Key {
    let names = if native { NATIVE_NAMES } else { GATEWAY_NAMES };
    let jid = key.subject.jid.to_string();
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let (preview, community) = (key.variant.preview, key.variant.community);
    let device = encoded(key.subject.device.as_str());
    let query = if native {
        format!("preview={preview}&community={community}&device_id={device}")
    } else {
        format!("phone={}&is_preview={preview}&is_community={community}&device_id={device}", encoded(&jid))
    };
    let path = native.then_some(jid.as_str());
    let read = Parameters::read(&query, names).expect("it is plain");
    read.key(names, path, &Facts::default(), &Device::default()).expect("it is plain")
}

/// Compares with the obvious way to read a form: split, replace, decode.
fn agrees_with_a_plain_reading(query: &str, native: bool, read: Result<&Parameters<'_>, &Invalid>) {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().map(Cow::into_owned).ok();
    let mut plain = BTreeMap::<String, Vec<Option<String>>>::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        plain.entry(decode(name).unwrap_or_default()).or_default().push(decode(value));
    }
    let Ok(read) = read else { return };
    let (preview, community) = if native { ("preview", "community") } else { ("is_preview", "is_community") };
    let jid = if native { None } else { plain.get("phone") };
    for (value, expected) in [
        (&read.jid, jid),
        (&read.preview, plain.get(preview)),
        (&read.community, plain.get(community)),
        (&read.device, plain.get("device_id")),
    ] {
        let expected = expected.map(|given| <&[_; 1]>::try_from(&**given).expect("given once").clone());
        assert_eq!(value.as_deref().map(|value| Some(value.to_owned())), expected.map(|[value]| value));
    }
}

/// Where a stream or a listing begins and whom it is about; `interval` is a watch's.
pub fn listing(query: &str, last_event_id: Option<&str>, path: &str, interval: &str) {
    let fair = |Invalid(message): Invalid| {
        assert!(message.ends_with('.') && message.len() < 140, "{message}");
        assert!(!message.contains(char::is_control), "a reply repeats what it was sent: {message:?}");
    };
    match Wanted::read(query) {
        Err(invalid) => fair(invalid),
        Ok(wanted) => {
            match wanted.stream_start(last_event_id) {
                Err(invalid) => fair(invalid),
                Ok(Start::After(cursor)) => {
                    let given = last_event_id.filter(|text| !text.is_empty()).map(str::to_owned);
                    let given = given.or_else(|| wanted.last_event_id().map(str::to_owned));
                    assert_eq!(given, Some(cursor.to_string()), "a cursor has one spelling");
                }
                Ok(Start::Now | Start::Earliest) => {}
            }
            let default = Device::new("main").expect("a short name");
            match wanted.filter(&Facts::default(), &default) {
                Err(invalid) => fair(invalid),
                Ok(filter) => {
                    assert!(filter.device.is_none_or(|device| !device.as_str().is_empty()));
                    assert!(filter.jids.is_none_or(|jids| !jids.is_empty() && jids.len() <= 1000));
                }
            }
        }
    }
    match jid_in_path(path) {
        Err(invalid) => fair(invalid),
        Ok(jid) => assert_eq!(jid_in_path(&jid.to_string()).ok(), Some(jid)),
    }
    if let Ok(interval) = duration::parse(interval) {
        // Written to the millisecond, as a watch is kept.
        let kept = Duration::from_millis(u64::try_from(interval.as_millis()).expect("a hundred years at most"));
        assert!(kept.is_zero() || duration::parse(&duration::write(kept)) == Ok(kept), "{kept:?}");
    }
}

/// The headers of a request, in order: what they say, and whether it gets in.
///
/// Headers that no connection would let through are left out.
pub fn headers<'a>(lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(64) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    let facts = Facts::read(&headers);
    says_what_is_there(&headers, &facts);
    lets_in_whom_it_knows(&facts);
    knows_loopback_alone(&facts);
}

fn says_what_is_there(headers: &HeaderMap, facts: &Facts<'_>) {
    let texts = |name: &HeaderName| {
        let values = headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let directives: Vec<String> = texts(&CACHE_CONTROL)
        .iter()
        .flat_map(|line| line.split(','))
        .map(|directive| directive.split('=').next().unwrap_or_default().trim_matches([' ', '\t']).to_owned())
        .collect();
    assert_eq!(facts.ask.no_cache, directives.iter().any(|name| name == "no-cache"), "{directives:?}");
    assert_eq!(facts.ask.only_if_cached, directives.iter().any(|name| name == "only-if-cached"), "{directives:?}");

    assert_eq!(facts.authorization, headers.get(AUTHORIZATION));
    assert_eq!(facts.host, headers.get(HOST));
    assert_eq!(facts.device, headers.get("x-device-id"));
    assert_eq!(facts.device_repeated, headers.get_all("x-device-id").iter().count() > 1);
    assert_eq!(facts.known_tags.as_ref().map_or(0, Vec::len), headers.get_all(IF_NONE_MATCH).iter().count());
    let announces = headers.contains_key("access-control-request-method") && headers.contains_key("origin");
    assert_eq!(facts.is_preflight, announces);
}

fn lets_in_whom_it_knows(facts: &Facts<'_>) {
    let credential = |user: &str, password: &str| Credential { user: user.into(), password: password.into() };
    let guard = Guard::new(&[credential("ada", "s3cret"), credential("bob", "a:b")], true);
    let known = |given: &HeaderValue| {
        let text = given.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        let plain = STANDARD.decode(token.trim_matches([' ', '\t'])).ok()?;
        Some(scheme.eq_ignore_ascii_case("basic") && [&b"ada:s3cret"[..], b"bob:a:b"].contains(&&*plain))
    };
    assert_eq!(guard.admits(facts), facts.authorization.and_then(known).unwrap_or_default());
    assert!(Guard::new(&[], false).admits(facts), "a door without a lock stands open");
}

/// A page can choose any name for itself, except those that nobody but this machine answers to.
fn knows_loopback_alone(facts: &Facts<'_>) {
    let guard = Guard::new(&[], true);
    let Some(host) = facts.host.filter(|_| guard.knows_host(&Uri::from_static("/"), facts)) else { return };
    let host = host.to_str().expect("only a text is a name").to_ascii_lowercase();
    let (name, port) = match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => host.split_at(at),
        _ => (&*host, ""),
    };
    assert!(port.bytes().skip(1).all(|byte| byte.is_ascii_digit()), "{host:?} has a strange port");
    let address = name.trim_start_matches('[').trim_end_matches(['.', ']']);
    let local = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    assert!(local || address == "localhost" || address.ends_with(".localhost"), "{host:?} is not loopback's");
}
