//! Signed URLs and the texts of a picture. Three lines: the URL, the id, the type.
#![no_main]

use avatar_proxy::clock::Timestamp;
use avatar_proxy::entry::{MARGIN, dead_at};
use avatar_proxy::outcome::{Picture, Rules, signed_until};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let (url, id, kind) =
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let expiry = signed_until(url);

    let picture = Picture::new(url, id, kind);
    assert_eq!((&*picture.url(), picture.id(), &*picture.kind()), (url, id, kind), "texts are given back");
    assert_eq!(picture.expires_at(), expiry);
    let results = format!("{{\"url\":\"{}\"}}", picture.results());
    let results: serde_json::Value = serde_json::from_str(&results).expect("what is answered is JSON");
    assert_eq!(results, serde_json::json!({ "url": url, "id": id, "type": kind }));
    let stored = serde_json::to_string(&picture).expect("a picture encodes");
    assert_eq!(serde_json::from_str::<Picture>(&stored).expect("it was just written"), picture);

    let Some(expiry) = expiry else {
        // What has a plain `oe` has an expiry, whatever stands around it.
        let bare = url.split(['?', '#']).next().unwrap_or_default();
        assert_eq!(signed_until(&format!("{bare}?oe=620AA726")), Some(Timestamp::from_seconds(0x620A_A726)));
        return;
    };
    let seconds = expiry.as_millis() / 1000;
    assert!((0..1 << 48).contains(&seconds), "no `oe` of 12 digits is beyond this");
    let written = format!("{seconds:012x}");
    let signs =
        |pair: &str| pair.strip_prefix("oe=").is_some_and(|oe| format!("{oe:0>12}").eq_ignore_ascii_case(&written));
    assert!(url.split(['?', '&', '#']).any(signs), "the expiry stands in the URL");
    // The first counts, and a fragment says nothing.
    assert_eq!(signed_until(&format!("{url}&oe=1")), Some(expiry));
    assert_eq!(signed_until(&format!("{url}#&oe=1")), Some(expiry));
    for now in [0, 1_700_000_000, seconds].map(Timestamp::from_seconds) {
        assert!(dead_at(&picture, now, &Rules::default()) + MARGIN <= expiry, "never served to its end");
    }
});
