//! Many replicas as processes of their own, behind what a load balancer does: a new question goes to any that is up, and one
//! that nobody answered to another.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;

use crate::support::app::World;
use crate::support::client::{Answer, Broken, Client};
use crate::support::process::Process;

/// Who answers now. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Fleet {
    up: Arc<Mutex<Vec<(SocketAddr, Client)>>>,
    moved: Arc<AtomicU64>,
    cut_off: Arc<AtomicU64>,
}

impl Fleet {
    /// Starts a replica, and sends questions to it once it answers.
    pub(super) fn start(&self, world: &World) -> Process {
        // What it logs of each lookup would be half of the work.
        let start = || Process::start_after("AVATAR_PROXY_LOG=info exec", world);
        let process = tokio::task::block_in_place(start);
        self.take_in(&process);
        process
    }

    /// Sends questions to this one.
    pub(super) fn take_in(&self, process: &Process) {
        self.up.lock().unwrap().push((process.address(), process.client.clone()));
    }

    /// Sends no more questions to this one.
    pub(super) fn leave_out(&self, process: &Process) {
        self.up.lock().unwrap().retain(|(address, _)| *address != process.address());
    }

    /// One of those that are up.
    pub(super) fn any(&self) -> (SocketAddr, Client) {
        let up = self.up.lock().unwrap();
        up[fastrand::usize(..up.len())].clone()
    }

    /// Asks one after the other until one answers.
    pub(super) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        loop {
            let (_, client) = self.any();
            match client.send(Method::GET, target, headers).await {
                Ok(answer) => return answer,
                Err(Broken::Unanswered) => self.moved.fetch_add(1, Ordering::Relaxed),
                Err(Broken::CutOff) => self.cut_off.fetch_add(1, Ordering::Relaxed),
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The picture of somebody who must have been looked at within the last ten seconds.
    pub(super) async fn look(&self, phone: &str) -> Answer {
        self.get(&format!("/user/avatar?phone={phone}"), &[("cache-control", "no-cache")]).await
    }

    /// How many questions were asked again because nobody answered, and because an answer ended in the middle.
    pub(super) fn asked_again(&self) -> (u64, u64) {
        (self.moved.load(Ordering::Relaxed), self.cut_off.load(Ordering::Relaxed))
    }
}
