//! The edge: connections, routes, and the pipeline that every request goes through.
//!
//! One readable function, `Edge::answer`, in this order: a request without one proper `Host` is refused, a preflight is answered,
//! the name we are called by is checked, open routes are answered, credentials are checked, and then the route does its work.
//! Only `reply.rs` knows statuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use prometheus::{IntCounter, IntCounterVec};

use crate::avatars::{Avatars, Found};
use crate::events::Events;
use crate::gateway::Credential;
use crate::jid::{Device, Key};
use crate::metrics::Metrics;

mod body;
mod command;
mod connections;
mod cors;
mod facts;
#[cfg(fuzzing)]
pub mod fuzz;
mod guard;
mod listing;
mod query;
mod reply;
mod stream;

use connections::Answering;
use cors::Cors;
use facts::Facts;
use guard::Guard;
use query::{GATEWAY_NAMES, NATIVE_NAMES, Names, Parameters};
use reply::{Problem, Reply};

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
    /// How many subjects may be watched.
    pub watch_limit: u64,
    /// How long a client may take to send a request head, or to begin the next one: [`HEAD_TIMEOUT`].
    pub head_timeout: Duration,
}

/// What [`Config::head_timeout`] is where nobody has a reason to choose otherwise.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest request target (bytes).
const TARGET_MAX: usize = 8 * 1024;

