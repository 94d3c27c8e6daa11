//! How long a change waits for its event: the planner beside uniform polling, a TTL cache, and an oracle that knows how often
//! everybody changes.
//!
//! `cargo bench --bench freshness` runs it all; `-- --help` says what else it can do. Without `--bench`, as `cargo test` runs it, it
//! is a small world that must behave.
//!
//! * Simulated are the people (`population.rs`, written down before anything was measured), the gateway's answers, and time. Real
//!   are the budget, the state machine, entries with their instants, and the planner: estimates, queue, forecast.
//! * Every client's request is made; whatever is looked up for clients counts for every policy, and is a look like any other.
//! * What is counted is counted independently of the code that is measured (`tally.rs`).

#[path = "freshness/answers.rs"]
mod answers;
#[path = "freshness/cost.rs"]
mod cost;
#[path = "freshness/gate.rs"]
mod gate;
#[path = "freshness/options.rs"]
mod options;
#[path = "freshness/policy.rs"]
mod policy;
#[path = "freshness/population.rs"]
mod population;
#[path = "freshness/queues.rs"]
mod queues;
#[path = "freshness/report.rs"]
mod report;
#[path = "freshness/requests.rs"]
mod requests;
#[path = "freshness/simulation.rs"]
mod simulation;
#[path = "freshness/tally.rs"]
mod tally;

use clap::Parser as _;

use options::Options;

fn main() {
    let options = Options::parse();
    if !options.bench {
        report::smoke(&options);
    } else if options.cost {
        cost::run();
    } else {
        report::budgets(&options);
        if !options.no_hints {
            report::hints(&options);
        }
        cost::run();
    }
}
