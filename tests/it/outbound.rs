//! Calls to addresses that others chose: where they may lead, and what comes of whoever is called.

mod checked;
mod survived;
mod trusted;

use std::sync::Arc;
use std::time::Duration;

use avatar_proxy::clock::Clock;
use avatar_proxy::outbound::{Answer, Config, Failure, Outbound, Reach, parse_url};
use bytes::Bytes;
use http::HeaderMap;

use crate::support::network::Map;

/// One in whose network the map is true.
fn on(map: &Arc<Map>) -> Outbound {
    with(Config { network: map.clone(), ..Config::default() })
}

fn with(config: Config) -> Outbound {
    Outbound::new(config, Clock::system()).unwrap()
}

/// One whose patience is over soon.
fn impatient() -> Outbound {
    with(Config { timeout: Duration::from_millis(600), ..Config::default() })
}

async fn post(outbound: &Outbound, url: &str, reach: Reach) -> Result<Answer, Failure> {
    // What `Anywhere` takes, `Public` may refuse in time; that is what is tested.
    let url = parse_url(url, Reach::Anywhere).unwrap();
    outbound.post(&url, HeaderMap::new(), Bytes::from_static(b"{}"), reach).await
}

/// The status, where there is one.
async fn status(outbound: &Outbound, url: &str, reach: Reach) -> Result<u16, Failure> {
    post(outbound, url, reach).await.map(|answer| answer.status.as_u16())
}
