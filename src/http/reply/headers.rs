//! The headers that say how an answer came about and how long it lasts, and whether a client holds it already.

use std::ops::Range;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response};

use super::{Body, CACHE_STATUS, Facts, JSON, Reply, SUCCESS_FIXED, push, refused, success};
use crate::avatars::{Found, Met};

/// The answer depends on the device, which a header may name.
const VARY_DEVICE: HeaderValue = HeaderValue::from_static("X-Device-Id");

/// How long a client may keep an answer without asking again (s), if the URL lives that long: short, because a client that is
/// told of a change asks again and must not be answered by itself. Asking again costs a 304.
const MAX_AGE_SECONDS: u64 = 60;
const MAX_AGE: HeaderValue = HeaderValue::from_static("private, max-age=60");

/// Adds the headers that say how an answer came about and how long it lasts.
pub(super) fn about(mut reply: Reply, found: &Found, tag: Option<u64>) -> Reply {
    let mut text = Vec::with_capacity(Told::ROOM);
    let told = Told::write(&mut text, found, tag);
    let text = Bytes::from(text);
    let headers = reply.headers_mut();
    headers.insert(CACHE_STATUS, value(&text, told.how));
    headers.insert(AGE, value(&text, told.age));
    headers.insert(CACHE_CONTROL, told.max_age.map_or(MAX_AGE, |max_age| value(&text, max_age)));
    headers.insert(VARY, VARY_DEVICE);
    if let Some(tag) = told.tag {
        headers.insert(ETAG, value(&text, tag));
    }
    reply
}

/// The commonest answer, a picture, with its headers in their order: all that is left is to write those that vary.
///
/// Inserted one by one, as everywhere else, headers take a third of our own work on a cache hit, because each name is hashed
/// and a place looked for; a copy of a finished map takes a fraction of that.
pub(in crate::http) struct Template(HeaderMap);

impl Template {
    pub(in crate::http) fn new() -> Self {
        let blank = HeaderValue::from_static("");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CACHE_STATUS, blank.clone());
        headers.insert(AGE, blank.clone());
        headers.insert(CACHE_CONTROL, MAX_AGE);
        headers.insert(VARY, VARY_DEVICE);
        headers.insert(ETAG, blank);
        Self(headers)
    }

    /// The same as [`super::reply`] and [`about`] make of it. Body and values are written into one buffer.
    pub(super) fn reply(&self, picture: [&[u8]; 3], found: &Found) -> Reply {
        let texts: usize = picture.iter().map(|text| text.len()).sum();
        let mut text = Vec::with_capacity(SUCCESS_FIXED + texts + Told::ROOM);
        success(&mut text, picture);
        let body = text.len();
        let told = Told::write(&mut text, found, Some(found.slot.tag));
        let text = Bytes::from(text);
        let mut headers = self.0.clone();
        // In the order of `new`.
        let told = [None, Some(told.how), Some(told.age), told.max_age, None, told.tag];
        for (header, told) in headers.values_mut().zip(told) {
            if let Some(told) = told {
                *header = value(&text, told);
            }
        }
        let mut reply = Response::new(Body::from(text.slice(..body)));
        *reply.headers_mut() = headers;
        reply
    }
}

/// The header values that vary, by where they stand in a text.
struct Told {
    /// `Cache-Status`
    how: Range<usize>,
    /// `Age`
    age: Range<usize>,
    /// `Cache-Control`, if it is not [`MAX_AGE`]
    max_age: Option<Range<usize>>,
    /// `ETag`
    tag: Option<Range<usize>>,
}

impl Told {
    /// What they take together, nearly always (bytes).
    const ROOM: usize = 128;

