//! The gateway refuses the proxy itself: everything rests, the operator is told, and one lookup in a while finds out whether it
//! is over.

use avatar_proxy::demo::{Options, Reply};

use super::{ask, ask_anew};
use crate::support::hand::{self, NO_LONGER_RECENT, SECOND};

#[tokio::test]
async fn everything_rests_and_readiness_fails_until_a_probe_is_let_in() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let known = ask(&app, "999001", "sales").await.expect(200, "fwd=miss");
    assert_eq!(app.get("/ready").await.status, 200);

    world.gateway.set_credentials(&[("proxy", "s3cret")]);
    let refused = ask(&app, "999002", "sales").await.expect(502, "fwd=miss; detail=credentials");
    let told = (refused.code(), refused.message());
    assert_eq!(told, ("BAD_GATEWAY".into(), "the gateway refused the proxy's credentials".into()));
    assert!(refused.header("www-authenticate").is_empty(), "the client's password is another matter");
    assert_eq!((refused.retry_after(), world.gateway.lookups()), (30, 2));

    for (phone, device) in [("999002", "sales"), ("999003", "sales"), ("999004", "support")] {
        let answer = ask(&app, phone, device).await.expect(502, "hit; ttl=30; detail=credentials");
        assert_eq!((&answer.body, answer.header("retry-after")), (&refused.body, "30"));
    }
    let ready = app.get("/ready").await;
    assert_eq!((ready.status.as_u16(), ready.text()), (503, "Service Unavailable"));
    assert_eq!(app.get("/health").await.status, 200);
    world.clock.advance(NO_LONGER_RECENT);
    ask(&app, "999001", "sales").await.expect(200, "hit; ttl=");
    let kept = ask_anew(&app, "999001", "sales").await.expect(200, "fwd=stale; ttl=");
    assert!(kept.how().ends_with("; detail=credentials") && kept.body == known.body, "{kept:?}");
    assert_eq!(world.gateway.lookups(), 2);

    world.gateway.set_credentials(&[]);
    ask(&app, "999002", "sales").await.expect(502, "hit; ");
    world.clock.advance(20 * SECOND);
    ask(&app, "999004", "support").await.expect(200, "fwd=miss; stored");
    ask(&app, "999002", "sales").await.expect(200, "fwd=miss; stored");
    assert_eq!(app.get("/ready").await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_probe_that_is_refused_is_not_repeated_for_another_while() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    world.gateway.set_credentials(&[("proxy", "s3cret")]);
    for lookups in 1..4 {
        ask(&app, "999001", "sales").await.expect(502, "fwd=miss; detail=credentials");
        ask(&app, "999002", "support").await.expect(502, "hit; ttl=30; detail=credentials");
        assert_eq!(world.gateway.lookups(), lookups);
        assert_eq!(app.get("/ready").await.status, 503);
        world.clock.advance(30 * SECOND);
    }
    app.stop().await;
}

#[tokio::test]
async fn readiness_returns_when_a_probe_is_due_because_only_a_client_can_bring_one() {
    let world = hand::world(Options { strangers: Reply::Unauthorized, ..Options::default() }).await;
    let app = world.start().await;
    app.avatar("999001").await.expect(502, "fwd=miss; detail=credentials");
    assert_eq!(app.get("/ready").await.status, 503);
    world.clock.advance(30 * SECOND);
    assert_eq!(app.get("/ready").await.status, 200);

    let probe = world.gateway.hold();
    let client = (*app).clone();
    let probing = tokio::spawn(async move { client.avatar("999001").await });
    world.gateway.arrived(2).await;
    assert_eq!(app.get("/ready").await.status, 503, "one probe is enough");
    drop(probe);
    probing.await.unwrap().expect(502, "fwd=miss; detail=credentials");
    assert_eq!(app.get("/ready").await.status, 503);
    app.stop().await;
}

#[tokio::test]
async fn a_refusal_is_recognised_in_every_form() {
    let page = |status| Reply::Raw { status, content_type: "text/html".into(), body: "<h1>No</h1>".into() };
    let envelope = Reply::Envelope { status: 403, code: "FORBIDDEN".into(), message: "no".into() };
    for reply in [Reply::Unauthorized, page(401), page(403), envelope] {
        let world = hand::world(Options { strangers: reply.clone(), ..Options::default() }).await;
        let app = world.start().await;
        app.avatar("999001").await.expect(502, "fwd=miss; detail=credentials");
        assert_eq!((world.gateway.lookups(), app.get("/ready").await.status.as_u16()), (1, 503), "{reply:?}");
        app.stop().await;
    }
}

#[tokio::test]
async fn the_right_credentials_open_the_gateway() {
    let credentials = vec![("proxy".into(), "s3cret:x".into())];
    let world = hand::world(Options { credentials, ..Options::default() }).await;
    let world = world.flag("--gateway-auth=proxy:s3cret:x").flag("--auth=ada:pw");
    let app = world.start().await;
    let basic = [("authorization", "Basic YWRhOnB3")];
    app.get_with("/user/avatar?phone=999001", &basic).await.expect(200, "fwd=miss; stored");
    app.stop().await;
}
