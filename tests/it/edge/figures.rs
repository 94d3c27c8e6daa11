//! `--metrics-listen`: a second address for figures alone, open to whoever reaches it.

use http::Method;

use crate::support::app::World;
use crate::support::client::Client;

#[tokio::test]
async fn serves_metrics_health_and_readiness_openly_and_nothing_else() {
    let world = World::new().await.flag("--metrics-listen=127.0.0.1:0").flag("--auth=ada:s3cret");
    let app = world.start().await;
    let figures = Client::new(app.app().metrics_address().expect("it listens"));
    let metrics = figures.get_with("/metrics", &[("host", "prometheus.example")]).await;
    assert_eq!((metrics.status.as_u16(), metrics.header("content-type")), (200, "text/plain; version=0.0.4"));
    assert!(metrics.text().contains("\navatar_proxy_build_info{"), "{}", metrics.text());
    for target in ["/health", "/ready"] {
        assert_eq!((figures.get(target).await.status.as_u16(), app.get(target).await.status.as_u16()), (200, 200));
    }
    for target in ["/", "/user/avatar?phone=999001", "/avatars/999001", "/nowhere"] {
        let answer = figures.get_with(target, &[("authorization", "Basic YWRhOnMzY3JldA==")]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "NOT_FOUND"), "{target}");
    }
    assert_eq!(figures.send(Method::POST, "/metrics", &[]).await.unwrap().status, 405);
    let page = figures.get_with("/metrics", &[("origin", "https://evil.example")]).await;
    assert!(!page.headers.contains_key("access-control-allow-origin"), "{page:?}");
    assert_eq!((app.get("/metrics").await.status.as_u16(), world.gateway.lookups()), (401, 0));
    app.stop().await;
}

#[tokio::test]
async fn figures_name_no_person_and_no_device() {
    let world = World::new().await;
    let app = world.start().await;
    for target in [
        "/user/avatar?phone=6281234567890",
        "/avatars/6281234567890",
        "/6281234567890",
        "/user/avatar?phone=x6281234567890",
    ] {
        app.get_with(target, &[("x-device-id", "sales-phone")]).await;
    }
    let metrics = app.get("/metrics").await;
    assert!(!metrics.text().contains("6281234567890") && !metrics.text().contains("sales"), "{}", metrics.text());
    assert!(app.metric(r#"avatar_proxy_lookups_total{met="memory"}"#).await >= 1.0, "{}", metrics.text());
    app.stop().await;
}
