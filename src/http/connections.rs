//! Connections: accepted, spoken HTTP/1.1 or HTTP/2 on, bounded in what they may take, and ended in good order.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use super::Edge;
use super::reply::Reply;

/// The longest request head (bytes): beyond it hyper answers 431.
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

impl Edge {
    /// Answers connections until `stop`; then finishes the requests that are running.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let edge = Arc::new(self);
        let graceful = GracefulShutdown::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Answers are small: copied together they are sent with less work than as a list of pieces.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(edge.head_timeout)
            .max_buf_size(HEAD_MAX)
            .writev(false);
        builder.http2().timer(TokioTimer::new()).max_header_list_size(16 * 1024).keep_alive_interval(edge.head_timeout);
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            match accepted {
                Ok((stream, _)) => attend(&edge, &builder, &graceful, stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        drop(listener);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
    }
}

/// Answers one connection, in a task of its own.
fn attend(edge: &Arc<Edge>, builder: &auto::Builder<TokioExecutor>, graceful: &GracefulShutdown, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    edge.metrics.http_connections.inc();
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let (edge, asked) = (edge.clone(), asked.clone());
        move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            edge.respond(request)
        }
    });
    let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    let edge = edge.clone();
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::trace!(%error, "a connection ended early");
            },
            () = stays_silent(&asked, edge.head_timeout) => tracing::trace!("nothing was asked on a connection"),
        }
        edge.metrics.http_connections.dec();
    });
}

/// Ends when nothing has been asked on a connection for too long. hyper's own limit does not begin before it knows which HTTP
/// is spoken.
async fn stays_silent(asked: &AtomicBool, head_timeout: Duration) {
    tokio::time::sleep(head_timeout).await;
    if asked.load(Ordering::Relaxed) {
        pending::<()>().await;
    }
}
