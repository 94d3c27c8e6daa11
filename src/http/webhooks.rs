//! `/webhooks`: who is told of changes at which address, and how that goes.

use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Edge;
use super::body::Upload;
use super::command::{check_json, check_origin};
use super::listing;
use super::query::Invalid;
use super::reply::{self, Problem, Reply};
use crate::events::Start;
use crate::events::webhook::{Change, New, Replay, State, Tested, Trouble, View};
use crate::jid::Jid;

/// An endpoint that is wished for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRequest {
    url: String,
    secret: Option<String>,
    events: Option<Vec<String>>,
    jids: Option<Vec<String>>,
    from: Option<String>,
}

/// What is to be otherwise than it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeRequest {
    enabled: Option<bool>,
    secret: Option<String>,
    rotate: Option<bool>,
    events: Option<Vec<String>>,
    jids: Option<Vec<String>>,
}

/// What is to be sent once more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    after: Option<String>,
    dead_letters: Option<bool>,
}

#[derive(Serialize)]
struct Listed<'a> {
    webhooks: Vec<Shown<'a>>,
    next: Option<String>,
}

/// An endpoint as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    url: &'a str,
    events: &'a [String],
    jids: Vec<String>,
    from_flag: bool,
    created_at: String,
    state: &'static str,
    /// Why it is disabled.
    reason: Option<&'a str>,
    /// Since when it is failing or disabled.
    since: Option<String>,
    last_result: Option<LastResult<'a>>,
    lag: Lag,
    pending: u64,
    dead_letters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

#[derive(Serialize)]
struct LastResult<'a> {
    at: String,
    result: &'a str,
}

#[derive(Serialize)]
struct Lag {
    events: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct TestResult<'a> {
    delivered: bool,
    result: &'a str,
    seconds: f64,
}

impl<'a> From<&'a View> for Shown<'a> {
    fn from(view: &'a View) -> Self {
        let (reason, since) = match &view.state {
            State::Active => (None, None),
            State::Failing { since } => (None, Some(since.rfc3339())),
            State::Disabled { why, since } => (Some(why.as_str()), Some(since.rfc3339())),
        };
        Self {
            id: &view.id,
            url: &view.url,
            events: &view.events,
            jids: view.jids.iter().map(Jid::to_string).collect(),
            from_flag: view.from_flag,
            created_at: view.created_at.rfc3339(),
            state: view.state.as_str(),
            reason,
            since,
            last_result: view.last.as_ref().map(|last| LastResult { at: last.at.rfc3339(), result: &last.text }),
            lag: Lag { events: view.lag.events, seconds: view.lag.time.as_secs_f64() },
            pending: view.pending,
            dead_letters: view.dead_letters,
            secret: view.secret.as_ref().map(|secret| secret.text.as_str()),
        }
    }
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unknown => Self::Absent,
            Trouble::TooMany(limit) => Self::TooManyWebhooks(limit),
            Trouble::Given(_) => Self::GivenByFlag(format!("{trouble}.")),
            Trouble::Url(_) | Trouble::Secret(_) | Trouble::Event | Trouble::Cursor => {
                Invalid(format!("{trouble}.").into()).into()
            }
            Trouble::Store(error) => error.into(),
        }
    }
}

fn jids(texts: &[String]) -> Result<Vec<Jid>, Invalid> {
    if texts.len() > listing::JIDS_MAX {
        return Err(Invalid::of("jids", "must be 1000 at most."));
    }
    texts.iter().map(|text| listing::jid("jids", text)).collect()
}

fn shown(view: &View) -> Reply {
    reply::json(&Shown::from(view))
}

impl Edge {
    /// `GET|POST /webhooks`.
    pub(super) async fn webhooks(&self, parts: &Parts, body: Upload) -> Result<Reply, Problem> {
        if parts.method != Method::POST {
            let views = self.webhooks.list().await?;
            return Ok(reply::json(&Listed { webhooks: views.iter().map(Shown::from).collect(), next: None }));
        }
        check_origin(parts)?;
        check_json(&parts.headers)?;
        let CreateRequest { url, secret, events, jids: people, from } = body.json().await?;
        let from = match from.as_deref() {
            None | Some("now") => Start::Now,
            Some("earliest") => Start::Earliest,
            Some(_) => return Err(Invalid::of("from", "must be now or earliest.").into()),
        };
        let (events, jids) = (events.unwrap_or_default(), jids(&people.unwrap_or_default())?);
        let view = self.webhooks.create(New { url, secret, events, jids, from }).await?;
        let mut reply = shown(&view);
        *reply.status_mut() = StatusCode::CREATED;
        if let Ok(location) = HeaderValue::try_from(format!("/webhooks/{}", view.id)) {
            reply.headers_mut().insert(LOCATION, location);
        }
        Ok(reply)
    }

    /// `GET|PATCH|DELETE /webhooks/{id}`.
    pub(super) async fn webhook(&self, id: &str, parts: &Parts, body: Upload) -> Result<Reply, Problem> {
        if parts.method == Method::GET || parts.method == Method::HEAD {
            return Ok(shown(&self.webhooks.show(id).await?));
        }
        check_origin(parts)?;
        if parts.method == Method::DELETE {
            self.webhooks.remove(id).await?;
            return Ok(reply::no_content());
        }
        check_json(&parts.headers)?;
        let ChangeRequest { enabled, secret, rotate, events, jids: people } = body.json().await?;
        let rotate = secret.is_some() || rotate == Some(true);
        let jids = people.as_deref().map(jids).transpose()?;
        if !rotate && enabled.is_none() && events.is_none() && jids.is_none() {
            return Err(Invalid("give enabled, secret, rotate, events or jids.".into()).into());
        }
        let change = Change { enabled, secret: rotate.then_some(secret), events, jids };
        Ok(shown(&self.webhooks.change(id, change).await?))
    }

    /// `POST /webhooks/{id}/test`.
    pub(super) async fn test_webhook(&self, id: &str, parts: &Parts) -> Result<Reply, Problem> {
        check_origin(parts)?;
        // There is nothing to say in a body; whoever sends one all the same says what it is.
        if parts.headers.contains_key(CONTENT_TYPE) {
            check_json(&parts.headers)?;
        }
        let Tested { delivered, result, took } = self.webhooks.test(id).await?;
        Ok(reply::json(&TestResult { delivered, result: &result, seconds: took.as_secs_f64() }))
    }

    /// `POST /webhooks/{id}/replay`.
    pub(super) async fn replay_webhook(&self, id: &str, parts: &Parts, body: Upload) -> Result<Reply, Problem> {
        check_origin(parts)?;
        check_json(&parts.headers)?;
        let ReplayRequest { after, dead_letters } = body.json().await?;
        let replay = match (after.as_deref(), dead_letters.unwrap_or_default()) {
            (None, true) => Replay::DeadLetters,
            (Some(""), false) => Replay::Earliest,
            (Some(text), false) => Replay::After(listing::cursor("after", text)?),
            _ => return Err(Invalid("give either after, a cursor, or dead_letters, true.".into()).into()),
        };
        Ok(shown(&self.webhooks.replay(id, replay).await?))
    }
}
