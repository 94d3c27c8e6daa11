//! A failure is told to the client, kept for a short time, and then tried again.

use avatar_proxy::demo::{Options, PersonHandle, Reply};

use super::rows::{Row, rows};
use super::{ask, at_once};
use crate::support::client::{Answer, Client};
use crate::support::hand::{self, SECOND};

/// One row, played by a person and a device of its own.
#[derive(Clone)]
struct Played {
    row: Row,
    person: PersonHandle,
    client: Client,
    phone: String,
    device: String,
}

impl Played {
    async fn ask(&self) -> Answer {
        ask(&self.client, &self.phone, &self.device).await
    }

    fn is_told_so(&self, answer: &Answer) {
        let Row { status, code, ref message, class, .. } = self.row;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{:?}: {answer:?}", self.row);
        assert_eq!(&answer.message(), message, "{:?}", self.row);
        let results = &answer.json()["results"];
        if code == "DEVICE_NOT_FOUND" {
            assert_eq!(results["device_id"], *self.device);
        } else {
            assert!(results.is_null() && answer.json().as_object().unwrap().contains_key("results"), "{answer:?}");
        }
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("application/json", "no-store"));
        assert!(answer.how().ends_with(&format!("; detail={class}")), "{answer:?}");
    }
}

#[tokio::test]
async fn every_failure_is_told_once_kept_for_its_time_and_tried_again_after_it() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let played = |(index, mut row): (usize, Row)| {
        let (phone, device) = (format!("9990{index:03}"), format!("device-{index}"));
        if row.said == Reply::InvalidJid {
            row.message = format!("invalid JID {phone}@s.whatsapp.net: failed to parse");
        }
        let person = world.gateway.person(&phone).replies(row.said.clone());
        Played { row, person, client: (*app).clone(), phone, device }
    };
    let all: Vec<Played> = rows("1").into_iter().enumerate().map(played).collect();

    at_once(all.clone(), |it| async move {
        let first = it.ask().await;
        it.is_told_so(&first);
        assert_eq!(first.how(), format!("avatar-proxy; fwd=miss; detail={}", it.row.class));
        assert_eq!((first.retry_after(), it.person.lookups()), (it.row.rests, it.row.lookups), "{:?}", it.row);

        it.person.replies(Reply::Present);
        let second = it.ask().await;
        it.is_told_so(&second);
        assert_eq!(second.how(), format!("avatar-proxy; hit; ttl={}; detail={}", second.retry_after(), it.row.class));
        assert!((1..=it.row.rests).contains(&second.retry_after()), "{second:?}");
        assert_eq!(it.person.lookups(), it.row.lookups, "it rests: {:?}", it.row);
    })
    .await;

    world.clock.advance(60 * SECOND);
    at_once(all, |it| async move {
        it.ask().await.expect(200, "fwd=miss; stored");
        assert_eq!(it.person.lookups(), it.row.lookups + 1, "{:?}", it.row);
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn what_passes_at_the_second_try_is_no_failure_to_the_client() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let once = [Reply::internal("database is locked"), Reply::Starting, Reply::Page(502), Reply::Reset];
    at_once(once.into_iter().enumerate(), |(index, reply)| {
        let phone = format!("99900{index}");
        let (person, client) = (world.gateway.person(&phone).picture("17").replies_once(reply), (*app).clone());
        async move {
            let answer = client.avatar(&phone).await.expect(200, "fwd=miss; stored");
            assert_eq!((answer.picture_id().as_str(), person.lookups()), ("17", 2));
        }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn the_second_answer_is_the_one_that_counts() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let ada = world.gateway.person("999001").replies_in_turn([Reply::Page(502)], Reply::NotSet);
    let answer = app.avatar("999001").await.expect(500, "fwd=miss; stored");
    assert_eq!((answer.code().as_str(), ada.lookups()), ("INTERNAL_SERVER_ERROR", 2));
    app.stop().await;
}

#[tokio::test]
async fn a_person_whose_lookups_fail_rests_alone_and_longer_each_time() {
    let world = hand::flowing(Options::default()).await;
    let app = world.start().await;
    let ada = world.gateway.person("999001").replies(Reply::ContextTimeout);
    for (lookups, rests) in (1..).zip([2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) {
        let answer = app.avatar("999001").await.expect(408, "fwd=miss; detail=passing");
        assert_eq!((answer.retry_after(), ada.lookups()), (rests, lookups));
        app.avatar("999001").await.expect(408, "hit; ttl=");
        app.avatar(&format!("9991{lookups}")).await.expect(200, "fwd=miss; stored");
        world.clock.advance(u32::try_from(rests).unwrap() * SECOND);
    }
    ada.replies_once(Reply::Present);
    app.avatar("999001").await.expect(200, "fwd=miss; stored");
    world.clock.advance(hand::TEN_DAYS);
    let answer = app.avatar("999001").await.expect(408, "fwd=stale; detail=passing");
    assert_eq!(answer.retry_after(), 2, "a success in between makes the next failure a first one");
    app.stop().await;
}
