use proptest::prelude::*;

use super::*;
use crate::jid::Variant;
use crate::outcome::{Negative, Picture};

/// A subject and the store's part of the bargain: tokens and the compare.
struct Story {
    state: State,
    tokens: u64,
    applied: Token,
    success: Option<Timestamp>,
    rules: Rules,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_700_000_000 + seconds)
}

fn id(id: &str) -> Outcome {
    Outcome::Present(Picture::new("https://h/p", id, "image"))
}

fn none(reason: Reason) -> Outcome {
    Outcome::Negative(Negative { reason, status: 500, code: "C".into(), message: "m".into() })
}

const FULL: Variant = Variant { preview: false, community: false };
const PREVIEW: Variant = Variant { preview: true, community: false };

impl Story {
    fn new() -> Self {
        Self { state: State::default(), tokens: 0, applied: Token(0), success: None, rules: Rules::default() }
    }

    fn start(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn end(&mut self, seconds: i64, start: Token, variant: Variant, outcome: Outcome) -> Verdict {
        let seen = Observation { variant, outcome, start, started_at: at(seconds), ended_at: at(seconds) };
        let around =
            Circumstances { applied: self.applied, device_succeeded_at: self.success, entropy: 42, rules: &self.rules };
        let verdict = observe(&self.state, &seen, around);
        self.applied = self.start();
        self.state = State::decode(&verdict.state.encode()).unwrap();
        assert_eq!(self.state, verdict.state, "the stored form keeps everything");
        verdict
    }

    fn look(&mut self, seconds: i64, outcome: Outcome) -> Verdict {
        let start = self.start();
        self.end(seconds, start, FULL, outcome)
    }

    fn preview(&mut self, seconds: i64, outcome: Outcome) -> Verdict {
        let start = self.start();
        self.end(seconds, start, PREVIEW, outcome)
    }
}

fn told(verdict: &Verdict) -> Option<(Kind, Option<&str>, Option<&str>, u64)> {
    let change = verdict.change.as_ref()?;
    Some((change.kind, change.old_id.as_deref(), change.new_id.as_deref(), change.version))
}

#[test]
fn the_first_believed_look_is_a_baseline() {
    let mut story = Story::new();
    assert_eq!(told(&story.look(0, id("a"))), None);
    assert_eq!(told(&story.look(9, id("a"))), None);
    let change = story.look(20, id("b"));
    assert_eq!(told(&change), Some((Kind::Changed, Some("a"), Some("b"), 1)));
    assert_eq!(change.change.unwrap().not_before, at(9));
    assert_eq!(told(&story.look(30, id("a"))), Some((Kind::Changed, Some("b"), Some("a"), 2)));
}

#[test]
fn a_negative_outcome_needs_a_second_look_far_enough_away() {
    let mut story = Story::new();
    story.look(0, id("a"));
    assert_eq!(story.look(100, none(Reason::Hidden)).standing, Standing::Doubted { look_at: at(160), looks: 1 });
    assert_eq!(story.look(130, none(Reason::Hidden)).standing, Standing::Doubted { look_at: at(160), looks: 1 });
    let removed = story.look(160, none(Reason::NotSet));
    assert_eq!(told(&removed), Some((Kind::Removed, Some("a"), None, 1)));
    assert_eq!(removed.change.unwrap().reason, Some(Reason::NotSet), "the later reason counts");
    assert_eq!(told(&story.look(200, id("a"))), Some((Kind::Set, None, Some("a"), 2)));
}

#[test]
fn one_odd_answer_is_no_removal() {
    let mut story = Story::new();
    story.look(0, id("a"));
    story.look(100, none(Reason::Hidden));
    assert_eq!(told(&story.look(160, id("a"))), None);
    assert_eq!(story.look(500, none(Reason::Hidden)).standing, Standing::Doubted { look_at: at(560), looks: 1 });
}

#[test]
fn a_picture_seen_by_a_look_that_overlapped_a_doubt_ends_it() {
    for (seen, variant) in [("a", PREVIEW), ("b", FULL), ("", FULL)] {
        let mut story = Story::new();
        story.look(0, id("a"));
        let (odd, picture) = (story.start(), story.start());
        assert!(matches!(story.end(100, odd, FULL, none(Reason::Hidden)).standing, Standing::Doubted { .. }));
        let verdict = story.end(101, picture, variant, id(seen));
        let belief = &verdict.state.recorded.as_ref().unwrap().belief;
        assert_eq!((told(&verdict), belief), (None, &Belief::Id("a".into())));
        assert!(seen.is_empty() || verdict.standing == Standing::Overlapped, "another look is asked for");
        let next = story.look(200, none(Reason::Hidden)).standing;
        assert_eq!(next, Standing::Doubted { look_at: at(260), looks: 1 }, "{seen:?}");
    }
}

#[test]
fn not_registered_is_believed_only_of_a_gateway_that_works() {
    let mut story = Story::new();
    story.look(0, id("a"));
    let mut waits = vec![];
    for seconds in [100, 160, 400, 1000] {
        let Standing::Doubted { look_at, .. } = story.look(seconds, none(Reason::Unregistered)).standing else {
            panic!("nobody vouched for the gateway")
        };
        waits.push(look_at.since(at(seconds)).as_secs());
    }
    assert_eq!(waits, [60, 120, 240, 480]);
    story.success = Some(at(1100));
    assert_eq!(told(&story.look(2000, none(Reason::Unregistered))), Some((Kind::Removed, Some("a"), None, 1)));
}

#[test]
fn overlapping_looks_that_disagree_record_nothing() {
    let mut story = Story::new();
    story.look(0, id("a"));
    let (early, late) = (story.start(), story.start());
    assert_eq!(told(&story.end(10, late, FULL, id("b"))), Some((Kind::Changed, Some("a"), Some("b"), 1)));
    let stale = story.end(11, early, PREVIEW, id("a"));
    assert_eq!((told(&stale), stale.standing), (None, Standing::Overlapped));
    assert_eq!(story.state.recorded.as_ref().unwrap().belief, Belief::Id("b".into()));
    let (one, two) = (story.start(), story.start());
    story.end(20, one, FULL, id("b"));
    assert_eq!(story.end(21, two, PREVIEW, id("b")).standing, Standing::Believed { repeats: 0 });
}

#[test]
fn a_preview_that_differs_asks_for_the_full_picture_and_may_be_its_twin() {
    let mut story = Story::new();
    story.look(0, id("a"));
    let stray = story.preview(10, id("p"));
    assert_eq!((told(&stray), stray.look_at_full), (None, true));
    assert_eq!(told(&story.look(20, id("a"))), None);
    assert!(!story.preview(30, id("p")).look_at_full, "now known as the twin");
    story.preview(40, id("b"));
    assert_eq!(told(&story.look(50, id("b"))), Some((Kind::Changed, Some("a"), Some("b"), 1)));
    assert!(story.preview(60, id("p")).look_at_full, "the twin of a picture that is gone");
}

#[test]
fn a_preview_that_came_back_is_not_taken_back_by_one_odd_answer() {
    let mut story = Story::new();
    story.look(0, none(Reason::Hidden));
    story.look(100, none(Reason::Hidden));
    assert!(story.preview(200, id("p")).look_at_full);
    assert_eq!(story.preview(250, none(Reason::Hidden)).standing, Standing::Doubted { look_at: at(310), looks: 1 });
    let confirmed = story.preview(310, none(Reason::NotSet));
    assert_eq!((told(&confirmed), confirmed.standing), (None, Standing::Believed { repeats: 1 }));
    assert_eq!(story.look(400, none(Reason::NotSet)).standing, Standing::Believed { repeats: 2 });
}

#[test]
fn a_picture_that_came_back_in_a_look_that_overlapped_is_not_taken_back_by_one_odd_answer() {
    let mut story = Story::new();
    story.look(0, none(Reason::Hidden));
    let start = story.start();
    story.look(100, none(Reason::Hidden));
    let seen = story.end(101, start, FULL, id("a"));
    assert_eq!((told(&seen), seen.standing), (None, Standing::Overlapped));
    assert_eq!(story.look(102, none(Reason::Hidden)).standing, Standing::Doubted { look_at: at(162), looks: 1 });
    assert_eq!(told(&story.look(103, id("a"))), Some((Kind::Set, None, Some("a"), 1)));
    assert_eq!(story.state.stray, None);
}

#[test]
fn looks_at_a_negative_person_are_counted() {
    let mut story = Story::new();
    story.look(0, none(Reason::NotSet));
    assert_eq!(told(&story.look(100, none(Reason::NotSet))), None);
    assert_eq!(story.look(200, none(Reason::Hidden)).standing, Standing::Believed { repeats: 2 });
    assert_eq!(story.look(300, none(Reason::Hidden)).standing, Standing::Believed { repeats: 3 });
}

#[test]
fn an_answer_without_an_id_says_nothing() {
    let mut story = Story::new();
    story.look(0, id("a"));
    assert_eq!(told(&story.look(10, id(""))), None);
    assert_eq!(story.state.recorded.as_ref().unwrap().belief, Belief::Id("a".into()));
}

#[test]
fn the_first_format_of_states_stays_readable() {
    // Written by format 1; these bytes never change.
    let bytes = hex::decode("960199002a01a162c0cf0000018bcfe56800cf0000018bcfe58f10cf0000018bcfe58f100093a648696464656ecf0000018bcfe6eea001c0c004").unwrap();
    let mut story = Story::new();
    story.look(0, id("a"));
    story.preview(5, id("p"));
    story.look(10, id("b"));
    story.look(100, none(Reason::Hidden));
    assert_eq!(hex::encode(story.state.encode()), hex::encode(&bytes));
    assert_eq!(State::decode(&bytes).unwrap(), story.state);
}

#[test]
fn a_record_whose_counters_are_full_can_be_gone_on_with() {
    let mut story = Story::new();
    story.look(0, id("a"));
    story.state.looks = u64::MAX;
    story.state.recorded.as_mut().unwrap().version = u64::MAX;
    assert_eq!(told(&story.look(10, id("b"))), Some((Kind::Changed, Some("a"), Some("b"), u64::MAX)));
}

#[test]
fn an_event_id_depends_on_all_it_is_made_of() {
    let base = event_id(1, 1, Some("a"), Some("b"));
    assert_eq!(base.len(), 32);
    for other in [
        event_id(2, 1, Some("a"), Some("b")),
        event_id(1, 2, Some("a"), Some("b")),
        event_id(1, 1, None, Some("b")),
        event_id(1, 1, Some(""), Some("b")),
        event_id(1, 1, Some("ab"), Some("")),
    ] {
        assert_ne!(base, other);
    }
}

proptest! {
    /// Whatever a gateway says in whatever order: versions have no holes, each change starts where the last one ended, and
    /// what is believed is what the last change said.
    #[test]
    fn the_chain_of_ids_is_unbroken(looks in prop::collection::vec((0usize..6, any::<bool>(), 0i64..200, any::<bool>()), 1..60)) {
        let mut story = Story::new();
        let mut now = 0;
        let mut chain: Option<Option<String>> = None;
        let mut version = 0;
        let mut pending = None;
        for (what, preview, pause, overlap) in looks {
            now += pause;
            let outcome = match what {
                0 => none(Reason::Hidden),
                1 => none(Reason::Unregistered),
                2 => id(""),
                other => id(&other.to_string()),
            };
            let start = if overlap { pending.take().unwrap_or_else(|| story.start()) } else { story.start() };
            if overlap { pending = Some(story.start()); }
            let verdict = story.end(now, start, if preview { PREVIEW } else { FULL }, outcome);
            if let Some(change) = &verdict.change {
                version += 1;
                prop_assert_eq!(change.version, version);
                prop_assert_eq!(Some(&change.old_id), chain.as_ref());
                prop_assert!(change.old_id != change.new_id);
                prop_assert!(!preview || change.new_id.is_none(), "a preview alone changes no id");
                chain = Some(change.new_id.clone());
            } else if chain.is_none() && let Some(recorded) = &verdict.state.recorded {
                chain = Some(match &recorded.belief { Belief::Id(id) => Some(id.clone()), Belief::Negative(_) => None });
            }
        }
    }

    #[test]
    fn no_stored_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = State::decode(&bytes);
    }
}
