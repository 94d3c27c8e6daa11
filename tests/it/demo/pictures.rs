//! Signed addresses and what is behind them.

use std::time::Duration;

use avatar_proxy::clock::Timestamp;
use avatar_proxy::demo::people::{CHANNEL, PRESENT, RESTLESS, SLOW, WITHOUT_PICTURE};
use avatar_proxy::demo::{Address, Options, Population, Reply, Shape, Trouble};
use avatar_proxy::outcome::signed_until;

use super::{NOW, World};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_picture_is_served_until_its_address_expires() {
    let world = World::new(Options { url_lifetime: HOUR..=HOUR, ..Options::default() }).await;
    let url = world.avatar("phone=1").await.url();
    assert_eq!(signed_until(&url), Some(NOW + HOUR));
    let picture = world.get(&url).await;
    assert_eq!((picture.status.as_u16(), picture.header("content-type")), (200, "image/jpeg"));
    assert!(picture.body.starts_with(&[0xFF, 0xD8]) && picture.body.ends_with(&[0xFF, 0xD9]));
    let preview = world.get(&world.avatar("phone=1&is_preview=true").await.url()).await;
    assert!(preview.body.len() < picture.body.len());

    let forged = world.get(&url.replace("oe=6", "oe=7")).await;
    assert_eq!((forged.status.as_u16(), forged.text()), (403, "Bad URL hash"));
    world.clock.advance(HOUR);
    assert_eq!(world.get(&url).await.body, picture.body);
    world.clock.advance(Duration::from_secs(1));
    let expired = world.get(&url).await;
    assert_eq!((expired.status.as_u16(), expired.text()), (403, "URL signature expired"));
    assert_eq!(world.gateway.picture_requests(), 5);
    assert_eq!(world.gateway.lookups(), 2, "a picture is no lookup");
}

#[tokio::test]
async fn signing_again_changes_the_address_by_whole_steps_and_not_the_file() {
    let world = World::new(Options { expiry_step: 4 * HOUR, ..Options::default() }).await;
    let file = |url: &str| url.split_once('?').unwrap().0.to_owned();
    let first = world.avatar("phone=1").await.url();
    world.clock.advance(4 * HOUR);
    let later = world.avatar("phone=1").await.url();
    assert_ne!(later, first);
    assert_eq!(file(&later), file(&first));
    assert_eq!(signed_until(&later).unwrap().since(signed_until(&first).unwrap()), 4 * HOUR);
    world.gateway.person("1").picture("another");
    assert_ne!(file(&world.avatar("phone=1").await.url()), file(&first));
}

#[tokio::test]
async fn addresses_come_in_every_kind_that_is_asked_for() {
    let world = World::new(Options::default()).await;
    let ada = world.gateway.person("1");
    let until = |address: Address| {
        ada.address(address);
        let world = &world;
        async move { signed_until(&world.avatar("phone=1").await.url()) }
    };
    assert_eq!(until(Address::Lasting(HOUR)).await, Some(NOW + HOUR));
    let dead = Timestamp::from_seconds(1_600_000_000);
    assert_eq!(until(Address::Until(dead)).await, Some(dead));
    assert_eq!(until(Address::UnreadableExpiry).await, None);
    assert_eq!(until(Address::WithoutExpiry).await, None);
    let unsigned = world.avatar("phone=1").await.url();
    assert!(!unsigned.contains("oe="), "{unsigned}");
    assert_eq!(world.get(&unsigned).await.status, 200);
    ada.address(Address::Missing);
    assert_eq!(world.avatar("phone=1").await.url(), "");

    ada.address(Address::Usual).shape(Shape::OeOh);
    let url = world.avatar("phone=1&is_preview=1").await.url();
    assert!(url.contains("/s96x96/") && url.contains("_n.jpg?oe="), "{url}");
    assert_eq!(world.get(&url).await.status, 200);
}

#[tokio::test]
async fn the_people_whom_the_documentation_names_are_spared_what_goes_wrong_by_chance() {
    let always = vec![Trouble { one_in: 1, reply: Reply::RateLimited }];
    let options = Options { latency: Duration::ZERO..=Duration::ZERO, troubles: always, ..Options::demo(7) };
    let world = World::new(options).await;
    let people = Population::generate(7, 12);
    people.settle(&world.gateway);
    assert_eq!(world.avatar(&format!("phone={PRESENT}")).await.status, 200);
    let other = people.people()[9].jid;
    assert!(world.avatar(&format!("phone={other}")).await.text().contains("rate-overlimit"));
}

#[tokio::test]
async fn the_demonstration_s_people_are_what_they_are_said_to_be() {
    let options = Options { latency: Duration::ZERO..=Duration::ZERO, troubles: Vec::new(), ..Options::demo(7) };
    let world = World::new(options).await;
    Population::generate(7, 200).settle(&world.gateway);
    let ask = async |phone: &str| world.avatar(&format!("phone={phone}")).await;

    let lifetime = signed_until(&ask(PRESENT).await.url()).unwrap().since(NOW);
    assert!((Duration::from_secs(180)..=Duration::from_secs(390)).contains(&lifetime), "{lifetime:?}");
    assert_eq!(ask(WITHOUT_PICTURE).await.status, 500);
    assert_eq!(ask("4912345").await.code(), "INVALID_JID");
    assert_eq!(ask(CHANNEL).await.url(), "");
    let before = ask(RESTLESS).await.id();
    assert_eq!(ask(RESTLESS).await.id(), before);
    world.clock.advance(Duration::from_secs(60));
    assert_ne!(ask(RESTLESS).await.id(), before);

    let slow = world.ask(&format!("phone={SLOW}"));
    world.gateway.person(SLOW).arrived(1).await;
    assert_eq!((slow.is_finished(), world.gateway.in_flight()), (false, 1));
    slow.abort();
    world.gateway.idle().await;
}
