//! The log of a server with replicas is read only as far as one of them has it.

use std::time::{Duration, Instant};

use avatar_proxy::outcome::Token;
use avatar_proxy::store::{StoreError, Write};
use tokio::task::JoinSet;

use super::super::{Opened, change, done, full, write};
use super::{Server, open};
use crate::support::eventually::eventually;

async fn append(store: &Opened, event: &str) {
    let expected = store.find(&full("1")).await.unwrap().revision;
    done(store, Write { change: Some(change(event, 1)), ..write(&full("1"), expected, 1, 10) }).await;
}

async fn in_step(replica: &Server) {
    eventually("the replica is in step", async || replica.text("INFO replication").contains("master_link_status:up"))
        .await;
}

/// What is on the replica is read, what is not is not, and what is read was waited for.
async fn reads_what_is_confirmed(store: &Opened, replica: &Server) {
    append(store, "one").await;
    assert_eq!(store.read_log(0, 9).await.unwrap().records.len(), 1);
    replica.pause();
    append(store, "two").await;
    assert_eq!(store.read_log(0, 1).await.unwrap().records.len(), 1, "what was confirmed is read on");
    assert_eq!(store.read_log(0, 0).await.unwrap().extent.last, 2);
    assert!(matches!(store.read_log(0, 9).await, Err(StoreError::Unconfirmed)));
    let history = store.history(&full("1").subject.jid, None, u64::MAX, 9).await;
    assert!(matches!(history, Err(StoreError::Unconfirmed)));
    // Whoever has to wait waits no longer than the first of them.
    let began = Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        waiting.spawn(async move { matches!(store.read_log(1, 9).await, Err(StoreError::Unconfirmed)) });
    }
    assert!(waiting.join_all().await.into_iter().all(|is_unconfirmed| is_unconfirmed));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    replica.resume();
    eventually("it is confirmed", async || store.read_log(1, 9).await.is_ok_and(|page| page.records.len() == 1)).await;
}

#[tokio::test]
async fn what_no_replica_has_is_not_read() {
    let primary = Server::start();
    let replica = Server::with(&[&format!("--replicaof 127.0.0.1 {}", primary.port())]);
    in_step(&replica).await;
    reads_what_is_confirmed(&open(&primary.url()).await, &replica).await;
}

#[tokio::test]
async fn nor_in_a_cluster() {
    let [primary, replica, other] =
        [(); 3].map(|()| Server::with(&["--cluster-enabled yes", "--cluster-node-timeout 60000"]));
    // The other one has no replica, and nothing of ours.
    primary.ask("CLUSTER ADDSLOTSRANGE 0 16000");
    other.ask("CLUSTER ADDSLOTSRANGE 16001 16383");
    for node in [&replica, &other] {
        node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", primary.port()));
    }
    for node in [&primary, &replica, &other] {
        eventually("all slots are served", async || {
            let info = node.text("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
        .await;
    }
    replica.ask(&format!("CLUSTER REPLICATE {}", primary.text("CLUSTER MYID")));
    in_step(&replica).await;
    let store = open(&format!("redis+cluster://127.0.0.1:{}", primary.port())).await;
    assert_eq!(store.find(&full("1")).await.unwrap().revision, Token(0));
    reads_what_is_confirmed(&store, &replica).await;
}
