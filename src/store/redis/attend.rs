//! Says every second that this replica is there, and takes back what those have in hand that are not any more.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::scripts::Arguments;

/// How often. Who is not heard of for five times as long is absent.
const PACE: Duration = Duration::from_secs(1);

/// Goes on until it is stopped.
pub(super) async fn attend(shared: Arc<Shared>, stop: CancellationToken) {
    let attending = async {
        loop {
            let next = shared.clock.elapsed() + PACE;
            let arguments = Arguments::default().with(shared.replica).time(shared.clock.now()).clock(&shared.clock);
            // Whatever fails here fails for others too, who say so.
            if let Err(error) = shared.run(&shared.scripts.attend, &arguments).await {
                tracing::debug!(%error, "the other replicas cannot be told that this one is there");
            }
            shared.clock.sleep(next.saturating_sub(shared.clock.elapsed())).await;
        }
    };
    tokio::select! {
        () = attending => {}
        () = stop.cancelled() => {}
    }
}
