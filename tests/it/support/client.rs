//! A plain HTTP client: what comes back is kept as it came.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Longer than anything that a test asks for may take.
const FOREVER: Duration = Duration::from_secs(90);

/// Asks one address, over pooled connections.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nothing came of it, and whoever asks for nothing but an answer may ask somebody else.
    Unanswered,
    /// It ended in the middle.
    CutOff,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, pool: Pool::builder(TokioExecutor::new()).build_http() }
    }

    /// Asks over one connection of HTTP/2, however much at once.
    pub(crate) fn over_http2(address: SocketAddr) -> Self {
        Self { address, pool: Pool::builder(TokioExecutor::new()).http2_only(true).build_http() }
    }

    /// `GET`, with headers.
    pub(crate) async fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, target, headers).await.expect("the proxy answers")
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.get_with(target, &[]).await
    }

    /// The gateway's own endpoint, for one person.
    pub(crate) async fn avatar(&self, phone: &str) -> Answer {
        self.get(&format!("/user/avatar?phone={phone}")).await
    }

    /// The same with `Cache-Control`.
    pub(crate) async fn avatar_asking(&self, phone: &str, cache_control: &str) -> Answer {
        self.get_with(&format!("/user/avatar?phone={phone}"), &[("cache-control", cache_control)]).await
    }

    /// The value of a metric line, named with its labels as it is printed: `avatar_proxy_lookups_total{met="memory"}`; 0 when
    /// it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").await;
        let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        line.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    /// The change log from its beginning.
    pub(crate) async fn change_log(&self) -> Vec<serde_json::Value> {
        let (mut all, mut after) = (vec![], String::new());
        loop {
            let page = self.get(&format!("/changes?limit=1000&after={after}")).await.json();
            let changes = page["changes"].as_array().expect("a list");
            if changes.is_empty() {
                return all;
            }
            all.extend(changes.iter().cloned());
            page["next"].as_str().expect("the log always goes on").clone_into(&mut after);
        }
    }

    /// Any request; an error when no answer comes.
    pub(crate) async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Result<Answer, Broken> {
        self.try_send(method, target, headers, "").await
    }

    /// A request with a body.
    pub(crate) async fn send_body(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_send(method, target, headers, body).await.expect("the proxy answers")
    }

    async fn try_send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Broken> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a test's request is valid");
        let answering = async {
            let (parts, body) = self.pool.request(request).await.map_err(|_| Broken::Unanswered)?.into_parts();
            let body = body.collect().await.map_err(|_| Broken::CutOff)?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(FOREVER, answering).await.unwrap_or_else(|_| panic!("{target} is never answered"))
    }
}

impl Answer {
    /// A header's text; empty when it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("the header is text"))
    }

    /// `Cache-Status`.
    pub(crate) fn how(&self) -> &str {
        self.header("cache-status")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The envelope's `code`.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The envelope's `message`.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// `Retry-After` (s); 0 when there is none.
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").parse().unwrap_or_default()
    }

    /// `results.id`; empty when there is none.
    pub(crate) fn picture_id(&self) -> String {
        self.json()["results"]["id"].as_str().unwrap_or_default().to_owned()
    }

    /// `results.url`; empty when there is none.
    pub(crate) fn url(&self) -> String {
        self.json()["results"]["url"].as_str().unwrap_or_default().to_owned()
    }

    /// Panics, showing the answer, unless it has this status and its `Cache-Status` begins so behind `avatar-proxy; `.
    #[track_caller]
    pub(crate) fn expect(self, status: u16, how: &str) -> Self {
        let said = self.how().strip_prefix("avatar-proxy; ").unwrap_or_default();
        assert!(self.status == status && said.starts_with(how), "expected {status} {how:?}, got {self:?}");
        self
    }
}
