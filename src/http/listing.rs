//! Listings of the native API: the change log, one person's history, who is watched. Each tells where to go on.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Edge;
use super::facts::Facts;
use super::query::{self, Invalid};
use super::reply::{self, Problem, Reply};
use crate::cursor::Cursor;
use crate::duration;
use crate::events::{Filter, Listing, Start};
use crate::jid::{Device, Jid, Subject};
use crate::store::Watch;

/// How many are listed at once, unless it is said, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// How many people a filter may name, also a webhook's.
pub(super) const JIDS_MAX: usize = 1000;

/// What a listing or a stream is asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    after: Option<Cow<'a, str>>,
    before: Option<Cow<'a, str>>,
    last_event_id: Option<Cow<'a, str>>,
    limit: Option<Cow<'a, str>>,
    jids: Vec<Cow<'a, str>>,
    device_id: Option<Cow<'a, str>>,
}

impl<'a> Wanted<'a> {
    /// Reads a query. Parameters that are not known are passed over.
    pub(super) fn read(text: &'a str) -> Result<Self, Invalid> {
        let mut wanted = Self::default();
        for pair in query::pairs(text) {
            let (name, value) = pair?;
            let place = match &*name {
                "jid" => {
                    wanted.jids.push(query::value(&name, value)?);
                    continue;
                }
                "after" => &mut wanted.after,
                "before" => &mut wanted.before,
                "last_event_id" => &mut wanted.last_event_id,
                "limit" => &mut wanted.limit,
                "device_id" => &mut wanted.device_id,
                _ => continue,
            };
            if place.replace(query::value(&name, value)?).is_some() {
                return Err(Invalid::of(&name, "must be given once."));
            }
        }
        Ok(wanted)
    }

    #[cfg(fuzzing)]
    pub(super) fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    fn limit(&self) -> Result<usize, Invalid> {
        let Some(text) = &self.limit else { return Ok(LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| Invalid::of("limit", "must be a whole number between 1 and 1000."))
    }

    /// Where a stream begins: the header goes before the parameter, and empty is not given.
    pub(super) fn stream_start(&self, header: Option<&str>) -> Result<Start, Invalid> {
        let (name, text) = match (header.unwrap_or_default(), self.last_event_id.as_deref().unwrap_or_default()) {
            ("", parameter) => ("last_event_id", parameter),
            (header, _) => ("Last-Event-ID", header),
        };
        match text {
            "" => Ok(Start::Now),
            "earliest" => Ok(Start::Earliest),
            text => Ok(Start::After(cursor(name, text)?)),
        }
    }

    /// Which device is meant; `None` where none is named: all of them.
    pub(super) fn device(&self, facts: &Facts<'_>, default: &Device) -> Result<Option<Device>, Invalid> {
        let named = query::named_device(facts, self.device_id.as_deref())?;
        Ok(named.map(|device| if device.as_str().is_empty() { default.clone() } else { device }))
    }

    pub(super) fn filter(&self, facts: &Facts<'_>, default: &Device) -> Result<Filter, Invalid> {
        if self.jids.len() > JIDS_MAX {
            return Err(Invalid::of("jid", "must be given 1000 times at most."));
        }
        let jids: HashSet<Jid> = self.jids.iter().map(|text| jid("jid", text)).collect::<Result<_, _>>()?;
        Ok(Filter { device: self.device(facts, default)?, jids: (!jids.is_empty()).then_some(jids) })
    }
}

/// A place in the log, given as the value of `name`.
pub(super) fn cursor(name: &str, text: &str) -> Result<Cursor, Invalid> {
    text.parse().map_err(|malformed: crate::cursor::Malformed| Invalid::of(name, &format!("{malformed}.")))
}

/// An address, given as the value of `name`.
pub(super) fn jid(name: &str, text: &str) -> Result<Jid, Invalid> {
    Jid::parse(text).map_err(|error| Invalid::of(name, &error.to_string()))
}

/// The jid in a path.
pub(super) fn jid_in_path(text: &str) -> Result<Jid, Invalid> {
    let text = query::decode(text, false).ok_or_else(|| Invalid::of("jid", "is not valid percent-encoding."))?;
    jid("jid", &text)
}

#[derive(Serialize)]
struct Changes<'a> {
    changes: Vec<&'a RawValue>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Watches {
    watches: Vec<WatchView>,
    next: Option<String>,
}

/// A watch as it is shown.
#[derive(Serialize)]
pub(super) struct WatchView {
    jid: String,
    device_id: String,
    interval: String,
}

impl From<&Watch> for WatchView {
    fn from(watch: &Watch) -> Self {
        Self {
            jid: watch.subject.jid.to_string(),
            device_id: watch.subject.device.as_str().to_owned(),
            interval: duration::write(watch.interval),
        }
    }
}

fn changes(listing: &Listing) -> Reply {
    // Events are JSON already, written once for everybody.
    let changes = listing.events.iter().filter_map(|event| serde_json::from_slice(&event.json).ok()).collect();
    reply::json(&Changes { changes, next: listing.next.map(|cursor| cursor.to_string()) })
}

