//! The tables.

use std::time::Duration;

use crate::options::Options;
use crate::policy::Policy;
use crate::population::{LIKELIER, OTHER_WORLDS, World};
use crate::simulation::{Setup, Simulation};
use crate::tally::Tally;

/// The share of the TTL cache's lookups with which the planner must reach its delay.
const FEWER: f64 = 0.70;

/// With which budget it is seen what activity is worth.
const HINTS_BUDGET: f64 = 20_000.0;

/// One run, by the name under which it is printed.
struct Run<'a> {
    name: String,
    world: &'a World,
    setup: Setup,
}

/// Runs everything, as many at once as there are cores, and gives back what was counted in the same order.
fn run_all(runs: &[Run<'_>]) -> Vec<Tally> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut tallies = vec![];
    for batch in runs.chunks(cores) {
        std::thread::scope(|scope| {
            let started: Vec<_> =
                batch.iter().map(|run| scope.spawn(|| Simulation::new(run.world, run.setup).run())).collect();
            tallies.extend(started.into_iter().map(|run| run.join().expect("a run ends")));
        });
    }
    tallies
}

/// One table for each budget.
pub(crate) fn budgets(options: &Options) {
    let world = World::new(options.seed, options.people, LIKELIER);
    for budget in &options.budget {
        let lookups_a_day = options.scaled(*budget);
        println!(
            "\n{budget} lookups a day for 50,000 people ({} here), rechecked at most every {} h\n",
            options.people, options.interval
        );
        header();
        let run = |name: &str, policy: Policy, lookups_a_day: f64| Run {
            name: name.to_owned(),
            world: &world,
            setup: Setup { lookups_a_day, policy, days: options.days(), interval: options.interval() },
        };
        let policies = [Policy::Uniform, Policy::Ours { hints: true }, Policy::Ours { hints: false }, Policy::Oracle];
        let mut runs: Vec<_> = policies.into_iter().map(|policy| run(policy.name(), policy, lookups_a_day)).collect();
        for (name, budget) in [("TTL cache", lookups_a_day), ("TTL cache, at 1/0.70", lookups_a_day / FEWER)] {
            runs.push(run(name, Policy::ttl(&world, budget), budget));
        }
        let tallies = run_all(&runs);
        for (run, tally) in runs.iter().zip(&tallies) {
            row(&run.name, tally, &tallies[0], options);
        }
    }
}

/// What activity is worth, in worlds where it says nothing, this much, and more.
pub(crate) fn hints(options: &Options) {
    let likelier = [1.0, LIKELIER, OTHER_WORLDS[0], OTHER_WORLDS[1]];
    let worlds = likelier.map(|likelier| World::new(options.seed, options.people, likelier));
    println!("\n{HINTS_BUDGET} lookups a day: where people write so many times likelier in the day after a change\n");
    header();
    // Uniform polling hears nothing: it does the same in each of these worlds.
    let mut runs = vec![hints_run(options, &worlds[0], Policy::Uniform)];
    for world in &worlds {
        runs.extend([false, true].map(|hints| hints_run(options, world, Policy::Ours { hints })));
    }
    let tallies = run_all(&runs);
    for (run, tally) in runs.iter().zip(&tallies) {
        row(&run.name, tally, &tallies[0], options);
    }
}

fn hints_run<'a>(options: &Options, world: &'a World, policy: Policy) -> Run<'a> {
    let lookups_a_day = options.scaled(HINTS_BUDGET);
    let name = format!("{:.0}: {}", world.likelier, policy.name());
    Run { name, world, setup: Setup { lookups_a_day, policy, days: options.days(), interval: options.interval() } }
}

fn header() {
    println!(
        "{:<22} {:>8} {:>8} {:>7} {:>8} {:>7} {:>8} {:>8} {:>8} {:>8}   dead, over, cooling, missed, false; odd",
        "policy", "a day", "per M", "mean", "of unif.", "fresh", "of unif.", "p99", "p99.9", "most"
    );
}

#[allow(clippy::cast_precision_loss)] // counts
fn row(name: &str, tally: &Tally, uniform: &Tally, options: &Options) {
    let hours = |millis: f64| millis / 3_600_000.0;
    let quantile = |share| hours(tally.learnt.quantile(share) as f64);
    println!(
        "{name:<22} {:>8.0} {:>8.0} {:>6.1}h {:>8.3} {:>6.1}h {:>8.3} {:>7.1}h {:>7.1}h {:>7.1}h   {}, {}, {}, {}, {}; {}",
        tally.lookups as f64 / options.measured as f64,
        tally.lookups as f64 / tally.requests.max(1) as f64 * 1e6,
        hours(tally.learnt.mean()),
        tally.learnt.mean() / uniform.learnt.mean(),
        hours(tally.fresh.mean()),
        tally.fresh.mean() / uniform.fresh.mean(),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0),
        tally.dead_served,
        tally.overruns,
        tally.while_cooling,
        tally.missed,
        tally.false_removals,
        tally.odd_in_a_row,
    );
}

/// A small run, to see that the simulation works and what must never happen does not.
pub(crate) fn smoke(options: &Options) {
    let options = Options { people: 500, learning: 20, measured: 15, ..options.clone() };
    let world = World::new(options.seed, options.people, LIKELIER);
    let mean = |policy| {
        let setup = Setup {
            lookups_a_day: options.scaled(20_000.0),
            policy,
            days: options.days(),
            interval: Duration::from_secs(6 * 3600),
        };
        let tally = Simulation::new(&world, setup).run();
        let never = [tally.dead_served, tally.overruns, tally.while_cooling, tally.missed, tally.false_removals];
        assert_eq!(
            never, [0; 5],
            "dead URLs served, overruns, lookups while cooling down, expiries missed, false removals"
        );
        tally.learnt.mean()
    };
    let (uniform, ours) = (mean(Policy::Uniform), mean(Policy::Ours { hints: true }));
    assert!(ours < uniform, "the planner must tell of changes sooner than uniform polling: {ours} ms, {uniform} ms");
    println!("the planner's mean delay is {:.2} of uniform polling's", ours / uniform);
    println!("this measures only when asked to: cargo bench --bench freshness");
}
