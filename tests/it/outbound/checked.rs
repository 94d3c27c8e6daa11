//! What is asked for by others reaches the public internet and nothing else, whatever names resolve to, and when.

use std::time::Duration;

use avatar_proxy::outbound::address::refused;
use avatar_proxy::outbound::{Class, Config, Failure, Reach};
use proptest::prelude::*;

use super::{on, status, with};
use crate::support::network::Map;
use crate::support::receiver::{Receiver, Reply};

const PUBLIC: &str = "9.10.11.12";
const ALSO_PUBLIC: &str = "2a00:1450:4001::200e";

#[tokio::test]
async fn an_address_that_is_not_public_is_not_connected_to_by_whatever_way_it_is_named() {
    for (address, class) in [
        ("127.0.0.1", Class::Loopback),
        ("10.0.0.1", Class::Private),
        ("100.64.0.1", Class::Private),
        ("169.254.169.254", Class::Metadata),
        ("0.0.0.0", Class::Unspecified),
        ("255.255.255.255", Class::Broadcast),
        ("224.0.0.1", Class::Multicast),
        ("198.18.0.1", Class::Reserved),
        ("::1", Class::Loopback),
        ("::ffff:192.168.0.1", Class::Private),
        ("64:ff9b::a9fe:a9fe", Class::Metadata),
        ("2002:a00:1::", Class::Private),
        ("fd00::1", Class::Private),
        ("fe80::1", Class::LinkLocal),
    ] {
        let map = Map::new();
        map.name("hooks.example", &[&[address]]);
        let outbound = on(&map);
        let literal = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        for host in [literal.as_str(), "hooks.example"] {
            for scheme in ["http", "https"] {
                let called = status(&outbound, &format!("{scheme}://{host}/"), Reach::Public).await;
                assert_eq!(called, Err(Failure::Refused(class)), "{host}: {address}");
            }
        }
        assert_eq!(map.tried(), [""; 0], "{address}");
        // Where the operator leads, nothing is in the way.
        let called = status(&outbound, &format!("http://{literal}/"), Reach::Anywhere).await;
        assert_eq!((called, map.tried().len()), (Err(Failure::Unreachable), 1), "{address}");
    }
}

#[tokio::test]
async fn of_several_addresses_only_the_public_ones_are_tried() {
    let receiver = Receiver::new().await;
    let map = Map::new();
    map.name("hooks.example", &[&["10.0.0.1", ALSO_PUBLIC, "::1", PUBLIC, "169.254.169.254"]]);
    map.place(PUBLIC, receiver.address());
    map.place("10.0.0.1", receiver.address());
    map.place("::1", receiver.address());
    assert_eq!(status(&on(&map), "http://hooks.example/", Reach::Public).await, Ok(200));
    assert_eq!(map.tried(), [ALSO_PUBLIC, PUBLIC]);
}

#[tokio::test]
async fn a_name_that_turns_private_is_not_followed() {
    let receiver = Receiver::new().await;
    receiver.always(Reply::new(200, &[("connection", "close")], ""));
    let map = Map::new();
    map.name("hooks.example", &[&[PUBLIC], &["127.0.0.1"]]);
    map.place(PUBLIC, receiver.address());
    map.place("127.0.0.1", receiver.address());
    let outbound = on(&map);
    let url = receiver.url_by("hooks.example", "/");
    assert_eq!(status(&outbound, &url, Reach::Public).await, Ok(200));
    for _ in 0..3 {
        assert_eq!(status(&outbound, &url, Reach::Public).await, Err(Failure::Refused(Class::Loopback)));
    }
    assert_eq!((map.tried(), receiver.connections()), (vec![PUBLIC.to_owned()], 1));
}

#[tokio::test]
async fn a_connection_that_is_kept_leads_where_it_was_checked_to_lead() {
    let receiver = Receiver::new().await;
    let map = Map::new();
    map.name("hooks.example", &[&[PUBLIC], &["127.0.0.1"]]);
    map.place(PUBLIC, receiver.address());
    map.place("127.0.0.1", receiver.address());
    let outbound = on(&map);
    let url = receiver.url_by("hooks.example", "/");
    assert_eq!(status(&outbound, &url, Reach::Public).await, Ok(200));
    for _ in 0..20 {
        // It is not back in time now and then, and then the name is asked for again.
        let again = status(&outbound, &url, Reach::Public).await;
        assert!(matches!(again, Ok(200) | Err(Failure::Refused(Class::Loopback))), "{again:?}");
    }
    assert_eq!((map.tried(), receiver.connections()), (vec![PUBLIC.to_owned()], 1));
}

