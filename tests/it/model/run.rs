//! One history, lived through: processes over the same store and gateway, one step after the other.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use avatar_proxy::avatars::{self, Ask, Avatars};
use avatar_proxy::budget::Budget;
use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::entry::Freshness;
use avatar_proxy::gateway::Lookup;
use avatar_proxy::jid::Key;
use avatar_proxy::metrics::Metrics;
use avatar_proxy::outcome::{Outcome, Reason, Rules};
use avatar_proxy::refresh::{self, Refresh};
use avatar_proxy::store::Store;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::script::Script;
use super::shelf::Shelf;
use super::steps::{self, History, Mood, Step};
use super::watch::Watch;

const BEGAN: Timestamp = Timestamp::from_seconds(1_700_000_000);
const TIMEOUT: Duration = Duration::from_secs(20);

/// Longer than anything that is waited for, the longest cool-down included.
const SETTLED: Duration = Duration::from_secs(7200);

/// The part of the world that outlives a process.
struct Scene {
    history: History,
    clock: Clock,
    watch: Arc<Watch>,
    shelf: Arc<Shelf>,
    script: Arc<Script>,
    metrics: Arc<Metrics>,
}

/// A process and its clients. Dropping the runtime is `kill -9`.
struct Process {
    runtime: Runtime,
    avatars: Avatars,
    tasks: TaskTracker,
    stop: CancellationToken,
    clients: Vec<(Key, JoinHandle<()>)>,
}

impl Scene {
    fn new(history: History, metrics: &Arc<Metrics>) -> Self {
        let clock = Clock::manual(BEGAN);
        let watch = Arc::new(Watch::new(clock.clone(), Rules::default(), history.budget.clone()));
        let shelf = Arc::new(Shelf::new(watch.clone()));
        let script = Arc::new(Script::new(clock.clone(), shelf.clone(), watch.clone()));
        Self { history, clock, watch, shelf, script, metrics: metrics.clone() }
    }

