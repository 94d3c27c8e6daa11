//! Promise 5 over many replicas: one budget per device, whoever joins, dies or loses sight of the store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use avatar_proxy::budget::{Budget, Config, Permit, Priority, Refusal};
use avatar_proxy::clock::Clock;
use avatar_proxy::jid::Device;
use avatar_proxy::metrics::Metrics;
use avatar_proxy::outcome::{Class, Envelope, Failure, Outcome, Picture};
use avatar_proxy::store::measured::Measured;
use avatar_proxy::store::redis::{Address, Redis as Engine};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::eventually::eventually;
use crate::support::hand::{NOW, SECOND};
use crate::support::redis::Redis;
use crate::support::relay::Relay;

/// How long a place is somebody's.
const LEASE: Duration = Duration::from_secs(30);

/// Longer than any share of the reserve is booked.
const SETTLED: Duration = Duration::from_secs(67 * 60);

/// A port that nobody listens at.
const NOWHERE: u16 = 1;

/// The budget of one replica, with a way of its own to the store.
struct Member {
    budget: Budget,
    metrics: Arc<Metrics>,
    relay: Relay,
    runs: JoinHandle<()>,
}

impl Drop for Member {
    /// Without a word to the store.
    fn drop(&mut self) {
        self.runs.abort();
    }
}

impl Member {
    async fn join(redis: &Redis, clock: &Clock, config: &Config) -> Self {
        let relay = Relay::to(redis.port()).await;
        let address = Address::parse(&format!("redis://127.0.0.1:{}", relay.port())).unwrap();
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::open(address, clock.clone()).await.unwrap();
        let store = Arc::new(Measured::new(Arc::new(engine), metrics.clone()));
        let budget = Budget::new(config.clone(), clock.clone(), store, metrics.clone());
        let runs = tokio::spawn({
            let budget = budget.clone();
            async move { budget.run().await }
        });
        let member = Self { budget, metrics, relay, runs };
        member.renews().await;
        member
    }

    /// How many calls of this kind the store was sent.
    fn calls(&self, operation: &str) -> u64 {
        self.metrics.store_seconds.with_label_values(&[operation]).get_sample_count()
    }

    /// Has asked for its share of the reserve, and heard.
    async fn renews(&self) {
        let before = self.calls("reserve");
        eventually("it has a share", async || self.calls("reserve") > before || before > 0).await;
    }

    /// A second goes by, and it says that it is there.
    async fn renews_again(&self, clock: &Clock) {
        let before = self.calls("reserve");
        clock.advance(SECOND);
        eventually("it renews its share", async || self.calls("reserve") > before).await;
    }

    /// A look that starts within this time, by the clock of the test.
    async fn look(&self, device: &Device, patience: Duration) -> Result<Permit, Refusal> {
        look(&self.budget, device, patience).await
    }

    async fn ends(&self, mut permit: Permit, result: Result<Outcome, Failure>) {
        self.budget.report(&mut permit, &result).await;
    }
}

async fn look(budget: &Budget, device: &Device, patience: Duration) -> Result<Permit, Refusal> {
    let permit = budget.admit(device, Priority::Miss, patience, |_| {}).await?;
    let mut permit = budget.draw(permit, LEASE, patience, |_| {}).await?;
    permit.start()?;
    Ok(permit)
}

fn config(rate: f64, burst: u32) -> Config {
    Config { rate, burst, concurrency: 2, cool_down: 60 * SECOND, max_wait: 10 * SECOND }
}

