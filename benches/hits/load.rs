//! The load: keep-alive connections, one request under way on each, every answer checked.
//!
//! One thread around an event loop, so that it can keep a server busy from a single core.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Outcome;
use crate::machine::Machine;
use crate::options;
use crate::wire::{Head, Request};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of the load found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) took: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Bytes of a body.
    pub(crate) length: usize,
}

impl Report {
    fn print(&self) {
        let Self { requests, took, p50, p99, length } = self;
        println!("{requests} {} {} {} {length}", took.as_nanos(), p50.as_nanos(), p99.as_nanos());
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut next = || words.next()?.parse::<u64>().ok();
        Some(Self {
            requests: next()?,
            took: Duration::from_nanos(next()?),
            p50: Duration::from_nanos(next()?),
            p99: Duration::from_nanos(next()?),
            length: usize::try_from(next()?).ok()?,
        })
    }
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Each key once.
    Each,
    /// At random, for so long.
    For(Duration),
    /// At random, so often.
    Times(u64),
    /// So often per second, for so long, whatever is still under way; each key at most once.
    Paced { rate: u64, time: Duration },
}

/// Runs the load in a process of its own, on its core, and waits for it.
pub(crate) fn drive(
    machine: &Machine,
    address: SocketAddr,
    connections: u32,
    keys: std::ops::Range<u64>,
    ask: Ask,
    length: Option<usize>,
) -> Outcome<Report> {
    let mut command = machine.on_load_core(std::env::current_exe()?);
    command.arg("load").arg(format!("--address={address}")).arg(format!("--connections={connections}"));
    command.arg(format!("--first-key={}", keys.start)).arg(format!("--keys={}", keys.end - keys.start));
    match ask {
        Ask::Each => {}
        Ask::For(time) => {
            command.arg(format!("--millis={}", time.as_millis()));
        }
        Ask::Times(requests) => {
            command.arg(format!("--requests={requests}"));
        }
        Ask::Paced { rate, time } => {
            command.arg(format!("--rate={rate}")).arg(format!("--millis={}", time.as_millis()));
        }
    }
    if let Some(length) = length {
        command.arg(format!("--length={length}"));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    // It prints one line at its end, which a pipe holds without being read.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(interrupted) = machine.interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(interrupted);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut text)?;
    machine.interrupted()?;
    match Report::parse(&text) {
        Some(report) if status.success() => Ok(report),
        _ => Err("the load failed".into()),
    }
}

/// The role itself.
pub(crate) fn run(options: &options::Load) -> Outcome {
    let mut load = Load::connect(options)?;
    load.run()?.print();
    Ok(())
}

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    plan: Plan,
    length: Option<usize>,
    latencies: Histogram,
}

struct Connection {
    stream: TcpStream,
    request: Request,
    /// When the answer under way was asked for, or was to be.
    since: Instant,
    /// What has come of an answer.
    answer: Vec<u8>,
    filled: usize,
}

/// Which keys are still to be asked for.
enum Plan {
    Each { next: u64, end: u64 },
    Until { deadline: Instant, first: u64, keys: u64 },
    Times { left: u64, first: u64, keys: u64 },
    Paced { began: Instant, rate: u64, asked: u64, end: u64, first: u64, keys: u64 },
}

/// What is to be asked next.
enum Next {
    /// This key; latency counts from then.
    Key(u64, Instant),
    /// Nothing before that.
    Later(Instant),
    /// Nothing any more.
    Nothing,
}

/// Steps from key to key so that they lie apart in any store; a prime, so that all are met before one comes again.
const STRIDE: u64 = 7_368_787;

impl Plan {
    fn new(options: &options::Load) -> Self {
        let (first, keys) = (options.first_key, options.keys);
        match (options.rate, options.millis, options.requests) {
            (Some(rate), millis, _) => {
                let end = rate * millis.unwrap_or_default() / 1000;
                Self::Paced { began: Instant::now(), rate, asked: 0, end, first, keys }
            }
            (None, Some(millis), _) => {
                Self::Until { deadline: Instant::now() + Duration::from_millis(millis), first, keys }
            }
            (None, None, Some(left)) => Self::Times { left, first, keys },
            (None, None, None) => Self::Each { next: first, end: first + keys },
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let key = match self {
            Self::Each { next, end } => (next < end).then(|| {
                *next += 1;
                *next - 1
            }),
            Self::Until { deadline, first, keys } => (now < *deadline).then(|| *first + fastrand::u64(0..*keys)),
            Self::Times { left, first, keys } => left.checked_sub(1).map(|less| {
                *left = less;
                *first + fastrand::u64(0..*keys)
            }),
            Self::Paced { began, rate, asked, end, first, keys } => {
                let planned = *began + Duration::from_nanos(*asked * 1_000_000_000 / *rate);
                return if asked == end {
                    Next::Nothing
                } else if now < planned {
                    Next::Later(planned)
                } else {
                    *asked += 1;
                    Next::Key(*first + *asked * STRIDE % *keys, planned)
                };
            }
        };
        key.map_or(Next::Nothing, |key| Next::Key(key, now))
    }
}

impl Load {
    fn connect(options: &options::Load) -> Outcome<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for number in 0..options.connections {
            let stream = std::net::TcpStream::connect(options.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(usize::try_from(number)?), Interest::READABLE)?;
            connections.push(Connection {
                stream,
                request: Request::new(options.address),
                since: Instant::now(),
                answer: vec![0; 64 * 1024],
                filled: 0,
            });
        }
        Ok(Self {
            poll,
            connections,
            plan: Plan::new(options),
            length: options.length,
            latencies: Histogram::default(),
        })
    }

