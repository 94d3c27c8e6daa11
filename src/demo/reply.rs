//! Bodies, written as Go writes them.
//!
//! The one place that knows the gateway's texts: a [`Reply`] goes in, bytes come out.

use http::header;

use super::script::{Form, Reply, whatsapp_text};
use super::wire::{Answer, Ending, Parts, Then};

/// Everything an answer may mention.
pub(super) struct Facts<'a> {
    /// `phone` in canonical form, or as it was given when it has none.
    pub(super) jid: &'a str,
    /// The device's name as it was given.
    pub(super) device: &'a str,
    /// The picture's address.
    pub(super) url: &'a str,
    /// The picture's id.
    pub(super) id: &'a str,
    /// `is_preview`.
    pub(super) preview: bool,
    /// Failures say `"results":null` instead of nothing.
    pub(super) null_results: bool,
}

impl Facts<'_> {
    /// The answer; `After` and `OneIn` must have been resolved before.
    pub(super) fn answer(&self, reply: &Reply) -> Answer {
        let ending = match reply {
            Reply::Truncated => self.success(None).truncated(),
            Reply::Stalled => self.success(None).stalled(),
            Reply::Drip(every) => self.success(None).dripping(*every),
            Reply::Endless => self.success(None).endless(),
            Reply::Garbage(bytes) => Ending { start: bytes.clone(), then: Then::Close },
            Reply::Reset => Ending::reset(),
            Reply::Close => Ending::close(),
            Reply::Hang => return Answer::Never,
            other => return Answer::Http(self.parts(other)),
        };
        Answer::Ending(ending)
    }

    fn parts(&self, reply: &Reply) -> Parts {
        match reply {
            Reply::PresentAs(form) => self.success(Some(*form)),
            Reply::Padded(length) => {
                let mut parts = self.success(None);
                let mut body = parts.body.to_vec();
                body.resize((*length).max(body.len()), b' ');
                parts.body = body.into();
                parts
            }
            Reply::Unauthorized => unauthorized(),
            Reply::DeviceNotFound => {
                let results = format!(r#"{{"device_id":{}}}"#, go_string(self.device));
                Parts::json(404, envelope("DEVICE_NOT_FOUND", DEVICE_NOT_FOUND, Some(&results)))
            }
            Reply::Page(status) => page(*status),
            Reply::Redirect(to) => Parts::text(302, "").with(header::LOCATION, to),
            Reply::Raw { status, content_type, body } => Parts::new(*status, content_type, body.clone()),
            other => match self.failure(other) {
                Some((status, code, message)) => {
                    Parts::json(status, envelope(code, &message, self.null_results.then_some("null")))
                }
                None => self.success(None),
            },
        }
    }

    /// Status, code and message of each failure that has an envelope.
    fn failure<'a>(&self, reply: &'a Reply) -> Option<(u16, &'a str, String)> {
        let internal = |message: &str| (500, "INTERNAL_SERVER_ERROR", message.to_owned());
        Some(match reply {
            Reply::NotSet => internal("that user or group does not have a profile picture"),
            Reply::NoAvatarFound => internal("no avatar found"),
            Reply::Hidden => internal("the user has hidden their profile picture from you"),
            Reply::Unregistered => (400, "INVALID_JID", format!("Phone {} is not on whatsapp", self.jid)),
            Reply::Blank => (400, "VALIDATION_ERROR", "phone: cannot be blank.".to_owned()),
            Reply::InvalidJid => internal(&format!("invalid JID {}: failed to parse", self.jid)),
            Reply::RateLimited => internal("info query returned status 429: rate-overlimit"),
            Reply::WhatsAppFailed(status) => {
                internal(&format!("info query returned status {status}: {}", whatsapp_text(*status)))
            }
            Reply::Internal(message) => internal(message),
            Reply::ContextTimeout => (408, "CONTEXT_ERROR", "Error timeout get avatar!".to_owned()),
            Reply::GatewayTimeout => {
                (504, "GATEWAY_TIMEOUT", "Request timed out waiting for WhatsApp server response".to_owned())
            }
            Reply::LoggedOut => (401, "AUTHENTICATION_ERROR", "you are not logged in".to_owned()),
            Reply::NotConnected => {
                (401, "AUTHENTICATION_ERROR", "you are not connect to services server, please reconnect".to_owned())
            }
            Reply::DeviceIdRequired => (
                400,
                "DEVICE_ID_REQUIRED",
                "device_id is required via X-Device-Id header or device_id query".to_owned(),
            ),
            Reply::NoSession => (500, "INVALID_WA_CLI", "your WhatsApp CLI is invalid or empty".to_owned()),
            Reply::Starting => (503, "DEVICE_MANAGER_UNAVAILABLE", "Device manager is not initialized".to_owned()),
            Reply::Envelope { status, code, message } => (*status, code, message.clone()),
            _ => return None,
        })
    }

    fn success(&self, form: Option<Form>) -> Parts {
        let (url, id) = (go_string(self.url), go_string(self.id));
        let kind = if self.preview { "preview" } else { "image" };
        let results =
            |inner: &str| format!(r#"{{"code":"SUCCESS","message":"Success get avatar","results":{{{inner}}}}}"#);
        let usual = format!(r#""url":{url},"id":{id},"type":"{kind}""#);
        let body = match form {
            Some(Form::Reordered) => format!(
                r#"{{"results":{{"type":"{kind}","id":{id},"url":{url}}},"message":"Success get avatar","code":"SUCCESS"}}"#
            ),
            Some(Form::Extended) => format!(
                r#"{{"status":200,"code":"SUCCESS","message":"Success get avatar","results":{{{usual},"direct_path":"/v/x","hash":null,"sizes":[96,640]}},"took_ms":12}}"#
            ),
            Some(Form::NumericId) if !self.id.is_empty() && self.id.bytes().all(|byte| byte.is_ascii_digit()) => {
                results(&format!(r#""url":{url},"id":{},"type":"{kind}""#, self.id))
            }
            None | Some(Form::NumericId) => results(&usual),
            Some(Form::Pretty) => {
                let (url, id) = (quoted(self.url), quoted(self.id));
                format!(
                    "{{\n  \"code\": \"SUCCESS\",\n  \"message\": \"Success get avatar\",\n  \"results\": {{\n    \"url\": {url},\n    \"id\": {id},\n    \"type\": \"{kind}\"\n  }}\n}}\n"
                )
            }
            Some(Form::WithoutUrl) => results(&format!(r#""id":{id},"type":"{kind}""#)),
            Some(Form::NullUrl) => results(&format!(r#""url":null,"id":{id},"type":"{kind}""#)),
            Some(Form::EmptyId) => results(&format!(r#""url":{url},"id":"","type":"{kind}""#)),
            Some(Form::NullResults) => envelope("SUCCESS", "Success get avatar", Some("null")),
            Some(Form::WithoutResults) => envelope("SUCCESS", "Success get avatar", None),
        };
        Parts::json(200, body)
    }
}

const DEVICE_NOT_FOUND: &str =
    "device not found; create a device first from /api/devices or provide a valid X-Device-Id";

/// The caller's password is wrong, or there is none.
pub(super) fn unauthorized() -> Parts {
    Parts::text(401, "Unauthorized").with(header::WWW_AUTHENTICATE, r#"Basic realm="Restricted""#)
}

/// What a reverse proxy says when the gateway behind it does not answer.
fn page(status: u16) -> Parts {
    let status_text = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let title = format!("{status} {}", status_text.unwrap_or("Error"));
    let body = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    Parts::new(status, "text/html", body)
}

fn envelope(code: &str, message: &str, results: Option<&str>) -> String {
    let results = results.map(|results| format!(r#","results":{results}"#)).unwrap_or_default();
    format!(r#"{{"code":{},"message":{}{results}}}"#, go_string(code), go_string(message))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A JSON string as Go's encoder writes it: what could end a script element, or a line of JavaScript, is escaped.
fn go_string(text: &str) -> String {
    let mut escaped = String::new();
    for character in quoted(text).chars() {
        match character {
            '&' => escaped.push_str("\\u0026"),
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(go_string("a&b<c>\"\\\n\u{2028}é"), r#""a\u0026b\u003cc\u003e\"\\\n\u2028é""#);
    }

    #[test]
    fn every_form_but_the_broken_ones_is_json() {
        let facts =
            Facts { jid: "1@lid", device: "d", url: "http://h/?a&b", id: "17", preview: true, null_results: true };
        let forms = [Form::Reordered, Form::Extended, Form::NumericId, Form::Pretty, Form::WithoutUrl, Form::NullUrl]
            .into_iter()
            .chain([Form::EmptyId, Form::NullResults, Form::WithoutResults])
            .map(Some);
        for form in forms.chain([None]) {
            let body = facts.success(form).body;
            let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(value["code"], "SUCCESS");
        }
        for reply in Reply::failures() {
            let parts = facts.parts(&reply);
            assert!(parts.status >= 400, "{reply:?}");
        }
    }
}
