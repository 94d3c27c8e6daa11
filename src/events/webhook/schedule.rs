//! When a delivery that failed is tried again: a table, and nothing of the world but the instants that are passed in.
//!
//! The first attempt is made at once. After the pauses of the table come equal ones, and the last attempt of all is made
//! [`GIVE_UP`] after the first; one that would come shortly before it is left out, so that there are ten. Jitter only lengthens a
//! pause, so that nobody is tried sooner than the table says, and a receiver that asks for more time (`Retry-After`) has it, up to
//! a day.

use std::time::Duration;

use crate::clock::Timestamp;

/// The pauses after the first attempts that failed.
pub(super) const PAUSES: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
];

/// Every pause after those.
const LATER: Duration = Duration::from_secs(14 * 3600);

/// How long after the first attempt the last one is made.
pub(super) const GIVE_UP: Duration = Duration::from_secs(72 * 3600);

/// How long a receiver may have itself left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// The share by which jitter lengthens a pause at the most.
const JITTER: f64 = 0.1;

/// Nothing is ever put off for longer than this. Whatever seems to be was put off before somebody set the clock back.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 3600);

/// The pause after so many failures in a row. `jitter` is a random number from 0 to 1.
pub(super) fn pause(failures: u32, jitter: f64) -> Duration {
    let place = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    PAUSES.get(place).copied().unwrap_or(LATER).mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0))
}

/// What a receiver asked for, within bounds.
pub(super) fn patience(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)
}

/// When to try again what has failed `attempts` times, the first time at `first_at` and just now; `None`: no more.
pub(super) fn again(
    attempts: u32,
    first_at: Timestamp,
    now: Timestamp,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Option<Timestamp> {
    let last = first_at + GIVE_UP;
    let by_table = Some(now + pause(attempts, jitter)).filter(|next| *next + LATER <= last).unwrap_or(last);
    (now < last).then(|| by_table.max(now + patience(retry_after)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_seconds(1_700_000_000);

    /// The instants of all attempts of what never succeeds, in seconds after the first.
    fn attempts(jitter: f64) -> Vec<u64> {
        let (mut now, mut all) = (START, vec![0]);
        while let Some(next) = again(u32::try_from(all.len()).unwrap(), START, now, None, jitter) {
            all.push(next.since(START).as_secs());
            now = next;
        }
        all
    }

    #[test]
    fn three_days_of_attempts_are_these() {
        let (minutes, hours) = (60, 3600);
        let table = [
            0,
            5,
            5 + 5 * minutes,
            5 + 35 * minutes,
            5 + 35 * minutes + 2 * hours,
            5 + 35 * minutes + 7 * hours,
            5 + 35 * minutes + 17 * hours,
            5 + 35 * minutes + 31 * hours,
            5 + 35 * minutes + 45 * hours,
            72 * hours,
        ];
        assert_eq!((attempts(0.0), table.len()), (table.to_vec(), 10));
    }

    #[test]
    fn whoever_asks_for_time_has_it_up_to_a_day() {
        let asked = |seconds| again(1, START, START, Some(Duration::from_secs(seconds)), 0.0).unwrap().since(START);
        assert_eq!(asked(2), PAUSES[0], "never sooner than the table says");
        assert_eq!(asked(600), Duration::from_secs(600));
        assert_eq!(asked(u64::MAX), RETRY_AFTER_MAX);
        let late = START + GIVE_UP - Duration::from_secs(1);
        let after = again(10, START, late, Some(Duration::from_secs(600)), 0.0).unwrap();
        assert_eq!(after, late + Duration::from_secs(600), "the last attempt waits as well");
        assert_eq!(again(11, START, after, None, 0.0), None);
    }

    proptest! {
        #[test]
        fn whatever_the_jitter_there_are_ten_attempts(jitter in 0.0..1.0f64) {
            let all = attempts(jitter);
            prop_assert_eq!((all.len(), all[9]), (10, GIVE_UP.as_secs()));
        }

        #[test]
        fn a_pause_is_that_of_the_table_or_a_little_longer(failures in 1..40u32, jitter in 0.0..1.0f64) {
            let (plain, with) = (pause(failures, 0.0), pause(failures, jitter));
            prop_assert!(with >= plain && with <= plain.mul_f64(1.0 + JITTER));
            prop_assert!(with < LONGEST);
        }

        #[test]
        fn an_attempt_comes_after_the_one_before_and_not_too_late(
            attempts in 1..40u32, since in 0..400_000u64, asked in proptest::option::of(0..200_000u64), jitter in 0.0..1.0f64,
        ) {
            let now = START + Duration::from_secs(since);
            match again(attempts, START, now, asked.map(Duration::from_secs), jitter) {
                Some(next) => prop_assert!(next > now && next < now + LONGEST),
                None => prop_assert!(now >= START + GIVE_UP),
            }
        }
    }
}
