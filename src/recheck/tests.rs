use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::activity::{Activity, Boost};
use super::forecast::Forecast;
use super::rate::{Evidence, Prior};
use super::turn::{self, Turn};
use super::{Lessons, Look, Outlook};
use crate::clock::Timestamp;

const DAY: f64 = 86_400_000.0;

#[allow(clippy::cast_possible_truncation)] // days
fn at(days: f64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + (days * DAY) as i64)
}

fn evidence(looks: impl IntoIterator<Item = (f64, bool)>) -> Evidence {
    let mut evidence = Evidence::default();
    for (days, changed) in looks {
        evidence.looked(days, changed);
    }
    evidence
}

#[test]
fn who_changed_is_taken_to_change_oftener_and_who_did_not_ever_less_often() {
    let prior = Prior::default();
    let nothing = prior.rate(&Evidence::default());
    let quiet = |looks| prior.rate(&evidence(vec![(2.0, false); looks]));
    assert!(quiet(1) < nothing && quiet(30) < quiet(1) && quiet(200) < quiet(30));
    let often = prior.rate(&evidence([(2.0, true), (5.0, false), (2.0, true), (4.0, true)]));
    assert!((1.0 / 12.0..1.0 / 2.0).contains(&often), "every {} days", 1.0 / often);
}

#[test]
fn a_history_fades_because_people_change() {
    let prior = Prior::default();
    let changed = evidence([(2.0, true), (2.0, true), (2.0, true)]);
    let mut later = changed;
    later.looked(540.0, false);
    let fresh = evidence([(2.0, true), (2.0, true), (2.0, true), (0.0, false)]);
    assert!(prior.rate(&later) < prior.rate(&fresh) / 10.0);
}

/// Groups of people, and what was learnt of them in half a year of looks one to four days apart; with everybody's true rate.
fn installation(groups: [(usize, f64); 3]) -> (Lessons, Vec<(f64, Outlook)>) {
    let (mut rng, mut lessons) = (Rng::with_seed(7), Lessons::default());
    let rates = groups.iter().flat_map(|(count, rate)| vec![*rate; *count]);
    let mut people: Vec<_> = rates.map(|rate| (rate, lessons.met(0.0, at(0.0), 1.0, rng.f64()))).collect();
    for day in 1..180 {
        let virtual_now = f64::from(day) * 3.0;
        for (index, (rate, subject)) in people.iter_mut().enumerate() {
            let wait = 1 + index % 4;
            if usize::try_from(day).is_ok_and(|day| day % wait == 0) {
                #[allow(clippy::cast_precision_loss)] // four
                let changed = rng.f64() < 1.0 - (-*rate * wait as f64).exp();
                let look = Look { changed, at: at(f64::from(day)), virtual_now };
                let before = std::mem::replace(subject, lessons.looked(subject, look, 1.0, rng.f64()));
                lessons.learn(&before, look);
            }
        }
    }
    (lessons, people)
}

#[test]
fn estimates_are_right_on_average_in_a_world_that_the_prior_did_not_know() {
    let (lessons, people) = installation([(100, 0.2), (300, 0.02), (1600, 0.002)]);
    let estimate = |subject: &Outlook| lessons.prior.rate(&subject.evidence);
    let (truth, taken) =
        people.iter().fold((0.0, 0.0), |(truth, taken), (rate, one)| (truth + rate, taken + estimate(one)));
    assert!((taken / truth).ln().abs() < 0.15, "{truth} changes a day are taken for {taken}");
    #[allow(clippy::cast_precision_loss)] // a few
    let of_group =
        |group: &[(f64, Outlook)]| group.iter().map(|(_, one)| estimate(one)).sum::<f64>() / group.len() as f64;
    let [often, now_and_then, seldom] = [&people[..100], &people[100..400], &people[400..]].map(of_group);
    assert!(often > now_and_then * 5.0 && now_and_then > seldom * 3.0, "{often}, {now_and_then}, {seldom}");
}

#[test]
fn who_is_new_is_taken_for_what_the_others_were_found_to_be() {
    let newcomer = |lessons: &Lessons| lessons.prior.rate(&Evidence::default());
    let nobody_known = newcomer(&Lessons::default());
    let (among_the_restless, _) = installation([(100, 0.2), (100, 0.1), (100, 0.1)]);
    let (among_the_quiet, _) = installation([(100, 0.0), (100, 0.0), (100, 0.0005)]);
    assert!(newcomer(&among_the_restless) > nobody_known * 2.0);
    assert!(newcomer(&among_the_quiet) < nobody_known / 2.0);
}

