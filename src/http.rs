//! The edge: connections, routes, and the pipeline that every request goes through.
//!
//! One readable function, `Edge::answer`, in this order: a request without one proper `Host` is refused, a preflight is answered,
//! the name we are called by is checked, open routes are answered, credentials are checked, and then the route does its work.
//! Only `reply.rs` knows statuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use prometheus::{IntCounter, IntCounterVec};

use crate::avatars::{Avatars, Found};
use crate::events::Events;
use crate::events::webhook::Webhooks;
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
mod hooks;
mod listing;
mod query;
mod refusal;
mod reply;
mod routes;
mod stream;
mod throttle;
mod tls;
mod watchdog;
mod webhooks;

use body::Upload;
use connections::{Answering, Visit};
use cors::Cors;
use facts::Facts;
use guard::Guard;
pub use hooks::Hooks;
use query::{GATEWAY_NAMES, NATIVE_NAMES, Names, Parameters};
use reply::{Problem, Reply, Template};
use routes::Route;
use throttle::{Pace, Throttle};
pub use tls::Identity;
pub use watchdog::Timeouts;
use watchdog::UnderWay;

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
    /// How the gateway's own webhooks are taken; without it they are not.
    pub hooks: Option<Hooks>,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// `https` alone, by this identity; without it `http` alone.
    pub tls: Option<Identity>,
}

/// How long a lookup keeps its place in the budget's queue for a client that has closed its sending side: it may be listening, or
/// gone, and lookups are too dear to be made for nobody.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(2);

/// The longest request target (bytes).
const TARGET_MAX: usize = 8 * 1024;

/// What requests are answered from.
pub struct Edge {
    avatars: Avatars,
    events: Events,
    webhooks: Webhooks,
    metrics: Arc<Metrics>,
    requests: Requests,
    template: Template,
    guard: Guard,
    cors: Cors,
    default_device: Device,
    watch_limit: u64,
    hooks: Option<hooks::Desk>,
    timeouts: Timeouts,
    tls: Option<Identity>,
    throttle: Arc<Throttle>,
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

    fn count(&self, route: Option<Route<'_>>, status: StatusCode) {
        if route == Some(Route::UserAvatar) && status == StatusCode::OK {
            self.hits.inc();
        } else {
            self.all.with_label_values(&[route.map_or("unknown", Route::as_str), status.as_str()]).inc();
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
    /// It does not carry accepted credentials.
    Refuse,
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
    fn found(&self, found: &Found, facts: &Facts<'_>, template: &Template) -> Reply {
        match self.form {
            Form::Gateway => reply::avatar(found, facts, template),
            Form::Native => reply::native(found, &self.key, facts),
        }
    }
}

/// What the edge is made of.
#[derive(Clone)]
pub struct Parts {
    /// Who is asked for avatars.
    pub avatars: Avatars,
    /// Who is asked for changes.
    pub events: Events,
    /// Who tells them to others.
    pub webhooks: Webhooks,
    /// The figures.
    pub metrics: Arc<Metrics>,
}

impl Edge {
    /// The whole service, for a listener at `address`.
    #[must_use]
    pub fn new(config: &Config, address: SocketAddr, parts: Parts) -> Self {
        let local_only = config.auth.is_empty() && !config.allow_anonymous && address.ip().to_canonical().is_loopback();
        Self {
            guard: Guard::new(&config.auth, local_only),
            cors: Cors::new(&config.cors_origins),
            default_device: config.default_device.clone(),
            watch_limit: config.watch_limit,
            hooks: config.hooks.as_ref().map(hooks::Desk::new),
            tls: config.tls.clone(),
            figures_only: false,
            ..Self::figures_only(config, parts)
        }
    }

    /// `/metrics`, `/health` and `/ready` alone, open to whoever reaches them.
    #[must_use]
    pub fn figures_only(config: &Config, parts: Parts) -> Self {
        let Parts { avatars, events, webhooks, metrics } = parts;
        Self {
            avatars,
            events,
            webhooks,
            requests: Requests::new(&metrics),
            template: Template::new(),
            metrics,
            guard: Guard::new(&[], false),
            cors: Cors::new(&[]),
            default_device: Device::default(),
            watch_limit: 0,
            hooks: None,
            timeouts: config.timeouts,
            tls: None,
            throttle: Arc::default(),
            figures_only: true,
        }
    }

    /// Answers a request: at once, unless an avatar is asked for that is not in memory.
    ///
    /// What is answered at once is done with when this returns: the request is dropped before hyper reads on, and nothing is
    /// allocated for a wait that does not come.
    fn respond(self: &Arc<Self>, request: Request<Incoming>, visit: &Visit) -> Answering {
        let facts = Facts::read(request.headers());
        let route = Route::of(request.uri().path());
        let lookup = match self.answer(&request, route, &facts) {
            Turn::Answer(mut reply) => {
                self.finish(&mut reply, route, &facts);
                return Answering::Now(Some(reply));
            }
            Turn::Lookup(lookup) => lookup,
            Turn::Work => {
                let (edge, watchdog, under_way) = (self.clone(), visit.watchdog.clone(), visit.watchdog.begin());
                return Answering::Later(Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let facts = Facts::read(&parts.headers);
                    let body = Upload::new(body, watchdog);
                    let mut reply = edge
                        .work(&parts, &facts, body, under_way)
                        .await
                        .unwrap_or_else(|problem| reply::problem(&problem));
                    edge.finish(&mut reply, Route::of(parts.uri.path()), &facts);
                    reply
                }));
            }
            Turn::Refuse => return self.refuse(request, visit),
        };
        if let Some(found) = self.avatars.in_memory(&lookup.key, facts.ask) {
            let mut reply = lookup.found(&found, &facts, &self.template);
            self.finish(&mut reply, route, &facts);
            return Answering::Now(Some(reply));
        }
        let (edge, watchdog, under_way) = (self.clone(), visit.watchdog.clone(), visit.watchdog.begin());
        Answering::Later(Box::pin(async move {
            let _under_way = under_way;
            let facts = Facts::read(request.headers());
            let leaves = async {
                watchdog.half_closed().await;
                tokio::time::sleep(HALF_CLOSED_PATIENCE).await;
            };
            let mut reply = match edge.avatars.lookup(&lookup.key, facts.ask, leaves).await {
                Ok(found) => lookup.found(&found, &facts, &edge.template),
                Err(unmet) => reply::unmet(&unmet),
            };
            reply::budgeted(&mut reply, edge.avatars.allowance(&lookup.key));
            edge.finish(&mut reply, Route::of(request.uri().path()), &facts);
            reply
        }))
    }