    fn run(&mut self) -> Outcome<Report> {
        let began = Instant::now();
        let mut free: Vec<usize> = (0..self.connections.len()).rev().collect();
        let mut events = Events::with_capacity(self.connections.len());
        let mut later = self.ask(&mut free)?;
        while later.is_some() || free.len() < self.connections.len() {
            let patience = later.map_or(PATIENCE, |then| whole_millis(then.saturating_duration_since(Instant::now())));
            self.poll.poll(&mut events, Some(patience)).or_else(|error| match error.kind() {
                ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            })?;
            if events.is_empty() && later.is_none() {
                return Err(format!("answers did not come within {PATIENCE:?}").into());
            }
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                let Some(head) = connection.receive()? else { continue };
                self.latencies.add(connection.since.elapsed());
                let length = *self.length.get_or_insert(head.length);
                if head.status != 200 || head.length != length {
                    let answer = connection.answer[..head.bytes + head.length].escape_ascii();
                    return Err(format!("not status 200 with {length} bytes: {answer}").into());
                }
                free.push(event.token().0);
                later = self.ask(&mut free)?;
            }
            if later.is_some() {
                later = self.ask(&mut free)?;
            }
        }
        Ok(self.report(began))
    }

    /// Asks what is to be asked now on free connections; returns when there is more, if that is later.
    fn ask(&mut self, free: &mut Vec<usize>) -> Outcome<Option<Instant>> {
        while let Some(connection) = free.last().copied() {
            match self.plan.next(Instant::now()) {
                Next::Key(key, since) => {
                    free.pop();
                    self.connections[connection].send(key, since)?;
                }
                Next::Later(then) => return Ok(Some(then)),
                Next::Nothing => return Ok(None),
            }
        }
        Ok(None)
    }

    fn report(&self, began: Instant) -> Report {
        Report {
            requests: self.latencies.count,
            took: began.elapsed(),
            p50: self.latencies.quantile(50),
            p99: self.latencies.quantile(99),
            length: self.length.unwrap_or_default(),
        }
    }
}

/// Whole milliseconds, which are all that a poll can wait; the rest is waited for by looking again and again.
fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

impl Connection {
    /// Sends a request. The socket's buffer is empty, since the last answer has come.
    fn send(&mut self, key: u64, since: Instant) -> Outcome {
        self.since = since;
        self.filled = 0;
        let request = self.request.of(key);
        let written = self.stream.write(request)?;
        if written == request.len() { Ok(()) } else { Err("a request does not fit a socket's buffer".into()) }
    }

    /// Reads what has come; the head when the answer is whole.
    fn receive(&mut self) -> Outcome<Option<Head>> {
        loop {
            let read = match self.stream.read(&mut self.answer[self.filled..]) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.filled += read;
            match Head::read(&self.answer[..self.filled])? {
                Some(head) if self.filled == head.bytes + head.length => return Ok(Some(head)),
                Some(head) if self.filled > head.bytes + head.length => return Err("an answer is too long".into()),
                // The rest is another event, unless it is there already.
                _ => {}
            }
        }
    }
}

/// Latencies, in buckets of 3 %.
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

/// Bits of a latency that are kept.
const BITS: u32 = 6;

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; 32 * 66], count: 0 }
    }
}

impl Histogram {
    fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS);
        let bucket = u64::from(shift) * 32 + (nanos >> shift);
        self.buckets[usize::try_from(bucket).expect("there are 2,112 of them")] += 1;
        self.count += 1;
    }

    /// The middle of the bucket that this share (%) of all latencies does not exceed.
    fn quantile(&self, percent: u64) -> Duration {
        let mut left = (self.count * percent).div_ceil(100);
        let bucket = self.buckets.iter().position(|&count| {
            left = left.saturating_sub(count);
            left == 0
        });
        let bucket = u64::try_from(bucket.unwrap_or_default()).expect("an index fits");
        let shift = (bucket / 32).saturating_sub(1);
        Duration::from_nanos(((bucket - shift * 32) << shift) + ((1 << shift) >> 1))
    }
}
