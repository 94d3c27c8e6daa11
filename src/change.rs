//! The state machine: what is believed about a subject, and when a look changes it.
//!
//! The rules, each with a test below:
//! * The first believed observation is a baseline, not a change.
//! * An id is taken only from a look that started after the last applied one ended ([`Token`]s order them). A look that
//!   overlapped another and disagrees with it records nothing and asks for another look.
//! * A negative outcome is believed after a second negative look that started at least `confirm_after` after the first ended;
//!   "not registered", which a troubled gateway says of everybody, only if the device had a success in between. Any picture
//!   seen after the first ends the doubt, also one from a look that overlapped it.
//! * A preview alone never makes a change: should it show another id, the full picture is looked at; if that one did not
//!   change, the preview's id is remembered as its twin. Where only previews were ever looked at and the first look at the full
//!   picture shows another id, the preview is looked at again: if it still shows its own, the two are twins and the full
//!   picture's id is the baseline; if it shows the other now, the picture changed.
//! * A failure never gets here.
//!
//! This module is pure. The store writes what [`observe`] computes only if the state it was computed from is still the stored
//! one, and computes nothing itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::outcome::{Observation, Outcome, Reason, Rules, Token};
use crate::record::{self, Unreadable};

#[cfg(test)]
mod tests;

/// Where the doubling of looks at a doubted outcome ends.
const DOUBT_INTERVAL_MAX: Duration = Duration::from_secs(6 * 3600);

/// Everything kept about a subject beside its entries.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct State {
    /// What has been recorded; `None` before the first believed observation.
    pub recorded: Option<Recorded>,
    /// A negative outcome seen and not yet believed.
    doubt: Option<Doubt>,
    /// An id that waits for a look at the full picture: a preview's, or, while a negative outcome is believed, one seen by a look
    /// that overlapped another.
    stray: Option<String>,
    /// An id under which previews show the recorded full picture.
    twin: Option<String>,
    /// The recorded id was seen in previews only.
    by_preview: bool,
    /// A full picture's id that waits for a look at the preview, because the recorded id is `by_preview`.
    unsettled: Option<String>,
    /// Looks applied since the baseline: with the version, the evidence for how often this person changes pictures.
    looks: u64,
}

/// What is believed, and its history in brief.
#[derive(Clone, PartialEq, Debug)]
pub struct Recorded {
    /// Random, made with the baseline: what is forgotten and comes back has another history.
    pub incarnation: u128,
    /// Counts the changes, from 1; 0 is the baseline.
    pub version: u64,
    /// What is believed now.
    pub belief: Belief,
    /// When the baseline was made.
    pub baseline_at: Timestamp,
    /// When the last change was noticed; `None` while there is only the baseline.
    pub changed_at: Option<Timestamp>,
    /// When the belief was last seen to hold.
    pub seen_at: Timestamp,
    /// Negative looks in a row since a negative belief began.
    repeats: u32,
}

/// A believed outcome, reduced to what makes a difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Belief {
    /// The picture with this id.
    Id(String),
    /// No picture to be seen.
    Negative(Reason),
}

#[derive(Clone, PartialEq, Debug)]
struct Doubt {
    reason: Reason,
    /// end of the first negative look
    since: Timestamp,
    /// negative looks that were far enough apart
    looks: u32,
}

/// What a look did to the subject's state: all that an entry needs to know of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Standing {
    /// It is believed.
    Believed {
        /// Negative looks in a row, this one included; 0 for a picture.
        repeats: u32,
    },
    /// It is negative and waits for a second look at `look_at`.
    Doubted {
        /// When the next look is due.
        look_at: Timestamp,
        /// Negative looks so far that were far enough apart.
        looks: u32,
    },
    /// It overlapped another look that says otherwise.
    Overlapped,
}

