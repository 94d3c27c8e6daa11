//! Connections to addresses that others chose: checked after DNS, bounded, never led elsewhere.
//!
//! The rules:
//! * What [`Reach::Public`] asks for goes to the public internet only. [`address`] says what that is, and `connect` checks
//!   the very address that it connects to, whatever its name resolved to before or will resolve to later.
//! * A connection is used again only for the same scheme, host, port and reach: one that was opened without a check never
//!   carries what wants one.
//! * A call takes at most [`Config::timeout`], from the name's resolution on, and keeps nothing of an answer but its status and
//!   `Retry-After`. What it reads is bounded by [`HEADER_LIMIT`] and [`BODY_LIMIT`].
//! * It follows no redirect, asks no proxy that the environment names, and sends nothing twice that may have arrived:
//!   whether to try again is the caller's decision.
//! * The head is the receiver's word. Once a whole one has come the call has succeeded, however the body goes on: what was sent
//!   has been judged, and to send it again because a text that nobody reads was cut off would deliver it twice. A body gets
//!   [`BODY_TIME`], so that the connection can be used again; if it is not over by then, the connection is.
//! * Neither URLs nor headers appear in errors, in logs, or in what `Debug` shows: both may hold secrets.
//!
//! Architecture invariant: this module knows the clock; nothing of stores, events, gateways or the edge.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service as _;

use crate::clock::{Clock, Timestamp};
use crate::trust;

pub mod address;
mod connect;
pub mod network;
mod url;

pub use address::Class;
use connect::{Bounded, Checked, Unconnected};
use network::{Network, System};
pub use url::{BadUrl, URL_MAX, parse_url};

/// Most of a body that is read and thrown away so that its connection can be used again (bytes).
pub const BODY_LIMIT: usize = 64 << 10;

/// The longest that is read of it.
pub const BODY_TIME: Duration = Duration::from_secs(1);

/// A status line and headers that are not whole by then are given up (bytes). The last read may bring as much again.
pub const HEADER_LIMIT: usize = 32 << 10;

/// The longest that a `Retry-After` may put off.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long an unused connection is kept: long enough for a burst, and not so long that many receivers pile up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unused connections kept for each receiver.
const IDLE_MAX: usize = 32;

const AGENT: &str = concat!("avatar-proxy/", env!("CARGO_PKG_VERSION"));

/// How to connect.
#[derive(Clone)]
pub struct Config {
    /// The longest a connection may take to come about: name, TCP and TLS.
    pub connect_timeout: Duration,
    /// The longest a call may take.
    pub timeout: Duration,
    /// Addresses at which this program can be reached, besides those that the machine knows to be its own: what it listens
    /// on, and what a router leads to it.
    pub own: Vec<IpAddr>,
    /// Authorities to trust for `https`, besides the system's.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Names and connections.
    pub network: Arc<dyn Network>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            own: vec![],
            authorities: vec![],
            network: Arc::new(System),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("outbound::Config")
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be an authority's: {0}")]
pub struct SetupError(#[from] rustls::Error);

/// How far a call may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The public internet, and nothing else: what anybody else than the operator asked for.
    Public,
    /// Wherever the URL leads: what the operator asked for.
    Anywhere,
}

/// What the receiver said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Any, redirects included.
    pub status: StatusCode,
    /// When it wants to be asked again, at most [`RETRY_AFTER_MAX`] from now.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody may be reached there. Nothing was connected to.
    #[error("leads to an address that is not public ({0})")]
    Refused(Class),
    /// The name has no address, or nobody could be asked for it.
    #[error("the name cannot be resolved")]
    Unresolved,
    /// No connection came about in time.
    #[error("nobody accepts a connection")]
    Unreachable,
    /// Somebody is there who is not who the name says, or does not speak TLS.
    #[error("TLS cannot be agreed on")]
    Tls,
    /// No whole head came in time.
    #[error("no answer came in time")]
    Late,
    /// The connection ended, or what came was not HTTP. What was sent may have arrived.
    #[error("the connection broke off")]
    Broken,
}

impl Failure {
    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Late => "late",
            Self::Broken => "broken",
        }
    }
}

/// How far, and by what.
#[derive(Clone)]
struct Way {
    connector: Bounded,
    pool: Client<Bounded, Full<Bytes>>,
}

