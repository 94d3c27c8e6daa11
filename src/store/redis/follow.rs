//! Hears of what other replicas append to the log, the moment it is there.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::link::{ANSWER, Wire};
use super::reply::Fields;
use super::scripts::Arguments;
use crate::store::StoreError;

/// How long the server is asked to wait for something new. So long at the most it may take until it is noticed that the log is
/// another one.
const WAIT: Duration = Duration::from_millis(WAIT_MILLIS);

/// The same, as it is asked for.
const WAIT_MILLIS: u64 = 1000;

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// Follows the log until it is stopped. It waits on a connection of its own, because who waits at the server keeps those who come
/// after from being answered.
pub(super) async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let following = async {
        loop {
            // Whatever fails here fails for others too, who say so.
            if let Err(error) = listen(&shared).await {
                tracing::debug!(%error, "the log cannot be followed");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
}

/// Tells the log's end whenever it moves, until something fails.
async fn listen(shared: &Shared) -> Result<(), StoreError> {
    let mut wire = shared.link.connect(WAIT + ANSWER).await?;
    loop {
        let mut answer = Fields::of(shared.run(&shared.scripts.tip, &Arguments::default()).await?)?;
        let (epoch, last, event) = (answer.text()?, answer.number()?, answer.text()?);
        let is_known = shared.seen().epoch == epoch;
        if is_known {
            shared.reaches(last, &event);
        } else {
            // Somebody else has begun another log: it must reach beyond what was seen of the old one.
            shared.begin().await?;
        }
        wait(shared, &mut wire, last).await?;
    }
}

/// Until there is something behind `last`, or for [`WAIT`].
async fn wait(shared: &Shared, wire: &mut Wire, last: u64) -> Result<(), StoreError> {
    let mut read = redis::cmd("XREAD");
    read.arg("BLOCK").arg(WAIT_MILLIS).arg("COUNT").arg(1);
    read.arg("STREAMS").arg(shared.link.address.log()).arg(format!("{last}-0"));
    let _: Value = wire.send(&read).await?;
    Ok(())
}