/// What kind of change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// There was no picture to be seen, now there is.
    Set,
    /// Another picture.
    Changed,
    /// There was a picture, now there is none to be seen.
    Removed,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Set, Self::Changed, Self::Removed];

    /// The word used in events, records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// A change, recorded in the same atomic write as the state that it leads to.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// The digest of incarnation, version, old and new id: the same wherever the change is recorded, and it gives no phone
    /// number away.
    pub event_id: String,
    /// What kind.
    pub kind: Kind,
    /// For a removal: why there is no picture.
    pub reason: Option<Reason>,
    /// The id before.
    pub old_id: Option<String>,
    /// The id after.
    pub new_id: Option<String>,
    /// Counts this subject's changes, from 1.
    pub version: u64,
    /// When it was noticed.
    pub noticed_at: Timestamp,
    /// When the old id was last seen: the change happened after this.
    pub not_before: Timestamp,
}

/// One of the two pictures of a subject, which should show the same id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// The full picture.
    Full,
    /// Its preview.
    Preview,
}

/// What follows from one observation.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// The state to write.
    pub state: State,
    /// For the entry.
    pub standing: Standing,
    /// The change to record.
    pub change: Option<Change>,
    /// What else must be looked at soon: the full picture, because a preview showed an unknown id, or the other way round.
    pub look_at: Option<Sight>,
}

/// What the state machine needs to know beside the observation.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The end token of the last observation applied to this subject.
    pub applied: Token,
    /// When the device last got a picture out of the gateway, as of the look's start.
    pub device_succeeded_at: Option<Timestamp>,
    /// Fresh randomness, used if this observation makes the baseline.
    pub entropy: u128,
    /// Lifetimes and intervals.
    pub rules: &'a Rules,
}

/// Computes what follows from one observation. Pure: the same arguments, the same verdict.
#[must_use]
pub fn observe(state: &State, seen: &Observation, around: Circumstances<'_>) -> Verdict {
    let mut next = state.clone();
    let overlapped = seen.start <= around.applied;
    let step = match &seen.outcome {
        Outcome::Present(_) => {
            if let Some(id) = seen.outcome.id() {
                next.present(id, seen, overlapped, around)
            } else {
                // An answer without an id says nothing about changes, but there is a picture.
                next.doubt = None;
                Step::quiet(Standing::Believed { repeats: 0 })
            }
        }
        Outcome::Negative(negative) => next.negative(negative.reason, seen, overlapped, around),
    };
    if step.standing != Standing::Overlapped {
        next.looks = next.looks.saturating_add(1);
    }
    Verdict { state: next, standing: step.standing, change: step.change, look_at: step.look_at }
}

struct Step {
    standing: Standing,
    change: Option<Change>,
    look_at: Option<Sight>,
}

impl Step {
    fn quiet(standing: Standing) -> Self {
        Self { standing, change: None, look_at: None }
    }
}

impl State {
    fn present(&mut self, id: &str, seen: &Observation, overlapped: bool, around: Circumstances<'_>) -> Step {
        let sure = Standing::Believed { repeats: 0 };
        // Whichever of two looks that overlapped was the later one: there was a picture to be seen, and if the person is gone,
        // two looks after this one will say so.
        let doubted = self.doubt.take().is_some();
        let known = self.recorded.as_ref().map(|recorded| &recorded.belief);
        let agrees = matches!(known, Some(Belief::Id(held)) if held == id);
        let as_twin = seen.variant.preview && self.twin.as_deref() == Some(id) && matches!(known, Some(Belief::Id(_)));
        if agrees || as_twin {
            if overlapped {
                return Step::quiet(if doubted { Standing::Overlapped } else { sure });
            }
            if seen.variant.preview {
                self.settle(id);
            } else {
                self.twin = self.stray.take().or(self.twin.take());
                (self.by_preview, self.unsettled) = (false, None);
            }
            self.still_holds(seen.ended_at);
            return Step::quiet(sure);
        }
        if overlapped {
            if matches!(known, Some(Belief::Negative(_))) {
                // Nor is this one taken back by one odd answer.
                self.stray = Some(id.to_owned());
            }
            return Step::quiet(Standing::Overlapped);
        }
        let is_new_to = |seen: &Option<String>| seen.as_deref() != Some(id);
        if seen.variant.preview && self.recorded.is_some() && is_new_to(&self.unsettled) {
            self.stray = Some(id.to_owned());
            return Step { standing: sure, change: None, look_at: Some(Sight::Full) };
        }
        if !seen.variant.preview && self.by_preview && is_new_to(&self.stray) && is_new_to(&self.unsettled) {
            self.unsettled = Some(id.to_owned());
            return Step { standing: sure, change: None, look_at: Some(Sight::Preview) };
        }
        let change = self.record(Belief::Id(id.to_owned()), seen.ended_at, around.entropy);
        // A change is recorded only of what the full picture showed.
        self.by_preview = seen.variant.preview && change.is_none();
        Step { standing: sure, change, look_at: None }
    }

