//! The edge: connections, routes, and the pipeline that every request goes through.
//!
//! One readable function, `Edge::answer`, in this order: a preflight is answered, the name we are called by is checked, open
//! routes are answered, credentials are checked, and then the route does its work. Only `reply.rs` knows statuses.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::{IntCounter, IntCounterVec};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::avatars::Avatars;
use crate::gateway::Credential;
use crate::jid::{Device, Key};
use crate::metrics::Metrics;

mod cors;
mod facts;
mod guard;
mod query;
mod reply;

use cors::Cors;
use facts::Facts;
use guard::Guard;
use query::{GATEWAY_NAMES, NATIVE_NAMES, Names, Parameters};
use reply::Reply;

/// Who may ask, and what is assumed of a request.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may ask; empty: anybody.
    pub auth: Vec<Credential>,
    /// Anybody may ask although the address is not loopback's.
    pub allow_anonymous: bool,
    /// What an empty device means.
    pub default_device: Device,
    /// The origins whose pages may read answers: `*`, or a list.
    pub cors_origins: Vec<String>,
}

/// The longest request target (bytes).
const TARGET_MAX: usize = 8 * 1024;

/// The longest request head (bytes): beyond it hyper answers 431.
const HEAD_MAX: usize = 64 * 1024;

/// How long a client may take to send a request head, counted from the connection for the first one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How long running requests may take to finish once the server stops.
const DRAIN: Duration = Duration::from_secs(30);

/// After a failure to accept (too many open files), so that it is not a loop.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What requests are answered from.
pub struct Edge {
    avatars: Avatars,
    metrics: Arc<Metrics>,
    requests: Requests,
    guard: Guard,
    cors: Cors,
    default_device: Device,
    /// whether only `/metrics`, `/health` and `/ready` are here, open to all
    figures_only: bool,
}

/// Counts requests. The commonest answer is found beforehand, because it takes as long to find a counter as to hit.
struct Requests {
    all: IntCounterVec,
    hits: IntCounter,
}

impl Requests {
    fn new(metrics: &Metrics) -> Self {
        let all = metrics.http_requests.clone();
        Self { hits: all.with_label_values(&[Route::UserAvatar.as_str(), StatusCode::OK.as_str()]), all }
    }

