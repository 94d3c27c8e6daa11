//! What becomes of what was taken from the schedule. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use super::Config;
use crate::clock::Timestamp;
use crate::jid::Variant;
use crate::outcome::Outcome;
use crate::store::{Candidate, Deadline, Due, Picture};

/// How long a second look at a negative outcome is tried for somebody nobody asks for.
const CONFIRM_WITHIN: Duration = Duration::from_secs(86_400);

/// Whether a key whose deadline has come is looked at; otherwise it has none until somebody asks for it.
#[must_use]
pub fn is_looked_at(due: &Due, now: Timestamp, config: &Config) -> bool {
    let warm = config.is_warm(due.requested_at, now);
    // A key that is due before its entry planned it was asked for by the state machine.
    let wanted = due.entry.as_ref().is_none_or(|entry| due.due_at < entry.due_at);
    // The second look at a negative outcome is made for anybody, the ones after it for whom somebody asks. One that fails and
    // fails again is not tried for ever.
    let doubted = due.entry.as_ref().is_some_and(|entry| entry.doubts == 1 && now < entry.due_at + CONFIRM_WITHIN);
    // A watch is about whose picture it is: the full one tells.
    let watched = due.watch.is_some() && due.key.variant == Variant::default();
    warm || watched || wanted || doubted
}

/// At which picture of somebody it is seen whether it changed: one look tells of all, so it goes where it renews a URL that dies
/// soonest. `None` if nobody wants to know any more.
#[must_use]
pub fn looked_at(candidate: &Candidate, now: Timestamp, config: &Config) -> Option<Variant> {
    let watched = candidate.watch.is_some();
    let full = Variant::default();
    let warm = candidate.pictures.iter().filter(|picture| config.is_warm(picture.requested_at, now));
    let wanted =
        candidate.pictures.iter().filter(|picture| watched && picture.variant == full && picture.entry.is_some());
    let dies = |picture: &&Picture| {
        let renewed = picture.entry.as_ref().filter(|entry| matches!(entry.outcome, Outcome::Present(_)));
        // What cannot be renewed comes last.
        let dead_at = renewed.map_or(Timestamp::from_millis(i64::MAX), |entry| entry.dead_at);
        (dead_at, Reverse(picture.requested_at))
    };
    let soonest = warm.chain(wanted).min_by_key(dies).map(|picture| picture.variant);
    soonest.or(watched.then_some(full))
}

