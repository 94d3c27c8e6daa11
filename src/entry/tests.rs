use proptest::prelude::*;

use super::*;
use crate::jid::Variant;
use crate::outcome::Reason;

const T0: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(T0 + seconds)
}

fn look(outcome: Outcome, start: u64, now: Timestamp) -> Observation {
    Observation { variant: Variant::default(), outcome, start: Token(start), started_at: now, ended_at: now }
}

fn url(expires: i64) -> Outcome {
    Outcome::Present(Picture::new(&format!("https://h/p?oh=1&oe={:X}", T0 + expires), "1", "image"))
}

fn hidden() -> Outcome {
    let negative =
        Negative { reason: Reason::Hidden, status: 500, code: "INTERNAL_SERVER_ERROR".into(), message: "m".into() };
    Outcome::Negative(negative)
}

const SURE: Standing = Standing::Believed { repeats: 1 };
const NONE: Jitter = Jitter(0.0);

fn first(outcome: Outcome, now: Timestamp) -> Entry {
    Entry::after(None, &look(outcome, 1, now), SURE, &Rules::default(), NONE)
}

#[test]
fn a_url_dies_two_seconds_early_and_is_due_with_a_fifth_of_its_life_left() {
    let entry = first(url(1002), at(0));
    assert_eq!(entry.freshness(at(799)), Freshness::Fresh);
    assert_eq!(entry.freshness(at(800)), Freshness::Due);
    assert_eq!(entry.freshness(at(999)), Freshness::Due);
    assert_eq!(entry.freshness(at(1000)), Freshness::Dead);
}

#[test]
fn where_the_budget_is_scarce_a_url_is_renewed_late_but_not_too_late() {
    let rules = Rules { renew_late: true, ..Rules::default() };
    let due = |life: i64| Entry::after(None, &look(url(life + 2), 1, at(0)), SURE, &rules, NONE).due_at;
    assert_eq!(due(1_000_000), at(950_000));
    assert_eq!(due(1000), at(880), "a look that waits for the budget still comes in time");
    assert_eq!(due(100), at(80), "never earlier than usual");
}

#[test]
fn thirty_days_are_the_longest_life() {
    let entry = first(url(90 * 86_400), at(0));
    assert_eq!(entry.due_at, at(24 * 86_400));
    assert_eq!(entry.dead_at, at(30 * 86_400));
}

#[test]
fn without_an_expiry_the_fallback_counts() {
    let entry = first(Outcome::Present(Picture::new("", "1", "image")), at(0));
    assert_eq!(entry.dead_at, at(3600));
}

#[test]
fn a_clock_set_back_makes_it_due_not_immortal() {
    let entry = first(url(1002), at(0));
    assert_eq!(entry.freshness(at(-301)), Freshness::Due);
    assert_eq!(entry.freshness(at(-299)), Freshness::Fresh);
}

#[test]
fn one_odd_answer_does_not_replace_a_live_picture() {
    let rules = Rules::default();
    let good = first(url(1002), at(0));
    let doubted = Standing::Doubted { look_at: at(160), looks: 1 };
    let kept = Entry::after(Some(&good), &look(hidden(), 2, at(100)), doubted, &rules, NONE);
    assert_eq!((kept.outcome.id(), kept.due_at, kept.dead_at), (Some("1"), at(160), good.dead_at));
    let after_death = Entry::after(Some(&good), &look(hidden(), 2, at(1100)), doubted, &rules, NONE);
    assert_eq!(after_death.outcome, hidden());
    let believed = Entry::after(Some(&kept), &look(hidden(), 3, at(160)), SURE, &rules, NONE);
    assert_eq!(believed.outcome, hidden());
}

#[test]
fn a_negative_outcome_has_a_deadline_only_while_it_is_doubted() {
    assert_eq!(first(hidden(), at(0)).deadline(), None);
    let after = |standing| Entry::after(None, &look(hidden(), 1, at(0)), standing, &Rules::default(), NONE);
    let doubted = after(Standing::Doubted { look_at: at(60), looks: 1 });
    assert_eq!(doubted.deadline(), Some(at(60)));
    assert_eq!(after(Standing::Overlapped).deadline(), Some(at(2)));
}

