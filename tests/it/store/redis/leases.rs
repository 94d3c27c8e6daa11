//! Leases that replicas take from one another.

use avatar_proxy::clock::Timestamp;
use avatar_proxy::store::{Endpoint, Lease, Progress, Standing, StoreError, Wish};

use super::super::Opened;
use super::{Server, open};

const ID: &str = "e";

fn standing(sequence: u64) -> Standing {
    Standing::at(format!("00000000000000aa.{sequence}").parse().unwrap())
}

async fn scene() -> (Server, Opened, Opened) {
    let server = Server::start();
    let (a, b) = (open(&server.url()).await, open(&server.url()).await);
    let endpoint = Endpoint {
        id: ID.into(),
        url: "https://receiver.example/".into(),
        secrets: vec![],
        events: vec![],
        jids: vec![],
        from_flag: false,
        created_at: Timestamp::from_seconds(0),
    };
    a.put_endpoint(endpoint, standing(0), 9).await.unwrap();
    (server, a, b)
}

async fn wishes(store: &Opened, holder: &str, wish: Wish) -> Option<Lease> {
    store.lease(holder, &[(ID.into(), wish)]).await.unwrap().remove(0)
}

/// Says under this lease that everything is delivered up to here.
async fn says(store: &Opened, lease: &Lease, sequence: u64) -> Result<(), StoreError> {
    let (endpoint, standing) = (ID.into(), standing(sequence));
    store
        .progress(Progress { endpoint, lease: lease.token, becomes: None, standing, kept: vec![], ended: vec![] })
        .await
}

async fn stands(store: &Opened) -> u64 {
    store.endpoints().await.unwrap()[0].standing.cursor.sequence
}

#[tokio::test]
async fn a_lease_goes_to_somebody_else_only_when_it_stands_still_or_is_seized() {
    let (_server, a, b) = scene().await;
    let first = wishes(&a, "a", Wish::Have).await.unwrap();
    assert_eq!(wishes(&b, "b", Wish::Have).await, Some(first.clone()), "it is another's");
    let kept = wishes(&a, "a", Wish::Have).await.unwrap();
    assert_eq!((kept.token, kept.beat), (first.token, first.beat + 1));
    assert_eq!(wishes(&b, "b", Wish::Inherit(first.clone())).await, Some(kept.clone()), "it has been kept since");
    let second = wishes(&b, "b", Wish::Inherit(kept)).await.unwrap();
    assert!(second.holder == "b" && second.token > first.token);
    assert_eq!(wishes(&a, "a", Wish::Have).await, Some(second.clone()), "who had it learns that it has gone");
    assert_eq!(wishes(&a, "a", Wish::GiveUp).await, Some(second.clone()), "and cannot give up what it has not");
    let third = wishes(&a, "a", Wish::Seize).await.unwrap();
    assert!(third.holder == "a" && third.token > second.token);
    assert_eq!(wishes(&a, "a", Wish::GiveUp).await, None);
    assert!(wishes(&b, "b", Wish::Have).await.unwrap().token > third.token);
}

#[tokio::test]
async fn who_has_lost_a_lease_writes_nothing_any_more() {
    let (_server, a, b) = scene().await;
    let first = wishes(&a, "a", Wish::Have).await.unwrap();
    says(&a, &first, 1).await.unwrap();
    let second = wishes(&b, "b", Wish::Seize).await.unwrap();
    says(&b, &second, 2).await.unwrap();
    assert!(matches!(says(&a, &first, 1).await, Err(StoreError::Fenced)));
    wishes(&b, "b", Wish::GiveUp).await;
    assert!(matches!(says(&a, &first, 1).await, Err(StoreError::Fenced)), "nor when nobody has it");
    assert_eq!(stands(&a).await, 2);
}

#[tokio::test]
async fn a_dropped_endpoint_has_no_lease() {
    let (server, a, _b) = scene().await;
    wishes(&a, "a", Wish::Have).await.unwrap();
    a.drop_endpoint(ID).await.unwrap();
    assert_eq!(server.text("TYPE {avatar-proxy}:leases"), "none");
    assert_eq!(wishes(&a, "a", Wish::Have).await, None);
}
