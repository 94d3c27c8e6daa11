//! `avatar-proxy check`: tries what a proxy with these settings would need, and says in plain words what is wrong and what to do.
//!
//! * It disturbs nobody. The gateway looks nobody up, unless somebody is named; no store is opened, locked or written to; webhooks are
//!   connected to and sent nothing, unless that is asked for. So it may run beside a proxy, and says so where one runs.
//! * Everything is tried, whatever fails, at once where nothing depends on it, and nothing takes much longer than [`PATIENCE`].
//! * It shows no password, no signed URL, nobody's address, and of a webhook its number and host.
//! * What a part needs and how it fails is the part's to know (`gateway::probe`, `store::sqlite::probe`, `store::redis::probe`,
//!   `outbound`); here it becomes a sentence.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::events::Format;
use crate::events::webhook::Given;
use crate::gateway::Config as GatewayConfig;
use crate::jid::{Device, Jid};
use crate::store::redis::Address;
use crate::{http, outbound};

mod gateway;
mod machine;
mod store;
mod webhooks;

/// How long anything may take. A lookup and a test event that were asked for may take as long as those do.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that differs by more than this is worth a word: URLs are not served in their last two seconds.
const SKEW: Duration = Duration::from_secs(5);

/// A clock that differs by more than this is wrong.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// What is tried.
pub struct Parts {
    /// Time here.
    pub clock: Clock,
    /// Where the proxy would answer.
    pub listen: SocketAddr,
    /// Where it would answer with figures alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Who it would be for clients that speak `https`.
    pub identity: Option<http::Identity>,
    /// Where the gateway is.
    pub gateway: GatewayConfig,
    /// The device that is meant by who names none.
    pub device: Device,
    /// Whom to look up.
    pub lookup: Option<Jid>,
    /// Where everything would be kept.
    pub store: Place,
    /// Who would be told.
    pub webhooks: Vec<Given>,
    /// In which form, if they are told something now.
    pub test_webhooks: Option<Format>,
    /// How they are connected to.
    pub outbound: outbound::Config,
    /// Whether a line is a JSON object.
    pub as_json: bool,
}

/// Where a store would be.
pub enum Place {
    /// In this file.
    Sqlite(PathBuf),
    /// On this server.
    Redis(Address),
}

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for ever.
    Warning,
    /// It would not work.
    Wrong,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// What was found of one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    check: String,
    verdict: Verdict,
    /// A sentence, without its full stop.
    what: String,
    /// What to do, where there is something.
    remedy: Option<&'static str>,
}

impl Finding {
    fn ok(check: impl Into<String>, what: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, what: what.into(), remedy: None }
    }

    fn warning(check: impl Into<String>, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { check: check.into(), verdict: Verdict::Warning, what: what.into(), remedy: Some(remedy) }
    }

    fn wrong(check: impl Into<String>, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { check: check.into(), verdict: Verdict::Wrong, what: what.into(), remedy: Some(remedy) }
    }

    /// One that says what to do in its own sentence.
    fn refused(check: impl Into<String>, what: impl fmt::Display) -> Self {
        Self { check: check.into(), verdict: Verdict::Wrong, what: what.to_string(), remedy: None }
    }

    fn to_line(&self, as_json: bool) -> Line {
        let Self { check, verdict, what, remedy } = self;
        let verdict_text = verdict.as_str();
        let text = match (as_json, remedy) {
            (true, _) => {
                serde_json::json!({"check": check, "verdict": verdict_text, "what": what, "remedy": remedy}).to_string()
            }
            (false, None) => format!("{verdict_text:<8} {check:<16} {what}"),
            (false, Some(remedy)) => format!("{verdict_text:<8} {check:<16} {what}: {remedy}"),
        };
        Line { verdict: *verdict, line: text }
    }
}

/// A finding, as it is printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// How grave it is.
    pub verdict: Verdict,
    /// The text.
    pub line: String,
}

/// Not everything is as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{wrong} of {all} checks found something wrong")]
pub struct Wrong {
    wrong: usize,
    all: usize,
}

