//! What becomes of every answer of the gateway that is not a picture: what the client is told, how often the gateway is asked,
//! and what rests for how long afterwards.

mod credentials;
mod device;
mod dying;
mod live;
mod nonsense;
mod outcomes;
mod rate_limit;
mod resting;
mod rows;

use crate::support::client::{Answer, Client};

/// Asks about one person in the name of one device.
async fn ask(client: &Client, phone: &str, device: &str) -> Answer {
    client.get_with(&format!("/user/avatar?phone={phone}"), &[("x-device-id", device)]).await
}

/// The same, for a fresh look.
async fn ask_anew(client: &Client, phone: &str, device: &str) -> Answer {
    let headers = [("x-device-id", device), ("cache-control", "no-cache")];
    client.get_with(&format!("/user/avatar?phone={phone}"), &headers).await
}

/// Does the same for every item, at the same time, and waits for all.
async fn at_once<I, F, T>(items: impl IntoIterator<Item = I>, act: impl Fn(I) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let tasks: Vec<_> = items.into_iter().map(|item| tokio::spawn(act(item))).collect();
    let mut done = vec![];
    for task in tasks {
        done.push(task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    done
}