#[tokio::test]
async fn a_connection_that_was_opened_without_a_check_carries_nothing_that_wants_one() {
    let receiver = Receiver::new().await;
    let outbound = with(Config::default());
    for host in ["127.0.0.1", "localhost"] {
        let url = receiver.url_by(host, "/");
        let before = receiver.requests().len();
        assert_eq!(status(&outbound, &url, Reach::Anywhere).await, Ok(200));
        for _ in 0..3 {
            assert_eq!(status(&outbound, &url, Reach::Public).await, Err(Failure::Refused(Class::Loopback)));
        }
        assert_eq!(receiver.requests().len(), before + 1);
    }
}

#[tokio::test]
async fn the_machine_itself_is_refused_by_its_public_addresses_too() {
    let map = Map::new();
    map.own(PUBLIC);
    map.own(ALSO_PUBLIC);
    map.name("hooks.example", &[&[PUBLIC]]);
    let own = vec!["9.9.9.9".parse().unwrap()];
    let outbound = with(Config { network: map.clone(), own, ..Config::default() });
    for host in [
        PUBLIC,
        "hooks.example",
        "[2a00:1450:4001::200e]",
        "[::ffff:9.10.11.12]",
        "[64:ff9b::90a:b0c]",
        "9.9.9.9:81",
        "[64:ff9b::909:909]",
    ] {
        let called = status(&outbound, &format!("http://{host}/"), Reach::Public).await;
        assert_eq!(called, Err(Failure::Refused(Class::Own)), "{host}");
    }
    assert_eq!(map.tried(), [""; 0]);
}

#[tokio::test]
async fn a_name_without_an_address_is_unresolved() {
    let map = Map::new();
    map.name("empty.example", &[&[]]);
    let outbound = on(&map);
    for host in ["nowhere.example", "empty.example"] {
        for reach in [Reach::Public, Reach::Anywhere] {
            assert_eq!(status(&outbound, &format!("http://{host}/"), reach).await, Err(Failure::Unresolved));
        }
    }
}

#[tokio::test]
async fn an_address_that_swallows_everything_leaves_time_for_the_next() {
    let receiver = Receiver::new().await;
    let map = Map::new();
    map.swallow(ALSO_PUBLIC);
    map.place(PUBLIC, receiver.address());
    map.name("hooks.example", &[&[ALSO_PUBLIC, PUBLIC], &[ALSO_PUBLIC]]);
    let connect_timeout = Duration::from_secs(1);
    let outbound = with(Config { network: map.clone(), connect_timeout, ..Config::default() });
    assert_eq!(status(&outbound, "http://hooks.example:81/", Reach::Public).await, Ok(200));
    assert_eq!(status(&outbound, "http://hooks.example:82/", Reach::Public).await, Err(Failure::Unreachable));
    assert_eq!(map.tried(), [ALSO_PUBLIC, PUBLIC, ALSO_PUBLIC]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_history_of_a_name_leads_to_an_address_that_is_not_public(
        history in proptest::collection::vec(
            proptest::collection::vec(
                proptest::sample::select(vec![
                    PUBLIC, ALSO_PUBLIC, "8.8.4.4", "127.0.0.1", "10.9.8.7", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
                    "169.254.169.254", "fe80::1", "0.0.0.0",
                ]),
                0..5,
            ),
            1..8,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let map = Map::new();
        let answers: Vec<&[&str]> = history.iter().map(Vec::as_slice).collect();
        map.name("hooks.example", &answers);
        runtime.block_on(async {
            let outbound = on(&map);
            for addresses in &history {
                let called = status(&outbound, "http://hooks.example/", Reach::Public).await;
                let public = addresses.iter().any(|address| refused(address.parse().unwrap()).is_none());
                assert_eq!(called == Err(Failure::Unreachable), public, "{addresses:?}: {called:?}");
            }
        });
        for address in map.tried() {
            prop_assert_eq!(refused(address.parse().unwrap()), None);
        }
    }
}
