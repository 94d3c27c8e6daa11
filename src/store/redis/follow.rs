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
        let mut landed = Place::default();
        loop {
            // Whatever fails here fails for others too, who say so.
            if let Err(error) = listen(&shared, &mut landed).await {
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

/// Tells the log's end whenever it moves, and flights behind `landed` when they end, until something fails.
async fn listen(shared: &Shared, landed: &mut Place) -> Result<(), StoreError> {
    let mut wire = shared.link.connect(WAIT + ANSWER).await?;
    loop {
        // Another server may have less.
        *landed = last_landed(shared, &mut wire).await?.min(*landed);
        follow_one(shared, &mut wire, landed).await?;
    }
}

/// The same, until somebody else has begun another log.
async fn follow_one(shared: &Shared, wire: &mut Wire, landed: &mut Place) -> Result<(), StoreError> {
    loop {
        let mut answer = Fields::of(shared.run(&shared.scripts.tip, &Arguments::default()).await?)?;
        let (epoch, last, event) = (answer.text()?, answer.number()?, answer.text()?);
        let is_known = shared.seen().epoch == epoch;
        if is_known {
            shared.reaches(last, &event);
        } else {
            // It must reach beyond what was seen of the old one.
            return shared.begin().await;
        }
        while wait(shared, wire, last, landed).await? == News::Flights {}
    }
}

/// The place of an entry in a stream: milliseconds, and which one of these.
type Place = (u64, u64);

fn place(text: &str) -> Result<Place, StoreError> {
    let parts = text.split_once('-').and_then(|(millis, which)| Some((millis.parse().ok()?, which.parse().ok()?)));
    parts.ok_or_else(|| unreadable("place in a stream"))
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
async fn wait(shared: &Shared, wire: &mut Wire, last: u64, landed: &mut Place) -> Result<News, StoreError> {
    let address = &shared.link.address;
    let mut read = redis::cmd("XREAD");
    read.arg("BLOCK").arg(WAIT_MILLIS).arg("COUNT").arg(100);
    read.arg("STREAMS")
        .arg(address.landed())
        .arg(address.log())
        .arg(format!("{}-{}", landed.0, landed.1))
        .arg(format!("{last}-0"));
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
            *landed = place(&entry.text()?)?;
            let flight = entry.list()?.last().map(bytes).transpose()?.unwrap_or_default();
            let flight = str::from_utf8(&flight).ok().and_then(|name| name.parse().ok());
            shared.landings.ended(Token(flight.ok_or_else(|| unreadable("flight"))?));
        }
    }
    Ok(news)
}

/// Where the flights that ended end.
async fn last_landed(shared: &Shared, wire: &mut Wire) -> Result<Place, StoreError> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(shared.link.address.landed()).arg("+").arg("-").arg("COUNT").arg(1);
    let mut entries = Fields::of(wire.send(&last).await?)?;
    match entries.next() {
        Some(entry) => place(&Fields::of(entry)?.text()?),
        None => Ok(Place::default()),
    }
}
