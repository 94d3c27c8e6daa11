//! Connections and routes.
//!
//! Routing is as the gateway's router does it: letter case and one trailing slash do not matter, `/health` is open and at the
//! root, everything else but the pictures is behind the password. `/app/status` tells how a device is, without a lookup. Pictures are not the gateway's: their host knows no password,
//! and their paths are taken to the letter.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Mode;
use super::picture;
use super::reply::unauthorized;
use super::sign::Verdict;
use super::wire::{Answer, Ending, Parts};
use super::world::{Asked, Decision, Visit, World};
use crate::jid::Jid;

/// What ends the server: `closing` lets answers under way be finished, `stop` does not.
#[derive(Clone, Default)]
pub(super) struct Ends {
    pub(super) closing: CancellationToken,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Accepts connections until told to end.
pub(super) async fn accept(listener: TcpListener, world: Arc<World>, ends: Ends) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = ends.stop.cancelled() => return,
            () = ends.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (world, stop, closing) = (Arc::clone(&world), ends.stop.clone(), ends.closing.clone());
                ends.tasks.spawn(async move { stop.run_until_cancelled(connection(stream, world, closing)).await });
            }
            // Out of file descriptors, most likely: a moment's rest lets some go.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// An open connection, counted.
struct Open(Arc<World>);

impl Open {
    fn new(world: Arc<World>) -> Self {
        world.change(|state| {
            state.connections += 1;
            state.open_connections += 1;
        });
        Self(world)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|state| state.open_connections -= 1);
    }
}

/// Where a request leaves the way its connection ends, with what keeps the lookup counted as under way until then.
type Last = Arc<Mutex<Option<(Ending, Option<Visit>)>>>;

/// Tells hyper that the connection is no longer its own.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends otherwise")]
struct TakenOver;

async fn connection(stream: TcpStream, world: Arc<World>, closing: CancellationToken) {
    let open = Open::new(Arc::clone(&world));
    if matches!(world.state().mode, Mode::Unreachable) {
        let _ = Ending::reset().play(stream).await;
        return;
    }
    let _ = stream.set_nodelay(true);
    let last = Last::default();
    let service = service_fn(|request| {
        let (world, last) = (Arc::clone(&world), Arc::clone(&last));
        Box::pin(async move { respond(&world, &last, &request).await })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    loop {
        tokio::select! {
            // An error is the other side's, or ours because the connection was taken over.
            _ = poll_fn(|context| connection.poll_without_shutdown(context)) => break,
            () = closing.cancelled(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
    let stream = connection.into_parts().io.into_inner();
    let taken = last.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (ending, visit) = taken.map_or((Ending::close(), None), |(ending, visit)| (ending, visit));
    let _ = ending.play(stream).await;
    drop((visit, open));
}

async fn respond(
    world: &Arc<World>,
    last: &Last,
    request: &Request<Incoming>,
) -> Result<Response<Full<Bytes>>, TakenOver> {
    let (answer, visit) = answer(world, request).await;
    match answer {
        Answer::Http(parts) => Ok(parts.into_response()),
        Answer::Ending(ending) => {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some((ending, visit));
            Err(TakenOver)
        }
        Answer::Never => match std::future::pending::<Infallible>().await {},
    }
}

async fn answer(world: &Arc<World>, request: &Request<Incoming>) -> (Answer, Option<Visit>) {
    if matches!(world.state().mode, Mode::Unreachable) {
        return (Answer::Ending(Ending::reset()), None);
    }
    let path = request.uri().path();
    let lowered = path.to_lowercase();
    let route = lowered.strip_suffix('/').unwrap_or(&lowered);
    let get = request.method() == Method::GET;
    if get && route == "/health" {
        return (Answer::Http(Parts::text(200, "OK")), None);
    }
    if get && path.starts_with("/v/") {
        return (Answer::Http(image(world, path, request.uri().query().unwrap_or_default()).await), None);
    }
    let authorized = authorized(world, request.headers());
    let base = world.options.base_path.to_lowercase();
    if get && route.strip_prefix(base.as_str()) == Some("/user/avatar") {
        let Decision { answer, latency, gates, visit } = world.look_up(&asked(request, authorized));
        for gate in gates {
            gate.passed().await;
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        return (answer, Some(visit));
    }
    if get && route.strip_prefix(base.as_str()) == Some("/app/status") {
        return (world.status(&asked(request, authorized)), None);
    }
    if !authorized {
        return (Answer::Http(unauthorized()), None);
    }
    (Answer::Http(Parts::text(404, format!("Cannot {} {path}", request.method()))), None)
}

async fn image(world: &World, path: &str, query: &str) -> Parts {
    world.change(|state| state.picture_requests += 1);
    match world.signer.verify(path, query, world.clock.now()) {
        Verdict::Unknown => Parts::text(404, "Not Found"),
        Verdict::BadHash => Parts::text(403, "Bad URL hash"),
        Verdict::Expired => Parts::text(403, "URL signature expired"),
        Verdict::Good { file, small } => {
            let file = file.to_owned();
            let drawn = tokio::task::spawn_blocking(move || picture::draw(&file, small)).await;
            drawn.map_or_else(|_| Parts::text(500, "Internal Server Error"), |jpeg| Parts::new(200, "image/jpeg", jpeg))
        }
    }
}

fn authorized(world: &World, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let decoded = given
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, credentials)| base64::engine::general_purpose::STANDARD.decode(credentials.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    world.state().authorizes(decoded.as_deref().and_then(|text| text.split_once(':')))
}

fn asked(request: &Request<Incoming>, authorized: bool) -> Asked {
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name).then(|| decoded(value))
        })
    };
    let phone = parameter("phone").unwrap_or_default();
    let header = request.headers().get("x-device-id").map(|value| {
        percent_decode_str(&String::from_utf8_lossy(value.as_bytes())).decode_utf8_lossy().trim().to_owned()
    });
    let device = header
        .filter(|name| !name.is_empty())
        .or_else(|| parameter("device_id").map(|name| name.trim().to_owned()))
        .unwrap_or_default();
    let mut unreadable = None;
    let mut boolean = |name| {
        let value = parameter(name).unwrap_or_default();
        go_boolean(&value).unwrap_or_else(|| {
            unreadable = Some(name);
            false
        })
    };
    let (preview, community) = (boolean("is_preview"), boolean("is_community"));
    Asked { jid: Jid::parse(&phone), phone, device, unreadable, preview, community, authorized }
}

/// A part of a query, with `+` for a blank.
fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// What Go's form decoding takes for a boolean; nothing at all is false.
fn go_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
