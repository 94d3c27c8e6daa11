//! Bodies: what is answered, whole or as an endless stream, and the little JSON that is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_core::Stream;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use serde::de::DeserializeOwned;

use super::query::Invalid;
use super::reply::Problem;
use super::watchdog::Watchdog;

/// The body of a reply.
pub(super) enum Body {
    /// It is all there.
    Whole(Full<Bytes>),
    /// It goes on until one side ends it.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Stream(stream) => stream.as_mut().poll_next(context).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The longest body that is read (bytes).
const LENGTH_MAX: usize = 64 * 1024;

/// How long a client may take to send one.
const TIME_MAX: Duration = Duration::from_secs(15);

/// The body of a request, as far as the client sends it.
pub(super) struct Upload {
    body: Incoming,
    watchdog: Arc<Watchdog>,
}

impl Upload {
    pub(super) fn new(body: Incoming, watchdog: Arc<Watchdog>) -> Self {
        Self { body, watchdog }
    }

    /// Reads it, `length_max` bytes at the most.
    pub(super) async fn bytes(self, length_max: usize) -> Result<Bytes, Problem> {
        let read = tokio::select! {
            biased;
            read = Limited::new(self.body, length_max).collect() => read,
            // Behind the end of what a client sends there is no rest of a body, and hyper is not told of that end.
            () = self.watchdog.half_closed() => return Err(cut_off()),
            () = tokio::time::sleep(TIME_MAX) => return Err(Problem::BodyLate),
        };
        match read {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Problem::BodyTooLong(length_max)),
            Err(_) => Err(cut_off()),
        }
    }

    /// Reads it as JSON.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let bytes = self.bytes(LENGTH_MAX).await?;
        serde_json::from_reader(bytes.reader()).map_err(|error| Invalid(format!("the body: {error}.").into()).into())
    }
}

fn cut_off() -> Problem {
    Invalid("the body was cut off.".into()).into()
}