#[test]
fn activity_that_says_nothing_is_worth_nothing() {
    let mut boost = Boost::default();
    let heard = Activity { covered: 1.0, heard_at: None };
    for look in 0..20_000 {
        // One in twenty changed, whoever was active.
        boost.learn(0.02, 2.5, &if look % 2 == 0 { heard } else { Activity::default() }, look % 40 < 2);
    }
    assert!(boost.worth() < 0.1, "{boost:?} is worth {}", boost.worth());
}

#[test]
fn activity_is_worth_as_many_days_as_it_was_found_to_be() {
    let mut boost = Boost::default();
    let heard = Activity { covered: 1.0, heard_at: None };
    for look in 0..20_000 {
        // Of four days, the covered one counts four times: seven days' worth of changes at a fiftieth a day.
        boost.learn(0.02, 4.0, &heard, look % 50 < 7);
        boost.learn(0.02, 4.0, &Activity::default(), look % 50 < 4);
    }
    assert!((boost.worth() - 3.0).abs() < 0.1, "{boost:?} is worth {}", boost.worth());
}

#[test]
fn whoever_was_active_comes_up_sooner_once_for_each_covered_day() {
    let mut lessons = Lessons::default();
    let heard = Activity { covered: 1.0, heard_at: None };
    for _ in 0..5_000 {
        lessons.boost.learn(0.05, 4.0, &heard, true);
        lessons.boost.learn(0.05, 4.0, &Activity::default(), false);
    }
    let subject = lessons.met(0.0, at(0.0), 1.0, 1.0);
    let hour = Duration::from_secs(3600);
    let once = lessons.active(&subject, 10.0, at(2.0), 6 * hour).unwrap();
    // One day of the two that it has waited is covered, and they took ten of virtual time.
    let moved = lessons.boost.worth() * 10.0 / 2.0;
    assert!(moved > 1.0 && (subject.turn.rank - once.turn.rank - moved).abs() < 1e-9);
    let again = lessons.active(&once, 10.0, at(2.0), Duration::ZERO).unwrap();
    assert!((again.turn.rank - once.turn.rank).abs() < 1e-9, "the same day counts once");
    assert_eq!(lessons.active(&once, 10.0, at(2.2), 6 * hour), None, "heard of within the interval");
    let look = Look { changed: false, at: at(2.1), virtual_now: 10.0 };
    let looked = lessons.looked(&once, look, 1.0, 0.5);
    assert_eq!(lessons.active(&looked, 10.0, at(2.2), 6 * hour), None, "also if there was a look since");
    assert!(lessons.active(&looked, 10.0, at(2.3), 6 * hour).is_some());
}

#[test]
fn a_backlog_is_foreseen_before_anything_has_expired() {
    let hour = Duration::from_secs(3600);
    let thousand_in_an_hour = [(16, hour / 2), (1024, hour)];
    let forecast = Forecast::new(thousand_in_an_hour, 1000, 6 * hour, 0.1);
    assert!((forecast.deadlines.max(forecast.rechecks) - 1024.0 / 3600.0).abs() < 1e-9);
    assert_eq!(forecast.pressing, hour, "all of them, and nothing that comes later");
    assert_eq!(Forecast::new(thousand_in_an_hour, 1000, 6 * hour, 1.0).pressing, Duration::ZERO);
}

#[test]
fn with_budget_enough_everybody_is_looked_at_at_the_interval_and_no_sooner() {
    let interval = Duration::from_secs(6 * 3600);
    let enough = Forecast::new([], 21_600, interval, 1.0);
    assert_eq!(enough.soonest(interval), interval);
    let scarce = Forecast::new([], 21_601, interval, 1.0);
    assert_eq!(scarce.soonest(interval), interval / 8);
}

#[test]
fn what_was_learnt_is_kept() {
    let (lessons, people) = installation([(10, 0.2), (10, 0.02), (10, 0.002)]);
    let kept = Lessons::decode(&lessons.encode()).unwrap();
    assert_eq!(kept.encode(), lessons.encode());
    let (before, after) = (lessons.prior.rate(&people[0].1.evidence), kept.prior.rate(&people[0].1.evidence));
    assert!((before / after).ln().abs() < 0.01, "{before}, {after}");
    assert!(Lessons::decode(&lessons.encode()[1..]).is_err());
    let outlook = lessons.active(&people[0].1, 600.0, at(190.0), Duration::ZERO).unwrap();
    assert_eq!(Outlook::decode(&outlook.encode()).unwrap(), outlook);
}

