//! Addresses: whatever is read is canonical, and nothing that is not an address is read.
#![no_main]

use avatar_proxy::jid::{Jid, JidError, Server};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let read = Jid::parse(text);
    match read {
        Ok(jid) => {
            let canonical = jid.to_string();
            assert_eq!(Jid::parse(&canonical), Ok(jid), "the canonical form is a fixed point");
            let (user, server) = canonical.split_once('@').expect("an address has a server");
            assert_eq!(user, jid.user());
            assert!((1..=40).contains(&user.len()), "a user part of {} bytes", user.len());
            assert!(user == "status" || user.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
            assert_eq!(user.contains('-') && jid.server() != Server::Group, false, "only groups have hyphens");
            // What a client sends where a `+` was not encoded, or with a server in capitals, is the same address.
            assert_eq!(Jid::parse(&format!("+{canonical}")), Ok(jid));
            assert_eq!(Jid::parse(&format!(" {user}@{}", server.to_ascii_uppercase())), Ok(jid));
            // Nothing is made up: the user part stands in the text.
            assert!(text.contains(user));
            // Logs show no address. (Of digits as few as these, a digest may hold the same by chance.)
            assert!(user.len() < 9 || !format!("{jid:?}").contains(user));
        }
        Err(JidError::Blank) => assert!(text.bytes().all(|byte| matches!(byte, b' ' | b'+'))),
        Err(error) => {
            let message = error.to_string();
            assert!(message.ends_with('.') && message.len() < 120);
        }
    }
    let stored = serde_json::to_string(text).expect("a text encodes");
    let stored: Option<Jid> = serde_json::from_str(&stored).ok();
    assert_eq!(stored, read.ok(), "a stored address is read as a client's is");
});
