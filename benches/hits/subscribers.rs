//! Subscribers: what one weighs, and how soon all of them know of a change.
//!
//! Each has a connection of its own and reads all the time. A delay counts from the moment at which the request is sent whose
//! lookup notices the change, so it contains that lookup, its recording on the disk, and the sending.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avatar_proxy::open_files;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::machine::{Machine, quantile, report};
use crate::server::folder;
use crate::wire::{authorization, exchange, metric};
use crate::{Outcome, origin};

/// Changes that are told to everybody, one after the other.
const CHANGES: u64 = 40;

/// How long a look must be past before another one is made.
const RECENT: Duration = Duration::from_secs(11);

/// How many connect at once.
const CONNECTING: usize = 64;

pub(crate) fn run(subscribers: usize) -> Outcome {
    open_files::raise_limit();
    let machine = Machine::new()?;
    let gateway = origin::start(&machine)?;
    let command = machine.on_server_core(origin::PROGRAM);
    let server = origin::avatar_proxy(&machine, command, &gateway, "256MiB", Some(folder()?))?;
    let address = server.address;
    let phone = |person: u64| format!("99900{person:05}");
    let look = |person: u64| -> Outcome {
        let (phone, authorization) = (phone(person), authorization());
        let request = format!(
            "GET /user/avatar?phone={phone} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nCache-Control: \
             no-cache\r\n\r\n"
        );
        let (head, answer) = exchange(address, request.as_bytes())?;
        match head.status {
            200 => Ok(()),
            _ => Err(format!("a look failed: {}", answer.escape_ascii()).into()),
        }
    };
    for person in 0..CHANGES {
        gateway.person(&phone(person)).picture("1");
        look(person)?;
    }
    let baseline = Instant::now();
    let before = server.resident()?;

    println!("Connecting {subscribers} subscribers ...");
    let (told, mut news) = mpsc::unbounded_channel();
    let connected = Arc::new(tokio::sync::Semaphore::new(CONNECTING));
    for _ in 0..subscribers {
        machine.runtime.spawn(subscribe(address, told.clone(), connected.clone()));
    }
    while metric(address, "avatar_proxy_subscribers")? < u64::try_from(subscribers)? {
        machine.interrupted()?;
        if let Ok(Heard::Lost(error)) = news.try_recv() {
            return Err(format!("a subscriber lost its stream: {error}").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(RECENT.saturating_sub(baseline.elapsed()));
    let each = server.resident()?.saturating_sub(before) / u64::try_from(subscribers)?;
    let idle = server.cpu();
    let (began, wait) = (Instant::now(), Duration::from_secs(20));
    std::thread::sleep(wait);
    let idle = server.cpu().since(&idle).as_secs_f64() / began.elapsed().as_secs_f64();

    println!("{CHANGES} changes ...");
    let (mut delays, mut last) = (Vec::new(), Vec::new());
    for person in 0..CHANGES {
        machine.interrupted()?;
        gateway.person(&phone(person)).picture("2");
        let began = Instant::now();
        look(person)?;
        let mut slowest = Duration::ZERO;
        for _ in 0..subscribers {
            let next =
                machine.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), news.recv()).await });
            match next {
                Ok(Some(Heard::Event(at))) => {
                    let delay = at.saturating_duration_since(began);
                    slowest = slowest.max(delay);
                    delays.push(delay);
                }
                Ok(Some(Heard::Lost(error))) => return Err(format!("a subscriber lost its stream: {error}").into()),
                Ok(None) | Err(_) => return Err("somebody was not told within 30 s".into()),
            }
        }
        last.push(slowest);
        std::thread::sleep(Duration::from_millis(100));
    }
    delays.sort_unstable();
    last.sort_unstable();
    let mut text = String::new();
    writeln!(
        text,
        "| subscribers | resident bytes of each | idle, share of a core | p50 ms | p99 ms | until all know, median ms | at most ms |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |")?;
    writeln!(
        text,
        "| {subscribers} | {each} | {:.2} % | {} | {} | {} | {} |",
        idle * 100.0,
        quantile(&delays, 50).as_millis(),
        quantile(&delays, 99).as_millis(),
        last[last.len() / 2].as_millis(),
        last[last.len() - 1].as_millis(),
    )?;
    drop(server);
    println!("\n{text}");
    report("subscribers.md", &text)
}

/// What becomes of a subscriber.
enum Heard {
    /// An event has arrived, at that moment.
    Event(Instant),
    /// Its stream has ended.
    Lost(String),
}

/// Reads a stream of events for ever.
async fn subscribe(address: SocketAddr, told: mpsc::UnboundedSender<Heard>, connecting: Arc<tokio::sync::Semaphore>) {
    if let Err(error) = follow(address, &told, &connecting).await {
        // Nobody news it once the benchmark is over.
        let _ = told.send(Heard::Lost(error.to_string()));
    }
}

async fn follow(
    address: SocketAddr,
    told: &mpsc::UnboundedSender<Heard>,
    connecting: &tokio::sync::Semaphore,
) -> Outcome {
    let mut buffer = [0; 2048];
    let place = connecting.acquire().await?;
    let mut stream = TcpStream::connect(address).await?;
    let authorization = authorization();
    let request = format!("GET /events HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let read = stream.read(&mut buffer).await?;
    drop(place);
    if !buffer[..read].starts_with(b"HTTP/1.1 200") {
        return Err(format!("refused: {}", buffer[..read].escape_ascii()).into());
    }
    // An event is one `data:`; one that is cut in two is found by what was left over of the piece before.
    let mut text: Vec<u8> = Vec::new();
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err("it ended".into());
        }
        let at = Instant::now();
        text.extend_from_slice(&buffer[..read]);
        let mut searched = 0;
        for found in memchr::memmem::find_iter(&text, b"data:") {
            searched = found + 1;
            told.send(Heard::Event(at))?;
        }
        let left = text.len().saturating_sub(4).max(searched);
        text.drain(..left);
    }
}