/// The client. Clones share their connections.
#[derive(Clone)]
pub struct Outbound {
    public: Way,
    anywhere: Way,
    timeout: Duration,
    clock: Clock,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Outbound {
    /// A client that has not connected yet. `clock` is only asked how long it is until a date in `Retry-After`.
    ///
    /// This reads the system's certificates, once. Where there are none, `https` fails as [`Failure::Tls`].
    ///
    /// # Errors
    /// When one of [`Config::authorities`] is none.
    pub fn new(config: Config, clock: Clock) -> Result<Self, SetupError> {
        let Config { connect_timeout, timeout, own, authorities, network } = config;
        let tls = trust::client(trusted(authorities)?);
        let own: Arc<[IpAddr]> = own.into();
        let way = |reach| {
            let checked = Checked { network: network.clone(), own: own.clone(), reach, timeout: connect_timeout };
            let connector = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
            let connector = Bounded { inner: connector.wrap_connector(checked), timeout: connect_timeout };
            let pool = Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_MAX)
                .http1_max_buf_size(HEADER_LIMIT)
                .build(connector.clone());
            Way { connector, pool }
        };
        Ok(Self { public: way(Reach::Public), anywhere: way(Reach::Anywhere), timeout, clock })
    }

    /// Connects to where a URL that [`parse_url`] gave leads, TLS included, and sends nothing.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn connect(&self, url: &Uri, reach: Reach) -> Result<(), Failure> {
        let connected = self.way(reach).connector.clone().call(url.clone()).await;
        connected.map(drop).map_err(|error| unconnected(Some(&*error), url))
    }

    fn way(&self, reach: Reach) -> &Way {
        match reach {
            Reach::Public => &self.public,
            Reach::Anywhere => &self.anywhere,
        }
    }

    /// Sends a body to a URL that [`parse_url`] gave, once. May be dropped at any time.
    ///
    /// # Errors
    /// When there was no answer. Only after [`Failure::Late`] and [`Failure::Broken`] may what was sent have arrived.
    pub async fn post(&self, url: &Uri, headers: HeaderMap, body: Bytes, reach: Reach) -> Result<Answer, Failure> {
        // Real time even under a manual clock: a socket does not move faster because a test does.
        let deadline = Instant::now() + self.timeout;
        let response = match timeout_at(deadline, self.way(reach).pool.request(request(url, headers, body))).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(what_happened(&error, url)),
            Err(_) => return Err(Failure::Late),
        };
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, self.clock.now()));
        let answer = Answer { status: response.status(), retry_after };
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = timeout(left.min(BODY_TIME), throw_away(response.into_body())).await;
        Ok(answer)
    }
}

fn request(url: &Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    *request.headers_mut() = headers;
    request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    request
}

/// The system's authorities, and these.
fn trusted(more: Vec<CertificateDer<'static>>) -> Result<RootCertStore, SetupError> {
    let mut authorities = trust::system();
    for certificate in more {
        authorities.add(certificate)?;
    }
    Ok(authorities)
}

/// Reads a body to its end, if that comes within [`BODY_LIMIT`]. hyper closes the connection of one that is dropped before.
async fn throw_away(mut body: Incoming) {
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return;
    }
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY_LIMIT {
            return;
        }
    }
}

/// How long to wait, of a number of seconds or a date (RFC 9110). What is neither says nothing.
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        Timestamp::from(httpdate::parse_http_date(text).ok()?).since(now)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Why there was no response.
fn what_happened(error: &ClientError, url: &Uri) -> Failure {
    if !error.is_connect() {
        return Failure::Broken;
    }
    unconnected(error.source(), url)
}

/// Why there was no connection.
fn unconnected(error: Option<&(dyn std::error::Error + 'static)>, url: &Uri) -> Failure {
    let mut causes = std::iter::successors(error, |&cause| cause.source());
    match causes.find_map(|cause| cause.downcast_ref()) {
        Some(Unconnected::Refused(class)) => Failure::Refused(*class),
        Some(Unconnected::Unresolved) => Failure::Unresolved,
        Some(Unconnected::Unreachable) => Failure::Unreachable,
        // There was a connection, and then there was none.
        None if url.scheme() == Some(&Scheme::HTTPS) => Failure::Tls,
        None => Failure::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date_and_at_most_a_day() {
        let now = Timestamp::from_seconds(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let day = 24 * 3600;
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("86401", Some(day)),
            ("99999999999999999999999", Some(day)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(day)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("\u{fc}", None),
        ] {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(retry_after(&value, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn each_failure_has_a_word_of_its_own() {
        let all = [
            Failure::Refused(Class::Private),
            Failure::Unresolved,
            Failure::Unreachable,
            Failure::Tls,
            Failure::Late,
            Failure::Broken,
        ];
        let words: std::collections::HashSet<&str> = all.iter().map(|failure| failure.as_str()).collect();
        assert_eq!(words.len(), all.len());
    }

    #[test]
    fn what_is_no_certificate_is_refused_at_the_start() {
        let config = Config { authorities: vec![CertificateDer::from(vec![1, 2, 3])], ..Config::default() };
        assert!(Outbound::new(config, Clock::system()).is_err());
    }
}
