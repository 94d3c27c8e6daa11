use tempfile::TempDir;

use http::StatusCode;

use super::deliver::tests::{Receiver, says};
use super::*;
use crate::events::tests::{NOW, World};
use crate::outbound::Failure;
use crate::store::sqlite::Sqlite;

/// Webhooks over a log in memory, with endpoints in a file.
struct Scene {
    world: World,
    clock: Clock,
    store: Arc<Sqlite>,
    receiver: Arc<Receiver>,
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
            _folder: folder,
        }
    }

    /// Starts them; what is returned stops them.
    async fn start(&self, urls: &[&str]) -> (Webhooks, CancellationToken, JoinHandle<()>) {
        let given = |url: &&str| Given { url: (*url).to_owned(), secret: Some("secret".into()) };
        let given = urls.iter().map(given).collect();
        let stop = CancellationToken::new();
        let webhooks = Webhooks::new(Parts {
            config: Config { given, allow_private: false, limit: 2 },
            clock: self.clock.clone(),
            store: self.store.clone(),
            events: self.world.events.clone(),
            post: self.receiver.clone(),
            metrics: Arc::new(Metrics::new()),
            stop: stop.clone(),
        });
        webhooks.begin().await.unwrap();
        let ends = tokio::spawn(webhooks.clone().run());
        (webhooks, stop, ends)
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
