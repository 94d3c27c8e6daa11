//! What is learnt of devices and of the gateway, and what becomes of those who wait.

use super::*;

fn is_cooling(refusal: &Refusal, left: u64) -> bool {
    *refusal == Refusal::CoolingDown { retry_after: secs(left) }
}

#[tokio::test]
async fn a_rate_limit_sends_away_who_waits_and_who_comes_until_it_is_over() {
    let desk = Desk::new(&["d", "e"]);
    for name in ["d", "e"] {
        desk.save_up(name).await;
    }
    let mut limited = desk.miss("d").await.permit().await;
    let mut other = desk.miss("d").await.permit().await;
    let waiting = [desk.miss("d").await, desk.ask("d", Priority::Recheck, LONG).await];
    limited.start().unwrap();
    desk.budget.report(&mut limited, &failed(Class::RateLimited)).await;
    settle().await;
    for asking in waiting {
        assert!(is_cooling(&asking.refusal().await, 60));
    }
    assert!(is_cooling(&other.start().unwrap_err(), 60), "it had not asked yet");
    assert!(is_cooling(&desk.refused("d").await, 60));
    desk.pass(secs(59)).await;
    assert!(is_cooling(&desk.refused("d").await, 1));
    drop(desk.miss("e").await.permit().await);
    assert_eq!(desk.metrics.cool_downs.with_label_values(&[&device("d").label()]).get(), 1);
}

#[tokio::test]
async fn after_a_cool_down_the_bucket_is_empty_and_fills_at_half_the_rate() {
    let desk = Desk::new(&["d"]);
    desk.save_up("d").await;
    desk.look("d", failed(Class::RateLimited)).await;
    desk.pass(secs(60)).await;
    let asking = desk.miss("d").await;
    desk.pass(Duration::from_millis(1990)).await;
    assert!(!asking.is_answered());
    desk.pass(Duration::from_millis(10)).await;
    asking.permit().await;
    // Two hours bring all of it back.
    desk.pass(secs(7200)).await;
    for _ in 0..4 {
        desk.look("d", present()).await;
    }
    assert_eq!(desk.budget.estimate(&device("d"), Priority::Miss), secs(1));
}

#[tokio::test]
async fn a_cool_down_survives_a_restart() {
    let desk = Desk::new(&["d"]);
    desk.look("d", failed(Class::RateLimited)).await;
    desk.pass(secs(20)).await;
    let desk = desk.restarted();
    assert!(is_cooling(&desk.refused("d").await, 40));
    desk.pass(secs(40)).await;
    desk.look("d", failed(Class::RateLimited)).await;
    assert!(matches!(desk.refused("d").await, Refusal::CoolingDown { retry_after } if retry_after == secs(120)));
    assert_eq!(desk.records.get("d").unwrap().cool_down_seconds, 120);
}

#[tokio::test]
async fn a_store_that_fails_stops_nothing_and_is_read_when_it_is_back() {
    let desk = Desk::new(&["d"]);
    desk.look("d", failed(Class::RateLimited)).await;
    let desk = desk.restarted();
    desk.records.fail(true);
    desk.look("d", present()).await;
    desk.records.fail(false);
    assert!(matches!(desk.refused("d").await, Refusal::CoolingDown { .. }), "it is remembered again");
    assert_eq!(desk.records.get("d").unwrap().cool_down_seconds, 60);
}

#[tokio::test]
async fn what_is_learnt_while_the_store_fails_counts_in_this_process() {
    let desk = Desk::new(&[]);
    desk.records.fail(true);
    desk.look("d", failed(Class::RateLimited)).await;
    assert!(is_cooling(&desk.refused("d").await, 60));
    assert_eq!(desk.records.get("d"), None);
}