/// What requests are answered from.
pub struct Edge {
    avatars: Avatars,
    events: Events,
    metrics: Arc<Metrics>,
    requests: Requests,
    guard: Guard,
    cors: Cors,
    default_device: Device,
    watch_limit: u64,
    head_timeout: Duration,
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

/// What the pipeline makes of a request.
enum Turn {
    /// It is answered.
    Answer(Reply),
    /// It asks for an avatar.
    Lookup(Lookup),
    /// It takes more: the store, or the request's body.
    Work,
}

/// A request for an avatar.
struct Lookup {
    key: Key,
    form: Form,
}

/// In which form an avatar is answered.
#[derive(Clone, Copy)]
enum Form {
    /// The gateway's own.
    Gateway,
    /// The native API's.
    Native,
}

impl Lookup {
    /// The reply with what was found.
    fn found(&self, found: &Found, facts: &Facts<'_>) -> Reply {
        match self.form {
            Form::Gateway => reply::avatar(found, facts),
            Form::Native => reply::native(found, &self.key, facts),
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'a> {
    UserAvatar,
    Avatar(&'a str),
    History(&'a str),
    Watch(&'a str),
    Watches,
    Changes,
    Events,
    Metrics,
    Health,
    Ready,
    Unknown,
}

impl<'a> Route<'a> {
    /// Fixed paths match as the gateway's router does: letter case and a trailing slash do not matter.
    fn of(path: &'a str) -> Self {
        const FIXED: [(&str, Route<'static>); 7] = [
            ("/user/avatar", Route::UserAvatar),
            ("/changes", Route::Changes),
            ("/events", Route::Events),
            ("/watches", Route::Watches),
            ("/metrics", Route::Metrics),
            ("/health", Route::Health),
            ("/ready", Route::Ready),
        ];
        let bare = path.strip_suffix('/').unwrap_or(path);
        if let Some((_, route)) = FIXED.iter().find(|(fixed, _)| bare.eq_ignore_ascii_case(fixed)) {
            return *route;
        }
        let Some(below) = bare.strip_prefix("/avatars/") else { return Route::Unknown };
        match below.split_once('/') {
            None if !below.is_empty() => Route::Avatar(below),
            Some((jid, "changes")) if !jid.is_empty() => Route::History(jid),
            Some((jid, "watch")) if !jid.is_empty() => Route::Watch(jid),
            _ => Route::Unknown,
        }
    }

    /// What may be done here.
    fn methods(self) -> &'static str {
        match self {
            Route::Avatar(_) => "GET, HEAD, DELETE",
            Route::Watch(_) => "PUT, DELETE",
            _ => "GET, HEAD",
        }
    }

    /// The word in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Route::UserAvatar => "/user/avatar",
            Route::Avatar(_) => "/avatars/{jid}",
            Route::History(_) => "/avatars/{jid}/changes",
            Route::Watch(_) => "/avatars/{jid}/watch",
            Route::Watches => "/watches",
            Route::Changes => "/changes",
            Route::Events => "/events",
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
    pub fn new(config: &Config, address: SocketAddr, avatars: Avatars, events: Events, metrics: Arc<Metrics>) -> Self {
        let local_only = config.auth.is_empty() && !config.allow_anonymous && address.ip().to_canonical().is_loopback();
        Self {
            avatars,
            events,
            requests: Requests::new(&metrics),
            metrics,
            guard: Guard::new(&config.auth, local_only),
            cors: Cors::new(&config.cors_origins),
            default_device: config.default_device.clone(),
            watch_limit: config.watch_limit,
            head_timeout: config.head_timeout,
            figures_only: false,
        }
    }

    /// `/metrics`, `/health` and `/ready` alone, open to whoever reaches them.
    #[must_use]
    pub fn figures_only(config: &Config, avatars: Avatars, events: Events, metrics: Arc<Metrics>) -> Self {
        Self {
            avatars,
            events,
            requests: Requests::new(&metrics),
            metrics,
            guard: Guard::new(&[], false),
            cors: Cors::new(&[]),
            default_device: Device::default(),
            watch_limit: 0,
            head_timeout: config.head_timeout,
            figures_only: true,
        }
    }

    /// Answers a request: at once, unless an avatar is asked for that is not in memory.
    ///
    /// What is answered at once is done with when this returns: the request is dropped before hyper reads on, and nothing is
    /// allocated for a wait that does not come.
    fn respond(self: &Arc<Self>, request: Request<Incoming>) -> Answering {
        let facts = Facts::read(request.headers());
        let route = Route::of(request.uri().path());
        let lookup = match self.answer(&request, route, &facts) {
            Turn::Answer(reply) => return Answering::Now(Some(self.finish(reply, route, &facts))),
            Turn::Lookup(lookup) => lookup,
            Turn::Work => {
                let edge = self.clone();
                return Answering::Later(Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let facts = Facts::read(&parts.headers);
                    let reply =
                        edge.work(&parts, &facts, body).await.unwrap_or_else(|problem| reply::problem(&problem));
                    edge.finish(reply, Route::of(parts.uri.path()), &facts)
                }));
            }
        };
        if let Some(found) = self.avatars.in_memory(&lookup.key, facts.ask) {
            return Answering::Now(Some(self.finish(lookup.found(&found, &facts), route, &facts)));
        }
        let edge = self.clone();
        Answering::Later(Box::pin(async move {
            let facts = Facts::read(request.headers());
            let reply = match edge.avatars.lookup(&lookup.key, facts.ask).await {
                Ok(found) => lookup.found(&found, &facts),
                Err(unmet) => reply::unmet(&unmet),
            };
            edge.finish(reply, Route::of(request.uri().path()), &facts)
        }))
    }

    /// What every reply goes through.
    fn finish(&self, mut reply: Reply, route: Route<'_>, facts: &Facts<'_>) -> Reply {
        self.cors.expose(facts, reply.headers_mut());
        self.requests.count(route, reply.status());
        reply
    }

    /// The pipeline.
    fn answer(&self, request: &Request<Incoming>, route: Route<'_>, facts: &Facts<'_>) -> Turn {
        let (method, uri) = (request.method(), request.uri());
        if !facts.host_is_proper(request.version()) {
            return Turn::Answer(reply::malformed("a request has one Host, with a valid name."));
        }
        if let Some(reply) = self.cors.preflight(method, facts) {
            return Turn::Answer(reply);
        }
        Turn::Answer(if !self.guard.knows_host(uri, facts) {
            reply::error(StatusCode::FORBIDDEN, "FORBIDDEN", "this address answers to the names of loopback only.")
        } else if uri.path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_MAX {
            reply::error(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", "the address is longer than 8 KiB.")
        } else if !self.is_open(route) && !self.guard.admits(facts) {
            reply::unauthorized()
        } else if !self.is_here(route) {
            reply::problem(&Problem::Absent)
        } else if !route.methods().split(", ").any(|allowed| allowed == method.as_str()) {
            reply::not_allowed(route.methods())
        } else {
            match route {
                Route::UserAvatar => return self.user_avatar(uri, facts),
                Route::Avatar(jid) if *method != Method::DELETE => return self.avatar(uri, facts, jid),
                Route::Avatar(_)
                | Route::History(_)
                | Route::Watch(_)
                | Route::Watches
                | Route::Changes
                | Route::Events => return Turn::Work,
                Route::Metrics => {
                    self.avatars.measure();
                    reply::document(Metrics::content_type(), self.metrics.render())
                }
                Route::Ready if !self.is_ready() => reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
                Route::Health | Route::Ready | Route::Unknown => reply::text(StatusCode::OK, "OK"),
            }
        })
    }

    /// Does what takes more than a look into memory.
    async fn work(&self, parts: &Parts, facts: &Facts<'_>, body: Incoming) -> Result<Reply, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        match Route::of(parts.uri.path()) {
            Route::Changes => self.list_changes(query, facts).await,
            Route::Watches => self.list_watches(query, facts).await,
            Route::History(jid) => self.list_history(jid, query, facts).await,
            Route::Watch(jid) => self.set_watch(jid, parts, facts, body).await,
            Route::Events => self.stream(&parts.method, query, &parts.headers, facts).await,
            Route::Avatar(jid) => self.forget(jid, parts, facts).await,
            Route::UserAvatar | Route::Metrics | Route::Health | Route::Ready | Route::Unknown => Err(Problem::Absent),
        }
    }

    /// Whether a route needs no credentials.
    fn is_open(&self, route: Route<'_>) -> bool {
        self.figures_only || matches!(route, Route::Health | Route::Ready)
    }

    /// Whether this listener has the route.
    fn is_here(&self, route: Route<'_>) -> bool {
        match route {
            Route::Metrics | Route::Health | Route::Ready => true,
            Route::Unknown => false,
            _ => !self.figures_only,
        }
    }

    /// `GET /user/avatar`, the gateway's own endpoint.
    fn user_avatar(&self, uri: &Uri, facts: &Facts<'_>) -> Turn {
        match self.key(uri, facts, GATEWAY_NAMES, None) {
            Ok(key) => Turn::Lookup(Lookup { key, form: Form::Gateway }),
            Err(invalid) => Turn::Answer(reply::invalid(&invalid.0)),
        }
    }

    /// `GET /avatars/{jid}` of the native API.
    fn avatar(&self, uri: &Uri, facts: &Facts<'_>, jid: &str) -> Turn {
        let Some(jid) = query::decode(jid, false) else {
            return Turn::Answer(reply::invalid("jid: is not valid percent-encoding."));
        };
        match self.key(uri, facts, NATIVE_NAMES, Some(&jid)) {
            Ok(key) => Turn::Lookup(Lookup { key, form: Form::Native }),
            Err(invalid) => Turn::Answer(reply::invalid(&invalid.0)),
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