impl Wrong {
    /// Whether anything is wrong. Warnings are not.
    ///
    /// # Errors
    /// When something is.
    pub fn among(lines: &[Line]) -> Result<(), Self> {
        let wrong = lines.iter().filter(|line| line.verdict == Verdict::Wrong).count();
        if wrong == 0 { Ok(()) } else { Err(Self { wrong, all: lines.len() }) }
    }
}

/// Tries everything, and tells of it in the order of a proxy's start.
pub async fn run(parts: Parts) -> Vec<Line> {
    let proxy = machine::Proxy::at(parts.listen, parts.metrics_listen, parts.identity.as_ref());
    let (clock, place) = (&parts.clock, parts.store);
    let (machine, gateway, store, webhooks) = tokio::join!(
        machine::findings(&proxy, parts.identity.as_ref(), clock),
        self::gateway::findings(parts.gateway, parts.device, parts.lookup, clock),
        store::findings(place, &proxy, clock),
        webhooks::findings(&parts.webhooks, parts.test_webhooks, parts.outbound, clock),
    );
    let all = machine.into_iter().chain(gateway).chain(store).chain(webhooks);
    all.map(|finding| finding.to_line(parts.as_json)).collect()
}

/// How far another clock is from ours; `off_by` is what it may be wrong by itself.
fn clocks(check: &str, whose: &str, theirs: Timestamp, ours: Timestamp, off_by: Duration) -> Finding {
    let (ahead, behind) = (theirs.since(ours), ours.since(theirs));
    let skew = ahead.max(behind).saturating_sub(off_by);
    let direction = if ahead > behind { "ahead of" } else { "behind" };
    let what = format!("{whose} clock is {} s {direction} this machine's", skew.as_secs());
    let remedy = "URLs die by the clock, so have both machines follow one time (NTP)";
    match skew {
        skew if skew > SKEW_MAX => Finding::wrong(check, what, remedy),
        skew if skew > SKEW => Finding::warning(check, what, remedy),
        _ => Finding::ok(check, format!("{whose} clock agrees with this machine's")),
    }
}

/// Milliseconds for short times, seconds for others.
fn shown(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis().max(1))
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_is_left_of_the_difference() {
        let at = Timestamp::from_seconds;
        let second = Duration::from_secs(1);
        for (theirs, verdict) in [
            (1_000, Verdict::Ok),
            (994, Verdict::Ok),
            (1_006, Verdict::Ok),
            (993, Verdict::Warning),
            (1_007, Verdict::Warning),
            (1_062, Verdict::Wrong),
            (938, Verdict::Wrong),
        ] {
            assert_eq!(clocks("c", "its", at(theirs), at(1_000), second).verdict, verdict, "{theirs}");
        }
        assert!(clocks("c", "its", at(2_000), at(1_000), second).what.contains("999 s ahead"));
        assert!(clocks("c", "its", at(0), at(1_000), second).what.contains("999 s behind"));
    }

    #[test]
    fn only_what_is_wrong_fails() {
        let lines = |findings: &[Finding]| findings.iter().map(|finding| finding.to_line(false)).collect::<Vec<_>>();
        let (ok, warning) = (Finding::ok("a", "b"), Finding::warning("a", "b", "c"));
        assert_eq!(Wrong::among(&lines(&[ok.clone(), warning.clone()])), Ok(()));
        let wrong = Wrong::among(&lines(&[ok, warning, Finding::wrong("a", "b", "c")])).unwrap_err();
        assert_eq!(wrong.to_string(), "1 of 3 checks found something wrong");
    }

    #[test]
    fn a_line_is_for_people_or_for_programs() {
        let finding = Finding::wrong("listen", "it is taken", "take another");
        assert_eq!(finding.to_line(false).line, "wrong    listen           it is taken: take another");
        let json = r#"{"check":"listen","remedy":"take another","verdict":"wrong","what":"it is taken"}"#;
        assert_eq!(finding.to_line(true).line, json);
    }
}
