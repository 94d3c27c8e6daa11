//! What only the engine on Redis promises: many replicas on one server, servers that come and go, and who may come in.

mod confirmed;
mod flights;
mod leases;
mod places;
mod presence;
mod replicas;
mod trouble;

use std::sync::Arc;

use avatar_proxy::clock::Clock;
use avatar_proxy::store::redis::{Address, Redis};

use super::{Engine, Opened};
use crate::support::redis::Redis as Server;

/// A server with a store, or several.
pub(super) struct Keys(Server);

pub(super) async fn open(url: &str) -> Opened {
    open_by(Clock::system(), url).await
}

async fn open_by(clock: Clock, url: &str) -> Opened {
    Arc::new(Redis::open(Address::parse(url).unwrap(), clock).await.unwrap())
}

/// Why it cannot be opened.
pub(super) async fn refusal(url: &str) -> String {
    let opened = Redis::open(Address::parse(url).unwrap(), Clock::system()).await;
    opened.err().expect("it must not open").to_string()
}

impl Engine for Keys {
    const REPLICAS: usize = 3;
    const LEASES_STAY: bool = true;

    fn new() -> Self {
        Self(Server::start())
    }

    /// By a clock that stands still: nobody is taken for dead, however long a test takes.
    async fn open(&self) -> Opened {
        open_by(Clock::manual(std::time::SystemTime::now().into()), &self.0.url()).await
    }
}
