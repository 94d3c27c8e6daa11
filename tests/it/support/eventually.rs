//! Waiting for what must come, without guessing how long it takes.

use std::time::Duration;

/// Polls until `condition` holds; panics after 20 s.
#[track_caller]
pub(crate) fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) -> impl Future<Output = ()> {
    let what = what.to_owned();
    let caller = std::panic::Location::caller();
    async move {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !condition().await {
            assert!(tokio::time::Instant::now() < deadline, "never happened: {what} ({caller})");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