fn device(name: &str) -> Device {
    Device::new(name).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a lookup")]
fn present() -> Result<Outcome, Failure> {
    Ok(Outcome::Present(Picture::new("https://h/p?oe=7FFFFFFF", "1", "image")))
}

fn rate_limited() -> Result<Outcome, Failure> {
    let reply = Envelope { status: 429, code: "C".into(), message: "m".into(), results: None };
    Err(Failure { class: Class::RateLimited, retry: false, reply, detail: "d".into() })
}

/// Time goes on by this much; whoever can do something then does it meanwhile.
async fn pass(clock: &Clock, time: Duration) {
    clock.advance(time);
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Time goes on until this has happened; how long it took by the clock of the test.
async fn until<T>(clock: &Clock, happens: impl Future<Output = T>) -> (T, Duration) {
    let began = clock.elapsed();
    tokio::pin!(happens);
    loop {
        tokio::select! {
            biased;
            value = &mut happens => return (value, clock.elapsed().saturating_sub(began)),
            () = pass(clock, SECOND / 50) => {}
        }
    }
}

fn is_cooling<T>(answer: &Result<T, Refusal>) -> bool {
    matches!(answer, Err(Refusal::CoolingDown { .. }))
}

/// What random things happen to replicas.
#[derive(Clone, Copy)]
pub(crate) struct Ordeal {
    /// Lookups per second that a device is allowed.
    pub(crate) rate: f64,
    pub(crate) burst: u32,
    /// How much time passes at most from one thing to the next.
    pub(crate) step: Duration,
    pub(crate) steps: u32,
}

/// What became of an [`Ordeal`].
pub(crate) struct Endured {
    /// Lookups that were started.
    pub(crate) starts: usize,
    /// In how long, by the clock of the test.
    pub(crate) time: Duration,
    /// How many replicas died or were stopped.
    pub(crate) ends: u32,
    /// How often one lost sight of the store.
    pub(crate) losses: u32,
}

impl Ordeal {
    /// Replicas join, die, stop, and lose sight of the store, which may be emptied, while many ask. Panics if in any time more
    /// lookups started than the budget allows.
    pub(crate) async fn is_endured(self) -> Endured {
        let Self { rate, burst, step, steps } = self;
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let (redis, clock) = (Redis::start(), Clock::manual(NOW));
        let config = Config { concurrency: 100, ..config(rate, burst) };
        let ada = device("ada");
        let mut members = [Some(Member::join(&redis, &clock, &config).await), None, None, None];
        if random.bool() {
            pass(&clock, SETTLED).await;
        }
        let emptied_at = random.u32(..2 * steps);
        let starts = Arc::new(Mutex::new(vec![]));
        let (mut asking, began, mut ends, mut losses) = (JoinSet::new(), clock.elapsed(), 0, 0);
        for at in 0..steps {
            let lot = random.usize(..members.len());
            match (random.u32(..300), &members[lot]) {
                (0, Some(_)) => {
                    members[lot] = None;
                    ends += 1;
                }
                (1..=2, Some(member)) => {
                    member.budget.close().await;
                    members[lot] = None;
                    ends += 1;
                }
                (0..=20, None) => members[lot] = Some(Member::join(&redis, &clock, &config).await),
                (3..=9, Some(member)) => {
                    member.relay.lead_to(NOWHERE);
                    losses += 1;
                }
                (10..=16, Some(member)) => member.relay.lead_to(redis.port()),
                _ => {}
            }
            if at == emptied_at {
                redis.ask("FLUSHALL");
            }
            // Quiet times, in which something is saved up.
            if at / 250 % 3 < 2 {
                for member in members.iter().flatten() {
                    let (budget, starts, ada) = (member.budget.clone(), starts.clone(), ada.clone());
                    if random.u32(..3) == 0 {
                        let clock = clock.clone();
                        asking.spawn(async move {
                            if let Ok(mut permit) = look(&budget, &ada, 5 * SECOND).await {
                                starts.lock().unwrap().push((permit.drawn_at(), clock.elapsed()));
                                budget.report(&mut permit, &present()).await;
                            }
                        });
                    }
                }
            }
            while asking.try_join_next().is_some() {}
            pass(&clock, step.mul_f64(random.f64())).await;
        }
        asking.abort_all();
        let mut starts = std::mem::take(&mut *starts.lock().unwrap());
        starts.sort_unstable();
        // When the store drew for a look lies between when it was asked and when it had answered. From each time at which one was asked
        // to each at which all asked so far had answers: what has started, less what the rate allowed, is the burst at most.
        let (mut least, mut answered) = (f64::INFINITY, Duration::ZERO);
        for (before, (asked_at, answered_at)) in starts.iter().enumerate() {
            let before = f64::from(u32::try_from(before).unwrap());
            least = least.min(before - rate * asked_at.as_secs_f64());
            answered = answered.max(*answered_at);
            let most = before + 1.0 - rate * answered.as_secs_f64() - least;
            assert!(most <= f64::from(burst) + 1e-6, "a burst of {most} until {answered:?}; seed {seed}");
        }
        Endured { starts: starts.len(), time: clock.elapsed().saturating_sub(began), ends, losses }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_any_time_no_more_start_than_the_budget_allows_whatever_becomes_of_replicas() {
    let ordeal = Ordeal { rate: 5.0, burst: 12, step: Duration::from_millis(120), steps: 2500 };
    let endured = ordeal.is_endured().await;
    assert!(endured.starts > 60, "{} have started", endured.starts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_alone_gets_nine_tenths_of_the_rate_and_two_no_more() {
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(2.0, 4);
    let ada = device("ada");
    let mut members = vec![Member::join(&redis, &clock, &config).await];
    pass(&clock, SETTLED).await;
    for replicas in 1..3 {
        let spent = async {
            let one = |member: usize| {
                let (member, ada) = (&members[member % replicas], &ada);
                async move { member.ends(member.look(ada, 600 * SECOND).await.unwrap(), present()).await }
            };
            for round in 0..36 {
                one(round).await;
            }
        };
        let ((), took) = until(&clock, spent).await;
        // Four of them are there at most; the test looks at the clock every 20 ms.
        assert!(took >= 17 * SECOND && took < 23 * SECOND, "{replicas}: {took:?}");
        members.push(Member::join(&redis, &clock, &config).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_under_way_count_over_all_replicas_and_those_of_a_dead_one_end_within_seconds() {
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(100.0, 10);
    let (a, b) = (Member::join(&redis, &clock, &config).await, Member::join(&redis, &clock, &config).await);
    let ada = device("ada");
    let (first, _) = until(&clock, a.look(&ada, 5 * SECOND)).await;
    let (second, _) = until(&clock, b.look(&ada, 5 * SECOND)).await;
    let (_first, second) = (first.unwrap(), second.unwrap());
    let mut third = Box::pin(b.look(&ada, 600 * SECOND));
    let (none, _) = until(&clock, tokio::time::timeout(Duration::from_millis(50), &mut third)).await;
    assert!(none.is_err(), "two are under way");
    b.ends(second, present()).await;
    let (third, _) = until(&clock, third).await;
    let _third = third.unwrap();
    let mut fourth = Box::pin(b.look(&ada, 600 * SECOND));
    drop(a);
    let died_at = clock.elapsed();
    for _ in 0..6 {
        b.renews_again(&clock).await;
    }
    until(&clock, &mut fourth).await.0.unwrap();
    let took = clock.elapsed().saturating_sub(died_at);
    assert!(took < LEASE / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cool_down_that_one_replica_records_stops_all_before_their_next_look_and_slows_them() {
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(2.0, 4);
    let (a, b) = (Member::join(&redis, &clock, &config).await, Member::join(&redis, &clock, &config).await);
    let ada = device("ada");
    for member in [&a, &b] {
        let (permit, _) = until(&clock, member.look(&ada, 5 * SECOND)).await;
        member.ends(permit.unwrap(), present()).await;
    }
    let (limited, _) = until(&clock, a.look(&ada, 5 * SECOND)).await;
    a.ends(limited.unwrap(), rate_limited()).await;
    let (answer, _) = until(&clock, b.look(&ada, 5 * SECOND)).await;
    assert!(is_cooling(&answer), "{:?}", answer.err());
    pass(&clock, 59 * SECOND).await;
    assert!(b.budget.blocked(&ada).is_some());
    pass(&clock, 2 * SECOND).await;
    let (permit, _) = until(&clock, b.look(&ada, 5 * SECOND)).await;
    drop(permit.unwrap());
    assert!((b.budget.rate(&ada) - 0.9).abs() < 0.01, "{:?}", b.budget.rate(&ada));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_begins_with_empty_buckets_and_is_told_of_cool_downs_again() {
    let (mut redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(1.0, 4);
    let (ada, bob) = (device("ada"), device("bob"));
    let a = Member::join(&redis, &clock, &config).await;
    for who in [&ada, &bob] {
        let (permit, _) = until(&clock, a.look(who, 5 * SECOND)).await;
        a.ends(permit.unwrap(), present()).await;
    }
    let (limited, _) = until(&clock, a.look(&ada, 5 * SECOND)).await;
    a.ends(limited.unwrap(), rate_limited()).await;
    // Of bob's as much is saved up as there may be.
    pass(&clock, 20 * SECOND).await;
    redis.restart();
    let b = Member::join(&redis, &clock, &config).await;
    let (taught, asked) = (a.calls("put_device"), a.calls("reserve"));
    until(&clock, async {
        eventually("a has heard of it", async || a.calls("put_device") > taught || a.calls("reserve") > asked + 9)
            .await;
    })
    .await;
    assert!(a.calls("put_device") > taught);
    let (answer, _) = until(&clock, b.look(&ada, 5 * SECOND)).await;
    assert!(is_cooling(&answer), "{:?}", answer.err());
    let ((), took) = until(&clock, async {
        for _ in 0..3 {
            a.ends(a.look(&bob, 60 * SECOND).await.unwrap(), present()).await;
        }
    })
    .await;
    assert!(took > 2 * SECOND, "{took:?}");
}

/// Each renews, and hears of the others.
async fn all_renew(members: &[Member], clock: &Clock) {
    for _ in 0..4 {
        for member in members {
            let before = member.calls("reserve");
            pass(clock, SECOND).await;
            eventually("it has renewed", async || member.calls("reserve") > before).await;
        }
    }
}

/// Two replicas of a store that has been there for so long lose sight of it: by how much their looks overstep what they have
/// between them, and how long the first take after the store is back.
async fn without_the_store(age: Duration) {
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(4.0, 6);
    let mut members = vec![];
    for _ in 0..2 {
        members.push(Member::join(&redis, &clock, &config).await);
    }
    let ada = device("ada");
    pass(&clock, age).await;
    all_renew(&members, &clock).await;
    for member in &members {
        member.relay.lead_to(NOWHERE);
    }
    let (began, mut asking) = (clock.elapsed(), JoinSet::new());
    for member in &members {
        let (budget, ada) = (member.budget.clone(), ada.clone());
        asking.spawn(async move {
            for started in 0..5 {
                if look(&budget, &ada, 600 * SECOND).await.is_err() {
                    return started;
                }
            }
            5
        });
    }
    let (counts, _) = until(&clock, asking.join_all()).await;
    let started: u32 = counts.iter().sum();
    let time = clock.elapsed().saturating_sub(began).as_secs_f64();
    assert!(f64::from(started) <= 0.4 * time + 2.0, "{started} in {time} s");
    assert_eq!(started, 10);
    assert!(time < 40.0, "{time} s");
    members[0].relay.lead_to(redis.port());
    let (permit, took) = until(&clock, members[0].look(&ada, 60 * SECOND)).await;
    permit.unwrap();
    assert!(took < 5 * SECOND, "the store is back: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_replicas_have_a_tenth_of_the_rate_between_them() {
    without_the_store(SETTLED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_have_where_the_store_is_new() {
    // One of them has a share: as many tokens may be saved up where nobody knows of them.
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(4.0, 6);
    let members = [Member::join(&redis, &clock, &config).await, Member::join(&redis, &clock, &config).await];
    let ada = device("ada");
    for member in &members {
        let (permit, _) = until(&clock, member.look(&ada, 5 * SECOND)).await;
        member.ends(permit.unwrap(), present()).await;
    }
    all_renew(&members, &clock).await;
    pass(&clock, 10 * SECOND).await;
    for member in &members {
        member.relay.lead_to(NOWHERE);
    }
    let (looks, _) =
        until(&clock, async { (members[0].look(&ada, SECOND).await, members[1].look(&ada, SECOND).await) }).await;
    assert_eq!([looks.0, looks.1].iter().filter(|look| look.is_ok()).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_refused_without_the_store_holds_up_nobody_once_it_is_back() {
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    // With a burst of one there is nothing in reserve.
    let member = Member::join(&redis, &clock, &config(1.0, 1)).await;
    let ada = device("ada");
    pass(&clock, 5 * SECOND).await;
    member.relay.lead_to(NOWHERE);
    let (refused, _) = until(&clock, member.look(&ada, SECOND)).await;
    assert!(matches!(refused, Err(Refusal::Spent { .. })), "{:?}", refused.err());
    member.relay.lead_to(redis.port());
    let (permit, took) = until(&clock, member.look(&ada, 10 * SECOND)).await;
    permit.unwrap();
    assert!(took < 5 * SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_never_had_an_answer_share_one_bucket_over_all_replicas() {
    let (redis, clock) = (Redis::start(), Clock::manual(NOW));
    let config = config(2.0, 2);
    let (a, b) = (Member::join(&redis, &clock, &config).await, Member::join(&redis, &clock, &config).await);
    let mut asking = JoinSet::new();
    for name in 0..10 {
        let (budget, device) = ([&a, &b][name % 2].budget.clone(), device(&format!("invented-{name}")));
        asking.spawn(async move { look(&budget, &device, 600 * SECOND).await.map(drop) });
    }
    let (looks, took) = until(&clock, asking.join_all()).await;
    assert!(looks.iter().all(Result::is_ok));
    assert!(took >= 4 * SECOND, "{took:?}");
}