#[tokio::test]
async fn a_device_out_of_order_is_probed_by_one_lookup_at_a_time() {
    let desk = Desk::new(&["d"]);
    desk.save_up("d").await;
    desk.look("d", failed(Class::Device)).await;
    let held = desk.refused("d").await;
    assert!(
        matches!(&held, Refusal::Held { failure, retry_after } if failure.class == Class::Device && *retry_after == secs(5))
    );
    desk.pass(secs(5)).await;
    let mut probe = desk.miss("d").await.permit().await;
    probe.start().unwrap();
    assert!(matches!(desk.refused("d").await, Refusal::Held { .. }), "one probe at a time");
    desk.budget.report(&mut probe, &failed(Class::Device)).await;
    drop(probe);
    assert_eq!(desk.refused("d").await.retry_after(), secs(10));
    desk.pass(secs(10)).await;
    desk.look("d", present()).await;
    let _both = (desk.miss("d").await.permit().await, desk.miss("d").await.permit().await);
}

#[tokio::test]
async fn a_probe_that_is_given_up_leaves_the_next_one_to_somebody_else() {
    let desk = Desk::new(&["d"]);
    desk.save_up("d").await;
    desk.look("d", failed(Class::Device)).await;
    desk.pass(secs(5)).await;
    drop(desk.miss("d").await.permit().await);
    settle().await;
    desk.miss("d").await.permit().await.start().unwrap();
}

#[tokio::test]
async fn refused_credentials_stop_every_device_and_one_probe_starts_them_again() {
    let desk = Desk::new(&["d", "e"]);
    for name in ["d", "e"] {
        desk.save_up(name).await;
    }
    desk.look("d", failed(Class::Credentials)).await;
    assert!(desk.budget.gateway_refuses());
    for name in ["d", "e", "never met"] {
        let refusal = desk.refused(name).await;
        assert!(
            matches!(&refusal, Refusal::Held { failure, .. } if failure.class == Class::Credentials),
            "{refusal:?}"
        );
    }
    desk.pass(secs(30)).await;
    let mut probe = desk.miss("e").await.permit().await;
    assert!(matches!(desk.refused("d").await, Refusal::Held { .. }));
    probe.start().unwrap();
    desk.budget.report(&mut probe, &failed(Class::Late)).await;
    assert!(desk.budget.gateway_refuses(), "no answer proves nothing");
    drop(probe);
    desk.pass(secs(30)).await;
    desk.look("d", failed(Class::Passing)).await;
    assert!(!desk.budget.gateway_refuses(), "a failure in passing is an answer");
}

#[tokio::test]
async fn a_device_that_cools_down_does_not_make_others_cool_down_when_credentials_are_refused() {
    let desk = Desk::with(Config { concurrency: 1, ..config() }, &["d", "e"]);
    for name in ["d", "e"] {
        desk.save_up(name).await;
    }
    let _busy = desk.miss("e").await.permit().await;
    let waiting = desk.miss("e").await;
    let mut late = desk.miss("d").await.permit().await;
    late.start().unwrap();
    desk.budget.report(&mut late, &failed(Class::RateLimited)).await;
    desk.budget.report(&mut late, &failed(Class::Credentials)).await;
    settle().await;
    assert!(matches!(waiting.refusal().await, Refusal::Held { .. }));
    desk.budget.measure();
    let left = desk.metrics.budget_tokens.with_label_values(&[&device("e").label()]).get();
    assert!(left > 2.0, "{left} tokens of another device are left");
}

#[tokio::test]
async fn the_cool_down_of_a_device_that_never_had_an_answer_is_shown_as_that_of_a_new_one() {
    let desk = Desk::with(config(), &["proven"]);
    let cools = |label: &str| {
        desk.budget.measure();
        desk.metrics.cool_down_seconds.with_label_values(&[label]).get() > 50.0
    };
    let proven = device("proven").label();
    assert!(!cools("new") && !cools(&proven));
    desk.look("invented", failed(Class::RateLimited)).await;
    assert!(cools("new") && !cools(&proven));
}

#[tokio::test]
async fn devices_that_never_had_an_answer_share_one_bucket() {
    let desk = Desk::new(&[]);
    let names = ["a", "b", "c"];
    let mut waiting = vec![];
    for name in names {
        waiting.push(desk.miss(name).await);
    }
    for expected in 1..=2 {
        desk.pass(secs(1)).await;
        assert_eq!(waiting.iter().filter(|asking| asking.is_answered()).count(), expected);
    }
    desk.pass(secs(100)).await;
    assert!(!waiting[2].is_answered(), "they share the number under way, too");
}

