//! Headers of clients, one on each line: what they ask of the cache, who they say they are, and whom they think they talk to.
#![no_main]

use avatar_proxy::http::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|&byte| byte == b'\n');
    fuzz::headers(lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], &line[colon + 1..]))
    }));
});
