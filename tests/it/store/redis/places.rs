//! Behind TLS, behind Sentinels and in a cluster.

use std::time::Duration;

use avatar_proxy::outcome::Token;
use avatar_proxy::store::{Landing, Question, Told, Write};

use super::super::{Opened, at, change, done, full, write};
use super::{Server, open, refusal};
use crate::support::authority::Authority;
use crate::support::eventually::eventually;

/// Writes, reads, and is told of the log and of flights: all that a connection has to carry.
async fn works(store: &Opened) {
    let before = store.find(&full("1")).await.unwrap();
    let last = store.read_log(0, 0).await.unwrap().extent.last;
    let written = Write { change: Some(change(&format!("e{last}"), 1)), ..write(&full("1"), before.revision, 1, 10) };
    let revision = done(store, written).await;
    assert_eq!(store.find(&full("1")).await.unwrap().revision, revision);
    assert_eq!(store.read_log(last, 9).await.unwrap().records.len(), 1);
    let device = &full("1").subject.device;
    store.take_due(device, at(99), at(999), 9).await.unwrap();
    store.take_rechecks(device, at(99), at(999), 9).await.unwrap();
    store.check().await.unwrap();
    assert!(store.size(at(0)).await.unwrap().bytes > 0);

    let shared = store.shared().expect("replicas share it");
    let question =
        Question { key: full("2"), alive_at: at(0), checked: None, start: Some(Duration::from_secs(30)), draft: None };
    assert!(matches!(shared.ask(question.clone()).await.unwrap(), Told::Started { .. }));
    let Told::UnderWay { flight, .. } = shared.ask(question).await.unwrap() else { panic!("somebody looks") };
    shared.land(Landing { key: full("2"), flight, ending: None }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), shared.landed(flight)).await.expect("its end is heard of");
}

#[tokio::test]
async fn behind_tls_certificates_are_checked() {
    let authority = Authority::new("Somebody");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ours = authority.signs(&["127.0.0.1"]);
    let trusted = file("ca.pem", &authority.pem());
    let other = file("other.pem", &Authority::new("Somebody else").pem());
    let (certificate, key) = (file("server.pem", &ours.certificate_pem), file("server.key", &ours.key_pem));
    let server = Server::with(&[
        &format!("--tls-cert-file {certificate}"),
        &format!("--tls-key-file {key}"),
        &format!("--tls-ca-cert-file {trusted}"),
        "--tls-auth-clients no",
    ]);
    let url = server.url().replace("redis://", "rediss://");
    let store = open(&format!("{url}?ca={trusted}")).await;
    works(&store).await;
    for distrusting in
        [url.clone(), format!("{url}?ca={other}"), url.replace("127.0.0.1", "localhost") + "?ca=" + &trusted]
    {
        let said = refusal(&distrusting).await;
        assert!(said.contains("certificate"), "{said}");
    }
    assert!(refusal(&format!("{url}?ca=missing.pem")).await.contains("authorities"));
}

#[tokio::test]
async fn in_a_cluster_the_node_that_has_the_keys_is_found() {
    let nodes = [(); 3].map(|()| Server::with(&["--cluster-enabled yes", "--cluster-node-timeout 2000"]));
    for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port()));
    }
    for node in &nodes {
        eventually("all slots are served", async || {
            let info = node.text("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
        .await;
    }
    // The slots of these are in different thirds, so that two are not on the node that is asked.
    for prefix in ["a", "b", "c"] {
        let store = open(&format!("redis+cluster://127.0.0.1:{}?prefix={prefix}", nodes[0].port())).await;
        works(&store).await;
        store.close().await;
    }
    let sizes = nodes.each_ref().map(|node| node.ask("DBSIZE"));
    assert!(!sizes.contains(&redis::Value::Int(0)), "each has some: {sizes:?}");
    let said = refusal(&format!("{}?prefix=c", nodes[0].url())).await
        + &refusal(&format!("{}?prefix=a", nodes[0].url())).await;
    assert!(said.contains("is a node of a cluster"), "{said}");
}

/// A Sentinel that watches this server as `main`, and is told so besides.
fn sentinel(primary: &Server, besides: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let told = format!("sentinel monitor main 127.0.0.1 {} 1\n{besides}", primary.port());
    std::fs::write(folder.path().join("redis.conf"), told).unwrap();
    Server::in_folder(folder, &["--sentinel"])
}

#[tokio::test]
async fn sentinels_may_have_a_password_of_their_own() {
    let primary = Server::with(&["--requirepass theirs"]);
    let sentinel = sentinel(&primary, "sentinel auth-pass main theirs\nrequirepass own\n");
    let url = format!("redis+sentinel://:theirs@127.0.0.1:{}/main", sentinel.port());
    works(&open(&format!("{url}?sentinel_password=own")).await).await;
    for wrong in [url.clone(), format!("{url}?sentinel_password=theirs")] {
        let said = refusal(&wrong).await;
        assert!(said.contains("password") && !said.contains("theirs"), "{said}");
    }
}

#[tokio::test]
async fn when_the_primary_dies_the_one_that_the_sentinels_chose_takes_its_place() {
    let mut primary = Server::start();
    let replica = Server::with(&[&format!("--replicaof 127.0.0.1 {}", primary.port())]);
    eventually("the replica is in step", async || replica.text("INFO replication").contains("master_link_status:up"))
        .await;
    let sentinel =
        sentinel(&primary, "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n");
    let unknown = format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port());
    assert!(refusal(&unknown).await.contains("Sentinels that know no primary"), "{}", refusal(&unknown).await);

    let store = open(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port())).await;
    works(&store).await;
    let found = "SENTINEL REPLICAS main";
    eventually("the sentinel knows the replica", async || {
        format!("{:?}", sentinel.ask(found)).contains(&replica.port().to_string())
    })
    .await;
    // A write and the wait for it, and so for all before it, are one connection's.
    let mut raw = primary.raw();
    redis::cmd("SET").arg("mark").arg(1).exec(&mut raw).unwrap();
    assert_eq!(redis::cmd("WAIT").arg(1).arg(20_000).query::<u64>(&mut raw).unwrap(), 1, "the replica has it");
    let held = store.find(&full("1")).await.unwrap();
    primary.kill();
    eventually("the store answers again", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.claim(&full("1")).await.is_ok()
    })
    .await;
    assert_eq!(store.find(&full("1")).await.unwrap(), held);
    assert!(held.revision > Token(0));
    works(&store).await;
}
