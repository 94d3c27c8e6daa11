//! `GET /events`: the change log as Server-Sent Events (HTML, section 9.2).
//!
//! The rules kept here:
//! * `id` is the cursor: whoever comes back with the last one it saw, in whatever way it was cut off, misses nothing.
//! * Nothing but events ends a block. Some readers take any empty line for an event of its own, so the comments that keep the
//!   connection alive are lines without one, and `retry` stands in front of the first event.
//! * A reader that begins with what is recorded from now on is told where that is, in the header `Last-Event-ID`. A browser's
//!   `EventSource` cannot see headers; it is told in a block with nothing but an `id`, which by the standard is no event.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Edge;
use super::body::Body;
use super::facts::Facts;
use super::listing::Wanted;
use super::query::Invalid;
use super::reply::{self, Problem, Reply};
use super::watchdog::UnderWay;
use crate::events::Reader;

/// How often a comment is sent, so that nobody between takes the connection for dead.
const COMMENT_PACE: Duration = Duration::from_secs(15);

/// A line that means nothing, and ends nothing.
const COMMENT: &[u8] = b":\n";

/// How long a reader that was cut off should wait before it comes back (ms).
const RETRY: &str = "retry: 3000\n";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Only browsers send it, and no page can forge it.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Asks nginx, and those that read what it reads, to pass on what comes as it comes.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl Edge {
    /// `GET /events`.
    pub(super) async fn stream(&self, parts: &Parts, facts: &Facts<'_>, under_way: UnderWay) -> Result<Reply, Problem> {
        let headers = &parts.headers;
        let wanted = Wanted::read(parts.uri.query().unwrap_or_default())?;
        let header = headers.get(LAST_EVENT_ID).map(HeaderValue::to_str).transpose();
        let header = header.map_err(|_| Invalid::of("Last-Event-ID", "is not a cursor."))?;
        let start = wanted.stream_start(header)?;
        let filter = wanted.filter(facts, &self.default_device)?;
        let reader = self.events.read(start, filter).await?;
        let cursor = reader.cursor().to_string();
        let mut first = RETRY.to_owned();
        if headers.contains_key(SEC_FETCH_MODE) {
            first = format!("{first}id: {cursor}\n\n");
        }
        let body = match parts.method {
            Method::HEAD => Body::from(""),
            _ => body(reader, first, self.events.stop(), under_way),
        };
        let mut reply = reply::event_stream(body);
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        reply.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        if let Ok(cursor) = HeaderValue::from_maybe_shared(Bytes::from(cursor)) {
            reply.headers_mut().insert(LAST_EVENT_ID, cursor);
        }
        Ok(reply)
    }
}

struct Sender {
    reader: Reader,
    comments: Interval,
    first: Option<Bytes>,
    stop: CancellationToken,
    /// quiet as it may be
    _under_way: UnderWay,
}

fn body(reader: Reader, first: String, stop: &CancellationToken, under_way: UnderWay) -> Body {
    let mut comments = tokio::time::interval_at(Instant::now() + COMMENT_PACE, COMMENT_PACE);
    comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sender = Sender { reader, comments, first: Some(first.into()), stop: stop.clone(), _under_way: under_way };
    Body::Stream(Box::pin(stream::unfold(sender, |mut sender| async {
        if let Some(first) = sender.first.take() {
            return Some((first, sender));
        }
        let bytes = tokio::select! {
            () = sender.stop.cancelled() => return None,
            events = sender.reader.next() => match &events[..] {
                [one] => one.block.clone(),
                several => several.iter().flat_map(|event| event.block.iter().copied()).collect(),
            },
            _ = sender.comments.tick() => Bytes::from_static(COMMENT),
        };
        Some((bytes, sender))
    })))
}
