//! Who was active, as the gateway's own webhooks tell it.
//!
//! The gateway posts `{"event","device_id","payload":{...}}` for what happens on WhatsApp. Three kinds of it say that somebody is
//! there and may just have changed a picture:
//! * somebody wrote: `message` and its kin, `call.offer`: `payload.from`, and the hidden id `payload.from_lid` beside it;
//! * a group changed: `group.*`: `payload.chat_id`;
//! * a channel published: `newsletter.message`: `payload.newsletter_id`.
//!
//! What the account itself wrote (`is_from_me`) and receipts (`message.ack`), which phones send without anybody touching them, say
//! nothing. Neither does whatever is not known here: gateways have more kinds from version to version.

use serde::Deserialize;

use crate::jid::{Device, Jid, Server};

/// What a webhook says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Activity {
    /// Which device noticed it.
    pub device: Device,
    /// Who was active: nobody, or one person by one or two names, or a group.
    pub who: Vec<Jid>,
}

/// The part of a webhook that matters; `session_id` is the device's name where a gateway has several, and goes before its number.
#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(default, borrow)]
    event: Text<'a>,
    #[serde(default, borrow)]
    session_id: Text<'a>,
    #[serde(default, borrow)]
    device_id: Text<'a>,
    #[serde(default, borrow)]
    payload: Option<Payload<'a>>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(default, borrow)]
    from: Text<'a>,
    #[serde(default, borrow)]
    from_lid: Text<'a>,
    #[serde(default, borrow)]
    chat_id: Text<'a>,
    #[serde(default, borrow)]
    newsletter_id: Text<'a>,
    #[serde(default)]
    is_from_me: bool,
}

/// A text, or null.
type Text<'a> = Option<std::borrow::Cow<'a, str>>;

/// Reads a webhook's body.
///
/// # Errors
/// When it is not JSON. What is JSON and says nothing is nobody's activity.
pub fn read(body: &[u8]) -> Result<Activity, serde_json::Error> {
    let nobody = || Activity { device: Device::default(), who: vec![] };
    let webhook: Webhook<'_> = match serde_json::from_slice(body) {
        Ok(webhook) => webhook,
        Err(error) if error.is_data() => return Ok(nobody()),
        Err(error) => return Err(error),
    };
    let named = [&webhook.session_id, &webhook.device_id].into_iter().flatten().find(|name| !name.is_empty());
    let Ok(device) = Device::new(named.map_or("", |name| name)) else { return Ok(nobody()) };
    let Some(payload) = webhook.payload else { return Ok(nobody()) };
    let who = match webhook.event.as_deref().unwrap_or_default() {
        "message.ack" | "message.deleted" => vec![],
        event if event == "message" || event.starts_with("message.") || event == "call.offer" => {
            let senders = [payload.from, payload.from_lid].into_iter().flatten();
            senders.filter(|_| !payload.is_from_me).filter_map(|name| person(&name)).collect()
        }
        event if event.starts_with("group.") => of_kind(payload.chat_id, Server::Group),
        "newsletter.message" => of_kind(payload.newsletter_id, Server::Newsletter),
        _ => vec![],
    };
    Ok(Activity { device, who })
}

/// The sender; older gateways write `<person> in <group>`.
fn person(name: &str) -> Option<Jid> {
    let name = name.split(" in ").next().unwrap_or_default();
    Jid::parse(name).ok().filter(|jid| matches!(jid.server(), Server::Person | Server::Lid))
}

fn of_kind(name: Text<'_>, server: Server) -> Vec<Jid> {
    let jid = name.and_then(|name| Jid::parse(&name).ok());
    jid.into_iter().filter(|jid| jid.server() == server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> (String, Vec<String>) {
        let Activity { device, who } = read(body.as_bytes()).unwrap();
        (device.as_str().to_owned(), who.iter().map(Jid::to_string).collect())
    }

    fn who(event: &str, payload: &str) -> Vec<String> {
        told(&format!(r#"{{"event":"{event}","device_id":"999@s.whatsapp.net","payload":{payload}}}"#)).1
    }

    #[test]
    fn whoever_writes_is_active() {
        let payload =
            r#"{"id":"3EB0","chat_id":"1203@g.us","from":"9991:4@s.whatsapp.net","from_lid":"251@lid","body":"x"}"#;
        for event in ["message", "message.reaction", "message.edited", "message.revoked", "call.offer"] {
            assert_eq!(who(event, payload), ["9991@s.whatsapp.net", "251@lid"], "{event}");
        }
        assert_eq!(who("message", r#"{"from":"9991@s.whatsapp.net in 1203@g.us"}"#), ["9991@s.whatsapp.net"]);
    }

    #[test]
    fn groups_that_change_and_channels_that_publish_are_active() {
        let payload = r#"{"chat_id":"1203@g.us","type":"join","jids":["9991@s.whatsapp.net"]}"#;
        assert_eq!(who("group.participants", payload), ["1203@g.us"]);
        assert_eq!(
            who("newsletter.message", r#"{"newsletter_id":"1203@newsletter","messages":[]}"#),
            ["1203@newsletter"]
        );
    }

    #[test]
    fn what_says_nothing_of_anybody_is_nobodys() {
        let from = r#"{"from":"9991@s.whatsapp.net","chat_id":"9991@s.whatsapp.net"}"#;
        for event in ["message.ack", "message.deleted", "newsletter.left", "something.new", ""] {
            assert!(who(event, from).is_empty(), "{event}");
        }
        assert!(who("message", r#"{"from":"9991@s.whatsapp.net","is_from_me":true}"#).is_empty());
        assert!(who("group.joined", from).is_empty(), "not a group");
        for from in ["", "x@y", "1203@g.us", "status@broadcast", "\\u0000"] {
            assert!(who("message", &format!(r#"{{"from":"{from}"}}"#)).is_empty(), "{from}");
        }
        for body in
            ["{}", "[]", "null", "7", r#"{"event":7}"#, r#"{"event":"message"}"#, r#"{"event":"message","payload":[]}"#]
        {
            assert_eq!(told(body), (String::new(), vec![]), "{body}");
        }
        for body in ["", "{", "x", "{\"event\":\"message\"", "\u{feff}{}"] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn the_session_names_the_device_before_its_number_does() {
        let device = |text: &str| told(&format!(r#"{{"event":"message",{text},"payload":{{}}}}"#)).0;
        assert_eq!(device(r#""session_id":"sales","device_id":"999@s.whatsapp.net""#), "sales");
        assert_eq!(device(r#""session_id":"","device_id":"999@s.whatsapp.net""#), "999@s.whatsapp.net");
        assert_eq!(device(r#""session_id":null"#), "");
    }
}
