use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::*;
use crate::events::tests::{NOW, World};
use crate::events::webhook::board::Figures;
use crate::events::webhook::view::Lag;
use crate::store::{Kept, Known, Put, Secret, What};

/// A store that holds one endpoint's deliveries.
#[derive(Default)]
struct Cabinet {
    standing: Mutex<Option<Standing>>,
    rows: Mutex<BTreeMap<u64, Delivery>>,
}

#[async_trait]
impl Endpoints for Cabinet {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        Ok(vec![])
    }

    async fn put_endpoint(&self, _: Endpoint, _: Standing, _: u64) -> Result<Put, StoreError> {
        Ok(Put::Done)
    }

    async fn drop_endpoint(&self, _: &str) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn deliveries(&self, _: &str, dead: bool, after: u64, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.values().filter(|row| row.dead == dead && row.sequence > after).take(limit).cloned().collect())
    }

    async fn kept(&self, _: &str) -> Result<Kept, StoreError> {
        let (dead, pending): (Vec<_>, Vec<_>) = self.rows.lock().unwrap().values().cloned().partition(|row| row.dead);
        Ok(Kept { pending: pending.len() as u64, dead: dead.len() as u64 })
    }

    async fn progress(&self, progress: Progress) -> Result<(), StoreError> {
        let mut rows = self.rows.lock().unwrap();
        rows.extend(progress.kept.into_iter().map(|kept| (kept.sequence, kept)));
        rows.retain(|sequence, _| !progress.ended.contains(sequence));
        *self.standing.lock().unwrap() = Some(progress.standing);
        Ok(())
    }

    async fn revive(&self, _: &str, _: u64, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn trim_dead(&self, _: Timestamp, _: usize) -> Result<Vec<String>, StoreError> {
        Ok(vec![])
    }
}

/// A receiver that says what it is told to say, and then that all is well.
#[derive(Default)]
pub(in crate::events::webhook) struct Receiver {
    pub(in crate::events::webhook) says: Mutex<VecDeque<Result<Answer, Failure>>>,
    /// The next attempt meets a mistake of ours.
    panics: AtomicBool,
    /// The ids of all attempts.
    pub(in crate::events::webhook) got: watch::Sender<Vec<String>>,
}

pub(in crate::events::webhook) fn says(status: StatusCode) -> Answer {
    Answer { status, retry_after: None }
}

#[async_trait]
impl Post for Receiver {
    async fn post(&self, _: &Uri, headers: HeaderMap, body: Bytes, _: Reach) -> Result<Answer, Failure> {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        assert!(headers.contains_key("x-hub-signature-256") && headers.contains_key("webhook-signature"));
        assert!(body.starts_with(b"{\"event\":"));
        assert!(!self.panics.swap(false, Ordering::Relaxed), "the test says so");
        let says = self.says.lock().unwrap().pop_front();
        self.got.send_modify(|got| got.push(id));
        says.unwrap_or(Ok(self::says(StatusCode::NO_CONTENT)))
    }
}

fn endpoint(events: &[&str]) -> Endpoint {
    Endpoint {
        id: "a".into(),
        url: "http://receiver.example/".into(),
        secrets: vec![Secret { text: "secret".into(), until: None }],
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        jids: vec![],
        from_flag: true,
        created_at: NOW,
    }
}

