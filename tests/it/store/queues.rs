//! The queues that the simulation of `make bench-freshness` keeps in memory order as the stores do: what it measures is what the
//! program does.

use std::collections::BTreeSet;

use avatar_proxy::jid::Device;
use avatar_proxy::store::sqlite::Sqlite;
use avatar_proxy::store::{Schedule, Store, Write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{at, full, outlook, write};

#[path = "../../../benches/freshness/queues.rs"]
#[allow(dead_code)] // what the simulation needs besides
mod simulated;

use simulated::{Queues, Taken};

const PEOPLE: u32 = 6;

#[derive(Clone, Debug)]
enum Step {
    Put { person: u32, due: i64, from: i64, rank: i64 },
    Advance { person: u32, rank: i64, from: i64 },
    Take { now: i64, until: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (person, when) = (|| 0..PEOPLE, || 0i64..50);
    prop_oneof![
        3 => (person(), when(), when(), when()).prop_map(|(person, due, from, rank)| Step::Put { person, due, from, rank }),
        1 => (person(), when(), when()).prop_map(|(person, rank, from)| Step::Advance { person, rank, from }),
        4 => (when(), 0i64..5).prop_map(|(now, ahead)| Step::Take { now, until: now + ahead }),
    ]
}

fn who(person: u32) -> avatar_proxy::jid::Key {
    full(&format!("999{person:03}"))
}

/// Takes from the store as the program does: a deadline, or else a recheck; what is taken is out of both queues.
async fn take(store: &Sqlite, now: i64, until: i64) -> Option<Taken> {
    let device = Device::default();
    let person = |subject: &avatar_proxy::jid::Subject| (0..PEOPLE).find(|one| who(*one).subject == *subject).unwrap();
    let far = at(1_000_000);
    if let Some(due) = store.take_due(&device, at(until), far, 1).await.unwrap().pop() {
        store.reschedule(vec![(due.key.clone(), None)]).await.unwrap();
        store.defer(vec![(due.key.subject.clone(), Some(far))]).await.unwrap();
        return Some(Taken::Due(person(&due.key.subject)));
    }
    let subject = store.take_rechecks(&device, at(now), far, 1).await.unwrap().pop()?.subject;
    store.reschedule(vec![(who(person(&subject)), None)]).await.unwrap();
    Some(Taken::Recheck(person(&subject)))
}

#[test]
fn the_simulation_orders_as_the_store_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&prop::collection::vec(step(), 1..60), |steps| {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
        let mut queues = Queues::new(PEOPLE as usize);
        let mut waiting = BTreeSet::new();
        runtime.block_on(async {
            let (mut ranks, mut last) = (0.0, 0);
            // No two are equal: the order of equals is nobody's business.
            let mut unlike_any = |rank: i64| {
                ranks += 1.0 / 1024.0;
                let mut outlook = outlook(rank);
                outlook.turn.rank += ranks;
                outlook
            };
            for (number, step) in (0i64..).zip(steps) {
                match step {
                    Step::Put { person, due, from, rank } => {
                        let held = store.find(&who(person)).await.unwrap();
                        let (outlook, due) =
                            (unlike_any(rank), at(due) + std::time::Duration::from_millis(number.unsigned_abs()));
                        let mut write = write(&who(person), held.revision, number.unsigned_abs() + 1, 0);
                        write.entry.due_at = due;
                        store.apply(Write { outlook, recheck_at: at(from), ..write }).await.unwrap();
                        waiting.insert(person);
                        queues.put(person, due.as_millis(), at(from).as_millis(), outlook.turn.rank);
                    }
                    // Whom somebody has in hand is about to be put anew.
                    Step::Advance { person, .. } if !waiting.contains(&person) => {}
                    Step::Advance { person, rank, from } => {
                        let outlook = unlike_any(rank);
                        let held = store.find(&who(person)).await.unwrap();
                        store.advance(&who(person).subject, held.revision, outlook, at(from)).await.unwrap();
                        queues.advance(person, outlook.turn.rank, at(from).as_millis());
                    }
                    Step::Take { now, until } => {
                        // Time does not go back in the simulation.
                        last = now.max(last);
                        let until = until.max(last);
                        let simulated = queues.take(at(last).as_millis(), at(until).as_millis());
                        assert_eq!(take(&store, last, until).await, simulated);
                        if let Some(Taken::Due(person) | Taken::Recheck(person)) = simulated {
                            waiting.remove(&person);
                        }
                        let virtual_now = store.find(&who(0)).await.unwrap().virtual_now;
                        assert!((virtual_now - queues.virtual_now).abs() < 1e-9);
                    }
                }
            }
            store.close().await;
        });
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
