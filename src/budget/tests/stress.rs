//! Many at once, on many threads and the system's clock: nobody is forgotten in the queue, and nothing is spent twice.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::store::none::Nothing;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_is_served_however_many_come_and_go_at_once() {
    const TASKS: usize = 4000;
    const CONCURRENCY: u32 = 7;
    let config = Config { rate: 50_000.0, burst: 20, concurrency: CONCURRENCY, ..config() };
    let budget = Budget::new(config, Clock::system(), Arc::new(Nothing), Arc::new(Metrics::new()));
    let run = tokio::spawn({
        let budget = budget.clone();
        async move { budget.run().await }
    });
    let (running, most, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let (budget, running, most) = (budget.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let device = device(["a", "b", "c"][number % 3]);
                let priority = [Priority::Miss, Priority::Expiring, Priority::Recheck][number % 5 % 3];
                let admitted = budget.admit(&device, priority, LONG, |_| {});
                // Some leave early, at every moment that there is.
                let permit = if number % 4 == 0 {
                    tokio::time::timeout(Duration::from_micros(u64::try_from(number).unwrap()), admitted).await.ok()
                } else {
                    Some(admitted.await)
                };
                let Some(permit) = permit else { return false };
                let mut permit = permit.unwrap();
                if number % 3 == 0 {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                }
                if number % 7 > 0 {
                    permit.start().unwrap();
                    budget.report(&mut permit, &present()).await;
                }
                true
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let done = tokio::time::timeout(Duration::from_secs(30), task).await;
        let done = done.unwrap_or_else(|_| panic!("{number} was forgotten in the queue")).unwrap();
        assert!(done || number % 4 == 0);
        served.fetch_add(usize::from(done), Ordering::SeqCst);
    }
    assert!(served.into_inner() >= TASKS * 3 / 4);
    assert!(most.load(Ordering::SeqCst) <= CONCURRENCY as usize, "{most:?} lookups of one device at once");
    budget.measure();
    assert_eq!(budget.0.lock().waiting(), 0);
    run.abort();
}
