//! Hears of what other replicas append to the log, and of their flights that ended, the moment it is there.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::link::{ANSWER, Wire};
use super::reply::{Fields, bytes, unreadable};
use super::scripts::Arguments;
use crate::outcome::Token;
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

/// Tells the log's end whenever it moves, and flights when they end, until something fails.
async fn listen(shared: &Shared) -> Result<(), StoreError> {
    let mut wire = shared.link.connect(WAIT + ANSWER).await?;
    // Who waits for one that ended before this asks again now and then.
    let mut landed = last_landed(shared, &mut wire).await?;
    loop {
        let mut answer = Fields::of(shared.run(&shared.scripts.tip, &Arguments::default()).await?)?;
        let (epoch, last, event) = (answer.text()?, answer.number()?, answer.text()?);
        let is_known = shared.seen().epoch == epoch;
        if is_known {
            shared.reaches(last, &event);
        } else {
            // Somebody else has begun another log: it must reach beyond what was seen of the old one.
            shared.begin().await?;
            landed = last_landed(shared, &mut wire).await?;
        }
        while wait(shared, &mut wire, last, &mut landed).await? == News::Flights {}
    }
}

/// What there was to hear.
#[derive(PartialEq)]
enum News {
    /// Flights ended, and the log has not moved.
    Flights,
    /// The log has moved, or it is time to see whether it is still there.
    Log,
}

/// Until the log reaches behind `last`, or flights ended behind `landed`, or for [`WAIT`].
async fn wait(shared: &Shared, wire: &mut Wire, last: u64, landed: &mut String) -> Result<News, StoreError> {
    let address = &shared.link.address;
    let mut read = redis::cmd("XREAD");
    read.arg("BLOCK").arg(WAIT_MILLIS).arg("COUNT").arg(100);
    read.arg("STREAMS").arg(address.landed()).arg(address.log()).arg(&**landed).arg(format!("{last}-0"));
    let streams = match wire.send(&read).await? {
        Value::Nil => return Ok(News::Log),
        streams => Fields::of(streams)?,
    };
    let mut news = News::Flights;
    for stream in streams {
        let mut stream = Fields::of(stream)?;
        if stream.text()? != address.landed() {
            news = News::Log;
            continue;
        }
        for entry in stream.list()? {
            let mut entry = Fields::of(entry)?;
            *landed = entry.text()?;
            let flight = entry.list()?.last().map(bytes).transpose()?.unwrap_or_default();
            let flight = str::from_utf8(&flight).ok().and_then(|name| name.parse().ok());
            shared.landings.ended(Token(flight.ok_or_else(|| unreadable("flight"))?));
        }
    }
    Ok(news)
}

/// Where the flights that ended end.
async fn last_landed(shared: &Shared, wire: &mut Wire) -> Result<String, StoreError> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(shared.link.address.landed()).arg("+").arg("-").arg("COUNT").arg(1);
    let mut entries = Fields::of(wire.send(&last).await?)?;
    match entries.next() {
        Some(entry) => Fields::of(entry)?.text(),
        None => Ok("0-0".to_owned()),
    }
}
