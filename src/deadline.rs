//! Deadlines that count only time in which this process ran.
//!
//! A process that was stopped, or its whole machine, has not waited meanwhile: what it waits for may have come long since and not be
//! read yet. So a deadline at which it overslept is set once more.

use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// So late no timer is that a running process has set, however busy it is.
const STOOD_STILL: Duration = Duration::from_millis(500);

/// Does this, and waits for it no longer than `limit`; twice as long, and the time in which it stood still, where this process
/// stood still at the end of that.
///
/// # Errors
/// When it takes longer. Then it is given up.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::pin!(work);
    let due = Instant::now() + limit;
    match timeout_at(due, &mut work).await {
        Err(_) if due.elapsed() >= STOOD_STILL => timeout_at(Instant::now() + limit, &mut work).await,
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    async fn sleep(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_has_ended_and_what_does_not_is_given_up() {
        let began = Instant::now();
        assert!(within(LIMIT, sleep(1999)).await.is_ok());
        assert!(within(LIMIT, sleep(2001)).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_millis(3999));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nothing_ran_does_not_count() {
        let stands_still = async |millis: u64, work: Duration| {
            let waiting = tokio::spawn(async move { within(LIMIT, tokio::time::sleep(work)).await.is_ok() });
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_millis(millis)).await;
            waiting.await.unwrap()
        };
        assert!(!stands_still(2400, Duration::from_millis(3000)).await, "it was only busy");
        assert!(stands_still(9000, Duration::from_millis(10_900)).await);
        assert!(!stands_still(9000, Duration::from_millis(11_100)).await, "it waits no longer than that");
    }
}