struct Scene {
    world: World,
    clock: Clock,
    cabinet: Arc<Cabinet>,
    receiver: Arc<Receiver>,
    standing: watch::Sender<Standing>,
    row: Arc<Row>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Scene {
    fn new(answers: impl IntoIterator<Item = Result<Answer, Failure>>) -> Self {
        let receiver = Arc::new(Receiver::default());
        receiver.says.lock().unwrap().extend(answers);
        let standing = Standing::at("00000000000000aa.0".parse().unwrap());
        let known = Known { endpoint: endpoint(&[]), standing, kept: Kept::default() };
        Self {
            world: World::new(),
            clock: Clock::manual(NOW),
            cabinet: Arc::default(),
            receiver,
            row: Arc::new(Row::new(Figures::of(&known, State::Active))),
            metrics: Arc::new(Metrics::new()),
            standing: watch::Sender::new(known.standing),
            stop: CancellationToken::new(),
        }
    }

    fn start(&self, events: &[&str]) -> JoinHandle<()> {
        let endpoint = endpoint(events);
        let deliver = Deliver {
            held: Held::for_good(),
            url: endpoint.url.parse().unwrap(),
            endpoint,
            reach: Reach::Anywhere,
            shared: Shared {
                clock: self.clock.clone(),
                store: self.cabinet.clone(),
                events: self.world.events.clone(),
                post: self.receiver.clone(),
                metrics: self.metrics.clone(),
            },
            row: self.row.clone(),
            standing: self.standing.clone(),
            stop: self.stop.clone(),
        };
        tokio::spawn(deliver.run())
    }

    /// Waits for so many attempts in all; returns the ids.
    async fn got(&self, count: usize) -> Vec<String> {
        self.receiver.got.subscribe().wait_for(|got| got.len() >= count).await.unwrap().clone()
    }

    /// Waits until the endpoint stands like this, and so it is written down.
    async fn stands(&self, like: impl FnMut(&Standing) -> bool) {
        drop(self.standing.subscribe().wait_for(like).await.unwrap());
    }
}

fn ids(of: impl IntoIterator<Item = u64>) -> Vec<String> {
    of.into_iter().map(|event| format!("event {event}")).collect()
}

#[tokio::test]
async fn what_is_recorded_is_delivered_and_the_cursor_follows() {
    let scene = Scene::new([]);
    scene.start(&[]);
    scene.world.append(300);
    let mut got = scene.got(300).await;
    got.sort_by_key(|id| id[6..].parse::<u64>().unwrap());
    assert_eq!(got, ids(0..300));
    scene.stands(|standing| standing.cursor.sequence == 300).await;
    let last = scene.standing.borrow().last.clone().unwrap();
    assert_eq!((last.text.as_str(), last.at), ("204", NOW));
    assert!(scene.cabinet.rows.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_failed_is_kept_and_sent_again_when_its_time_comes() {
    let scene = Scene::new([Ok(says(StatusCode::FOUND)), Err(Failure::Late)]);
    scene.start(&[]);
    scene.world.append(1);
    for (attempt, pause) in [(1, 6), (2, 330)] {
        assert_eq!(scene.got(attempt).await.len(), attempt);
        let told = ["302", "late"][attempt - 1];
        scene.stands(|standing| standing.last.as_ref().is_some_and(|last| last.text == told)).await;
        assert_eq!(scene.cabinet.rows.lock().unwrap()[&1].attempts as usize, attempt);
        assert_eq!(scene.standing.borrow().cursor.sequence, 1, "what is kept does not hold the cursor back");
        scene.clock.advance(Duration::from_secs(pause));
    }
    assert_eq!(scene.got(3).await, ["event 0", "event 0", "event 0"], "under the same id");
    scene.stands(|standing| standing.failing_since.is_none()).await;
    assert!(scene.cabinet.rows.lock().unwrap().is_empty());
}

#[tokio::test]
async fn after_a_kill_delivery_goes_on_with_what_was_not_delivered() {
    let scene = Scene::new([Ok(says(StatusCode::INTERNAL_SERVER_ERROR))]);
    let task = scene.start(&[]);
    scene.world.append(1);
    scene.stands(|standing| standing.cursor.sequence == 1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    scene.world.append(1);
    scene.clock.advance(Duration::from_secs(6));
    scene.start(&[]);
    let mut got = scene.got(3).await.split_off(1);
    got.sort();
    assert_eq!(got, ids(0..2));
    scene.stands(|standing| standing.cursor.sequence == 2 && standing.failing_since.is_none()).await;
}

#[tokio::test]
async fn whoever_is_gone_is_disabled_and_left_alone() {
    let scene = Scene::new([Ok(says(StatusCode::GONE))]);
    let task = scene.start(&[]);
    scene.world.append(1);
    task.await.unwrap();
    assert_eq!(scene.standing.borrow().disabled.as_ref().unwrap().why, "gone");
    assert_eq!(scene.cabinet.rows.lock().unwrap().len(), 1, "what it did not take is kept");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_wanted_is_delivered() {
    let scene = Scene::new([]);
    scene.start(&["avatar.set"]);
    scene.world.append(100);
    scene.stands(|standing| standing.cursor.sequence == 100).await;
    assert!(scene.receiver.got.borrow().is_empty(), "nothing was set, all was changed");
}

#[tokio::test]
async fn of_somebody_who_is_forgotten_nothing_that_waits_is_sent() {
    let scene = Scene::new([Ok(says(StatusCode::INTERNAL_SERVER_ERROR))]);
    scene.start(&[]);
    scene.world.append(1);
    scene.stands(|standing| standing.cursor.sequence == 1).await;
    scene.cabinet.rows.lock().unwrap().clear();
    scene.world.append_record(What::Forgotten);
    scene.world.followed().await;
    scene.world.append(1);
    scene.got(2).await;
    scene.clock.advance(Duration::from_secs(600));
    scene.world.append(1);
    assert_eq!(scene.got(3).await, ["event 0", "event 2", "event 3"]);
}

#[tokio::test]
async fn whoever_missed_something_is_told_and_goes_on() {
    let scene = Scene::new([says(StatusCode::BAD_GATEWAY), says(StatusCode::NO_CONTENT)].map(Ok));
    scene.world.append(3);
    scene.world.followed().await;
    scene.world.trim().await;
    scene.start(&["avatar.changed"]);
    scene.got(1).await;
    scene.stands(|standing| standing.cursor.sequence == 3).await;
    assert_eq!(scene.cabinet.rows.lock().unwrap()[&1].subject, None, "the news is kept like any other");
    scene.clock.advance(Duration::from_secs(6));
    scene.world.append(1);
    let gap = "gap-00000000000000aa-0-00000000000000aa-3";
    assert_eq!(scene.got(3).await, [gap, gap, "event 3"]);
    scene.stands(|standing| standing.cursor.sequence == 4).await;
}

#[tokio::test]
async fn an_attempt_that_panics_has_failed_and_is_made_again() {
    let scene = Scene::new([]);
    scene.receiver.panics.store(true, Ordering::Relaxed);
    scene.start(&[]);
    scene.world.append(1);
    scene.stands(|standing| standing.last.as_ref().is_some_and(|last| last.text == "panicked")).await;
    assert_eq!(scene.cabinet.rows.lock().unwrap()[&1].attempts, 1);
    scene.clock.advance(Duration::from_secs(6));
    assert_eq!(scene.got(1).await, ["event 0"]);
}

#[tokio::test]
async fn the_figures_follow_what_is_delivered_and_what_is_not() {
    let scene = Scene::new([Ok(says(StatusCode::INTERNAL_SERVER_ERROR))]);
    scene.start(&[]);
    scene.world.append(1);
    scene.stands(|standing| standing.failing_since.is_some()).await;
    scene.clock.advance(Duration::from_secs(3));
    let figures = scene.row.get();
    assert_eq!(figures.state, State::Failing { since: NOW });
    assert_eq!((figures.kept, figures.oldest), (Kept { pending: 1, dead: 0 }, Some(NOW)));
    assert_eq!(figures.lag(1, scene.clock.now()), Lag { events: 1, time: Duration::from_secs(3) });
    scene.clock.advance(Duration::from_secs(3));
    scene.stands(|standing| standing.failing_since.is_none()).await;
    let figures = scene.row.get();
    assert_eq!((figures.state.clone(), figures.lag(1, scene.clock.now())), (State::Active, Lag::default()));
    let attempts = |result| scene.metrics.webhook_deliveries.with_label_values(&["a", result]).get();
    assert_eq!((attempts("delivered"), attempts("failed"), attempts("dead")), (1, 1, 0));
}

#[tokio::test]
async fn what_dies_is_counted() {
    let scene = Scene::new([]);
    let old = Delivery {
        sequence: 1,
        event_id: "event 0".into(),
        subject: None,
        noticed_at: NOW,
        attempts: 9,
        first_at: Some(NOW - Duration::from_secs(72 * 3600)),
        due_at: NOW,
        dead: false,
        json: "{\"event\":".into(),
    };
    scene.cabinet.rows.lock().unwrap().insert(1, old);
    scene.receiver.says.lock().unwrap().push_back(Err(Failure::Unreachable));
    scene.start(&[]);
    scene.stands(|standing| standing.last.is_some()).await;
    assert!(scene.cabinet.rows.lock().unwrap()[&1].dead);
    assert_eq!(scene.row.get().kept.dead, 1);
    assert_eq!(scene.metrics.webhook_deliveries.with_label_values(&["a", "dead"]).get(), 1);
}
