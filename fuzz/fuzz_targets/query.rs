//! Questions of clients. Three lines: the query; the header `X-Device-Id`, if there is one; the jid in the path, if it is there.
#![no_main]

use avatar_proxy::http::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let query = lines.next().unwrap_or_default();
    let device = lines.next().map(str::as_bytes);
    fuzz::query(query, lines.next(), device);
});