    /// Writes them behind what stands there already.
    fn write(text: &mut Vec<u8>, found: &Found, tag: Option<u64>) -> Self {
        let entry = &found.slot.entry;
        let ttl = entry.ttl(found.at).as_secs();
        let (mut ttl_digits, mut age_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
        let ttl_text = ttl_digits.format(ttl);
        let mut start = text.len();
        let mut written = |text: &Vec<u8>| std::mem::replace(&mut start, text.len())..text.len();
        how(text, &found.met, ttl_text);
        let how = written(text);
        push(text, age_digits.format(entry.age(found.at).as_secs()));
        let age = written(text);
        let max_age = (ttl < MAX_AGE_SECONDS).then(|| {
            push(text, "private, max-age=");
            push(text, ttl_text);
            written(text)
        });
        let tag = tag.map(|tag| {
            text.extend_from_slice(&quoted(tag));
            written(text)
        });
        Self { how, age, max_age, tag }
    }
}

/// `Cache-Status` (RFC 9211).
fn how(text: &mut Vec<u8>, met: &Met, ttl: &str) {
    let told = |text: &mut Vec<u8>, how: &str, detail: &str| {
        push(text, how);
        push(text, ttl);
        if !detail.is_empty() {
            push(text, "; detail=");
            push(text, detail);
        }
    };
    match met {
        Met::Memory | Met::Store => told(text, "avatar-proxy; hit; ttl=", ""),
        Met::Recent => told(text, "avatar-proxy; hit; ttl=", "recent"),
        Met::Spared(refusal) => told(text, "avatar-proxy; hit; ttl=", refused(refusal)),
        Met::Kept(failure) => told(text, "avatar-proxy; fwd=stale; ttl=", failure.class.as_str()),
        Met::Asked { why, collapsed, stored } => {
            push(text, "avatar-proxy; fwd=");
            push(text, why.as_str());
            push(text, if *stored { "; stored" } else { "" });
            push(text, if *collapsed { "; collapsed" } else { "" });
            told(text, "; ttl=", if *stored { "" } else { "store-away" });
        }
    }
}

fn value(text: &Bytes, range: Range<usize>) -> HeaderValue {
    HeaderValue::from_maybe_shared(text.slice(range)).unwrap_or(HeaderValue::from_static(""))
}

/// A strong entity tag (RFC 9110 section 8.8.3).
fn quoted(tag: u64) -> [u8; 18] {
    let mut quoted = [b'"'; 18];
    for (place, shift) in quoted[1..17].iter_mut().zip((0..16).rev()) {
        *place = b"0123456789abcdef"[(tag >> (shift * 4) & 15) as usize];
    }
    quoted
}

/// Whether the client holds the answer with this tag already (RFC 9110 section 13.1.2, weak comparison).
pub(super) fn is_known(facts: &Facts<'_>, tag: u64) -> bool {
    let Some(lines) = &facts.known_tags else { return false };
    let tag = quoted(tag);
    lines.iter().any(|line| {
        line.as_bytes().split(|&byte| byte == b',').any(|held| {
            let held = held.trim_ascii();
            let held = held.strip_prefix(b"W/").unwrap_or(held);
            held == b"*" || held == tag
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::reply;
    use super::*;
    use crate::avatars::{History, Slot};
    use crate::change::Standing;
    use crate::clock::Timestamp;
    use crate::entry::{Entry, Jitter};
    use crate::jid::Variant;
    use crate::outcome::{Observation, Outcome, Picture, Rules, Token};

    #[test]
    fn the_template_says_what_headers_inserted_one_by_one_say() {
        for (seconds, met) in [(3600, Met::Memory), (20, Met::Memory), (3600, Met::Recent)] {
            let now = Timestamp::from_seconds(1_700_000_000);
            let picture = Picture::new(&format!("https://h/p?oe={:X}", 1_700_000_002 + seconds), "1", "image");
            let seen = Observation {
                variant: Variant::default(),
                outcome: Outcome::Present(picture.clone()),
                start: Token(1),
                started_at: now,
                ended_at: now,
            };
            let sure = Standing::Believed { repeats: 0 };
            let entry = Entry::after(None, &seen, sure, &Rules::default(), Jitter(0.0));
            let slot = Slot::new(&entry, History::default(), None);
            let found = Found { slot, met, at: now + Duration::from_secs(7) };
            let lines = |reply: Reply| {
                let lines = reply.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
                lines.collect::<Vec<_>>()
            };
            let plain = about(reply(http::StatusCode::OK, JSON, ""), &found, Some(found.slot.tag));
            assert_eq!(lines(Template::new().reply(picture.parts().map(str::as_bytes), &found)), lines(plain));
        }
    }

    #[test]
    fn compares_tags_weakly() {
        let known = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            is_known(&Facts { known_tags: Some(vec![&value]), ..Facts::default() }, 1)
        };
        assert!(known("\"0000000000000001\"") && known("\"x\", W/\"0000000000000001\"") && known("*"));
        assert!(!known("\"0000000000000002\"") && !known("0000000000000001") && !known(""));
    }
}