    fn count(&self, route: Route<'_>, status: StatusCode) {
        if route == Route::UserAvatar && status == StatusCode::OK {
            self.hits.inc();
        } else {
            self.all.with_label_values(&[route.as_str(), status.as_str()]).inc();
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'a> {
    UserAvatar,
    Avatar(&'a str),
    Metrics,
    Health,
    Ready,
    Unknown,
}

impl<'a> Route<'a> {
    /// Fixed paths match as the gateway's router does: letter case and a trailing slash do not matter.
    fn of(path: &'a str) -> Self {
        const FIXED: [(&str, Route<'static>); 4] = [
            ("/user/avatar", Route::UserAvatar),
            ("/metrics", Route::Metrics),
            ("/health", Route::Health),
            ("/ready", Route::Ready),
        ];
        let bare = path.strip_suffix('/').unwrap_or(path);
        if let Some((_, route)) = FIXED.iter().find(|(fixed, _)| bare.eq_ignore_ascii_case(fixed)) {
            return *route;
        }
        match bare.strip_prefix("/avatars/") {
            Some(jid) if !jid.is_empty() && !jid.contains('/') => Route::Avatar(jid),
            _ => Route::Unknown,
        }
    }

    /// The word in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Route::UserAvatar => "/user/avatar",
            Route::Avatar(_) => "/avatars/{jid}",
            Route::Metrics => "/metrics",
            Route::Health => "/health",
            Route::Ready => "/ready",
            Route::Unknown => "unknown",
        }
    }
}

impl Edge {
    /// The whole service, for a listener at `address`.
    #[must_use]
    pub fn new(config: &Config, address: SocketAddr, avatars: Avatars, metrics: Arc<Metrics>) -> Self {
        let local_only = config.auth.is_empty() && !config.allow_anonymous && address.ip().to_canonical().is_loopback();
        Self {
            avatars,
            requests: Requests::new(&metrics),
            metrics,
            guard: Guard::new(&config.auth, local_only),
            cors: Cors::new(&config.cors_origins),
            default_device: config.default_device.clone(),
            figures_only: false,
        }
    }

    /// `/metrics`, `/health` and `/ready` alone, open to whoever reaches them.
    #[must_use]
    pub fn figures_only(avatars: Avatars, metrics: Arc<Metrics>) -> Self {
        Self {
            avatars,
            requests: Requests::new(&metrics),
            metrics,
            guard: Guard::new(&[], false),
            cors: Cors::new(&[]),
            default_device: Device::default(),
            figures_only: true,
        }
    }

    /// Answers connections until `stop`; then finishes the requests that are running.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let edge = Arc::new(self);
        let graceful = GracefulShutdown::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
        builder.http2().timer(TokioTimer::new()).max_header_list_size(16 * 1024).keep_alive_interval(HEAD_TIMEOUT);
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let edge = edge.clone();
            edge.metrics.http_connections.inc();
            let asked = CancellationToken::new();
            let service = service_fn({
                let (edge, asked) = (edge.clone(), asked.clone());
                move |request| {
                    asked.cancel();
                    let edge = edge.clone();
                    async move { Ok::<_, Infallible>(edge.respond(request).await) }
                }
            });
            let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
            tokio::spawn(async move {
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        tracing::trace!(%error, "a connection ended early");
                    },
                    () = stays_silent(&asked) => tracing::trace!("nothing was asked on a connection"),
                }
                edge.metrics.http_connections.dec();
            });
        }
        drop(listener);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Reply {
        let facts = Facts::read(request.headers());
        let route = Route::of(request.uri().path());
        let mut reply = self.answer(&request, route, &facts).await;
        self.cors.expose(&facts, reply.headers_mut());
        self.requests.count(route, reply.status());
        reply
    }

    /// The pipeline.
    async fn answer(&self, request: &Request<Incoming>, route: Route<'_>, facts: &Facts<'_>) -> Reply {
        let (method, uri) = (request.method(), request.uri());
        if let Some(reply) = self.cors.preflight(method, facts) {
            return reply;
        }
        if !self.guard.knows_host(uri, facts) {
            return reply::error(
                StatusCode::FORBIDDEN,
                "FORBIDDEN",
                "this address answers to the names of loopback only.",
            );
        }
        if uri.path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_MAX {
            return reply::error(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", "the address is longer than 8 KiB.");
        }
        let open = matches!(route, Route::Health | Route::Ready) || self.figures_only;
        if !open && !self.guard.admits(facts) {
            return reply::unauthorized();
        }
        let is_here = match route {
            Route::UserAvatar | Route::Avatar(_) => !self.figures_only,
            Route::Metrics | Route::Health | Route::Ready => true,
            Route::Unknown => false,
        };
        if !is_here {
            return reply::error(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing at this address.");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return reply::not_allowed("GET, HEAD");
        }
        match route {
            Route::UserAvatar => self.user_avatar(uri, facts).await,
            Route::Avatar(jid) => self.avatar(uri, facts, jid).await,
            Route::Metrics => {
                self.avatars.measure();
                reply::document(Metrics::content_type(), self.metrics.render())
            }
            Route::Ready if !self.is_ready() => reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            Route::Health | Route::Ready | Route::Unknown => reply::text(StatusCode::OK, "OK"),
        }
    }

    /// `GET /user/avatar`, the gateway's own endpoint.
    async fn user_avatar(&self, uri: &Uri, facts: &Facts<'_>) -> Reply {
        let key = match self.key(uri, facts, GATEWAY_NAMES, None) {
            Ok(key) => key,
            Err(invalid) => return reply::invalid(&invalid.0),
        };
        match self.avatars.lookup(&key, facts.ask).await {
            Ok(found) => reply::avatar(&found, facts),
            Err(unmet) => reply::unmet(&unmet),
        }
    }

    /// `GET /avatars/{jid}` of the native API.
    async fn avatar(&self, uri: &Uri, facts: &Facts<'_>, jid: &str) -> Reply {
        let Some(jid) = query::decode(jid, false) else {
            return reply::invalid("jid: is not valid percent-encoding.");
        };
        let key = match self.key(uri, facts, NATIVE_NAMES, Some(&jid)) {
            Ok(key) => key,
            Err(invalid) => return reply::invalid(&invalid.0),
        };
        match self.avatars.lookup(&key, facts.ask).await {
            Ok(found) => reply::native(&found, &key, facts),
            Err(unmet) => reply::unmet(&unmet),
        }
    }

    fn key(&self, uri: &Uri, facts: &Facts<'_>, names: Names, jid: Option<&str>) -> Result<Key, query::Invalid> {
        let parameters = Parameters::read(uri.query().unwrap_or_default(), names)?;
        parameters.key(names, jid, facts, &self.default_device)
    }

    /// Whether it can answer: the store does, and the gateway does not refuse the proxy itself.
    fn is_ready(&self) -> bool {
        self.metrics.store_up.get() == 1 && self.avatars.gateway_answers()
    }
}

/// Ends when nothing has been asked on a connection for too long. hyper's own limit does not begin before it knows which HTTP
/// is spoken.
async fn stays_silent(asked: &CancellationToken) {
    if tokio::time::timeout(HEAD_TIMEOUT, asked.cancelled()).await.is_ok() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_match_as_the_gateways_do() {
        for path in ["/user/avatar", "/User/Avatar", "/user/avatar/"] {
            assert_eq!(Route::of(path), Route::UserAvatar, "{path}");
        }
        for path in ["/user/avatar//", "/user/avatars", "/user%2Favatar", "/avatars/", "/avatars/a/b", "/", "", "*"] {
            assert_eq!(Route::of(path), Route::Unknown, "{path}");
        }
        assert_eq!(Route::of("/avatars/1@g.us"), Route::Avatar("1@g.us"));
        assert_eq!(Route::of("/ready/"), Route::Ready);
    }
}
