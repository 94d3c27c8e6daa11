//! Every spelling of a person is that person: one lookup, one entry. Other answers are other entries.

use avatar_proxy::demo::Options;

use crate::support::app::World;
use crate::support::hand;

#[tokio::test]
async fn every_spelling_of_a_person_shares_one_lookup() {
    let world = World::new().await;
    let ada = world.gateway.person("6281234567890").picture("17");
    let app = world.start().await;
    let first = app.avatar("6281234567890").await.expect(200, "fwd=miss; stored");
    for spelling in [
        "%2B6281234567890",
        "+6281234567890",
        "6281234567890@s.whatsapp.net",
        "6281234567890%40s.whatsapp.net",
        "%36281234567890",
        "6281234567890%3A12%40s.whatsapp.net",
        "6281234567890.0:12@s.whatsapp.net",
        "6281234567890@c.us",
        "%2B6281234567890@S.WhatsApp.NET",
        "6281234567890&is_preview=false",
        "6281234567890&is_preview=F&is_community=0",
        "6281234567890&is_preview=&unknown=1",
        "6281234567890&is_community=true",
        "6281234567890&is_community=T&is_preview=0",
    ] {
        assert_eq!(app.avatar(spelling).await.expect(200, "hit; ttl=").body, first.body, "{spelling}");
    }
    let native = app.get("/avatars/6281234567890:3@s.whatsapp.net").await.expect(200, "hit; ttl=");
    assert_eq!((native.json()["id"].as_str(), ada.lookups()), (Some("17"), 1));
    app.stop().await;
}

#[tokio::test]
async fn the_length_of_a_bare_number_tells_a_person_from_a_group() {
    let world = World::new().await;
    let app = world.start().await;
    for phone in ["123456789012345", "1234567890123456", "120363025246125486", "6281234567890-1612345678"] {
        app.avatar(phone).await.expect(200, "fwd=miss");
    }
    for canonical in [
        "123456789012345@s.whatsapp.net",
        "1234567890123456@g.us",
        "120363025246125486@g.us",
        "6281234567890-1612345678@g.us",
    ] {
        app.avatar(canonical).await.expect(200, "hit");
    }
    app.avatar("123456789012345@g.us").await.expect(200, "fwd=miss");
    app.stop().await;
}

#[tokio::test]
async fn a_group_and_its_community_are_two_answers_and_every_kind_of_address_is_its_own() {
    let world = World::new().await;
    let app = world.start().await;
    for target in [
        "120363025246125486@g.us",
        "120363025246125486@g.us&is_community=true",
        "120363025246125486@newsletter",
        "120363025246125486@lid",
        "120363025246125486@bot",
        "status@broadcast",
    ] {
        app.avatar(target).await.expect(200, "fwd=miss; stored");
        app.avatar(target).await.expect(200, "hit");
    }
    let communities: Vec<bool> = world.gateway.log().iter().map(|lookup| lookup.community).collect();
    assert_eq!(communities, [false, true, false, false, false, false]);
    app.stop().await;
}

#[tokio::test]
async fn preview_and_full_picture_are_two_answers() {
    let world = hand::world(Options::default()).await;
    let app = world.start().await;
    let full = app.avatar("999001").await.expect(200, "fwd=miss");
    let preview = app.avatar("999001&is_preview=True").await.expect(200, "fwd=miss");
    assert_eq!(
        (full.json()["results"]["type"].as_str(), preview.json()["results"]["type"].as_str()),
        (Some("image"), Some("preview"))
    );
    assert_ne!(full.url(), preview.url());
    assert_eq!(full.picture_id(), preview.picture_id());
    for spelling in ["1", "t", "T", "TRUE", "true"] {
        assert_eq!(app.avatar(&format!("999001&is_preview={spelling}")).await.expect(200, "hit").body, preview.body);
    }
    assert_eq!(world.gateway.lookups(), 2);
    app.stop().await;
}
