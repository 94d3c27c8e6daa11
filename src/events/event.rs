//! One event, as subscribers get it: written out once, however many there are.

use bytes::Bytes;
use serde::Serialize;

use crate::change::{Change, Kind};
use crate::clock::Timestamp;
use crate::cursor::Cursor;
use crate::jid::Subject;
use crate::outcome::Reason;

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// In the envelope of the gateway's own webhooks: `event`, `device_id`, `payload`.
    #[default]
    Gowa,
    /// As `CloudEvents` 1.0 in their JSON format.
    CloudEvents,
}

/// An event of the log, or the news that some were missed.
#[derive(Debug)]
pub struct Event {
    /// Its place in the log; for a gap, where reading goes on.
    pub sequence: u64,
    /// By which whoever gets it more than once recognises it.
    pub id: String,
    /// What happened; nothing that is known for a gap.
    pub kind: Option<Kind>,
    /// When it was noticed.
    pub at: Timestamp,
    /// Whose picture; nobody's for a gap.
    pub subject: Option<Subject>,
    /// Its JSON text.
    pub json: Bytes,
    /// The same as a block of an event stream (HTML, section 9.2.6).
    pub block: Bytes,
}

#[derive(Serialize)]
struct Envelope<'a, P> {
    event: &'a str,
    device_id: &'a str,
    payload: P,
}

/// `CloudEvents` 1.0, JSON event format: section 3.
#[derive(Serialize)]
struct CloudEvent<'a, P> {
    specversion: &'static str,
    id: &'a str,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: &'a str,
    datacontenttype: &'static str,
    data: Data<'a, P>,
}

#[derive(Serialize)]
struct Data<'a, P> {
    device_id: &'a str,
    #[serde(flatten)]
    payload: P,
}

#[derive(Serialize)]
struct ChangePayload<'a> {
    id: &'a str,
    cursor: &'a str,
    jid: &'a str,
    change: &'static str,
    reason: Option<&'static str>,
    old_id: Option<&'a str>,
    new_id: Option<&'a str>,
    version: u64,
    timestamp: &'a str,
    not_before: String,
    href: String,
}

#[derive(Serialize)]
struct TestPayload<'a> {
    id: &'a str,
    timestamp: &'a str,
    message: &'static str,
}

#[derive(Serialize)]
struct GapPayload<'a> {
    from: &'a str,
    to: &'a str,
}

/// What `CloudEvents` are made by.
const SOURCE: &str = "avatar-proxy";

/// What both formats say of an event.
struct About<'a> {
    kind: &'a str,
    device: &'a str,
    id: &'a str,
    subject: Option<&'a str>,
    time: &'a str,
}

impl Format {
    /// The media type of an event's text.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Gowa => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
        }
    }

    fn write(self, about: &About<'_>, payload: impl Serialize) -> String {
        let &About { kind, device, id, subject, time } = about;
        let written = match self {
            Self::Gowa => serde_json::to_string(&Envelope { event: kind, device_id: device, payload }),
            Self::CloudEvents => serde_json::to_string(&CloudEvent {
                specversion: "1.0",
                id,
                source: SOURCE,
                kind,
                subject,
                time,
                datacontenttype: "application/json",
                data: Data { device_id: device, payload },
            }),
        };
        written.expect("texts and numbers are written")
    }
}

impl Event {
    /// A change that stands at `cursor` in the log.
    #[must_use]
    pub fn change(subject: Subject, change: &Change, cursor: Cursor, format: Format) -> Self {
        let (jid, place, time) = (subject.jid.to_string(), cursor.to_string(), change.noticed_at.rfc3339());
        let kind = format!("avatar.{}", change.kind.as_str());
        let payload = ChangePayload {
            id: &change.event_id,
            cursor: &place,
            jid: &jid,
            change: change.kind.as_str(),
            reason: change.reason.map(Reason::as_str),
            old_id: change.old_id.as_deref(),
            new_id: change.new_id.as_deref(),
            version: change.version,
            timestamp: &time,
            not_before: change.not_before.rfc3339(),
            href: format!("/avatars/{jid}"),
        };
        let device = subject.device.as_str();
        let about = About { kind: &kind, device, id: &change.event_id, subject: Some(&jid), time: &time };
        let json = format.write(&about, payload);
        let block = format!("id: {place}\ndata: {json}\n\n");
        Self {
            sequence: cursor.sequence,
            id: change.event_id.clone(),
            kind: Some(change.kind),
            at: change.noticed_at,
            subject: Some(subject),
            json: json.into(),
            block: block.into(),
        }
    }

