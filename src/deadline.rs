//! Deadlines that count only time in which this process ran.
//!
//! A process that was stopped, or its whole machine, has not waited meanwhile: what it waits for may have come long since and not be
//! read yet. So what has not come by its deadline is given some time more: as much as this process overslept.

use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

/// As long as it takes at the least to read what has come: nobody knows how much of the limit this process stood still.
const GRACE: Duration = Duration::from_millis(200);

/// Does this, and waits for it no longer than `limit` and then as long as this process overslept: 200 ms at the least, and `limit`
/// at the most.
///
/// # Errors
/// When it takes longer. Then it is given up.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::pin!(work);
    let due = Instant::now() + limit;
    match timeout_at(due, &mut work).await {
        Err(_) => timeout(due.elapsed().max(GRACE).min(limit), &mut work).await,
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// Whether something that takes so long (ms) ends in time, if this process stands still for so long (ms) from its beginning.
    async fn ends(takes: u64, stands_still: u64) -> bool {
        let work = tokio::time::sleep(Duration::from_millis(takes));
        let waiting = tokio::spawn(async move { within(LIMIT, work).await.is_ok() });
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(stands_still)).await;
        waiting.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_has_ended_and_what_does_not_is_given_up() {
        assert!(ends(1999, 0).await && ends(2199, 0).await);
        assert!(!ends(2201, 0).await);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nothing_ran_does_not_count() {
        assert!(ends(2100, 2050).await, "it may be read yet");
        assert!(ends(3900, 3000).await && !ends(4100, 3000).await);
        assert!(ends(10_900, 9000).await && !ends(11_100, 9000).await, "it waits no longer than the limit");
    }
}
