//! The simulated gateway says what `gateway.md` says the real one does, and keeps count.

use std::time::Duration;

use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::demo::{Options, Reply, SimulatedGateway};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// A gateway, its clock, and somebody who asks.
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

    async fn avatar(&self, query: &str) -> Answer {
        self.get(&self.avatar_url(query)).await
    }

    fn avatar_url(&self, query: &str) -> String {
        format!("{}/user/avatar?{query}", self.gateway.url())
    }
}

#[tokio::test]
async fn a_success_is_written_as_go_writes_it() {
    let world = World::new(Options::default()).await;
    world.gateway.person("6281234567890").picture("1635239861");
    let answer = world.avatar("phone=6281234567890").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    let port = world.gateway.address().port();
    assert_eq!(
        answer.text(),
        format!(
            concat!(
                r#"{{"code":"SUCCESS","message":"Success get avatar","results":{{"url":"http://127.0.0.1:{}"#,
                r"/v/t61.24694-24/609077136_841642311570960_7505337475872359174_n.jpg?stp=dst-jpg_tt6\u0026ccb=11-4\u0026oh=58e42ff66727e70f6a2fe0d4638b842a\u0026oe=65612000\u0026_nc_sid=5e03e0\u0026_nc_cat=100",
                r#"","id":"1635239861","type":"image"}}}}"#
            ),
            port
        )
    );
    let preview = world.avatar("phone=6281234567890@s.whatsapp.net&is_preview=true").await;
    assert_eq!(preview.json()["results"]["id"], "1635239861");
    assert_eq!(preview.json()["results"]["type"], "preview");
}

/// Status and body of each of [`Reply::failures`], asked about `+1` by the device `Büro`.
const FAILURES: &str = r#"
500 {"code":"INTERNAL_SERVER_ERROR","message":"that user or group does not have a profile picture"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"no avatar found"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"the user has hidden their profile picture from you"}
400 {"code":"INVALID_JID","message":"Phone 1@s.whatsapp.net is not on whatsapp"}
400 {"code":"VALIDATION_ERROR","message":"phone: cannot be blank."}
500 {"code":"INTERNAL_SERVER_ERROR","message":"invalid JID 1@s.whatsapp.net: failed to parse"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 429: rate-overlimit"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 400: bad-request"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 401: not-authorized"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 403: forbidden"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 404: item-not-found"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 405: not-allowed"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 406: not-acceptable"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 410: gone"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 419: resource-limit"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 423: locked"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 500: internal-server-error"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 503: service-unavailable"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"info query returned status 530: partial-server-error"}
500 {"code":"INTERNAL_SERVER_ERROR","message":"failed to get avatar: websocket not connected"}
408 {"code":"CONTEXT_ERROR","message":"Error timeout get avatar!"}
504 {"code":"GATEWAY_TIMEOUT","message":"Request timed out waiting for WhatsApp server response"}
401 {"code":"AUTHENTICATION_ERROR","message":"you are not logged in"}
401 {"code":"AUTHENTICATION_ERROR","message":"you are not connect to services server, please reconnect"}
401 Unauthorized
400 {"code":"DEVICE_ID_REQUIRED","message":"device_id is required via X-Device-Id header or device_id query"}
404 {"code":"DEVICE_NOT_FOUND","message":"device not found; create a device first from /api/devices or provide a valid X-Device-Id","results":{"device_id":"Büro"}}
500 {"code":"INVALID_WA_CLI","message":"your WhatsApp CLI is invalid or empty"}
503 {"code":"DEVICE_MANAGER_UNAVAILABLE","message":"Device manager is not initialized"}
"#;

#[tokio::test]
async fn every_failure_of_the_table_is_sent_byte_for_byte() {
    for null_results in [false, true] {
        let world = World::new(Options { null_results, ..Options::default() }).await;
        let mut sent = "\n".to_owned();
        for reply in Reply::failures() {
            world.gateway.person("1").replies(reply);
            let url = world.avatar_url("phone=%2B1");
            let answer = world.fetch(&url, &[("x-device-id", "B%C3%BCro")]).await.unwrap();
            sent += &format!("{} {}\n", answer.status.as_u16(), answer.text());
        }
        let expected =
            if null_results { FAILURES.replace("\"}\n", "\",\"results\":null}\n") } else { FAILURES.to_owned() };
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn held_lookups_wait_and_are_counted_when_they_arrive() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1").replies_in_turn([Reply::NotSet], Reply::Present);
    let held = ada.hold();
    let url = world.avatar_url("phone=1");
    let ask = || {
        tokio::spawn({
            let (client, url) = (world.client.clone(), url.clone());
            async move { client.get(url.parse().unwrap()).await.unwrap().status() }
        })
    };
    let (one, two) = (ask(), ask());
    ada.arrived(2).await;
    assert_eq!((world.gateway.in_flight(), ada.lookups()), (2, 2));
    assert!(!one.is_finished() && !two.is_finished());
    held.release();
    let mut statuses = [one.await.unwrap().as_u16(), two.await.unwrap().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 500]);
    world.gateway.idle().await;
    assert_eq!(world.gateway.max_in_flight(), 2);
    world.clock.advance(Duration::from_secs(1));
}