    /// A preview shows what was recorded of previews; if the full picture has another id, they are twins.
    fn settle(&mut self, preview: &str) {
        if let (Some(full), Some(recorded)) = (self.unsettled.take(), &mut self.recorded) {
            recorded.belief = Belief::Id(full);
            self.twin = Some(preview.to_owned());
            (self.by_preview, self.stray) = (false, None);
        }
    }

    fn negative(&mut self, reason: Reason, seen: &Observation, overlapped: bool, around: Circumstances<'_>) -> Step {
        let now = seen.ended_at;
        if let Some(Recorded { belief: Belief::Negative(held), repeats, .. }) = &mut self.recorded
            // A picture that was seen again, though it is not believed yet, is not taken back by one odd answer.
            && self.stray.is_none()
        {
            if overlapped {
                return Step::quiet(Standing::Believed { repeats: *repeats });
            }
            *held = reason;
            *repeats = repeats.saturating_add(1);
            let standing = Standing::Believed { repeats: *repeats };
            self.still_holds(now);
            return Step::quiet(standing);
        }
        if overlapped {
            return Step::quiet(Standing::Overlapped);
        }
        let confirm_after = around.rules.confirm_after;
        let Some(doubt) = &mut self.doubt else {
            self.doubt = Some(Doubt { reason, since: now, looks: 1 });
            return Step::quiet(Standing::Doubted { look_at: now + confirm_after, looks: 1 });
        };
        doubt.reason = reason;
        let earliest = doubt.since + confirm_after;
        // A clock set back must not keep a doubt alive until it has caught up again.
        doubt.since = doubt.since.min(now);
        if seen.started_at < earliest {
            return Step::quiet(Standing::Doubted { look_at: earliest.min(now + confirm_after), looks: doubt.looks });
        }
        let vouched = around.device_succeeded_at.is_some_and(|success| success > doubt.since);
        if reason == Reason::Unregistered && !vouched {
            let wait =
                confirm_after.saturating_mul(1 << doubt.looks.min(16)).min(DOUBT_INTERVAL_MAX.max(confirm_after));
            doubt.looks = doubt.looks.saturating_add(1);
            return Step::quiet(Standing::Doubted { look_at: now + wait, looks: doubt.looks });
        }
        self.doubt = None;
        let change = self.record(Belief::Negative(reason), now, around.entropy);
        Step { standing: Standing::Believed { repeats: 1 }, change, look_at: None }
    }

    fn still_holds(&mut self, now: Timestamp) {
        if let Some(recorded) = &mut self.recorded {
            recorded.seen_at = now;
        }
    }

    /// Takes a belief that differs from the recorded one: a baseline if there is none, else a change.
    fn record(&mut self, belief: Belief, now: Timestamp, entropy: u128) -> Option<Change> {
        (self.twin, self.stray, self.unsettled, self.by_preview) = (None, None, None, false);
        let repeats = u32::from(matches!(belief, Belief::Negative(_)));
        let Some(recorded) = &mut self.recorded else {
            self.looks = 0;
            self.recorded = Some(Recorded {
                incarnation: entropy,
                version: 0,
                belief,
                baseline_at: now,
                changed_at: None,
                seen_at: now,
                repeats,
            });
            return None;
        };
        if let (Belief::Negative(held), Belief::Negative(reason)) = (&mut recorded.belief, &belief) {
            // Another reason for the same is no change.
            *held = *reason;
            (recorded.repeats, recorded.seen_at) = (repeats, now);
            return None;
        }
        let old = std::mem::replace(&mut recorded.belief, belief);
        recorded.version = recorded.version.saturating_add(1);
        recorded.changed_at = Some(now);
        let not_before = std::mem::replace(&mut recorded.seen_at, now);
        recorded.repeats = repeats;
        let id = |belief: &Belief| match belief {
            Belief::Id(id) => Some(id.clone()),
            Belief::Negative(_) => None,
        };
        let (old_id, new_id) = (id(&old), id(&recorded.belief));
        let (kind, reason) = match (&old, &recorded.belief) {
            (Belief::Negative(_), Belief::Id(_)) => (Kind::Set, None),
            (_, Belief::Negative(reason)) => (Kind::Removed, Some(*reason)),
            (Belief::Id(_), Belief::Id(_)) => (Kind::Changed, None),
        };
        Some(Change {
            event_id: event_id(recorded.incarnation, recorded.version, old_id.as_deref(), new_id.as_deref()),
            kind,
            reason,
            old_id,
            new_id,
            version: recorded.version,
            noticed_at: now,
            not_before,
        })
    }
}

