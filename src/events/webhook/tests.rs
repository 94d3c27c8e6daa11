use tempfile::TempDir;

use http::StatusCode;

use super::deliver::tests::{Receiver, says};
use super::*;
use crate::events::tests::{NOW, World};
use crate::outbound::Failure;
use crate::outcome::Token;
use crate::store::Delivery;
use crate::store::sqlite::Sqlite;
use crate::store::{Disabled, Progress};

/// Webhooks over a log in memory, with endpoints in a file.
struct Scene {
    world: World,
    clock: Clock,
    store: Arc<Sqlite>,
    receiver: Arc<Receiver>,
    metrics: Arc<Metrics>,
    /// Whether endpoints over the API may lead anywhere.
    allow_private: bool,
    _folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            world: World::new(),
            clock: Clock::manual(NOW),
            store: Arc::new(Sqlite::open(&folder.path().join("store.db")).unwrap()),
            receiver: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            allow_private: false,
            _folder: folder,
        }
    }

    /// Starts them; what is returned stops them.
    async fn start(&self, urls: &[&str]) -> (Webhooks, CancellationToken, JoinHandle<()>) {
        let given = |url: &&str| Given { url: (*url).to_owned(), secret: Some("secret".into()) };
        let given = urls.iter().map(given).collect();
        let stop = CancellationToken::new();
        let webhooks = Webhooks::new(Parts {
            config: Config { given, allow_private: self.allow_private, limit: 2 },
            clock: self.clock.clone(),
            store: self.store.clone(),
            events: self.world.events.clone(),
            post: self.receiver.clone(),
            metrics: self.metrics.clone(),
            stop: stop.clone(),
        });
        webhooks.begin().await.unwrap();
        let ends = tokio::spawn(webhooks.clone().run());
        (webhooks, stop, ends)
    }

    /// The lines of the metrics that are about webhooks, without the attempts that were not made.
    fn metrics(&self, webhooks: &Webhooks) -> Vec<String> {
        webhooks.measure();
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("avatar_proxy_webhook_"));
        lines
            .filter(|line| !line.ends_with(" 0"))
            .map(|line| line["avatar_proxy_webhook_".len()..].to_owned())
            .collect()
    }

    /// Waits for so many attempts in all; returns the ids, in order.
    async fn got(&self, count: usize) -> Vec<String> {
        let mut got = self.receiver.got.subscribe().wait_for(|got| got.len() >= count).await.unwrap().clone();
        got.sort();
        got
    }
}

fn new(url: &str) -> New {
    New { url: url.into(), secret: None, events: vec![], jids: vec![], from: Start::Now }
}

fn enabled(enabled: bool) -> Change {
    Change { enabled: Some(enabled), ..Change::default() }
}

fn secret(secret: Option<String>) -> Change {
    Change { secret: Some(secret), ..Change::default() }
}

/// Waits until something is so, which no event tells of.
async fn eventually(mut is_so: impl FnMut() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits).await.expect("in time");
}

/// A delivery of nobody's that was given up.
fn dead(sequence: u64, noticed_at: Timestamp) -> Delivery {
    Delivery {
        sequence,
        event_id: format!("event {sequence}"),
        subject: None,
        noticed_at,
        attempts: 10,
        first_at: None,
        due_at: NOW,
        dead: true,
        json: "{\"event\":".into(),
    }
}

const URL: &str = "https://receiver.example/hook";

#[tokio::test]
async fn an_endpoint_gets_what_comes_after_it_and_goes_on_after_a_restart() {
    let scene = Scene::new();
    let (webhooks, stop, ends) = scene.start(&[]).await;
    scene.world.append(1);
    let made = webhooks.create(new(URL)).await.unwrap();
    assert!(made.secret.as_ref().unwrap().text.starts_with("whsec_"));
    assert_eq!((made.state.clone(), made.lag, made.id.len()), (State::Active, Lag::default(), 16));
    scene.world.append(1);
    assert_eq!(scene.got(1).await, ["event 1"]);
    stop.cancel();
    ends.await.unwrap();
    scene.world.append(1);
    let (webhooks, ..) = scene.start(&[]).await;
    assert_eq!(scene.got(2).await, ["event 1", "event 2"]);
    let shown = webhooks.show(&made.id).await.unwrap();
    assert_eq!(shown, View { secret: None, last: shown.last.clone(), lag: shown.lag, ..made }, "without its secret");
}

