//! What each client's connection waits for, and since when: so that no client holds one for longer than it should.
//!
//! The rules:
//! * A request head that has begun is complete within [`Timeouts::head`]; so is the first one, counted from the start of the
//!   connection, whichever HTTP is spoken and whether or not TLS comes before it.
//! * Between requests a connection may rest for [`Timeouts::keep_alive`].
//! * While an answer waits to be taken, the client takes some of it within every [`Timeouts::write`].
//! * While an answer is being looked for, or a stream goes on that has nothing to say, nothing is demanded of the client.
//! * A client that closes its sending side behind a request may be listening still: it is answered first. TCP does not tell it
//!   from one that has left; [`Watchdog::half_closed`] says that either is so.
//!
//! A request costs a few loads and stores here, and no timer: instants are ticks of one coarse clock per listener, which the
//! listener moves on, and at each tick it looks at all of its connections. So everything comes some ticks late, and
//! nothing early.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

mod stream;

pub(super) use stream::Guarded;

/// How long clients may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// To send a request head, TLS before the first one included.
    pub head: Duration,
    /// To begin the next request: longer than the 60 s after which balancers in front of us tend to drop a connection of theirs,
    /// so that they never send a request into one that we are closing.
    pub keep_alive: Duration,
    /// To take more of an answer that waits for them.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head: Duration::from_secs(15), keep_alive: Duration::from_secs(300), write: Duration::from_secs(30) }
    }
}

/// How finely the shortest of the timeouts is measured.
const TICKS_PER_TIMEOUT: u32 = 16;

/// The coarse clock of one listener.
pub(super) struct Ticker {
    now: AtomicU32,
    period: Duration,
    head: u32,
    keep_alive: u32,
    write: u32,
}

impl Ticker {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let shortest = timeouts.head.min(timeouts.keep_alive).min(timeouts.write);
        let period = (shortest / TICKS_PER_TIMEOUT).clamp(Duration::from_millis(1), Duration::from_secs(1));
        // Rounded up: a tick late, never early.
        let ticks =
            |timeout: Duration| u32::try_from(timeout.as_nanos().div_ceil(period.as_nanos())).unwrap_or(u32::MAX / 4);
        Self {
            now: AtomicU32::new(0),
            period,
            head: ticks(timeouts.head),
            keep_alive: ticks(timeouts.keep_alive),
            write: ticks(timeouts.write),
        }
    }

    /// How often it is to be moved on.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Moves it on.
    pub(super) fn tick(&self) {
        self.now.fetch_add(1, Relaxed);
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// For the rest of a request head; at first, for the whole of one.
    Head,
    /// For the next request. HTTP/2 is always here while it is not blocked: its heads and answers cross.
    Idle,
    /// For us.
    Answering,
    /// For the client to take more of an answer.
    Blocked,
}

/// All that is known of a connection, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    phase: Phase,
    /// the tick at which the phase began
    since: u32,
    /// HTTP/2
    multiplexed: bool,
    /// whether more than whole heads has been read: part of the next one, or a body
    open_ended: bool,
    /// whether the client has closed its sending side behind a request
    half_closed: bool,
}

impl State {
    const MULTIPLEXED: u64 = 1 << 2;
    const OPEN_ENDED: u64 = 1 << 3;
    const HALF_CLOSED: u64 = 1 << 4;

    fn new(now: u32) -> Self {
        Self { phase: Phase::Head, since: now, multiplexed: false, open_ended: false, half_closed: false }
    }

