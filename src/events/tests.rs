//! Readers over a log in memory, where what takes thousands of changes takes a moment.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::change::{Change, Kind};
use crate::clock::Timestamp;
use crate::store::Page;

pub(super) const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// The log: its records, and how far it was trimmed.
struct Shelf {
    extent: Mutex<Extent>,
    records: Mutex<Vec<Record>>,
    tip: watch::Sender<u64>,
    fails: Mutex<bool>,
}

#[async_trait]
impl Log for Shelf {
    async fn read_log(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        if *self.fails.lock().unwrap() {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        let records = self.records.lock().unwrap();
        let records = records.iter().filter(|record| record.sequence > after).take(limit).cloned().collect();
        Ok(Page { extent: *self.extent.lock().unwrap(), records })
    }

    async fn history(&self, _: &Jid, _: Option<&Device>, _: u64, _: usize) -> Result<Page, StoreError> {
        self.read_log(u64::MAX, 0).await
    }

    async fn trim_log(&self, before: Timestamp, _: usize) -> Result<usize, StoreError> {
        let mut records = self.records.lock().unwrap();
        let old = records.iter().take_while(|record| record.at < before).count();
        if let Some(last) = records.drain(..old).next_back() {
            self.extent.lock().unwrap().trimmed = last.sequence;
        }
        Ok(old)
    }

    fn tip(&self) -> watch::Receiver<u64> {
        self.tip.subscribe()
    }
}

pub(super) struct World {
    shelf: Arc<Shelf>,
    pub(super) events: Events,
    clock: Clock,
    metrics: Arc<Metrics>,
}

fn jid(person: u64) -> Jid {
    Jid::parse(&format!("{}", 999_000 + person)).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        let extent = Extent { epoch: "00000000000000aa".parse().unwrap(), trimmed: 0, last: 0, former: None };
        let shelf = Arc::new(Shelf {
            extent: Mutex::new(extent),
            records: Mutex::default(),
            tip: watch::Sender::new(0),
            fails: Mutex::new(false),
        });
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::manual(NOW));
        let events = Events::new(Parts {
            config: Config { retention: Duration::from_secs(3600), format: Format::Gowa },
            clock: clock.clone(),
            log: shelf.clone(),
            metrics: metrics.clone(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(events.clone().run());
        Self { shelf, events, clock, metrics }
    }

    /// Appends changes of the persons 0, 1, 2 in turn.
    pub(super) fn append(&self, count: u64) {
        for _ in 0..count {
            let last = self.shelf.extent.lock().unwrap().last;
            let change = Change {
                event_id: format!("event {last}"),
                kind: Kind::Changed,
                reason: None,
                old_id: Some("1".into()),
                new_id: Some("2".into()),
                version: last,
                noticed_at: NOW,
                not_before: NOW,
            };
            let subject = Subject { device: Device::default(), jid: jid(last % 3) };
            self.append_record(What::Change(Box::new((subject, change))));
        }
    }

    pub(super) fn append_record(&self, what: What) {
        let sequence = {
            let mut extent = self.shelf.extent.lock().unwrap();
            extent.last += 1;
            extent.last
        };
        self.shelf.records.lock().unwrap().push(Record { sequence, at: NOW, what });
        self.shelf.tip.send_replace(sequence);
    }

    /// Lets time pass for the log's readers.
    pub(super) fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Drops every record for its age.
    pub(super) async fn trim(&self) {
        self.shelf.trim_log(NOW + Duration::from_secs(1), 0).await.unwrap();
    }

    /// Waits until the tail has come as far as the log.
    pub(super) async fn followed(&self) {
        let last = self.shelf.extent.lock().unwrap().last;
        self.events.0.tip.subscribe().wait_for(|tip| *tip >= last).await.unwrap();
    }

    async fn read(&self, start: Start, filter: Filter) -> Reader {
        self.events.read(start, filter).await.unwrap()
    }
}

async fn sequences(reader: &mut Reader, count: usize) -> Vec<u64> {
    let mut seen = vec![];
    while seen.len() < count {
        seen.extend(reader.next().await.iter().map(|event| event.sequence));
    }
    seen
}

#[tokio::test]
async fn whoever_falls_behind_reads_the_log_and_misses_nothing() {
    let world = World::new();
    let mut slow = world.read(Start::Now, Filter::default()).await;
    for sequence in 1..=2 {
        world.append(1);
        world.followed().await;
        assert_eq!(sequences(&mut slow, 1).await, [sequence]);
    }
    world.append(3 * TAIL_MAX as u64);
    world.followed().await;
    assert_eq!(world.metrics.fall_backs.get(), 0);
    let all: Vec<u64> = (3..=2 + 3 * TAIL_MAX as u64).collect();
    assert_eq!(sequences(&mut slow, all.len()).await, all);
    assert_eq!(world.metrics.fall_backs.get(), 1, "once, however long it takes");
    assert!(slow.abreast, "and has caught up");
    assert!(world.events.0.tail.read().unwrap().events.len() <= TAIL_MAX);
}

#[tokio::test]
async fn whoever_falls_behind_what_is_kept_is_told() {
    let world = World::new();
    let mut slow = world.read(Start::Now, Filter::default()).await;
    world.append(2 * TAIL_MAX as u64);
    world.followed().await;
    let young = Record { at: NOW + Duration::from_secs(7200), ..world.shelf.records.lock().unwrap()[0].clone() };
    let last = 2 * TAIL_MAX as u64;
    world.shelf.records.lock().unwrap()[2 * TAIL_MAX - 1] = Record { sequence: last, ..young };
    world.shelf.trim_log(NOW + Duration::from_secs(1), 0).await.unwrap();
    let gap = slow.next().await;
    let text = String::from_utf8(gap[0].json.to_vec()).unwrap();
    let extent = *world.shelf.extent.lock().unwrap();
    assert!(text.contains("avatar.gap") && text.contains(&extent.cursor(0).to_string()), "{text}");
    assert_eq!((gap.len(), gap[0].sequence), (1, last - 1));
    assert_eq!(sequences(&mut slow, 1).await, [last]);
    assert_eq!(world.metrics.gaps.get(), 1);
}

#[tokio::test]
async fn a_filter_that_lets_nothing_through_moves_on_all_the_same() {
    let world = World::new();
    let only = Filter { device: None, jids: Some([jid(1)].into()) };
    let mut one = world.read(Start::Earliest, only.clone()).await;
    let nobody = Filter { device: None, jids: Some([jid(9)].into()) };
    world.append(300);
    let of_one: Vec<u64> = (1..=300).filter(|sequence| (sequence - 1) % 3 == 1).collect();
    assert_eq!(sequences(&mut one, 100).await, of_one);
    let listing = world.events.list(Start::Earliest, &nobody, 10).await.unwrap();
    assert_eq!((listing.events.len(), listing.next.unwrap().sequence), (0, 300));
    let listing = world.events.list(Start::Earliest, &only, 10).await.unwrap();
    assert_eq!(listing.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), of_one[..10]);
    assert_eq!(listing.next.unwrap().sequence, of_one[9]);
}

#[tokio::test]
async fn who_is_forgotten_is_not_told_of_from_memory_either() {
    let world = World::new();
    let mut reader = world.read(Start::Now, Filter::default()).await;
    world.append(10);
    world.followed().await;
    world.shelf.records.lock().unwrap().clear();
    world.append_record(What::Forgotten);
    world.followed().await;
    world.append(1);
    assert_eq!(sequences(&mut reader, 1).await, [12]);
}

#[tokio::test]
async fn a_reader_that_is_no_subscriber_is_not_counted_as_one() {
    let world = World::new();
    world.append(3);
    world.trim().await;
    let missed = Start::After("00000000000000aa.1".parse().unwrap());
    let mut quiet = world.events.read_uncounted(missed, Filter::default()).await.unwrap();
    let place = quiet.place();
    world.append(2);
    assert_eq!(sequences(&mut quiet, 3).await, [3, 4, 5]);
    assert_eq!(place.load(std::sync::atomic::Ordering::Relaxed), 5);
    let figures = |world: &World| {
        let metrics = &world.metrics;
        (metrics.subscribers.get(), metrics.events_sent.get(), metrics.gaps.get(), metrics.fall_backs.get())
    };
    assert_eq!(figures(&world), (0, 0, 0, 0));
    drop(quiet);
    let mut counted = world.read(missed, Filter::default()).await;
    assert_eq!(sequences(&mut counted, 3).await, [3, 4, 5]);
    assert_eq!(figures(&world), (1, 3, 1, 0));
    drop(counted);
    assert_eq!(figures(&world), (0, 3, 1, 0));
}

/// A reader that has read the eleventh record, of the tail.
async fn abreast_at_eleven(world: &World) -> Reader {
    world.append(10);
    let mut abreast = world.read(Start::Now, Filter::default()).await;
    world.append(1);
    world.followed().await;
    assert_eq!(sequences(&mut abreast, 1).await, [11]);
    abreast
}

#[tokio::test]
async fn whoever_stood_in_a_log_whose_place_another_took_is_told_of_a_gap() {
    let world = World::new();
    let mut abreast = abreast_at_eleven(&world).await;
    let before = abreast.cursor();
    let mut forgettings = world.events.forgettings();
    forgettings.mark_unchanged();
    world.shelf.records.lock().unwrap().clear();
    *world.shelf.extent.lock().unwrap() =
        Extent { epoch: "00000000000000bb".parse().unwrap(), trimmed: 12, last: 12, former: None };
    world.append(2);
    let gap = abreast.next().await;
    let text = String::from_utf8(gap[0].json.to_vec()).unwrap();
    assert!(text.contains("avatar.gap") && text.contains(&before.to_string()), "{text}");
    assert_eq!(sequences(&mut abreast, 2).await, [13, 14]);
    forgettings.changed().await.unwrap();
    world.append(1);
    assert_eq!(sequences(&mut abreast, 1).await, [15]);
}

#[tokio::test]
async fn where_a_log_goes_on_under_another_name_nothing_is_told_twice() {
    let world = World::new();
    let mut abreast = abreast_at_eleven(&world).await;
    let before = abreast.cursor();
    let later = Extent { epoch: "00000000000000bb".parse().unwrap(), trimmed: 0, last: 15, former: Some(before) };
    *world.shelf.extent.lock().unwrap() = later;
    world.append(2);
    assert_eq!(sequences(&mut abreast, 2).await, [16, 17]);
    assert_eq!(abreast.cursor(), later.cursor(17));
    let mut back = world.read(Start::After(before), Filter::default()).await;
    assert_eq!(sequences(&mut back, 2).await, [16, 17]);
    assert_eq!(world.metrics.gaps.get(), 0);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_waited_for() {
    let world = World::new();
    world.append(5);
    let mut reader = world.read(Start::Earliest, Filter::default()).await;
    *world.shelf.fails.lock().unwrap() = true;
    assert!(world.events.read(Start::Now, Filter::default()).await.is_err());
    let waiting = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
    assert!(waiting.is_err() || !waiting.unwrap().is_empty());
    *world.shelf.fails.lock().unwrap() = false;
    world.append(1);
    let behind = reader.cursor().sequence;
    assert_eq!(
        sequences(&mut reader, usize::try_from(6 - behind).unwrap()).await,
        (behind + 1..=6).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_reader_that_is_given_up_loses_nothing() {
    let world = World::new();
    let mut reader = world.read(Start::Now, Filter::default()).await;
    let mut seen = vec![];
    for round in 0..200 {
        world.append(1);
        if let Ok(events) = tokio::time::timeout(Duration::from_micros(round), reader.next()).await {
            seen.extend(events.iter().map(|event| event.sequence));
        }
    }
    let left = 200 - seen.len();
    seen.extend(sequences(&mut reader, left).await);
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
}
