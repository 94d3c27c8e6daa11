//! Pages of other origins, as the gateway lets them.

use http::Method;

use crate::support::app::{TestApp, World};
use crate::support::client::Answer;

async fn preflight(app: &TestApp, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization,x-device-id"),
    ];
    app.send(Method::OPTIONS, "/user/avatar?phone=999001", &headers).await.unwrap()
}

#[tokio::test]
async fn a_preflight_needs_no_credentials_because_browsers_send_none() {
    let world = World::new().await.flag("--auth=ada:s3cret");
    let app = world.start().await;
    let answer = preflight(&app, "https://crm.example").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(answer.header("access-control-allow-methods").contains(method), "{answer:?}");
    }
    for header in ["Authorization", "X-Device-Id", "Content-Type", "If-None-Match", "Last-Event-ID"] {
        assert!(answer.header("access-control-allow-headers").contains(header), "{answer:?}");
    }
    let plain = app.send(Method::OPTIONS, "/user/avatar", &[("origin", "https://crm.example")]).await.unwrap();
    assert_eq!(plain.status, 401, "without the method it asks about it is no preflight");
    assert_eq!(world.gateway.lookups(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_page_may_read_answers_errors_and_the_headers_that_explain_them() {
    let world = World::new().await;
    let app = world.start().await;
    let origin = [("origin", "https://crm.example")];
    for (target, status) in [("/user/avatar?phone=999001", 200), ("/user/avatar", 400), ("/nowhere", 404)] {
        let answer = app.get_with(target, &origin).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (status, "*"));
        for header in ["Age", "Cache-Status", "ETag", "Retry-After"] {
            assert!(answer.header("access-control-expose-headers").contains(header), "{answer:?}");
        }
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    let plain = app.avatar("999001").await;
    assert!(!plain.headers.contains_key("access-control-allow-origin"), "{plain:?}");
    app.stop().await;
}

#[tokio::test]
async fn with_a_list_only_the_origins_on_it_may_read() {
    let world =
        World::new().await.flag("--cors-origin=https://crm.example,http://localhost:3000").flag("--auth=ada:s3cret");
    let app = world.start().await;
    for origin in ["https://crm.example", "http://localhost:3000"] {
        assert_eq!(preflight(&app, origin).await.header("access-control-allow-origin"), origin);
        let refused = app.get_with("/user/avatar?phone=999001", &[("origin", origin)]).await;
        assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (401, origin));
    }
    for origin in ["https://evil.example", "https://crm.example.evil.example", "http://crm.example", "null"] {
        for answer in [preflight(&app, origin).await, app.get_with("/health", &[("origin", origin)]).await] {
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}: {answer:?}");
            assert!(!answer.headers.contains_key("access-control-allow-methods"), "{origin}: {answer:?}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn with_a_list_a_cache_never_gives_one_origins_answer_to_another() {
    let world = World::new().await.flag("--cors-origin=https://crm.example");
    let app = world.start().await;
    for headers in [vec![("origin", "https://crm.example")], vec![("origin", "https://evil.example")], vec![]] {
        let answer = app.get_with("/user/avatar?phone=999001", &headers).await.expect(200, "");
        let vary: Vec<&str> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(vary.contains(&"Origin") && vary.contains(&"X-Device-Id"), "{headers:?}: {vary:?}");
    }
    app.stop().await;
}