    fn packed(self) -> u64 {
        let flag = |set, bit| if set { bit } else { 0 };
        u64::from(self.since) << 32
            | self.phase as u64
            | flag(self.multiplexed, Self::MULTIPLEXED)
            | flag(self.open_ended, Self::OPEN_ENDED)
            | flag(self.half_closed, Self::HALF_CLOSED)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the upper half of the word is a tick")]
    fn unpacked(word: u64) -> Self {
        let phase = match word & 3 {
            0 => Phase::Head,
            1 => Phase::Idle,
            2 => Phase::Answering,
            _ => Phase::Blocked,
        };
        Self {
            phase,
            since: (word >> 32) as u32,
            multiplexed: word & Self::MULTIPLEXED != 0,
            open_ended: word & Self::OPEN_ENDED != 0,
            half_closed: word & Self::HALF_CLOSED != 0,
        }
    }

    /// Bytes have come.
    fn read(mut self, bytes: &[u8], now: u32) -> Self {
        self.open_ended = !ends_a_head(bytes);
        if self.phase == Phase::Idle && !self.multiplexed {
            (self.phase, self.since) = (Phase::Head, now);
        }
        self
    }

    /// A head was complete.
    fn asked(mut self, multiplexed: bool, now: u32) -> Self {
        self.multiplexed = multiplexed;
        if !(multiplexed && self.phase == Phase::Blocked) {
            (self.phase, self.since) = (if multiplexed { Phase::Idle } else { Phase::Answering }, now);
        }
        self
    }

    /// The client, or the system for it, has taken all that was to be written.
    fn wrote(mut self, now: u32) -> Self {
        if matches!(self.phase, Phase::Answering | Phase::Blocked) {
            let begun = self.open_ended && !self.multiplexed;
            (self.phase, self.since) = (if begun { Phase::Head } else { Phase::Idle }, now);
        }
        self
    }

    /// The same of some of it.
    fn wrote_some(mut self, now: u32) -> Self {
        (self.phase, self.since) = (Phase::Blocked, now);
        self
    }

    /// Nobody takes more bytes for now.
    fn blocked(mut self, now: u32) -> Self {
        if self.phase != Phase::Blocked {
            (self.phase, self.since) = (Phase::Blocked, now);
        }
        self
    }

    /// Whether an answer is owed to a client that speaks HTTP/1: it is looked for, or on its way.
    fn owes(self) -> bool {
        !self.multiplexed && matches!(self.phase, Phase::Answering | Phase::Blocked)
    }

    /// Whether HTTP/1 can have nothing to say but that it cannot read what came.
    fn refuses(self) -> bool {
        !self.multiplexed && matches!(self.phase, Phase::Head | Phase::Idle)
    }

    /// What follows from it at this tick, with so much under way.
    fn verdict(self, ticker: &Ticker, now: u32, under_way: u32) -> Verdict {
        let over = |limit: u32| now.wrapping_sub(self.since) > limit;
        match self.phase {
            Phase::Head if over(ticker.head) => Verdict::End,
            Phase::Blocked if over(ticker.write) => Verdict::End,
            // Told to go, and still here: HTTP/2 with answers that the client does not take.
            Phase::Idle if under_way == 0 && over(ticker.keep_alive.saturating_add(ticker.write)) => Verdict::End,
            Phase::Idle if under_way == 0 && over(ticker.keep_alive) => Verdict::Retire,
            _ => Verdict::Stay,
        }
    }
}

/// Whether the last of some bytes are the empty line behind a head, so that nothing of a next one has come.
fn ends_a_head(bytes: &[u8]) -> bool {
    let Some(line) = bytes.strip_suffix(b"\n") else { return false };
    let before = line.strip_suffix(b"\r").unwrap_or(line);
    before.is_empty() || before.ends_with(b"\n")
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Verdict {
    Stay,
    /// Finishes what it has begun, and takes no more.
    Retire,
    /// Is dropped.
    End,
}

/// One connection's watchdog. Only the connection's own task writes its state.
pub(super) struct Watchdog {
    ticker: Arc<Ticker>,
    state: AtomicU64,
    under_way: AtomicU32,
    verdict: AtomicU8,
    waker: OnceLock<Waker>,
    half_closed: Notify,
}

impl Watchdog {
    pub(super) fn new(ticker: Arc<Ticker>) -> Self {
        let state = State::new(ticker.now.load(Relaxed)).packed();
        Self {
            ticker,
            state: AtomicU64::new(state),
            under_way: AtomicU32::new(0),
            verdict: AtomicU8::new(Verdict::Stay as u8),
            waker: OnceLock::new(),
            half_closed: Notify::new(),
        }
    }

    fn state(&self) -> State {
        State::unpacked(self.state.load(Relaxed))
    }

    fn change(&self, change: impl FnOnce(State, u32) -> State) {
        self.state.store(change(self.state(), self.ticker.now.load(Relaxed)).packed(), Relaxed);
    }

    /// A request has come in whole.
    pub(super) fn asked(&self, multiplexed: bool) {
        self.change(|state, now| state.asked(multiplexed, now));
    }

    /// Something is under way that the client waits for, a lookup or a stream, until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Relaxed);
        UnderWay(self.clone())
    }

    /// The client has closed its sending side, and listens or is gone. HTTP/2 never ends so: it says goodbye in its own words.
    pub(super) async fn half_closed(&self) {
        let told = self.half_closed.notified();
        if !self.state().half_closed {
            told.await;
        }
    }

    /// Whose task it is: woken when there is a verdict. A task has one waker for life.
    pub(super) fn belongs_to(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.verdict.load(Relaxed) {
            0 => Verdict::Stay,
            1 => Verdict::Retire,
            _ => Verdict::End,
        }
    }

    /// Looks at it, as happens at every tick.
    pub(super) fn judge(&self) {
        self.tell(self.state().verdict(&self.ticker, self.ticker.now.load(Relaxed), self.under_way.load(Relaxed)));
    }

    /// No verdict becomes milder.
    pub(super) fn tell(&self, verdict: Verdict) {
        let before = self.verdict.fetch_max(verdict as u8, Relaxed);
        // A task that was told before it could be woken is woken at the next tick.
        if before.max(verdict as u8) != Verdict::Stay as u8
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }
}

/// A lookup that a client waits for, or a stream that it listens to.
pub(super) struct UnderWay(Arc<Watchdog>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticker() -> Ticker {
        let seconds = Duration::from_secs;
        Ticker::new(Timeouts { head: seconds(16), keep_alive: seconds(160), write: seconds(32) })
    }

    /// When a connection is told to go, and when it is dropped: so many ticks after it came into this state.
    fn fate(state: State) -> (Option<u32>, Option<u32>) {
        let ticker = ticker();
        let first = |wanted| (0..1000).find(|&at| state.verdict(&ticker, state.since + at, 0) == wanted);
        (first(Verdict::Retire), first(Verdict::End))
    }

    #[test]
    fn a_head_must_be_complete_in_time_and_rest_may_be_long() {
        assert_eq!(ticker().period(), Duration::from_secs(1));
        let opened = State::new(7);
        assert_eq!(fate(opened), (None, Some(17)), "the first head");
        let asked = opened.read(b"GET / HTTP/1.1\r\n\r\n", 8).asked(false, 9);
        assert_eq!(fate(asked), (None, None), "nothing is demanded while it waits for us");
        let rests = asked.wrote(10);
        assert_eq!((rests.phase, fate(rests)), (Phase::Idle, (Some(161), Some(193))));
        let begun = rests.read(b"GE", 50);
        assert_eq!((begun.since, fate(begun)), (50, (None, Some(17))));
        assert_eq!(begun.read(b"T", 60), begun, "a byte renews nothing");
    }

    #[test]
    fn a_head_that_begins_behind_another_has_begun() {
        let state = State::new(0).read(b"GET / HTTP/1.1\r\n\r\nGET / HT", 1).asked(false, 1).wrote(2);
        assert_eq!((state.phase, state.since), (Phase::Head, 2));
        let state = state.read(b"TP/1.1\r\n\r\n", 3).asked(false, 3).wrote(4);
        assert_eq!(state.phase, Phase::Idle);
    }

    #[test]
    fn an_answer_that_is_not_taken_ends_the_connection() {
        let blocked = State::new(0).asked(false, 1).blocked(5);
        assert_eq!((blocked.blocked(9), fate(blocked)), (blocked, (None, Some(33))));
        assert_eq!(blocked.wrote_some(20).blocked(21).since, 20, "every byte taken renews it");
        assert_eq!(blocked.wrote(20).phase, Phase::Idle);
    }

    #[test]
    fn http_2_rests_between_requests_whatever_else_is_said() {
        let state = State::new(0).read(b"PRI * HTTP/2.0", 0).asked(true, 3);
        assert_eq!(state.read(b"ping", 50).wrote(60).since, 3);
        assert_eq!(fate(state), (Some(161), Some(193)));
        assert_eq!(state.verdict(&ticker(), 500, 1), Verdict::Stay, "while something is looked for");
        assert_eq!(fate(state.blocked(70)), (None, Some(33)));
    }

    #[test]
    fn a_state_fits_into_a_word() {
        for phase in [Phase::Head, Phase::Idle, Phase::Answering, Phase::Blocked] {
            for flags in 0..8 {
                let [multiplexed, open_ended, half_closed] = [1, 2, 4].map(|bit| flags & bit != 0);
                let state = State { phase, since: u32::MAX - flags, multiplexed, open_ended, half_closed };
                assert_eq!(State::unpacked(state.packed()), state);
            }
        }
    }

    #[test]
    fn the_empty_line_behind_a_head_is_known() {
        for whole in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"a: b\n\n", b"a: b\n\r\n", b"\r\n", b"\n"] {
            assert!(ends_a_head(whole), "{whole:?}");
        }
        for part in [&b"GET / HTTP/1.1\r\n"[..], b"\r\n\r", b"a: b\r\n\r\nG", b"body"] {
            assert!(!ends_a_head(part), "{part:?}");
        }
    }
}