/// Of so many deadlines, those that will still be looked at when they come: as many as of those that were sampled. Each with how
/// long it is until then.
#[must_use]
pub fn still_wanted(deadlines: &[Deadline], now: Timestamp, config: &Config) -> Vec<(usize, Duration)> {
    let mut wanted = 0;
    let samples = deadlines.iter().zip(1..).map(|(deadline, sampled)| {
        // Whom nobody asks for until then is not renewed.
        wanted += usize::from(config.is_warm(deadline.requested_at, deadline.due_at));
        (deadline.count * wanted / sampled, deadline.due_at.since(now))
    });
    samples.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Standing;
    use crate::entry::{Entry, Jitter};
    use crate::jid::{Device, Jid, Key};
    use crate::outcome::{Negative, Observation, Reason, Rules, Token};

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: i64 = 86_400;
    const PREVIEW: Variant = Variant { preview: true, community: false };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_000_000 + seconds)
    }

    fn config() -> Config {
        Config { warm_for: HOUR, forget_after: 24 * HOUR, rules: Rules::default() }
    }

    fn entry(outcome: Outcome) -> Entry {
        let seen =
            Observation { variant: Variant::default(), outcome, start: Token(1), started_at: at(0), ended_at: at(0) };
        Entry::after(None, &seen, Standing::Believed { repeats: 0 }, &Rules::default(), Jitter(0.0))
    }

    /// A picture seen at 0, whose URL lives so long.
    fn picture(life: i64) -> Entry {
        let url = format!("https://h/p?oe={:X}", 1_700_000_000 + life);
        entry(Outcome::Present(crate::outcome::Picture::new(&url, "1", "image")))
    }

    fn hidden() -> Entry {
        entry(Outcome::Negative(Negative {
            reason: Reason::Hidden,
            status: 500,
            code: "C".into(),
            message: "m".into(),
        }))
    }

    fn due(entry: Option<Entry>, due_at: Timestamp, requested: Option<i64>) -> Due {
        let key = Key::new(Device::default(), Jid::parse("1").unwrap(), false, false);
        Due { key, entry, due_at, requested_at: requested.map(at), watch: None }
    }

    #[test]
    fn only_what_somebody_asked_for_lately_is_renewed() {
        let entry = picture(DAY);
        let due_at = entry.due_at;
        let due_after = i64::try_from(due_at.since(at(0)).as_secs()).unwrap();
        let asked =
            |ago: i64| is_looked_at(&due(Some(entry.clone()), due_at, Some(due_after - ago)), due_at, &config());
        assert!(asked(10) && !asked(3600));
        assert!(!is_looked_at(&due(Some(entry.clone()), due_at, None), due_at, &config()));
        let watched = Due { watch: Some(HOUR), ..due(Some(entry.clone()), due_at, None) };
        assert!(is_looked_at(&watched, due_at, &config()));
        let preview = Key { variant: PREVIEW, ..watched.key.clone() };
        assert!(!is_looked_at(&Due { key: preview, ..watched }, due_at, &config()));
    }

    #[test]
    fn who_will_not_be_asked_for_any_more_needs_nothing_of_the_budget() {
        let deadline =
            |count, due, asked: Option<i64>| Deadline { count, due_at: at(due), requested_at: asked.map(at) };
        let all = [
            deadline(16, 600, Some(0)),
            deadline(32, 700, None),
            deadline(64, 5000, Some(0)),
            deadline(128, 5000, Some(4000)),
        ];
        let seconds = Duration::from_secs;
        let wanted = [(16, seconds(500)), (16, seconds(600)), (21, seconds(4900)), (64, seconds(4900))];
        assert_eq!(still_wanted(&all, at(100), &config()), wanted);
    }

    #[test]
    fn a_doubted_outcome_is_looked_at_a_second_time_for_anybody() {
        let looked_at = |doubts, now: i64| {
            let mut doubted = picture(DAY);
            (doubted.doubts, doubted.due_at) = (doubts, at(60));
            is_looked_at(&due(Some(doubted), at(60), None), at(now), &config())
        };
        assert!(looked_at(1, 60) && !looked_at(2, 60));
        assert!(!looked_at(1, 60 + DAY), "a day of failures");
    }

    #[test]
    fn a_look_that_the_state_machine_asked_for_is_made_for_anybody() {
        for entry in [Some(picture(DAY)), Some(hidden()), None] {
            assert!(is_looked_at(&due(entry, at(5), None), at(5), &config()));
        }
    }

    fn candidate(pictures: &[(Variant, Option<Entry>, Option<i64>)], watch: Option<Duration>) -> Candidate {
        let pictures = pictures.iter().cloned().map(|(variant, entry, requested)| Picture {
            variant,
            entry,
            requested_at: requested.map(at),
        });
        Candidate { subject: due(None, at(0), None).key.subject, watch, pictures: pictures.collect() }
    }

    #[test]
    fn a_recheck_renews_the_url_that_dies_first_of_those_that_somebody_asks_for() {
        let full = Variant::default();
        let choose = |pictures: &[_], watch| looked_at(&candidate(pictures, watch), at(100), &config());
        let both = [(full, Some(picture(5 * DAY)), Some(90)), (PREVIEW, Some(picture(DAY)), Some(10))];
        assert_eq!(choose(&both, None), Some(PREVIEW));
        let cold = [both[0].clone(), (PREVIEW, Some(picture(DAY)), Some(-4000))];
        assert_eq!(choose(&cold, None), Some(full));
        let nothing = [(full, Some(hidden()), Some(10)), (PREVIEW, Some(hidden()), Some(90))];
        assert_eq!(choose(&nothing, None), Some(PREVIEW), "asked for last");
        assert_eq!(choose(&cold[1..], None), None, "nobody wants to know");
    }

    #[test]
    fn a_watch_is_kept_with_the_full_picture_if_nobody_asks() {
        let watch = Some(HOUR);
        let choose = |pictures: &[_]| looked_at(&candidate(pictures, watch), at(100), &config());
        assert_eq!(choose(&[]), Some(Variant::default()));
        let cold = [(PREVIEW, Some(picture(DAY)), None), (Variant::default(), Some(picture(5 * DAY)), None)];
        assert_eq!(choose(&cold), Some(Variant::default()));
    }
}