    /// Answers a request without accepted credentials: the more wrong ones came from an address, the later.
    fn refuse(self: &Arc<Self>, request: Request<Incoming>, visit: &Visit) -> Answering {
        let finish = |edge: &Self, mut reply, request: &Request<Incoming>| {
            edge.finish(&mut reply, Route::of(request.uri().path()), &Facts::read(request.headers()));
            reply
        };
        // Browsers ask without credentials first; that is no guess.
        if Facts::read(request.headers()).authorization.is_none() {
            return Answering::Now(Some(finish(self, reply::unauthorized(), &request)));
        }
        self.metrics.http_credentials_refused.inc();
        match self.throttle.wrong(visit.peer, Instant::now()) {
            Pace::AtOnce => Answering::Now(Some(finish(self, reply::unauthorized(), &request))),
            Pace::TooMany(retry_after) => Answering::Now(Some(finish(self, reply::guessing(retry_after), &request))),
            Pace::After(delay, place) => {
                let edge = self.clone();
                Answering::Later(Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    drop(place);
                    finish(&edge, reply::unauthorized(), &request)
                }))
            }
        }
    }

    /// What every reply goes through; it stays where it is, because it is large.
    fn finish(&self, reply: &mut Reply, route: Option<Route<'_>>, facts: &Facts<'_>) {
        self.cors.expose(facts, reply.headers_mut());
        self.requests.count(route, reply.status());
    }

    /// The pipeline.
    fn answer(&self, request: &Request<Incoming>, route: Option<Route<'_>>, facts: &Facts<'_>) -> Turn {
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
            return Turn::Refuse;
        } else {
            match route.filter(|&route| self.has(route)) {
                None => reply::problem(&Problem::Absent),
                Some(route) if !route.methods().contains(method) => reply::not_allowed(route.methods()),
                Some(Route::UserAvatar) => return self.user_avatar(uri, facts),
                Some(Route::Avatar(jid)) if *method != Method::DELETE => return self.avatar(uri, facts, jid),
                Some(
                    Route::Avatar(_)
                    | Route::History(_)
                    | Route::Watch(_)
                    | Route::Watches
                    | Route::Changes
                    | Route::Events
                    | Route::Webhooks
                    | Route::Webhook(_)
                    | Route::WebhookTest(_)
                    | Route::WebhookReplay(_)
                    | Route::GatewayHook,
                ) => return Turn::Work,
                Some(Route::Metrics) => {
                    self.avatars.measure();
                    self.webhooks.measure();
                    reply::document(Metrics::content_type(), self.metrics.render())
                }
                Some(Route::Ready) if !self.is_ready() => {
                    reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
                }
                Some(Route::Health | Route::Ready) => reply::text(StatusCode::OK, "OK"),
            }
        })
    }

    /// Does what takes more than a look into memory.
    async fn work(
        &self,
        parts: &request::Parts,
        facts: &Facts<'_>,
        body: Upload,
        under_way: UnderWay,
    ) -> Result<Reply, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        match Route::of(parts.uri.path()) {
            Some(Route::Changes) => self.list_changes(query, facts).await,
            Some(Route::Watches) => self.list_watches(query, facts).await,
            Some(Route::History(jid)) => self.list_history(jid, query, facts).await,
            Some(Route::Watch(jid)) => self.set_watch(jid, parts, facts, body).await,
            Some(Route::Events) => self.stream(parts, facts, under_way).await,
            Some(Route::Avatar(jid)) => self.forget(jid, parts, facts).await,
            Some(Route::Webhooks) => self.webhooks(parts, body).await,
            Some(Route::Webhook(id)) => self.webhook(id, parts, body).await,
            Some(Route::WebhookTest(id)) => self.test_webhook(id, parts).await,
            Some(Route::GatewayHook) => self.hook(parts, body).await,
            Some(Route::WebhookReplay(id)) => self.replay_webhook(id, parts, body).await,
            Some(Route::UserAvatar | Route::Metrics | Route::Health | Route::Ready) | None => Err(Problem::Absent),
        }
    }

    /// Whether an address needs no credentials.
    fn is_open(&self, route: Option<Route<'_>>) -> bool {
        self.figures_only || matches!(route, Some(Route::Health | Route::Ready | Route::GatewayHook))
    }

    /// Whether this listener has the route.
    fn has(&self, route: Route<'_>) -> bool {
        match route {
            Route::Metrics | Route::Health | Route::Ready => true,
            Route::GatewayHook => self.hooks.is_some(),
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
