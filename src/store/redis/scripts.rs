//! The scripts: one for each atomic step, called by digest.
//!
//! A server that does not know a script's digest, because it was restarted or has taken another's place, is sent the whole text
//! once, which makes it known. Whatever a script writes it writes after all of its checks, and it is refused as a whole where it
//! could not write all of it: that is what `#!lua` without `allow-oom` means. Those that write nothing say so, and go on being
//! answered by a server that is full; so do those about flights and
//! the budget, which write little and have it dropped or overwritten again.

use redis::{Cmd, RedisWrite as _, ToRedisArgs};

use crate::clock::{Clock, Timestamp};

/// The greatest number that a double, which is what numbers are in Lua and in scores, tells from its neighbours.
pub(super) const EXACT_MAX: u64 = 1 << 53;

/// A script, and its digest.
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// Its call by digest. `meta` is the key that all others follow from.
    pub(super) fn by_digest(&self, meta: &str, arguments: &Arguments) -> Cmd {
        call("EVALSHA", &self.digest, meta, arguments)
    }

    /// Its call in full.
    pub(super) fn in_full(&self, meta: &str, arguments: &Arguments) -> Cmd {
        call("EVAL", self.text, meta, arguments)
    }
}

fn call(command: &str, script: &str, meta: &str, arguments: &Arguments) -> Cmd {
    let mut call = redis::cmd(command);
    call.arg(script).arg(1).arg(meta).arg(&arguments.0);
    call
}

macro_rules! scripts {
    ($($name:ident $flags:literal $($with:literal)*),* $(,)?) => {
        /// All of them.
        pub(super) struct Scripts {
            /// Asks for the version: for servers of any age.
            pub(super) version: Script,
            /// Begins a store.
            pub(super) open: Script,
            $(pub(super) $name: Script,)*
        }

        impl Scripts {
            pub(super) fn new() -> Self {
                Self {
                    version: Script::new("return redis.call('INFO', 'server')"),
                    open: Script::new(concat!("#!lua\n", include_str!("open.lua"))),
                    $($name: Script::new(concat!(
                        "#!lua", $flags, "\n", include_str!("common.lua"), $(include_str!($with),)*
                        include_str!(concat!(stringify!($name), ".lua"))
                    )),)*
                }
            }
        }
    };
}

scripts! {
    tip " flags=no-writes",
    find " flags=no-writes",
    claim "",
    apply "" "flights.lua",
    ask " flags=allow-oom" "flights.lua" "presence.lua" "purse.lua",
    land " flags=allow-oom" "flights.lua",
    attend " flags=allow-oom" "flights.lua" "presence.lua" "hands.lua",
    agenda " flags=no-writes",
    take_due "" "presence.lua" "hands.lua",
    take_rechecks "" "presence.lua" "hands.lua",
    outlay " flags=no-writes",
    reschedule "",
    defer "",
    advance "",
    touch "",
    lessons " flags=no-writes",
    put_lessons "",
    forget_idle "",
    forget "" "flights.lua" "presence.lua" "hands.lua",
    watch "",
    unwatch "",
    watches " flags=no-writes",
    read_log " flags=no-writes",
    history " flags=no-writes",
    beat "",
    trim_log "",
    draw " flags=allow-oom" "flights.lua" "presence.lua" "purse.lua",
    give_back " flags=allow-oom",
    known " flags=no-writes" "flights.lua" "presence.lua" "purse.lua",
    teach " flags=allow-oom" "flights.lua" "presence.lua" "purse.lua",
    reserve " flags=allow-oom" "flights.lua" "presence.lua" "purse.lua",
    device " flags=no-writes",
    put_device "",
    size " flags=no-writes",
    check "",
    endpoints " flags=no-writes",
    put_endpoint "",
    drop_endpoint "",
    deliveries " flags=no-writes",
    progress "",
    lease "",
    kept " flags=no-writes",
    revive "",
    trim_dead "",
}

/// What a script is given, in order.
#[derive(Clone, Default)]
pub(super) struct Arguments(Vec<Vec<u8>>);

impl Arguments {
    /// One more.
    pub(super) fn with(mut self, argument: impl ToRedisArgs) -> Self {
        argument.write_redis_args(&mut self.0);
        self
    }

    /// One more, empty if there is none.
    pub(super) fn or_empty(mut self, argument: Option<impl ToRedisArgs>) -> Self {
        if let Some(argument) = argument {
            return self.with(argument);
        }
        self.0.write_arg(b"");
        self
    }

    /// These, and then others.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(super) fn time(self, time: Timestamp) -> Self {
        self.with(millis(time))
    }

    /// Time as a test moves it. Otherwise the server's own clock counts, which is the same for all replicas.
    pub(super) fn clock(self, clock: &Clock) -> Self {
        self.or_empty(clock.moved_by_hand().map(|elapsed| elapsed.as_micros().to_string()))
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.with(number.min(EXACT_MAX))
    }

    pub(super) fn limit(self, limit: usize) -> Self {
        self.number(u64::try_from(limit).unwrap_or(u64::MAX))
    }
}

/// Milliseconds; an instant that a score cannot tell from its neighbours, in the far future or past, is taken for the furthest
/// that it can.
pub(super) fn millis(time: Timestamp) -> i64 {
    let furthest = EXACT_MAX.cast_signed();
    time.as_millis().clamp(-furthest, furthest)
}