#[test]
fn what_was_learnt_over_another_grid_is_not_used() {
    let record = super::LessonsRecord {
        format: super::LESSONS_FORMAT,
        prior: super::rate::PriorRecord { learnt: vec![1.0; 3], served: (5.0, 5.0), faded_at: None },
        boost: Boost::default(),
    };
    assert_eq!(Lessons::decode(&crate::record::write(&record)).unwrap(), Lessons::default());
}

/// Serves people by rank for so many rounds; when everybody was looked at.
fn serve(weights: &[f64], rounds: usize) -> Vec<Vec<usize>> {
    let mut rng = Rng::with_seed(3);
    let mut queue: BTreeSet<(u64, usize)> = BTreeSet::new();
    for (person, weight) in weights.iter().enumerate() {
        queue.insert((Turn::first(0.0, *weight, rng.f64()).rank.to_bits(), person));
    }
    let mut looks = vec![vec![]; weights.len()];
    for round in 0..rounds * weights.len() {
        let (rank, person) = queue.pop_first().unwrap();
        looks[person].push(round);
        let turn = Turn::next(f64::from_bits(rank), weights[person], rng.f64());
        queue.insert((turn.rank.to_bits(), person));
    }
    looks
}

proptest! {
    #[test]
    fn a_rate_is_always_one_that_somebody_could_have(looks in prop::collection::vec((0.0f64..4000.0, any::<bool>()), 0..60)) {
        let rate = Prior::default().rate(&evidence(looks));
        prop_assert!((1.0 / 2000.0..=1.0).contains(&rate), "{rate}");
    }

    #[test]
    fn finding_a_change_never_lowers_a_rate_beside_finding_none(
        looks in prop::collection::vec((0.01f64..100.0, any::<bool>()), 0..30),
        days in 0.01f64..100.0,
    ) {
        let prior = Prior::default();
        let ending = |changed| prior.rate(&evidence(looks.iter().copied().chain([(days, changed)])));
        prop_assert!(ending(true) >= ending(false) * 0.999);
    }

    /// The fair queue's promise: looks in proportion to the weights, whatever they are.
    #[test]
    fn everybody_gets_the_share_that_the_weight_says(rates in prop::collection::vec(0.0005f64..1.0, 5..40)) {
        let weights: Vec<f64> = rates.iter().map(|rate| rate.sqrt()).collect();
        let looks = serve(&weights, 200);
        let all: f64 = weights.iter().sum();
        for (weight, looks) in weights.iter().zip(&looks) {
            #[allow(clippy::cast_precision_loss)] // a few
            let (made, due) = (looks.len() as f64, weight / all * 200.0 * weights.len() as f64);
            prop_assert!((made - due).abs() <= 2.0 + 0.06 * due, "{made} looks, {due} due");
        }
    }

    /// The bound: nobody waits longer than so many times what all would if they were looked at equally often.
    #[test]
    fn nobody_waits_longer_than_the_bound(rates in prop::collection::vec(0.0005f64..1.0, 5..40)) {
        #[allow(clippy::cast_precision_loss)] // a few
        let mean = |weights: &[f64]| weights.iter().sum::<f64>() / weights.len() as f64;
        // As learnt: the mean is of the weights by which people are really served, and these follow from it.
        let mut weights: Vec<f64> = rates.iter().map(|rate| rate.sqrt()).collect();
        for _ in 0..20 {
            let present = mean(&weights);
            weights = rates.iter().map(|rate| turn::weight(*rate, present)).collect();
        }
        let longest = serve(&weights, 60).iter().flat_map(|looks| looks.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()).max();
        #[allow(clippy::cast_precision_loss)] // a few
        let (longest, round) = (longest.unwrap_or_default() as f64, weights.len() as f64);
        prop_assert!(longest <= turn::LONGEST * round * 1.15 + round, "{longest} in rounds of {round}");
    }

    #[test]
    fn no_more_is_covered_than_was_waited(hours in prop::collection::vec(0.0f64..60.0, 0..20)) {
        let (mut activity, mut now, mut covered) = (Activity::default(), 0.0, 0.0);
        for pause in hours {
            now += pause / 24.0;
            covered += activity.heard(at(0.0), at(now));
            prop_assert!(covered <= now + 1e-6 && activity.covered <= now + 1e-6);
        }
    }

    #[test]
    fn no_stored_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Lessons::decode(&bytes);
        let _ = Outlook::decode(&bytes);
    }
}
