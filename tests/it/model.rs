//! A model of the whole lookup path: random histories over a scripted gateway and a store in memory, without sockets and without
//! waiting, and after every step nothing may have happened that must never happen.
//!
//! A history is drawn from a number, and a failure names that number: `MODEL_SEED=17 cargo test model` lives through it again.
//! What the scheduler draws for itself is not in that number, so that now and then it takes more than one try.

mod run;
mod script;
mod shelf;
mod steps;
mod watch;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use avatar_proxy::metrics::Metrics;

use self::steps::History;

/// Leaves out of a failing history whatever it fails without.
fn shortest(mut history: History, metrics: &Arc<Metrics>) -> (History, String) {
    let mut violation = String::from("it fails only now and then");
    if let Some((step, why)) = run::live(&history, metrics) {
        violation = why;
        history.steps.truncate(step + 1);
    }
    let mut at = history.steps.len();
    while at > 0 {
        at -= 1;
        let mut without = history.clone();
        without.steps.remove(at);
        if let Some((step, why)) = run::live(&without, metrics) {
            violation = why;
            without.steps.truncate(step + 1);
            at = at.min(without.steps.len());
            history = without;
        }
    }
    (history, violation)
}

/// Lives through the histories with these numbers, on every core.
fn all_is_well(seeds: std::ops::Range<u64>) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let metrics = Arc::new(Metrics::new());
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let history = History::draw(seed);
                    if let Some((step, violation)) = run::live(&history, &metrics) {
                        failed.store(true, Ordering::Relaxed);
                        let (shortest, again) = shortest(history, &metrics);
                        let History { budget, warm_for, forget_after, steps, .. } = shortest;
                        let told: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
                        panic!(
                            "MODEL_SEED={seed}, step {step}: {violation}\nThe shortest: {again}\n  {budget:?}\n  warm for \
                             {warm_for:?}, forgotten after {forget_after:?}\n{}",
 told.join("\n")
);
                    }
                }
            });
        }
    });
    println!("{} histories in {:.1} s", seeds.end - seeds.start, began.elapsed().as_secs_f64());
}

#[test]
fn nothing_happens_that_must_never_happen() {
    match env::var("MODEL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("MODEL_SEED is a number");
            all_is_well(seed..seed + 1);
        }
        Err(_) => all_is_well(0..500),
    }
}

/// `make soak-model`: others every time, as many as `MODEL_HISTORIES` says.
#[test]
#[ignore = "takes minutes: make soak-model"]
fn nothing_happens_in_very_many_histories() {
    let many = env::var("MODEL_HISTORIES").map_or(100_000, |many| many.parse().expect("MODEL_HISTORIES is a number"));
    let first = u64::from(fastrand::u32(1..)) << 20;
    all_is_well(first..first + many);
}