#[tokio::test]
async fn who_begins_with_the_earliest_gets_everything_that_is_kept() {
    let scene = Scene::new();
    scene.world.append(2);
    let (webhooks, ..) = scene.start(&[]).await;
    webhooks.create(New { from: Start::Earliest, ..new(URL) }).await.unwrap();
    assert_eq!(scene.got(2).await, ["event 0", "event 1"]);
}

#[tokio::test]
async fn bad_wishes_change_nothing() {
    let scene = Scene::new();
    let (webhooks, ..) = scene.start(&[]).await;
    for url in
        ["http://127.0.0.1/", "http://localhost/", "ftp://h.example/", "https://u:p@h.example/", "https://h.example/#f"]
    {
        assert!(matches!(webhooks.create(new(url)).await, Err(Trouble::Url(_))), "{url}");
    }
    let secret = webhooks.create(New { secret: Some("two words".into()), ..new(URL) }).await;
    assert!(matches!(secret, Err(Trouble::Secret(_))));
    for event in ["set", "avatar.gone", "avatar.", ""] {
        let events = webhooks.create(New { events: vec![event.into()], ..new(URL) }).await;
        assert!(matches!(events, Err(Trouble::Event)), "{event}");
    }
    assert!(webhooks.list().await.unwrap().is_empty());
    let known = webhooks.create(new(URL)).await.unwrap();
    webhooks.create(new(URL)).await.unwrap();
    assert!(matches!(webhooks.create(new(URL)).await, Err(Trouble::TooMany(_))));
    assert!(matches!(webhooks.show("0").await, Err(Trouble::Unknown)));
    assert!(matches!(webhooks.remove("0").await, Err(Trouble::Unknown)));
    assert!(matches!(webhooks.change("0", enabled(true)).await, Err(Trouble::Unknown)));
    let foreign = Replay::After("00000000000000bb.0".parse().unwrap());
    let ahead = Replay::After("00000000000000aa.9".parse().unwrap());
    for replay in [foreign, ahead] {
        assert!(matches!(webhooks.replay(&known.id, replay).await, Err(Trouble::Cursor)));
    }
    scene.world.append(1);
    assert_eq!(scene.got(2).await, ["event 0", "event 0"], "they go on all the same");
}

