//! Who waits, in which order, and how waiting ends.

use super::*;

#[tokio::test]
async fn tokens_come_at_the_rate_and_wake_who_waits() {
    let desk = Desk::new(&["d"]);
    let (first, second) = (desk.miss("d").await, desk.miss("d").await);
    assert!(!first.is_answered(), "a bucket begins empty");
    desk.pass(Duration::from_millis(999)).await;
    assert!(!first.is_answered());
    desk.pass(Duration::from_millis(1)).await;
    assert!(first.is_answered() && !second.is_answered());
    let _first = first.permit().await;
    desk.pass(secs(1)).await;
    second.permit().await;
}

#[tokio::test]
async fn misses_come_before_expiring_before_rechecks_whatever_the_order_of_arrival() {
    let desk = Desk::with(Config { concurrency: 3, ..config() }, &["d"]);
    let recheck = desk.ask("d", Priority::Recheck, LONG).await;
    let expiring = desk.ask("d", Priority::Expiring, LONG).await;
    let miss = desk.miss("d").await;
    let answered = || [miss.is_answered(), expiring.is_answered(), recheck.is_answered()];
    desk.pass(secs(1)).await;
    assert_eq!(answered(), [true, false, false]);
    desk.pass(secs(1)).await;
    assert_eq!(answered(), [true, true, false]);
    desk.pass(secs(1)).await;
    assert_eq!(answered(), [true, true, true]);
}

#[tokio::test]
async fn nobody_starves_under_a_stream_of_misses() {
    let desk = Desk::new(&["d"]);
    let recheck = desk.ask("d", Priority::Recheck, LONG).await;
    let mut waiting = std::collections::VecDeque::from([desk.miss("d").await, desk.miss("d").await]);
    for second in 1.. {
        // As many misses come as there are tokens, and two always wait.
        waiting.push_back(desk.miss("d").await);
        desk.pass(secs(1)).await;
        if recheck.is_answered() {
            assert!(second > 30, "it is passed while misses come: {second} s");
            break;
        }
        assert!(second < 70, "the recheck starves");
        let mut permit = waiting.pop_front().unwrap().permit().await;
        permit.start().unwrap();
    }
    recheck.permit().await;
}

#[tokio::test]
async fn who_is_promoted_passes_who_came_later() {
    let desk = Desk::new(&["d"]);
    let recheck = desk.ask("d", Priority::Recheck, LONG).await;
    let place = recheck.place.clone().unwrap();
    desk.budget.promote(&place, Priority::Miss);
    let miss = desk.miss("d").await;
    desk.pass(secs(1)).await;
    assert!(recheck.is_answered() && !miss.is_answered());
    // Promoting who has left does nothing.
    desk.budget.promote(&place, Priority::Miss);
}

#[tokio::test]
async fn who_cannot_be_served_in_time_is_told_at_once_and_when_to_come_back() {
    let desk = Desk::new(&["d"]);
    let _ahead = [desk.miss("d").await, desk.miss("d").await];
    let refusal = desk.ask("d", Priority::Miss, secs(2)).await.refusal().await;
    let Refusal::Spent { retry_after } = refusal else { panic!("{refusal:?}") };
    assert_eq!(retry_after, secs(3));
    assert!(desk.ask("d", Priority::Miss, secs(3)).await.place.is_some(), "with more patience it may wait");
    let refusals = desk.metrics.budget_refusals.with_label_values(&["miss", "spent"]);
    assert_eq!(refusals.get(), 1);
}

#[tokio::test]
async fn coming_back_when_told_succeeds() {
    let desk = Desk::with(Config { concurrency: 100, ..config() }, &["d"]);
    let ahead = [desk.miss("d").await, desk.miss("d").await];
    let told = desk.ask("d", Priority::Miss, secs(1)).await.refusal().await.retry_after();
    desk.pass(told).await;
    for asking in ahead {
        asking.permit().await.start().unwrap();
    }
    desk.ask("d", Priority::Miss, Duration::ZERO).await.permit().await;
}

#[tokio::test]
async fn who_leaves_gives_the_place_to_the_next() {
    let desk = Desk::new(&["d"]);
    let (first, second) = (desk.miss("d").await, desk.miss("d").await);
    assert_eq!(desk.budget.estimate(&device("d"), Priority::Miss), secs(3));
    first.leave().await;
    assert_eq!(desk.budget.estimate(&device("d"), Priority::Miss), secs(2));
    desk.pass(secs(1)).await;
    second.permit().await;
}

#[tokio::test]
async fn who_leaves_with_a_permit_in_hand_gives_it_back() {
    let desk = Desk::new(&["d"]);
    let (first, second) = (desk.miss("d").await, desk.miss("d").await);
    desk.pass(secs(1)).await;
    assert!(first.is_answered());
    first.leave().await;
    drop(second.permit().await);
}

#[tokio::test]
async fn an_unused_permit_gives_its_token_back_and_a_used_one_does_not() {
    let desk = Desk::new(&["d"]);
    drop(desk.granted("d").await);
    assert_eq!(desk.budget.estimate(&device("d"), Priority::Miss), secs(0));
    let mut permit = desk.miss("d").await.permit().await;
    permit.start().unwrap();
    drop(permit);
    assert_eq!(desk.budget.estimate(&device("d"), Priority::Miss), secs(1));
}

#[tokio::test]
async fn a_quiet_time_saves_up_to_the_burst_and_no_more() {
    let desk = Desk::with(Config { concurrency: 100, ..config() }, &["d"]);
    desk.save_up("d").await;
    let mut permits = vec![];
    for _ in 0..4 {
        let mut permit = desk.miss("d").await.permit().await;
        permit.start().unwrap();
        permits.push(permit);
    }
    let fifth = desk.miss("d").await;
    assert!(!fifth.is_answered());
    desk.pass(secs(1)).await;
    fifth.permit().await;
}

#[tokio::test]
async fn no_more_are_under_way_than_may_be() {
    let desk = Desk::new(&["d", "e"]);
    for name in ["d", "e"] {
        desk.save_up(name).await;
    }
    let (first, _second) = (desk.miss("d").await.permit().await, desk.miss("d").await.permit().await);
    let third = desk.miss("d").await;
    desk.pass(secs(100)).await;
    assert!(!third.is_answered(), "two are under way");
    desk.miss("e").await.permit().await;
    drop(first);
    settle().await;
    third.permit().await;
}
