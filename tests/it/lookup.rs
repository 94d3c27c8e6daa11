//! The gateway's own endpoint: what a client of the gateway gets when it changes its base URL and nothing else.

use crate::support::app::World;

#[tokio::test]
async fn the_first_answer_comes_from_the_gateway_and_the_next_from_memory() {
    let world = World::new().await;
    let ada = world.gateway.person("999001").picture("17");
    let app = world.start().await;
    let first = app.avatar("999001").await.expect(200, "fwd=miss; stored; ttl=");
    let second = app.avatar("%2B999001%40s.whatsapp.net").await.expect(200, "hit; ttl=");
    assert_eq!((first.body.clone(), first.picture_id().as_str()), (second.body, "17"));
    assert_eq!(ada.lookups(), 1);
    app.stop().await;
}