    fn start(&self) -> Process {
        // Tokio's own time stands still: what is waited for is on the manual clock.
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let store: Arc<dyn Store> = self.shelf.clone();
        let gateway: Arc<dyn Lookup> = self.script.clone();
        let budget = Budget::new(self.history.budget.clone(), self.clock.clone(), store.clone(), self.metrics.clone());
        let avatars = Avatars::new(avatars::Parts {
            config: avatars::Config {
                rules: Rules::default(),
                memory_limit: 1 << 20,
                warm_for: self.history.warm_for,
                gateway_timeout: TIMEOUT,
            },
            clock: self.clock.clone(),
            store: store.clone(),
            gateway,
            budget: budget.clone(),
            metrics: self.metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let refresh = Refresh::new(refresh::Parts {
            config: refresh::Config {
                warm_for: self.history.warm_for,
                forget_after: self.history.forget_after,
                rules: Rules::default(),
            },
            clock: self.clock.clone(),
            store,
            avatars: avatars.clone(),
            metrics: self.metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        runtime.spawn(refresh.run());
        runtime.spawn(async move { budget.run().await });
        Process { runtime, avatars, tasks, stop, clients: vec![] }
    }

    /// Lets everything run that can run while no time passes.
    fn quiesce(&self, process: &Process) {
        process.runtime.block_on(async {
            for _ in 0..500 {
                let before = self.watch.stirred();
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                if self.watch.stirred() == before {
                    return;
                }
            }
            self.watch.violated("it never comes to rest");
        });
    }

    /// Time passes, in so many pieces.
    fn pass(&self, process: &Process, time: Duration, pieces: u32) {
        for _ in 0..pieces {
            self.clock.advance(time / pieces);
            self.quiesce(process);
        }
    }

    fn ask(&self, process: &mut Process, key: Key, ask: Ask) {
        process.clients.retain(|(_, client)| !client.is_finished());
        let now = self.clock.now();
        let fresh = |(entry, due): &(avatar_proxy::entry::Entry, Option<Timestamp>)| {
            entry.freshness(now) == Freshness::Fresh && *due == entry.deadline()
        };
        let undisturbed = !ask.no_cache
            && self.shelf.peek(&key).as_ref().is_some_and(fresh)
            && !self.watch.is_in_flight(&key)
            && process.clients.iter().all(|(other, _)| *other != key)
            && !self.history.steps.iter().any(|step| matches!(step, Step::StoreFails(true)));
        let starts = self.watch.count(&key);
        let asked = self.watch.moment();
        let (avatars, store, watch) = (process.avatars.clone(), self.shelf.clone(), self.watch.clone());
        let asks = key.clone();
        let client = process.runtime.spawn(async move {
            let answer = avatars.lookup(&asks, ask, pending()).await;
            watch.answered(&store, &asks, ask, asked, &answer);
        });
        self.quiesce(process);
        if undisturbed && !client.is_finished() {
            self.watch.violated("a fresh entry is held, and a client waits");
        }
        if undisturbed && self.watch.count(&key) != starts {
            self.watch.violated("a fresh entry is held, and the gateway is asked");
        }
        process.clients.push((key, client));
    }

    fn restart(&self, process: &mut Process, graceful: bool) {
        if graceful {
            process.stop.cancel();
            self.script.release();
            process.clients.drain(..).for_each(|(_, client)| client.abort());
            self.pass(process, 2 * TIMEOUT, 4);
            if !process.tasks.is_empty() {
                self.watch.violated("the process does not end");
            }
        }
        let started = self.start();
        drop(std::mem::replace(process, started));
        self.watch.restarted(&self.shelf);
    }

    fn step(&self, process: &mut Process, step: Step) {
        let jid = |person: usize| steps::key(0, person, false).subject.jid.to_string();
        match step {
            Step::Ask { device, person, preview, ask } => self.ask(process, steps::key(device, person, preview), ask),
            Step::HangUp(number) if number < process.clients.len() => process.clients.remove(number).1.abort(),
            Step::HangUp(_) => {}
            Step::Pass(time) => self.pass(process, time, 6),
            Step::Jump(by) => {
                self.clock.jump(Timestamp::from_millis(self.clock.now().as_millis() + by));
                self.watch.jumped();
            }
            Step::Picture(person) => self.script.picture(jid(person)),
            Step::Gone(person, reason) => self.script.gone(jid(person), reason),
            Step::Odd(person, reason, times) => self.script.odd(jid(person), reason, times),
            Step::Mood(device, mood) => self.script.mood(steps::device(device), mood),
            Step::Hold { known } => self.script.hold(known),
            Step::Release => self.script.release(),
            Step::UrlsLive(life) => self.script.urls_live(life),
            Step::StoreFails(fails) => {
                self.shelf.fail(fails);
                if fails {
                    self.watch.store_failed();
                }
            }
            Step::Interfere => self.shelf.interfere(),
            Step::Restart { graceful } => self.restart(process, graceful),
        }
        self.quiesce(process);
    }

    /// When everything works again, everybody is answered, and with the truth.
    fn ends_well(&self, process: &mut Process) {
        self.shelf.fail(false);
        self.script.release();
        self.script.urls_live(Some(Duration::from_secs(5 * 86_400)));
        self.clock.jump(BEGAN + self.clock.elapsed());
        self.watch.jumped();
        (0..steps::DEVICES).for_each(|device| self.script.mood(steps::device(device), Mood::Fine));
        self.pass(process, Duration::from_secs(240), 12);
        if process.clients.iter().any(|(_, client)| !client.is_finished()) {
            self.watch.violated("a client is never answered");
        }
        self.pass(process, SETTLED, 6);
        for number in 0..steps::DEVICES {
            let key = steps::key(number, 0, false);
            let before = self.watch.count(&key);
            // A look that is too recent for another, two odd answers that were still to come, and what confirms one.
            for _ in 0..5 {
                self.ask(process, key.clone(), Ask { no_cache: true, only_if_cached: false });
                self.pass(process, Duration::from_secs(120), 8);
            }
            let Some((entry, _)) = self.shelf.peek(&key) else {
                self.watch.violated("nothing is known in the end");
                return;
            };
            let truth = self.script.truth(&key);
            let is_true = match (&truth, &entry.outcome) {
                (Ok(id), Outcome::Present(picture)) => picture.id() == id,
                // Without a success in between, nobody is believed to have left.
                (Err(reason), Outcome::Present(_)) => *reason == Reason::Unregistered,
                (truth, Outcome::Negative(_)) => truth.is_err(),
            };
            if !is_true || self.watch.count(&key) == before {
                self.watch.violated(format!("in the end {:?} is known instead of {truth:?}", entry.outcome));
            }
        }
    }
}

/// Lives through a history: what went wrong, if something did, and in which step; after the last one, everything settles.
pub(super) fn live(history: &History, metrics: &Arc<Metrics>) -> Option<(usize, String)> {
    fastrand::seed(history.seed);
    let scene = Scene::new(history.clone(), metrics);
    let mut process = scene.start();
    for (number, step) in history.steps.iter().enumerate() {
        scene.step(&mut process, *step);
        if let Some(violation) = scene.watch.violation() {
            return Some((number, violation));
        }
    }
    scene.ends_well(&mut process);
    scene.watch.violation().map(|violation| (history.steps.len(), violation))
}
