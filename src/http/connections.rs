//! Connections: accepted, spoken HTTP/1.1 or HTTP/2 on, bounded in what they may take, and ended in good order.
//!
//! What a connection waits for, and for how long it may, is kept in `watchdog.rs`. A client that asks and asks and reads no answer
//! piles nothing up: hyper reads no further request before the answer to the last one is out, and holds at most [`HEAD_MAX`] of
//! what was sent ahead.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::Edge;
use super::reply::Reply;
use super::watchdog::{Guarded, Ticker, Verdict, Watchdog};

/// The longest request head (bytes): beyond it the answer is 431.
const HEAD_MAX: usize = 64 * 1024;

/// How long running requests may take to finish once the server stops.
const DRAIN: Duration = Duration::from_secs(30);

/// After a failure to accept (too many open files), so that it is not a loop.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// An answer: most are there at once, the others come.
pub(super) enum Answering {
    Now(Option<Reply>),
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl Future for Answering {
    type Output = Result<Reply, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(reply) => Poll::Ready(Ok(reply.take().expect("a finished future is not polled again"))),
            Self::Later(reply) => reply.as_mut().poll(context).map(Ok),
        }
    }
}

/// What a request knows of the connection that it came on.
pub(super) struct Visit {
    pub(super) peer: IpAddr,
    pub(super) watchdog: Arc<Watchdog>,
}

/// The connections of one listener.
struct Connections {
    edge: Arc<Edge>,
    builder: auto::Builder<TokioExecutor>,
    ticker: Arc<Ticker>,
    /// all that are open, and some that were a moment ago
    watchdogs: Vec<Weak<Watchdog>>,
    tasks: TaskTracker,
}

impl Edge {
    /// Answers connections until `stop`; then finishes the requests that are running.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut connections = Connections::of(self);
        let mut ticks = tokio::time::interval(connections.ticker.period());
        // A late tick makes everything later, and nothing early.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => connections.open(stream, peer.ip()),
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
                _ = ticks.tick() => connections.sweep(),
                () = &mut stop => break,
            }
        }
        drop(listener);
        connections.tell_all(Verdict::Retire);
        connections.tasks.close();
        let tasks = connections.tasks.clone();
        let drained = tokio::time::timeout(DRAIN, async {
            loop {
                tokio::select! {
                    () = tasks.wait() => break,
                    _ = ticks.tick() => connections.sweep(),
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("some requests did not finish in time");
            connections.tell_all(Verdict::End);
        }
    }
}

impl Connections {
    fn of(edge: Edge) -> Self {
        let timeouts = edge.timeouts;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Answers are small: copied together they are sent with less work than as a list of pieces.
        builder.http1().max_buf_size(HEAD_MAX).writev(false).header_read_timeout(None);
        builder.http2().timer(TokioTimer::new()).max_header_list_size(16 * 1024).keep_alive_interval(timeouts.head);
        Self {
            edge: Arc::new(edge),
            builder,
            ticker: Arc::new(Ticker::new(timeouts)),
            watchdogs: Vec::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Answers one connection, in a task of its own.
    fn open(&mut self, stream: TcpStream, peer: IpAddr) {
        let _ = stream.set_nodelay(true);
        let watchdog = Arc::new(Watchdog::new(self.ticker.clone()));
        self.watchdogs.push(Arc::downgrade(&watchdog));
        let open = Open::new(&self.edge.metrics.http_connections);
        let (edge, builder) = (self.edge.clone(), self.builder.clone());
        // Two tasks, so that a connection in plain text has no room for TLS.
        match &self.edge.tls {
            None => self.tasks.spawn(async move {
                let _open = open;
                converse(edge, builder, stream, Visit { peer, watchdog }).await;
            }),
            Some(identity) => {
                let acceptor = identity.acceptor();
                self.tasks.spawn(async move {
                    let _open = open;
                    if let Some(stream) = shake_hands(&acceptor, stream, &watchdog).await {
                        converse(edge, builder, stream, Visit { peer, watchdog }).await;
                    }
                })
            }
        };
    }

    /// One more tick: every connection is looked at.
    fn sweep(&mut self) {
        self.ticker.tick();
        self.watchdogs.retain(|watchdog| watchdog.upgrade().inspect(|watchdog| watchdog.judge()).is_some());
    }

    fn tell_all(&self, verdict: Verdict) {
        for watchdog in self.watchdogs.iter().filter_map(Weak::upgrade) {
            watchdog.tell(verdict);
        }
    }
}

/// Begins TLS, within the time for the first head. Who speaks something else is told so in TLS's words.
async fn shake_hands(acceptor: &TlsAcceptor, stream: TcpStream, watchdog: &Watchdog) -> Option<TlsStream<TcpStream>> {
    let mut accepting = pin!(acceptor.accept(stream));
    let accepted = poll_fn(|context| {
        watchdog.belongs_to(context.waker());
        match watchdog.verdict() {
            Verdict::Stay => accepting.as_mut().poll(context).map(Some),
            Verdict::Retire | Verdict::End => Poll::Ready(None),
        }
    });
    let accepted = accepted.await?;
    accepted.inspect_err(|error| tracing::trace!(%error, "a connection did not come to TLS")).ok()
}

/// Answers the requests on a stream until its end, or until the watchdog has had enough.
async fn converse<S>(edge: Arc<Edge>, builder: auto::Builder<TokioExecutor>, stream: S, visit: Visit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watchdog = visit.watchdog.clone();
    let io = TokioIo::new(Guarded::new(stream, watchdog.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        visit.watchdog.asked(request.version() == Version::HTTP_2);
        edge.respond(request, &visit)
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut retired = false;
    let ended = poll_fn(|context| {
        watchdog.belongs_to(context.waker());
        match watchdog.verdict() {
            Verdict::Stay => {}
            Verdict::Retire if retired => {}
            Verdict::Retire => {
                retired = true;
                connection.as_mut().graceful_shutdown();
            }
            Verdict::End => return Poll::Ready(Err("it took too long".into())),
        }
        connection.as_mut().poll(context)
    });
    if let Err(error) = ended.await {
        tracing::trace!(%error, "a connection ended early");
    }
}

/// Counts a connection while it is open, however it ends.
struct Open(IntGauge);

impl Open {
    fn new(connections: &IntGauge) -> Self {
        connections.inc();
        Self(connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
