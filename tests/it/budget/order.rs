//! Who comes first.

use avatar_proxy::demo::Address;

use super::*;

#[tokio::test]
async fn misses_come_before_expiring_entries_and_these_before_rechecks() {
    const HOUR: u64 = 3600;
    let world = world(Options::default()).await;
    let world = world.flag("--gateway-rate=6/m").flag("--gateway-burst=1").flag("--gateway-concurrency=1");
    let app = world.start().await;
    let recheck = world.gateway.person("999001");
    let expiring = world.gateway.person("999002").address(Address::Lasting(secs(6 * HOUR)));
    let (miss, slow) = (world.gateway.person("999003"), world.gateway.person("999004"));
    passing(&world, ask(&app, "sales", 999_001)).await.expect(200, "fwd=miss");
    world.clock.advance(secs(HOUR));
    passing(&world, ask(&app, "sales", 999_002)).await.expect(200, "fwd=miss");
    world.clock.advance(secs(60));

    // Everything piles up behind a slow lookup.
    let hold = slow.hold();
    let first = asking(&app, "sales", 999_004);
    slow.arrived(1).await;
    world.clock.advance(secs(5 * HOUR + HOUR / 4));
    until_waiting(&app, 2).await;
    let client = asking(&app, "sales", 999_003);
    until_waiting(&app, 3).await;
    let before = world.gateway.log().len();
    hold.release();
    first.await.unwrap().expect(504, "fwd=miss; detail=too-long");
    for person in [&miss, &expiring, &recheck] {
        eventually("the next one starts", async || {
            world.clock.advance(Duration::from_millis(50));
            person.lookups() == if person.jid() == miss.jid() { 1 } else { 2 }
        })
        .await;
    }
    let order: Vec<_> = world.gateway.log()[before..].iter().filter_map(|lookup| lookup.jid).collect();
    assert_eq!(order, [miss.jid(), expiring.jid(), recheck.jid()]);
    client.await.unwrap().expect(200, "fwd=miss");
    app.stop().await;
}
