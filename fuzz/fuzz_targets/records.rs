//! Stored records. The first byte says of what: `e`ntry, `s`tate, `d`evice. What is read is written, and read as the same;
//! and the program can go on with it, however odd.
#![no_main]

use std::time::Duration;

use avatar_proxy::change::{Circumstances, Standing, State, observe};
use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::{Entry, Freshness, Jitter};
use avatar_proxy::jid::Variant;
use avatar_proxy::outcome::{Negative, Observation, Outcome, Picture, Reason, Rules, Token};
use avatar_proxy::store::DeviceRecord;
use libfuzzer_sys::fuzz_target;

/// 14 November 2023.
const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((b'e', stored)) => entry(stored),
        Some((b's', stored)) => state(stored),
        Some((b'd', stored)) => device(stored),
        _ => {}
    }
});

fn entry(stored: &[u8]) {
    let Ok(entry) = Entry::decode(stored) else { return };
    let written = entry.encode();
    assert_eq!(Entry::decode(&written).expect("it was just written"), entry);
    is_refused_from_a_newer_program(&written, |bytes| Entry::decode(bytes).is_err());
    assert_eq!(entry.freshness(entry.dead_at), Freshness::Dead);
    assert_eq!(entry.ttl(entry.dead_at), Duration::ZERO);
    assert_eq!(entry.freshness(NOW) == Freshness::Dead, entry.ttl(NOW).is_zero());
    let (rules, jitter) = (Rules::default(), Jitter(0.5));
    let _ = (entry.is_expiring(&rules), entry.age(NOW), entry.is_from_later(NOW), format!("{entry:?}"));
    for outcome in outcomes() {
        for standing in [
            Standing::Believed { repeats: u32::MAX },
            Standing::Doubted { look_at: NOW, looks: entry.doubts },
            Standing::Overlapped,
        ] {
            let seen = look(outcome.clone(), entry.start().0.saturating_add(1));
            let next = Entry::after(Some(&entry), &seen, standing, &rules, jitter);
            let taken = seen.start > entry.start();
            assert!(if taken { next.start() == seen.start } else { next == entry });
            assert_eq!(Entry::decode(&next.encode()).expect("it was just written"), next);
        }
    }
}

fn state(stored: &[u8]) {
    let Ok(state) = State::decode(stored) else { return };
    let written = state.encode();
    assert_eq!(State::decode(&written).expect("it was just written"), state);
    is_refused_from_a_newer_program(&written, |bytes| State::decode(bytes).is_err());
    let rules = Rules::default();
    for outcome in outcomes() {
        for (applied, device_succeeded_at) in [(1, None), (3, None), (1, Some(NOW))] {
            let around = Circumstances { applied: Token(applied), device_succeeded_at, entropy: 7, rules: &rules };
            let verdict = observe(&state, &look(outcome.clone(), 2), around);
            assert_eq!(State::decode(&verdict.state.encode()).expect("it was just written"), verdict.state);
            let overlapped = matches!(verdict.standing, Standing::Overlapped);
            assert!(!overlapped || verdict.state.recorded == state.recorded, "a look that overlapped records nothing");
            let version = |state: &State| state.recorded.as_ref().map(|recorded| recorded.version);
            match verdict.change {
                Some(change) => {
                    assert_ne!(change.old_id, change.new_id);
                    assert_eq!(Some(change.version), version(&verdict.state));
                    assert!(state.recorded.is_some(), "the first thing seen is no change");
                }
                None => assert!(state.recorded.is_none() || version(&state) == version(&verdict.state)),
            }
        }
    }
}

fn device(stored: &[u8]) {
    let Ok(device) = DeviceRecord::decode(stored) else { return };
    let written = device.encode();
    assert_eq!(DeviceRecord::decode(&written).expect("it was just written"), device);
    is_refused_from_a_newer_program(&written, |bytes| DeviceRecord::decode(bytes).is_err());
    assert!((0.0..=1.0).contains(&device.slowed_to), "a share of {}", device.slowed_to);
}

/// Raises the number of a written record's format.
fn is_refused_from_a_newer_program(written: &[u8], refuses: impl Fn(&[u8]) -> bool) {
    let mut newer = written.to_vec();
    newer[1] += 1;
    assert!(refuses(&newer));
    assert!(refuses(&written[..written.len() - 1]), "half a record is none");
}

fn outcomes() -> [Outcome; 4] {
    let negative = |reason, status| {
        Outcome::Negative(Negative { reason, status, code: "INTERNAL_SERVER_ERROR".into(), message: "m".into() })
    };
    [
        Outcome::Present(Picture::new("https://pps.example/p?oh=1&oe=6553F4E4", "1", "image")),
        Outcome::Present(Picture::new("", "2", "preview")),
        negative(Reason::Hidden, 500),
        negative(Reason::Unregistered, 400),
    ]
}

fn look(outcome: Outcome, start: u64) -> Observation {
    Observation { variant: Variant::default(), outcome, start: Token(start), started_at: NOW, ended_at: NOW }
}