    /// The news that what stood between two places is no longer kept.
    #[must_use]
    pub fn gap(from: Cursor, to: Cursor, now: Timestamp, format: Format) -> Self {
        let (from, place, time) = (from.to_string(), to.to_string(), now.rfc3339());
        // Standard Webhooks has no full stop in an id.
        let id = format!("gap-{from}-{place}").replace('.', "-");
        let about = About { kind: "avatar.gap", device: "", id: &id, subject: None, time: &time };
        let json = format.write(&about, GapPayload { from: &from, to: &place });
        let block = format!("id: {place}\nevent: gap\ndata: {json}\n\n");
        Self { sequence: to.sequence, id, kind: None, at: now, subject: None, json: json.into(), block: block.into() }
    }

    /// What somebody has sent to see whether it arrives.
    #[must_use]
    pub fn test(id: String, now: Timestamp, format: Format) -> Self {
        let time = now.rfc3339();
        let about = About { kind: "avatar.test", device: "", id: &id, subject: None, time: &time };
        let message = "This is a test. No picture has changed.";
        let json = format.write(&about, TestPayload { id: &id, timestamp: &time, message });
        Self { sequence: 0, id, kind: None, at: now, subject: None, json: json.into(), block: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::{Device, Jid};

    fn cursor(sequence: u64) -> Cursor {
        Cursor { epoch: "00000000000000aa".parse().unwrap(), sequence }
    }

    fn removed(format: Format) -> Event {
        let subject = Subject { device: Device::new("d").unwrap(), jid: Jid::parse("628111").unwrap() };
        let change = Change {
            event_id: "e1".into(),
            kind: Kind::Removed,
            reason: Some(Reason::NotSet),
            old_id: Some("1635239861".into()),
            new_id: None,
            version: 2,
            noticed_at: Timestamp::from_seconds(0x620A_A726),
            not_before: Timestamp::from_seconds(0x620A_A700),
        };
        Event::change(subject, &change, cursor(7), format)
    }

    #[test]
    fn an_event_has_the_envelope_of_the_gateways_webhooks() {
        let json = r#"{"event":"avatar.removed","device_id":"d","payload":{"id":"e1","cursor":"00000000000000aa.7","jid":"628111@s.whatsapp.net","change":"removed","reason":"not_set","old_id":"1635239861","new_id":null,"version":2,"timestamp":"2022-02-14T19:01:58Z","not_before":"2022-02-14T19:01:20Z","href":"/avatars/628111@s.whatsapp.net"}}"#;
        let event = removed(Format::Gowa);
        assert_eq!(event.json, json);
        assert_eq!(event.block, format!("id: 00000000000000aa.7\ndata: {json}\n\n"));
    }

    #[test]
    fn an_event_can_be_a_cloud_event() {
        let json = r#"{"specversion":"1.0","id":"e1","source":"avatar-proxy","type":"avatar.removed","subject":"628111@s.whatsapp.net","time":"2022-02-14T19:01:58Z","datacontenttype":"application/json","data":{"device_id":"d","id":"e1","cursor":"00000000000000aa.7","jid":"628111@s.whatsapp.net","change":"removed","reason":"not_set","old_id":"1635239861","new_id":null,"version":2,"timestamp":"2022-02-14T19:01:58Z","not_before":"2022-02-14T19:01:20Z","href":"/avatars/628111@s.whatsapp.net"}}"#;
        assert_eq!(removed(Format::CloudEvents).json, json);
    }

    #[test]
    fn a_test_says_that_it_is_one() {
        let at = Timestamp::from_seconds(0x620A_A726);
        let json = r#"{"event":"avatar.test","device_id":"","payload":{"id":"test-1","timestamp":"2022-02-14T19:01:58Z","message":"This is a test. No picture has changed."}}"#;
        assert_eq!(Event::test("test-1".into(), at, Format::Gowa).json, json);
        let cloud_event = Event::test("test-1".into(), at, Format::CloudEvents).json;
        assert!(
            cloud_event
                .starts_with(br#"{"specversion":"1.0","id":"test-1","source":"avatar-proxy","type":"avatar.test","#)
        );
    }

    #[test]
    fn a_gap_says_from_where_to_where() {
        let event = Event::gap(cursor(3), cursor(9), Timestamp::default(), Format::Gowa);
        let json = r#"{"event":"avatar.gap","device_id":"","payload":{"from":"00000000000000aa.3","to":"00000000000000aa.9"}}"#;
        assert_eq!(event.block, format!("id: 00000000000000aa.9\nevent: gap\ndata: {json}\n\n"));
    }
}
