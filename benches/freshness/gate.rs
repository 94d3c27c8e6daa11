//! The real budget, driven by hand: its futures are polled whenever time has moved, without a runtime.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use avatar_proxy::budget::{Budget, Config, Permit, Priority, Refusal};
use avatar_proxy::clock::{Clock, Timestamp};
use avatar_proxy::jid::Device;
use avatar_proxy::metrics::Metrics;
use avatar_proxy::outcome::{Failure, Outcome};
use avatar_proxy::store::none::Nothing;

type Asked = Pin<Box<dyn Future<Output = Result<Permit, Refusal>>>>;

/// Lookups under way at once: the default.
pub(crate) const CONCURRENCY: u32 = 2;

/// Who may ask the gateway, and who waits for it.
pub(crate) struct Gate {
    clock: Clock,
    budget: Budget,
    device: Device,
    letting: Pin<Box<dyn Future<Output = ()>>>,
    waiting: Vec<(usize, Asked)>,
}

impl Gate {
    pub(crate) fn new(lookups_a_day: f64, start: Timestamp) -> Self {
        let config = Config {
            rate: lookups_a_day / 86_400.0,
            burst: 20,
            concurrency: CONCURRENCY,
            cool_down: Duration::from_secs(60),
            max_wait: Duration::from_secs(10),
        };
        let clock = Clock::manual(start);
        let budget = Budget::new(config, clock.clone(), Arc::new(Nothing), Arc::new(Metrics::new()));
        let runner = budget.clone();
        let letting = Box::pin(async move { runner.run().await });
        Self { clock, budget, device: Device::default(), letting, waiting: vec![] }
    }

    /// Somebody asks for a look at a person; true if it waits now, or may start.
    pub(crate) fn ask(&mut self, person: usize, priority: Priority) -> bool {
        let (budget, device, patience) = (self.budget.clone(), self.device.clone(), self.budget.config().max_wait);
        let mut asked: Asked = Box::pin(async move { budget.admit(&device, priority, patience, drop).await });
        match poll(asked.as_mut()) {
            Poll::Ready(Err(_)) => false,
            // Permits come by way of the queue.
            Poll::Ready(Ok(_)) => unreachable!("nobody has let it start"),
            Poll::Pending => {
                self.waiting.push((person, asked));
                true
            }
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Lets those start who may: each with its permit, or without one if it was refused after all.
    pub(crate) fn let_start(&mut self) -> Vec<(usize, Option<Permit>)> {
        let mut started = vec![];
        let Poll::Pending = poll(self.letting.as_mut()) else { unreachable!("it goes on for ever") };
        self.waiting.retain_mut(|(person, asked)| match poll(asked.as_mut()) {
            Poll::Ready(permit) => {
                started.push((*person, permit.ok()));
                false
            }
            Poll::Pending => true,
        });
        started
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// After how long a token comes for a recheck that would ask now.
    pub(crate) fn wait(&self) -> Duration {
        let blocked = self.budget.blocked(&self.device).map(|refusal| refusal.retry_after());
        blocked.unwrap_or_default().max(self.budget.estimate(&self.device, Priority::Recheck))
    }

    pub(crate) fn report(&self, mut permit: Permit, result: &Result<Outcome, Failure>) {
        let told = poll(pin!(self.budget.report(&mut permit, result)));
        assert!(told.is_ready(), "there is no store to wait for");
    }

    pub(crate) fn succeeded_at(&self) -> Option<Timestamp> {
        self.budget.succeeded_at(&self.device)
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
