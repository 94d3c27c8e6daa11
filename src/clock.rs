//! Time, read in one place.
//!
//! Two clocks with different duties. The **wall clock** ([`Clock::now`]) is compared with what others wrote down: the expiry
//! inside a URL, a stored record. It may jump in either direction and nothing may break when it does. The **steady clock**
//! ([`Clock::elapsed`], [`Clock::sleep`]) only moves forward and measures waiting: budgets, holds, patience.
//!
//! A manual clock moves both by hand, so that a test lives through weeks in a moment. Nothing else in this crate asks the
//! operating system for the time of day.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// An instant of the wall clock: milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch, as in a URL's `oe`; saturates.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// This instant in RFC 3339, UTC, whole seconds: `2022-02-14T19:01:58Z`.
    ///
    /// An instant outside the years RFC 3339 can write is given as its nearest bound.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let clamped = jiff::Timestamp::from_second(self.0.div_euclid(1000)).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::UNIX_EPOCH
        } else {
            jiff::Timestamp::MAX
        });
        clamped.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Saturates.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(millis(since)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    /// Saturates at the end of time.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    /// Saturates at the beginning of time.
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}ms", self.rfc3339(), self.0.rem_euclid(1000))
    }
}

/// The two clocks, real or manual. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug, Default)]
struct Manual {
    wall_millis: AtomicI64,
    steady_nanos: AtomicU64,
    moved: Notify,
}

/// The steady clock's zero: the first reading in this process.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

impl Clock {
    /// The operating system's clocks.
    #[must_use]
    pub fn system() -> Self {
        origin();
        Self(Kind::System)
    }

    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let manual = Manual { wall_millis: AtomicI64::new(start.0), ..Manual::default() };
        Self(Kind::Manual(Arc::new(manual)))
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => SystemTime::now().into(),
            Kind::Manual(manual) => Timestamp(manual.wall_millis.load(Ordering::SeqCst)),
        }
    }

    /// The steady clock: time passed since an arbitrary origin of this process. Never goes back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Kind::System => origin().elapsed(),
            Kind::Manual(manual) => Duration::from_nanos(manual.steady_nanos.load(Ordering::SeqCst)),
        }
    }

    /// The steady clock, if it is moved by hand: then whoever else has a clock is to go by this one.
    #[must_use]
    pub fn moved_by_hand(&self) -> Option<Duration> {
        matches!(self.0, Kind::Manual(_)).then(|| self.elapsed())
    }

    /// Waits until the steady clock has moved on by `duration`.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::System => tokio::time::sleep(duration).await,
            Kind::Manual(manual) => {
                let until = self.elapsed().saturating_add(duration);
                loop {
                    let moved = manual.moved.notified();
                    tokio::pin!(moved);
                    moved.as_mut().enable();
                    if self.elapsed() >= until {
                        return;
                    }
                    moved.await;
                }
            }
        }
    }

    /// Moves a manual clock forward: time passes.
    ///
    /// # Panics
    /// On the system clock.
    pub fn advance(&self, by: Duration) {
        let manual = self.by_hand();
        manual.wall_millis.fetch_add(millis(by), Ordering::SeqCst);
        manual.steady_nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        manual.moved.notify_waiters();
    }

    /// Sets a manual clock's wall time, forward or back, while no steady time passes: somebody set the clock.
    ///
    /// # Panics
    /// On the system clock.
    pub fn jump(&self, to: Timestamp) {
        let manual = self.by_hand();
        manual.wall_millis.store(to.0, Ordering::SeqCst);
        manual.moved.notify_waiters();
    }

    fn by_hand(&self) -> &Manual {
        match &self.0 {
            Kind::Manual(manual) => manual,
            Kind::System => panic!("only a manual clock can be moved"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_rfc_3339() {
        assert_eq!(Timestamp::from_seconds(0x620A_A726).rfc3339(), "2022-02-14T19:01:58Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).rfc3339().len(), 20);
        assert_eq!(Timestamp::from_millis(i64::MIN).rfc3339(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Timestamp::from_millis(5).since(end), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_manual_sleeper_wakes_when_time_has_passed_not_when_the_wall_jumps() {
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        clock.jump(Timestamp::from_seconds(9_000));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(10));
        sleeper.await.unwrap();
    }
}
