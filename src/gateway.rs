//! The gateway's client: one lookup, one answer.
//!
//! The rules:
//! * [`Gateway::lookup`] makes one request and never repeats one that the gateway may have seen: each costs the account, so
//!   whether to ask again is the caller's decision, within the budget. A request that finds its pooled connection closed was
//!   not sent, and goes out on a fresh one; if the close comes while it is being written, nobody can tell, and it failed.
//! * It never takes longer than [`Config::timeout`], from the name's resolution to the body's last byte.
//! * It never holds more than [`BODY_LIMIT`] of a body and [`HEADER_LIMIT`] of a header, whatever is sent.
//! * It follows no redirect: the credentials go to the configured address only.
//! * Every answer becomes an [`Outcome`] or a [`Failure`] in [`reply`]; nobody behind it sees a text of the gateway's again.
//!
//! Architecture invariant: this module knows names, outcomes and the clock; nothing of stores, budgets or the edge.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::CertificateError;

use crate::clock::Clock;
use crate::jid::{Device, Key};
use crate::outcome::{Failure, Outcome};
use crate::trust;

pub mod failure;
pub mod probe;
pub mod reply;
mod tls;

use failure::Nonsense;

/// Most of a body that is read (bytes). A real answer has less than one KiB.
pub const BODY_LIMIT: usize = 64 << 10;

/// Most of a status line and headers that is read (bytes).
pub const HEADER_LIMIT: usize = 32 << 10;

/// The longest a connection may take to come about; a lookup that may not take so long is late before.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept: less than the minute after which servers and balancers tend to close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Unused connections kept.
const IDLE_MAX: usize = 16;

/// Longest gateway URL (bytes).
const URL_MAX: usize = 4096;

const DEVICE_ID: HeaderName = HeaderName::from_static("x-device-id");
const AGENT: &str = concat!("avatar-proxy/", env!("CARGO_PKG_VERSION"));

/// What the gateway would not read back from `X-Device-Id` as it was written. Older ones do not decode it at all, so that
/// everything else stays as it is.
const IN_DEVICE: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'+');

/// What has a meaning of its own in a query.
const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'>');

/// Where the gateway is and how to speak to it.
#[derive(Clone)]
pub struct Config {
    /// `http` or `https`; a path is kept as the base path.
    pub url: Uri,
    /// The proxy's own credentials at the gateway.
    pub auth: Option<Credential>,
    /// A file (PEM) of authorities to trust for `https`, besides the system's.
    pub ca: Option<PathBuf>,
    /// The longest a lookup may take.
    pub timeout: Duration,
}

/// The address and the credentials stay out of logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("gateway::Config")
            .field("auth", &self.auth)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A user and password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Without a colon.
    pub user: String,
    /// The secret.
    pub password: String,
}

/// A text that is not `user:password`. Does not repeat it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be user:password, without control characters")]
pub struct BadCredential;

impl Credential {
    /// Reads `user:password`. The first colon divides; the password may hold others.
    ///
    /// # Errors
    /// When there is no colon, no user, or a control character.
    pub fn parse(text: &str) -> Result<Self, BadCredential> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() && !text.contains(char::is_control) => {
                Ok(Self { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err(BadCredential),
        }
    }

    /// The value of an `Authorization` header.
    fn basic(&self) -> HeaderValue {
        let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password)));
        let mut value = HeaderValue::try_from(value).expect("base64 is plain ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Why there can be no client: a sentence for the person who starts the program.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL.
    #[error("the gateway's URL must be http:// or https://, with a host and without user or password")]
    Url,
    /// Only for `https`.
    #[error("the system has no certificates to check the gateway's by; give its authority's with --gateway-ca")]
    NoAuthorities,
    /// The file of authorities.
    #[error("the file of --gateway-ca, {}, cannot be used: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Who can be asked about a person: the lookup path knows no more of the gateway than this.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Asks once; may be dropped at any time.
    ///
    /// # Errors
    /// When the answer says nothing about the person.
    async fn lookup(&self, key: &Key) -> Result<Outcome, Failure>;
}

