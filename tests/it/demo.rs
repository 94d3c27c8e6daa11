//! The simulated gateway says what `gateway.md` says the real one does, and keeps count.

mod answers;
mod pictures;
mod wire;

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::demo::{Options, SimulatedGateway};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// A gateway, its clock, and somebody who asks.
#[derive(Clone)]
struct World {
    gateway: SimulatedGateway,
    clock: Clock,
    client: Client<HttpConnector, Empty<Bytes>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }

    /// `results.id`.
    fn id(&self) -> String {
        self.json()["results"]["id"].as_str().unwrap().to_owned()
    }

    /// `results.url`.
    fn url(&self) -> String {
        self.json()["results"]["url"].as_str().unwrap().to_owned()
    }
}

impl World {
    async fn new(options: Options) -> Self {
        let clock = Clock::manual(NOW);
        let gateway = SimulatedGateway::on_a_free_port(options, clock.clone()).await.unwrap();
        Self { gateway, clock, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn fetch(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Empty::new())?).await?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }

    async fn get(&self, url: &str) -> Answer {
        self.fetch(url, &[]).await.unwrap()
    }

    /// Asks while the test goes on.
    fn ask(&self, query: &str) -> JoinHandle<Answer> {
        let (world, url) = (self.clone(), self.avatar_url(query));
        tokio::spawn(async move { world.get(&url).await })
    }

    async fn avatar(&self, query: &str) -> Answer {
        self.get(&self.avatar_url(query)).await
    }

    fn avatar_url(&self, query: &str) -> String {
        format!("{}/user/avatar?{query}", self.gateway.url())
    }
}