fn event_id(incarnation: u128, version: u64, old: Option<&str>, new: Option<&str>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(incarnation.to_be_bytes());
    hasher.update(version.to_be_bytes());
    for id in [old, new] {
        // The length keeps the two apart; none is not the empty id.
        hasher.update(id.map_or(u64::MAX, |id| id.len() as u64).to_be_bytes());
        hasher.update(id.unwrap_or_default());
    }
    hex::encode(&hasher.finalize()[..16])
}

/// The stored form. A later version appends fields and reads the older ones.
#[derive(Serialize, Deserialize)]
struct StateRecord {
    format: u8,
    recorded: Option<RecordedRecord>,
    doubt: Option<(Reason, Timestamp, u32)>,
    stray: Option<String>,
    twin: Option<String>,
    looks: u64,
    // From format 2 on.
    #[serde(default)]
    by_preview: bool,
    #[serde(default)]
    unsettled: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RecordedRecord {
    incarnation_high: u64,
    incarnation_low: u64,
    version: u64,
    id: Option<String>,
    reason: Option<Reason>,
    baseline_at: Timestamp,
    changed_at: Option<Timestamp>,
    seen_at: Timestamp,
    repeats: u32,
}

const FORMAT: u8 = 2;

impl State {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = StateRecord {
            format: FORMAT,
            recorded: self.recorded.as_ref().map(|recorded| {
                let (id, reason) = match &recorded.belief {
                    Belief::Id(id) => (Some(id.clone()), None),
                    Belief::Negative(reason) => (None, Some(*reason)),
                };
                RecordedRecord {
                    incarnation_high: (recorded.incarnation >> 64) as u64,
                    incarnation_low: u64::try_from(recorded.incarnation & u128::from(u64::MAX)).unwrap_or_default(),
                    version: recorded.version,
                    id,
                    reason,
                    baseline_at: recorded.baseline_at,
                    changed_at: recorded.changed_at,
                    seen_at: recorded.seen_at,
                    repeats: recorded.repeats,
                }
            }),
            doubt: self.doubt.as_ref().map(|doubt| (doubt.reason, doubt.since, doubt.looks)),
            stray: self.stray.clone(),
            twin: self.twin.clone(),
            looks: self.looks,
            by_preview: self.by_preview,
            unsettled: self.unsettled.clone(),
        };
        record::write(&record)
    }

    /// Reads a stored form.
    ///
    /// # Errors
    /// When it is not one, or a newer program wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: StateRecord = record::read(bytes, FORMAT)?;
        Ok(Self {
            recorded: record.recorded.map(|recorded| Recorded {
                incarnation: u128::from(recorded.incarnation_high) << 64 | u128::from(recorded.incarnation_low),
                version: recorded.version,
                belief: match (recorded.id, recorded.reason) {
                    (Some(id), _) => Belief::Id(id),
                    (None, reason) => Belief::Negative(reason.unwrap_or(Reason::NotSet)),
                },
                baseline_at: recorded.baseline_at,
                changed_at: recorded.changed_at,
                seen_at: recorded.seen_at,
                repeats: recorded.repeats,
            }),
            doubt: record.doubt.map(|(reason, since, looks)| Doubt { reason, since, looks }),
            stray: record.stray,
            twin: record.twin,
            looks: record.looks,
            by_preview: record.by_preview,
            unsettled: record.unsettled,
        })
    }
}