/// The client. Connections are kept and used again.
pub struct Gateway {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// everything before `/user/avatar`
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    clock: Clock,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A client that has not connected yet. `clock` is only asked whether a URL that came is still alive.
    ///
    /// For `https` this reads the authorities' certificates, once.
    ///
    /// # Errors
    /// When the URL cannot be a gateway's, or there are no certificates to check one by.
    pub fn new(config: Config, clock: Clock) -> Result<Self, SetupError> {
        let Config { url, auth, ca, timeout } = config;
        let (scheme, authority) = url.scheme_str().zip(url.authority()).ok_or(SetupError::Url)?;
        let base = format!("{scheme}://{authority}{}", url.path().trim_end_matches('/'));
        if authority.host().is_empty() || authority.as_str().contains('@') || base.len() > URL_MAX {
            return Err(SetupError::Url);
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new();
        let connector = match scheme {
            // It must not depend on what certificates there are.
            "http" => builder.with_tls_config(trust::client(rustls::RootCertStore::empty())).https_or_http(),
            "https" => builder.with_tls_config(trust::client(tls::authorities(ca)?)).https_only(),
            _ => return Err(SetupError::Url),
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEADER_LIMIT)
            .build(connector.enable_http1().wrap_connector(tcp));
        Ok(Self { client, base, authorization: auth.as_ref().map(Credential::basic), timeout, clock })
    }

    /// Asks once. Never takes longer than [`Config::timeout`], and may be dropped at any time.
    ///
    /// # Errors
    /// When the answer says nothing about the person.
    pub async fn lookup(&self, key: &Key) -> Result<Outcome, Failure> {
        // Real time even under a manual clock: a socket does not move faster because a test does.
        tokio::time::timeout(self.timeout, self.exchange(key)).await.unwrap_or_else(|_| Err(failure::late()))
    }

    async fn exchange(&self, key: &Key) -> Result<Outcome, Failure> {
        let response = self
            .client
            .request(self.request(key))
            .await
            .map_err(|error| failure::nonsense(what_happened(&error), None))?;
        let status = response.status();
        if let Some(failure) = reply::by_status(status) {
            return Err(failure);
        }
        let body = read(response.into_body()).await.map_err(|why| reply::without_envelope(status, why))?;
        reply::classify(status, &body, key.variant, self.clock.now())
    }

    fn request(&self, key: &Key) -> Request<Empty<Bytes>> {
        let jid = key.subject.jid.to_string();
        let target = format!(
            "/user/avatar?phone={}&is_preview={}&is_community={}",
            utf8_percent_encode(&jid, IN_QUERY),
            key.variant.preview,
            key.variant.community,
        );
        self.get(&target, &key.subject.device)
    }

    /// A request for what is below the base path, as this device.
    fn get(&self, target: &str, device: &Device) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        let uri = Uri::try_from(format!("{}{target}", self.base));
        *request.uri_mut() = uri.expect("a checked base and an encoded query make a URI");
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let device = device.as_str();
        if !device.is_empty() {
            let encoded = utf8_percent_encode(device, IN_DEVICE).to_string();
            headers.insert(DEVICE_ID, HeaderValue::try_from(encoded).expect("percent-encoded text is plain ASCII"));
        }
        request
    }
}

#[async_trait]
impl Lookup for Gateway {
    async fn lookup(&self, key: &Key) -> Result<Outcome, Failure> {
        Self::lookup(self, key).await
    }
}

