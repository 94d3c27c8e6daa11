//! Who gets in: credentials where there are some, and on an unguarded loopback only who calls it by its name.

use std::time::{Duration, Instant};

use avatar_proxy::demo::Options;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;

use crate::support::app::{TestApp, World};
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;

const ADA: &str = "/user/avatar?phone=999001";

async fn get_as(app: &TestApp, target: &str, credentials: &str) -> Answer {
    app.get_with(target, &[("authorization", &format!("Basic {}", BASE64_STANDARD.encode(credentials)))]).await
}

#[tokio::test]
async fn a_refusal_is_the_gateways_own() {
    let credentials = vec![("ada".to_owned(), "s3cret".to_owned())];
    let world = World::with(Options { credentials, ..Options::default() }, avatar_proxy::clock::Clock::system()).await;
    let world = world.flag("--auth=ada:s3cret");
    let (app, gateway) = (world.start().await, Client::new(world.gateway.address()));
    let (ours, real) = (app.get(ADA).await, gateway.get(ADA).await);
    assert_eq!((ours.status.as_u16(), ours.text()), (401, "Unauthorized"));
    for name in ["www-authenticate", "content-type"] {
        assert_eq!(ours.header(name), real.header(name));
    }
    assert_eq!((ours.status, ours.body), (real.status, real.body));
    app.stop().await;
}

#[tokio::test]
async fn every_configured_user_gets_in_and_nobody_else() {
    let world = World::new().await.flag("--auth=ada:s3cret,bob:a:b");
    let app = world.start().await;
    for wrong in ["ada:s3cre", "ada:s3cret ", "ada:S3cret", "Ada:s3cret", "bob:s3cret", "ada:", ":", "", "bob:a"] {
        assert_eq!(get_as(&app, ADA, wrong).await.status, 401, "{wrong}");
    }
    for header in ["", "Basic", "Basic !!", "Bearer s3cret", "ada:s3cret", "Digest YWRhOnMzY3JldA=="] {
        assert_eq!(app.get_with(ADA, &[("authorization", header)]).await.status, 401, "{header}");
    }
    assert_eq!(world.gateway.lookups(), 0);
    get_as(&app, ADA, "ada:s3cret").await.expect(200, "fwd=miss");
    get_as(&app, ADA, "bob:a:b").await.expect(200, "hit");
    app.stop().await;
}

#[tokio::test]
async fn guessing_gets_slower_and_whoever_knows_the_password_notices_nothing() {
    let world = World::new().await.flag("--auth=ada:s3cret");
    let app = world.start().await;
    get_as(&app, ADA, "ada:s3cret").await.expect(200, "fwd=miss");
    let guess = |number: u32| {
        let client = Client::clone(&app);
        let guessed = BASE64_STANDARD.encode(format!("ada:{number}"));
        tokio::spawn(async move { client.get_with(ADA, &[("authorization", &format!("Basic {guessed}"))]).await })
    };
    let started = Instant::now();
    let mut refused = 0;
    for guess in (0..50).map(guess).collect::<Vec<_>>() {
        let answer = guess.await.unwrap();
        assert!([401, 429].contains(&answer.status.as_u16()), "{answer:?}");
        if answer.status == 429 {
            assert_eq!((answer.code().as_str(), answer.header("connection")), ("RATE_LIMITED", "close"));
            assert!((1..=2).contains(&answer.retry_after()), "{answer:?}");
            refused += 1;
        }
    }
    // Ten for nothing, and four that waited at once.
    assert!((1..=36).contains(&refused), "{refused} refused");
    assert!(started.elapsed() >= Duration::from_millis(125), "some waited");

    let late = guess(50);
    let refused = "avatar_proxy_http_credentials_refused_total";
    eventually("it is refused", async || app.app().metrics().http_credentials_refused.get() == 51).await;
    get_as(&app, ADA, "ada:s3cret").await.expect(200, "hit; ttl=");
    assert!(!late.is_finished(), "nobody else waits for it");
    assert_eq!(late.await.unwrap().status, 401);
    let page = get_as(&app, "/metrics", "ada:s3cret").await;
    assert!(page.text().contains(&format!("{refused} 51")), "{refused}");
    for _ in 0..20 {
        assert_eq!(app.get(ADA).await.status, 401, "no credentials are no guess");
    }
    app.stop().await;
}

#[tokio::test]
async fn what_is_cached_is_no_way_around_authentication() {
    let world = World::new().await.flag("--auth=ada:s3cret");
    let app = world.start().await;
    let tag = get_as(&app, ADA, "ada:s3cret").await.expect(200, "fwd=miss").header("etag").to_owned();
    let tags = [("if-none-match", &*tag), ("cache-control", "only-if-cached")];
    for target in [ADA, "/avatars/999001", "/metrics", "/nowhere", "/USER/avatar/?phone=999001"] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE] {
            let answer = app.send(method.clone(), target, &tags).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.how()), (401, ""), "{method} {target}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn health_and_readiness_are_open() {
    let world = World::new().await.flag("--auth=ada:s3cret");
    let app = world.start().await;
    for target in ["/health", "/ready", "/Health/"] {
        let answer = app.get(target).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "OK"), "{target}");
    }
    app.stop().await;
}

#[tokio::test]
async fn an_unguarded_loopback_answers_to_its_own_names_only() {
    let world = World::new().await;
    let app = world.start().await;
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "app.localhost"] {
        assert_eq!(app.get_with(ADA, &[("host", host)]).await.status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "0.0.0.0:8080"] {
        for target in [ADA, "/avatars/999002", "/metrics", "/health", "/nowhere"] {
            let answer = app.get_with(target, &[("host", host)]).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "FORBIDDEN"), "{host} {target}");
        }
    }
    assert_eq!(world.gateway.lookups(), 1);
    app.stop().await;
}

#[tokio::test]
async fn whoever_knows_a_password_or_may_be_anybody_calls_it_as_they_like() {
    let host = ("host", "avatars.example");
    let world = World::new().await.flag("--allow-anonymous");
    let app = world.start().await;
    app.get_with(ADA, &[host]).await.expect(200, "fwd=miss");
    app.stop().await;
    let world = World::new().await.flag("--auth=ada:s3cret");
    let app = world.start().await;
    app.get_with(ADA, &[host, ("authorization", "Basic YWRhOnMzY3JldA==")]).await.expect(200, "fwd=miss");
    app.stop().await;
}
