//! A client's stream, as HTTP sees it: what is read and written is noted, and little is changed on the way.
//!
//! Two things are: the end of what a client sends is kept from hyper while an answer is owed, because hyper would give the request
//! up; and refusals get a body (`refusal.rs`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Phase, State, Watchdog};
use crate::http::refusal::Refusal;

/// A client's stream, as HTTP sees it, under watchdog.
pub(in crate::http) struct Guarded<S> {
    stream: S,
    watchdog: Arc<Watchdog>,
    refusal: Option<Refusal>,
}

impl<S> Guarded<S> {
    pub(in crate::http) fn new(stream: S, watchdog: Arc<Watchdog>) -> Self {
        Self { stream, watchdog, refusal: None }
    }

    fn wrote(&self, context: &Context<'_>) {
        self.watchdog.change(State::wrote);
        if self.watchdog.state().half_closed {
            // The answer is out: the end that was kept from HTTP may be read now.
            context.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            this.watchdog.change(|state, now| state.read(bytes, now));
        } else if this.watchdog.state().owes() {
            // hyper would give the request up.
            this.watchdog.change(|state, _| State { half_closed: true, ..state });
            this.watchdog.half_closed.notify_waiters();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refusal.is_none() && this.watchdog.state().refuses() {
            this.refusal = Refusal::of(bytes);
        }
        let written = match &mut this.refusal {
            None => Pin::new(&mut this.stream).poll_write(context, bytes),
            Some(refusal) => refusal.poll_write(Pin::new(&mut this.stream), context, bytes.len()),
        };
        match &written {
            Poll::Ready(Ok(count)) if *count == bytes.len() => this.wrote(context),
            Poll::Ready(Ok(_)) => this.watchdog.change(State::wrote_some),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.watchdog.change(State::blocked),
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        match &flushed {
            // hyper flushes all the time, also while an answer is not there yet.
            Poll::Ready(Ok(())) if this.watchdog.state().phase == Phase::Blocked => this.wrote(context),
            Poll::Ready(_) => {}
            Poll::Pending => this.watchdog.change(State::blocked),
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        if shut.is_pending() {
            this.watchdog.change(State::blocked);
        }
        shut
    }
}