/// A body of at most [`BODY_LIMIT`]. What is longer is not read to its end: its connection is given up.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Nonsense> {
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(Nonsense::TooLong);
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Nonsense::BrokenOff)?.into_data() else { continue };
        if whole.len() + data.len() > BODY_LIMIT {
            return Err(Nonsense::TooLong);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// Why there was no response.
fn what_happened(error: &ClientError) -> Nonsense {
    let causes = || std::iter::successors(error.source(), |&cause| cause.source());
    if !error.is_connect() {
        let parsing = causes().filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse);
        return if parsing { Nonsense::NotHttp } else { Nonsense::BrokenOff };
    }
    // hyper-util has no type for this one.
    if causes().any(|cause| cause.to_string() == "dns error") {
        return Nonsense::NameNotFound;
    }
    let Some(error) = causes().find_map(|cause| cause.downcast_ref::<io::Error>()) else {
        return Nonsense::Unreachable;
    };
    if let Some(error) = in_tls(error) {
        return in_certificate(error).unwrap_or(Nonsense::Tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Nonsense::Refused,
        io::ErrorKind::TimedOut => Nonsense::ConnectTimeout,
        // A connection that is there and ends while it is being secured.
        io::ErrorKind::UnexpectedEof => Nonsense::Tls,
        _ => Nonsense::Unreachable,
    }
}

/// What rustls found, if that is at the bottom of it. An `io::Error` does not count what it holds among its sources.
fn in_tls(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<rustls::Error>().or_else(|| in_tls(inner.downcast_ref::<io::Error>()?))
}

/// What is the matter with a certificate, where that has a remedy of its own.
const fn in_certificate(error: &rustls::Error) -> Option<Nonsense> {
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    match error {
        CertificateError::UnknownIssuer => Some(Nonsense::Untrusted),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(Nonsense::OtherName)
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Some(Nonsense::NotInForce),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Gateway, SetupError> {
        let config = Config { url: url.parse().unwrap(), auth: None, ca: None, timeout: Duration::from_secs(20) };
        Gateway::new(config, Clock::system())
    }

    #[test]
    fn what_is_the_matter_with_a_certificate_is_told_where_it_has_a_remedy() {
        for (error, told) in [
            (CertificateError::UnknownIssuer, Some(Nonsense::Untrusted)),
            (CertificateError::NotValidForName, Some(Nonsense::OtherName)),
            (CertificateError::Expired, Some(Nonsense::NotInForce)),
            (CertificateError::NotValidYet, Some(Nonsense::NotInForce)),
            (CertificateError::BadEncoding, None),
        ] {
            assert_eq!(in_certificate(&rustls::Error::InvalidCertificate(error)), told);
        }
        assert_eq!(in_certificate(&rustls::Error::DecryptError), None);
    }

    #[test]
    fn a_credential_is_divided_at_the_first_colon_and_never_shown() {
        let credential = Credential::parse("ada:s3cret:x").unwrap();
        assert_eq!((credential.user.as_str(), credential.password.as_str()), ("ada", "s3cret:x"));
        assert_eq!(credential.basic().to_str().unwrap(), "Basic YWRhOnMzY3JldDp4");
        let config = Config {
            url: Uri::from_static("http://gw"),
            auth: Some(credential.clone()),
            ca: None,
            timeout: Duration::ZERO,
        };
        for shown in [format!("{credential:?}"), format!("{config:?}"), format!("{:?}", credential.basic())] {
            assert!(!shown.contains("ada") && !shown.contains("s3cret") && !shown.contains("YWRh"), "{shown}");
        }
        for bad in ["", "ada", ":x", "ada:x\r\nhost: y"] {
            assert_eq!(Credential::parse(bad), Err(BadCredential), "{bad:?}");
        }
        assert_eq!(Credential::parse("ada:").unwrap().password, "");
    }

    #[test]
    fn only_an_address_that_can_be_asked_makes_a_client() {
        for good in ["http://gw", "http://gw:3000/", "http://[::1]:3000/base/path/", "HTTP://gw/x"] {
            assert!(client(good).is_ok(), "{good}");
        }
        for bad in ["gw:3000", "/user", "ftp://gw", "http://ada:s3cret@gw/"] {
            let error = client(bad).unwrap_err();
            assert!(matches!(error, SetupError::Url) && !error.to_string().contains("s3cret"), "{bad}");
        }
        assert!(client(&format!("http://gw/{}", "a".repeat(URL_MAX))).is_err());
    }
}