#[tokio::test]
async fn a_device_gets_a_bucket_of_its_own_with_its_first_answer_and_keeps_it_over_a_restart() {
    let desk = Desk::new(&[]);
    desk.look("a", unregistered()).await;
    assert_eq!(desk.records.get("a"), None, "a troubled gateway says so of everybody");
    desk.look("a", present()).await;
    assert!(desk.records.get("a").unwrap().proven);
    let desk = desk.restarted();
    let (own, shared) = (desk.miss("a").await, desk.miss("b").await);
    desk.pass(secs(1)).await;
    assert!(own.is_answered() && shared.is_answered(), "two buckets, both empty a second ago");
}

#[tokio::test]
async fn a_device_takes_its_waiters_and_the_shared_savings_along_and_leaves_an_empty_bucket() {
    let desk = Desk::with(Config { concurrency: 1, ..config() }, &[]);
    desk.save_up("a").await;
    let mut first = desk.miss("a").await.permit().await;
    let (mine, other) = (desk.miss("a").await, desk.miss("b").await);
    first.start().unwrap();
    desk.budget.report(&mut first, &present()).await;
    settle().await;
    assert!(!mine.is_answered(), "what is under way still counts");
    assert!(!other.is_answered());
    drop(first);
    settle().await;
    mine.permit().await;
    desk.pass(secs(1)).await;
    other.permit().await;
}

#[tokio::test]
async fn invented_devices_leave_nothing_behind() {
    let desk = Desk::with(Config { rate: 1e9, burst: 10, ..config() }, &["real"]);
    desk.look("real", present()).await;
    desk.save_up("the first invented").await;
    for number in 0..100_000 {
        let name = format!("invented-{number}");
        let device = device(&name);
        desk.clock.advance(Duration::from_millis(1));
        let mut permit = desk.budget.admit(&device, Priority::Miss, LONG, |_| {}).await.unwrap();
        permit.start().unwrap();
        desk.budget.report(&mut permit, &failed(Class::Device)).await;
    }
    let ledger = desk.budget.0.lock();
    let (devices, lanes) = ledger.sizes();
    assert!(devices <= 10_000 && lanes <= 2, "{devices} devices, {lanes} lanes");
    assert!(
        ledger.succeeded_at(&device("real"), desk.budget.0.now()).is_some(),
        "a device that exists is not forgotten for them"
    );
    drop(ledger);
    assert_eq!(desk.records.records.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_does_not_make_an_old_success_a_late_one() {
    let desk = Desk::with(config(), &["mine"]);
    let began = desk.clock.now();
    desk.look("mine", present()).await;
    let succeeded = || desk.budget.succeeded_at(&device("mine")).unwrap();
    let at = succeeded();
    desk.clock.jump(began - secs(3600));
    desk.clock.advance(secs(60));
    assert_eq!(succeeded(), desk.clock.now() - secs(60), "set back: a minute ago is a minute ago");
    desk.clock.jump(began + secs(86_400));
    assert_eq!(succeeded(), at, "set forward: it is no later for that");
}

#[tokio::test]
async fn a_hundred_devices_have_a_label_and_the_others_share_one() {
    let desk = Desk::with(Config { rate: 1e9, ..config() }, &[]);
    for number in 0..1000 {
        let name = format!("device-{number}");
        desk.clock.advance(Duration::from_millis(1));
        if number % 2 == 0 {
            desk.look(&name, present()).await;
        }
        desk.clock.advance(Duration::from_millis(1));
        desk.look(&name, failed(Class::RateLimited)).await;
        if number % 100 == 0 {
            desk.budget.measure();
        }
    }
    desk.budget.measure();
    let text = String::from_utf8(desk.metrics.render()).unwrap();
    let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series("avatar_proxy_cool_downs_total"), 102);
    assert_eq!(series("avatar_proxy_budget_tokens"), 101);
    assert_eq!(series("avatar_proxy_cool_down_remaining_seconds"), 102);
    assert!(text.contains(r#"avatar_proxy_cool_downs_total{device="new"} 500"#));
    assert!(text.contains(r#"avatar_proxy_cool_downs_total{device="other"} 400"#));
}
