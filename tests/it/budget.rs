//! Promise 5, the budget holds: how many lookups start, in which order, and what everybody is told who has to wait.
//!
//! Most of it on a clock that stands still until a test moves it, with the rate of one lookup per second.

mod cool_down;
mod order;
mod rate;
mod waiting;

use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::demo::Options;
use tokio::task::JoinHandle;

use crate::support::app::{TestApp, World};
use crate::support::client::{Answer, Client};
use crate::support::eventually::eventually;
use crate::support::hand::NOW;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world in which time stands still, with the documented budget: 1/s, bursts of 20, 2 at once, 10 s of patience.
async fn world(options: Options) -> World {
    let world = World::with(options, Clock::manual(NOW)).await;
    world.flag("--gateway-rate=1/s").flag("--gateway-burst=20").flag("--gateway-concurrency=2").flag("--max-wait=10s")
}

fn target(phone: u64) -> String {
    format!("/user/avatar?phone={phone}")
}

async fn ask(client: &Client, device: &str, phone: u64) -> Answer {
    client.get_with(&target(phone), &[("x-device-id", device)]).await
}

/// Asks in the background.
fn asking(client: &Client, device: &'static str, phone: u64) -> JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { ask(&client, device, phone).await })
}

/// Lets time pass until `answer` is there.
async fn passing<T>(world: &World, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = tokio::time::sleep(Duration::from_millis(2)) => world.clock.advance(Duration::from_millis(100)),
        }
    }
}

/// Makes a device known by a first lookup, and fills its bucket.
async fn save_up(world: &World, app: &TestApp, device: &'static str) {
    let first = 999_000_000 + device.bytes().fold(0, |sum, byte| sum * 256 % 999_983 + u64::from(byte));
    passing(world, ask(app, device, first)).await.expect(200, "fwd=miss");
    world.clock.advance(secs(60));
}

/// Waits until exactly so many lookups wait for the budget.
async fn until_waiting(app: &TestApp, count: u32) {
    let what = format!("{count} lookups wait for the budget");
    eventually(&what, async || (app.metric("avatar_proxy_budget_waiting").await - f64::from(count)).abs() < 0.1).await;
}