impl Edge {
    /// `GET /changes`: the change log, oldest first.
    pub(super) async fn list_changes(&self, query: &str, facts: &Facts<'_>) -> Result<Reply, Problem> {
        let wanted = Wanted::read(query)?;
        let start = match wanted.after.as_deref().unwrap_or_default() {
            "" => Start::Earliest,
            text => Start::After(cursor("after", text)?),
        };
        let (filter, limit) = (wanted.filter(facts, &self.default_device)?, wanted.limit()?);
        Ok(changes(&self.events.list(start, &filter, limit).await?))
    }

    /// `GET /avatars/{jid}/changes`: one person's history, newest first.
    pub(super) async fn list_history(&self, jid: &str, query: &str, facts: &Facts<'_>) -> Result<Reply, Problem> {
        let wanted = Wanted::read(query)?;
        let (jid, limit) = (jid_in_path(jid)?, wanted.limit()?);
        let device = wanted.device(facts, &self.default_device)?;
        let before = match wanted.before.as_deref().unwrap_or_default() {
            "" => None,
            text => Some(cursor("before", text)?),
        };
        let listing = self.events.history(&jid, device.as_ref(), before, limit).await?;
        Ok(changes(&listing.map_err(|_| Invalid::of("before", "is a cursor of another log; begin without it."))?))
    }

    /// `GET /watches`: who is looked at though nobody asks.
    pub(super) async fn list_watches(&self, query: &str, facts: &Facts<'_>) -> Result<Reply, Problem> {
        let wanted = Wanted::read(query)?;
        let limit = wanted.limit()?;
        let device = wanted.device(facts, &self.default_device)?;
        let after = match wanted.after.as_deref().unwrap_or_default() {
            "" => None,
            text => Some(unpage(text).ok_or_else(|| Invalid::of("after", "is not what `next` said."))?),
        };
        let mut watches = self.avatars.watches(device.as_ref(), after.as_ref(), limit + 1).await?;
        let more = watches.len() > limit;
        watches.truncate(limit);
        let next = watches.last().filter(|_| more).map(|last| page(&last.subject));
        Ok(reply::json(&Watches { watches: watches.iter().map(WatchView::from).collect(), next }))
    }
}

/// The page token that goes on behind a subject.
fn page(subject: &Subject) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}\n{}", subject.jid, subject.device.as_str()))
}

fn unpage(token: &str) -> Option<Subject> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (jid, device) = text.split_once('\n')?;
    Some(Subject { device: Device::new(device).ok()?, jid: Jid::parse(jid).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_back() {
        let subject = Subject { device: Device::new("d\u{e9}").unwrap(), jid: Jid::parse("1@g.us").unwrap() };
        assert_eq!(unpage(&page(&subject)), Some(subject));
        assert!(["", "!", "YQ", "MQo"].into_iter().filter_map(unpage).count() <= 1);
    }

    #[test]
    fn the_header_says_where_a_stream_begins_before_the_parameter_does() {
        let start = |query, header| Wanted::read(query).unwrap().stream_start(header);
        assert_eq!(start("", None), Ok(Start::Now));
        assert_eq!(start("last_event_id=", Some("")), Ok(Start::Now));
        assert_eq!(start("last_event_id=earliest", None), Ok(Start::Earliest));
        let cursor = "00000000000000aa.7";
        assert_eq!(start("last_event_id=earliest", Some(cursor)), Ok(Start::After(cursor.parse().unwrap())));
        assert!(start("last_event_id=x", None).unwrap_err().0.starts_with("last_event_id: is not a cursor"));
        assert!(start("", Some("x")).unwrap_err().0.starts_with("Last-Event-ID: is not a cursor"));
    }

    #[test]
    fn odd_listings_are_refused_by_name() {
        for (query, error) in [
            ("limit=1&limit=1", "limit: must be given once."),
            ("limit=%zz", "limit: is not valid percent-encoding."),
            ("%zz=1", "the query is not valid percent-encoding."),
            ("jid=1&jid=%4", "jid: is not valid percent-encoding."),
        ] {
            assert_eq!(Wanted::read(query).unwrap_err().0, error, "{query}");
        }
        assert!(Wanted::read("nobody%0a=%zz").is_ok(), "what is not known is passed over, however odd");
        for limit in ["0", "1001", "-1", "x", ""] {
            let query = format!("limit={limit}");
            assert!(Wanted::read(&query).unwrap().limit().unwrap_err().0.starts_with("limit: must be"), "{limit}");
        }
        let none = Device::default();
        let filter = |query: &str| Wanted::read(query).unwrap().filter(&Facts::default(), &none);
        assert_eq!(filter("jid=1&jid=").unwrap_err().0, "jid: cannot be blank.");
        let filter = filter("jid=1&jid=%2B1&jid=2&device_id=").unwrap();
        assert_eq!((filter.jids.unwrap().len(), filter.device), (2, Some(none.clone())));
    }
}