#[test]
fn of_urls_that_die_together_those_most_asked_for_are_renewed_first() {
    let week = Duration::from_secs(7 * 86_400);
    let due = |asked_ago| {
        let jitter = Jitter::by_demand(0.5, Some(Duration::from_secs(asked_ago)), week);
        Entry::after(None, &look(url(1_000_002), 1, at(0)), SURE, &Rules::default(), jitter).due_at
    };
    assert!(due(1) < due(3600) && due(3600) < due(86_400) && due(86_400) < due(6 * 86_400));
    assert!(due(8 * 86_400) <= at(800_000), "and nobody later than usual");
}

#[test]
fn the_same_expiry_over_and_over_is_not_a_loop() {
    for (life, at_most) in [(12, 5), (60, 8), (3600, 8), (10 * 86_400, 70)] {
        let rules = Rules::default();
        let mut now = at(0);
        let mut entry = Entry::after(None, &look(url(life), 1, now), SURE, &rules, Jitter(0.5));
        let mut looks = 1;
        while entry.due_at < entry.dead_at {
            now = entry.due_at;
            looks += 1;
            entry = Entry::after(Some(&entry), &look(url(life), looks, now), SURE, &rules, Jitter(0.5));
            assert!(entry.due_at.since(now) >= SHORTEST_STEP);
        }
        assert!(looks <= at_most, "{looks} looks in a life of {life} s");
    }
}

#[test]
fn an_older_look_changes_nothing() {
    let entry = Entry::after(None, &look(url(1000), 5, at(0)), SURE, &Rules::default(), NONE);
    let late = Entry::after(Some(&entry), &look(url(9000), 5, at(9)), SURE, &Rules::default(), NONE);
    assert_eq!(late, entry);
}

#[test]
fn the_first_format_stays_readable() {
    // Written by format 1; these bytes never change.
    let bytes = hex::decode("980181a17093bc68747470733a2f2f682f703f6f683d31266f653d3635353346344541a131a5696d616765cf0000018bcfe56800cf0000018bcff4aa40cf0000018bcff19d00cf0000018bcfe568000100").unwrap();
    let entry = first(url(1002), at(0));
    assert_eq!(hex::encode(entry.encode()), hex::encode(&bytes));
    assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    let mut newer = bytes.clone();
    newer[1] = FORMAT + 1;
    assert!(matches!(Entry::decode(&newer), Err(Unreadable::Newer(_))));
    assert!(Entry::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(Entry::decode(b"").is_err());
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (-100i64..4_000_000).prop_map(url),
        Just(hidden()),
        Just(Outcome::Present(Picture::new("u", "1", "image")))
    ]
}

proptest! {
    /// Promise 2, at its root: whatever was seen before, in whatever order, with whatever clock, nothing whose `oe` is less
    /// than two seconds away is servable.
    #[test]
    fn no_dead_url_is_ever_servable(
        looks in prop::collection::vec((any_outcome(), -5_000i64..5_000_000, 0u8..3, 0.0f64..1.0), 1..8),
        asked in -10_000i64..6_000_000,
    ) {
        let rules = Rules::default();
        let mut entry: Option<Entry> = None;
        for (index, (outcome, when, standing, a)) in looks.into_iter().enumerate() {
            let standing = match standing {
                0 => SURE,
                1 => Standing::Doubted { look_at: at(when + 60), looks: 1 },
                _ => Standing::Overlapped,
            };
            entry = Some(Entry::after(entry.as_ref(), &look(outcome, index as u64 + 1, at(when)), standing, &rules, Jitter(a)));
        }
        let entry = entry.unwrap();
        if entry.freshness(at(asked)) != Freshness::Dead
            && let Outcome::Present(picture) = &entry.outcome
            && let Some(expiry) = picture.expires_at()
        {
            prop_assert!(at(asked) + MARGIN < expiry);
        }
    }

    #[test]
    fn what_is_stored_is_read_back(outcome in any_outcome(), when in 0i64..5_000_000, a in 0.0f64..1.0) {
        let entry = Entry::after(None, &look(outcome, 7, at(when)), SURE, &Rules::default(), Jitter(a));
        prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn no_stored_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Entry::decode(&bytes);
    }
}