#[tokio::test]
async fn who_is_disabled_misses_nothing_and_who_is_removed_gets_nothing() {
    let scene = Scene::new();
    let (webhooks, ..) = scene.start(&[]).await;
    let [one, other] = [webhooks.create(new(URL)).await.unwrap(), webhooks.create(new(URL)).await.unwrap()];
    let disabled = webhooks.change(&one.id, enabled(false)).await.unwrap();
    assert_eq!(disabled.state, State::Disabled { why: "asked".into(), since: NOW });
    webhooks.remove(&other.id).await.unwrap();
    scene.world.append(2);
    scene.world.followed().await;
    assert!(scene.receiver.got.borrow().is_empty());
    webhooks.change(&one.id, enabled(true)).await.unwrap();
    assert_eq!(scene.got(2).await, ["event 0", "event 1"]);
    assert_eq!(webhooks.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_was_gone_gets_what_it_refused_as_soon_as_it_is_enabled() {
    let scene = Scene::new();
    let (webhooks, stop, ends) = scene.start(&[]).await;
    let id = webhooks.create(new(URL)).await.unwrap().id;
    stop.cancel();
    ends.await.unwrap();
    let refused = Delivery { attempts: 7, due_at: NOW + Duration::from_secs(50_000), dead: false, ..dead(1, NOW) };
    let disabled = Some(Disabled { why: "gone".into(), since: NOW });
    let standing = Standing { disabled, ..webhooks.known(&id).await.unwrap().standing };
    let progress =
        Progress { endpoint: id.clone(), lease: Token(0), becomes: None, standing, kept: vec![refused], ended: vec![] };
    scene.store.progress(progress).await.unwrap();
    let (webhooks, ..) = scene.start(&[]).await;
    scene.clock.advance(Duration::from_secs(30));
    let behind = format!("lag_seconds{{endpoint=\"{id}\"}} 30");
    eventually(|| scene.metrics(&webhooks).contains(&behind)).await;
    let shown = webhooks.show(&id).await.unwrap();
    assert_eq!((shown.state, shown.pending), (State::Disabled { why: "gone".into(), since: NOW }, 1));
    assert_eq!(webhooks.change(&id, enabled(true)).await.unwrap().state, State::Active);
    assert_eq!(scene.got(1).await, ["event 1"]);
}

#[tokio::test]
async fn a_test_goes_out_at_once_even_to_who_is_disabled_and_changes_nothing() {
    let scene = Scene::new();
    let (webhooks, ..) = scene.start(&[]).await;
    let made = webhooks.create(new(URL)).await.unwrap();
    webhooks.change(&made.id, enabled(false)).await.unwrap();
    let before = webhooks.show(&made.id).await.unwrap();
    let gone = Ok(says(StatusCode::GONE));
    scene.receiver.says.lock().unwrap().extend([gone, Err(Failure::Late)]);
    for (delivered, result) in [(false, "410"), (false, "late"), (true, "204")] {
        let tested = webhooks.test(&made.id).await.unwrap();
        assert_eq!((tested.delivered, tested.result.as_str()), (delivered, result));
    }
    let ids = scene.got(3).await;
    assert!(ids.iter().all(|id| id.starts_with("test-")) && ids[0] != ids[1], "{ids:?}");
    assert_eq!(webhooks.show(&made.id).await.unwrap(), before);
    assert!(matches!(webhooks.test("0").await, Err(Trouble::Unknown)));
}

#[tokio::test]
async fn what_was_delivered_can_be_sent_again() {
    let scene = Scene::new();
    let (webhooks, ..) = scene.start(&[]).await;
    let known = webhooks.create(new(URL)).await.unwrap();
    scene.world.append(3);
    scene.got(3).await;
    webhooks.replay(&known.id, Replay::After("00000000000000aa.1".parse().unwrap())).await.unwrap();
    assert_eq!(scene.got(5).await, ["event 0", "event 1", "event 1", "event 2", "event 2"]);
}

#[tokio::test]
async fn a_new_secret_holds_beside_the_one_before_for_a_day() {
    let scene = Scene::new();
    let (webhooks, ..) = scene.start(&[]).await;
    let known = webhooks.create(New { secret: Some("first".into()), ..new(URL) }).await.unwrap();
    for text in ["second", "third"] {
        webhooks.change(&known.id, secret(Some(text.into()))).await.unwrap();
    }
    let secrets = webhooks.known(&known.id).await.unwrap().endpoint.secrets;
    let second = Secret { text: "second".into(), until: Some(NOW + ROTATION) };
    assert_eq!(secrets, [Secret { text: "third".into(), until: None }, second], "two at the most");
    let made = webhooks.change(&known.id, secret(None)).await.unwrap();
    assert!(made.secret.unwrap().text.starts_with("whsec_"));
}

#[tokio::test]
async fn what_a_flag_gives_is_there_as_long_as_the_flag_is() {
    let scene = Scene::new();
    let urls = ["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"];
    let (webhooks, stop, ends) = scene.start(&urls).await;
    scene.world.append(1);
    scene.got(2).await;
    let known = webhooks.list().await.unwrap();
    assert!(known.iter().all(|known| known.from_flag));
    let id = &known[0].id;
    assert!(matches!(webhooks.remove(id).await, Err(Trouble::Given("--webhook"))));
    assert!(matches!(webhooks.change(id, secret(None)).await, Err(Trouble::Given("--webhook-secret"))));
    webhooks.create(new(URL)).await.unwrap();
    stop.cancel();
    ends.await.unwrap();
    scene.world.append(1);
    scene.clock.advance(Duration::from_secs(60));
    let (webhooks, ..) = scene.start(&urls[..1]).await;
    assert!(webhooks.list().await.unwrap().iter().all(|known| known.created_at == NOW));
    assert_eq!(scene.got(4).await, ["event 0", "event 0", "event 1", "event 1"], "from where each was");
    let urls: Vec<_> = webhooks.list().await.unwrap().into_iter().map(|known| known.url).collect();
    assert!(urls.len() == 2 && !urls.contains(&"http://127.0.0.1:9/b".to_owned()), "{urls:?}");
}

#[tokio::test]
async fn the_metrics_of_an_endpoint_come_and_go_with_it() {
    let scene = Scene::new();
    let (webhooks, ..) = scene.start(&[]).await;
    let id = webhooks.create(new(URL)).await.unwrap().id;
    scene.world.append(1);
    scene.got(1).await;
    let active = [
        format!("deliveries_total{{endpoint=\"{id}\",result=\"delivered\"}} 1"),
        format!("state{{endpoint=\"{id}\",state=\"active\"}} 1"),
    ];
    eventually(|| scene.metrics(&webhooks) == active).await;
    webhooks.change(&id, enabled(false)).await.unwrap();
    scene.world.append(3);
    scene.clock.advance(Duration::from_secs(90));
    let disabled = [
        active[0].clone(),
        format!("lag_events{{endpoint=\"{id}\"}} 3"),
        format!("lag_seconds{{endpoint=\"{id}\"}} 90"),
        format!("state{{endpoint=\"{id}\",state=\"disabled\"}} 1"),
    ];
    eventually(|| scene.metrics(&webhooks) == disabled).await;
    let shown = webhooks.show(&id).await.unwrap();
    assert_eq!(shown.lag, Lag { events: 3, time: Duration::from_secs(90) }, "listings tell the same");
    webhooks.remove(&id).await.unwrap();
    webhooks.measure();
    let text = String::from_utf8(scene.metrics.render()).unwrap();
    assert!(!text.contains(&id), "{text}");
}

#[tokio::test]
async fn dead_letters_are_shown_until_they_are_too_old() {
    let scene = Scene::new();
    let (webhooks, stop, ends) = scene.start(&[]).await;
    let id = webhooks.create(new(URL)).await.unwrap().id;
    stop.cancel();
    ends.await.unwrap();
    let standing = webhooks.known(&id).await.unwrap().standing;
    let kept = [dead(1, NOW), dead(2, NOW - Duration::from_secs(3500))];
    let progress =
        Progress { endpoint: id.clone(), lease: Token(0), becomes: None, standing, kept: kept.into(), ended: vec![] };
    scene.store.progress(progress).await.unwrap();
    let (webhooks, ..) = scene.start(&[]).await;
    assert_eq!(webhooks.show(&id).await.unwrap().dead_letters, 2);
    scene.world.pass(Duration::from_secs(200));
    scene.clock.advance(Duration::from_secs(200));
    eventually(|| scene.metrics(&webhooks).contains(&format!("dead_letters{{endpoint=\"{id}\"}} 1"))).await;
    let replayed = webhooks.replay(&id, Replay::DeadLetters).await.unwrap();
    assert_eq!((replayed.dead_letters, replayed.pending), (0, 1));
    assert_eq!(scene.got(1).await, ["event 1"]);
    eventually(|| scene.metrics(&webhooks).iter().all(|line| !line.starts_with("pending"))).await;
}

#[tokio::test]
async fn an_address_that_may_not_be_used_any_more_is_shown_as_the_reason() {
    let mut scene = Scene::new();
    scene.allow_private = true;
    let (webhooks, stop, ends) = scene.start(&[]).await;
    let id = webhooks.create(new("http://127.0.0.1:9/")).await.unwrap().id;
    stop.cancel();
    ends.await.unwrap();
    scene.allow_private = false;
    scene.clock.advance(Duration::from_secs(60));
    let (webhooks, ..) = scene.start(&[]).await;
    scene.world.append(1);
    let barred = State::Disabled { why: "address".into(), since: NOW + Duration::from_secs(60) };
    let shown = webhooks.show(&id).await.unwrap();
    assert_eq!(shown.state, barred);
    assert_eq!(webhooks.change(&id, enabled(true)).await.unwrap().state, barred, "which enabling does not change");
    assert_eq!(webhooks.test(&id).await.unwrap().result, "address");
    assert!(scene.receiver.got.borrow().is_empty());
}
