//! What subscribers ask for. Four lines: the query, `Last-Event-ID`, the jid in the path, a watch's interval.
#![no_main]

use avatar_proxy::http::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next();
    let query = line().unwrap_or_default();
    let last_event_id = line();
    fuzz::listing(query, last_event_id, line().unwrap_or_default(), line().unwrap_or_default());
});
