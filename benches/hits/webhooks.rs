//! Webhooks: how soon the first attempt at each event arrives, and how many deliveries a fast receiver gets in a second.
//!
//! Receivers are this program, in one task for each connection; they answer 204 at once. A delay counts from the moment at which
//! the request is sent whose lookup notices the change, so it contains that lookup, its recording on the disk, and the sending.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use avatar_proxy::demo::SimulatedGateway;
use avatar_proxy::open_files;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::machine::{Machine, quantile, report};
use crate::server::folder;
use crate::wire::{authorization, exchange};
use crate::{Outcome, origin};

/// Changes in a second.
const RATE: u64 = 200;

/// Changes in all, each of somebody else's picture.
const CHANGES: u64 = 6_000;

/// How many look at once.
const CLIENTS: usize = 16;

/// How long a look must be past before another one is made.
const RECENT: Duration = Duration::from_secs(11);

/// How long what is under way may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often everything is sent to the fast receiver.
const ROUNDS: usize = 5;

/// The digits of a person behind these in a phone number.
const COUNTRY: &str = "99900";
const DIGITS: usize = 5;

/// Who an event was about, and when it arrived.
type Arrived = (u64, Instant);

pub(crate) fn run(endpoints: u64) -> Outcome {
    open_files::raise_limit();
    let machine = Machine::new()?;
    let gateway = origin::start(&machine)?;
    let (told, mut news) = mpsc::unbounded_channel();
    let urls = (0..endpoints).map(|_| receive(&machine, told.clone())).collect::<Outcome<Vec<_>>>()?;
    let mut command = machine.on_server_core(origin::PROGRAM);
    command.env("AVATAR_PROXY_WEBHOOK", urls.join(",")).env("AVATAR_PROXY_WEBHOOK_SECRET", "a-secret-of-some-length");
    command.env("AVATAR_PROXY_WEBHOOK_ALLOW_PRIVATE", "true");
    let server = origin::avatar_proxy(&machine, command, &gateway, "256MiB", Some(folder()?))?;

    println!("{CHANGES} people ...");
    let load = Load { address: server.address, gateway: &gateway };
    load.look_at_all("1", None)?;
    std::thread::sleep(RECENT);
    println!("{RATE} changes per second, to {endpoints} endpoints ...");
    let (before, began) = (server.cpu(), Instant::now());
    let sent = load.look_at_all("2", Some(RATE))?;
    let busy = server.cpu().since(&before).as_secs_f64() / began.elapsed().as_secs_f64();
    let mut delays = vec![];
    for (person, at) in take(&machine, &mut news, CHANGES * endpoints)? {
        let sent = sent.get(usize::try_from(person)?).copied().flatten().ok_or("an event of nobody")?;
        delays.push(at.saturating_duration_since(sent));
    }
    delays.sort_unstable();
    let mut text = String::new();
    writeln!(text, "| changes per second | endpoints | p50 ms | p99 ms | at most ms | server, share of a core |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- |")?;
    let (p50, p99, most) =
        (quantile(&delays, 50).as_millis(), quantile(&delays, 99).as_millis(), quantile(&delays, 100).as_millis());
    writeln!(text, "| {RATE} | {endpoints} | {p50} | {p99} | {most} | {:.0} % |", busy * 100.0)?;

    println!("Everything, {ROUNDS} times, to one endpoint ...");
    let (told, mut news) = mpsc::unbounded_channel();
    let wish = json!({"url": receive(&machine, told)?, "from": "earliest"});
    let mut rates = vec![];
    let mut began = Instant::now();
    let id = load.ask("/webhooks", &wish)?["id"].as_str().ok_or("an endpoint without an id")?.to_owned();
    for round in 1..=ROUNDS {
        take(&machine, &mut news, CHANGES)?;
        rates.push(f64::from(u32::try_from(CHANGES)?) / began.elapsed().as_secs_f64());
        if round < ROUNDS {
            began = Instant::now();
            load.ask(&format!("/webhooks/{id}/replay"), &json!({"after": ""}))?;
        }
    }
    rates.sort_unstable_by(f64::total_cmp);
    writeln!(text, "\n| deliveries per second to one endpoint, median of {ROUNDS} | least | most |")?;
    writeln!(text, "| --- | --- | --- |")?;
    writeln!(text, "| {:.0} | {:.0} | {:.0} |", rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1])?;
    drop(server);
    println!("\n{text}");
    report("webhooks.md", &text)
}

/// Waits for so many deliveries.
fn take(machine: &Machine, news: &mut mpsc::UnboundedReceiver<Arrived>, count: u64) -> Outcome<Vec<Arrived>> {
    let mut all = vec![];
    for _ in 0..count {
        machine.interrupted()?;
        let next = machine.runtime.block_on(async { tokio::time::timeout(PATIENCE, news.recv()).await });
        match next {
            Ok(Some(arrived)) => all.push(arrived),
            Ok(None) | Err(_) => return Err(format!("{} of {count} deliveries came", all.len()).into()),
        }
    }
    Ok(all)
}

/// Who lets pictures change and has that noticed.
struct Load<'a> {
    address: SocketAddr,
    gateway: &'a SimulatedGateway,
}

impl Load<'_> {
    /// Gives everybody this picture, one after the other, so many per second or as fast as it goes, and has them looked at.
    /// Tells when each was asked for.
    fn look_at_all(&self, picture: &str, rate: Option<u64>) -> Outcome<Vec<Option<Instant>>> {
        let (next, began) = (AtomicU64::new(0), Instant::now());
        let sent = Mutex::new(vec![None; usize::try_from(CHANGES)?]);
        let client = || -> Outcome {
            loop {
                let person = next.fetch_add(1, Ordering::Relaxed);
                if person >= CHANGES {
                    return Ok(());
                }
                if let Some(rate) = rate {
                    let at = began + Duration::from_micros(person * 1_000_000 / rate);
                    std::thread::sleep(at.saturating_duration_since(Instant::now()));
                }
                let phone = format!("{COUNTRY}{person:0DIGITS$}");
                self.gateway.person(&phone).picture(picture);
                let at = Instant::now();
                sent.lock().unwrap_or_else(PoisonError::into_inner)[usize::try_from(person)?] = Some(at);
                self.look(&phone)?;
            }
        };
        std::thread::scope(|scope| -> Outcome {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().try_for_each(|client| client.join().map_err(|_| "a client panicked")?)
        })?;
        Ok(sent.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, phone: &str) -> Outcome {
        let (address, authorization) = (self.address, authorization());
        let request = format!(
            "GET /user/avatar?phone={phone} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nCache-Control: \
             no-cache\r\n\r\n"
        );
        let (head, answer) = exchange(address, request.as_bytes())?;
        if head.status == 200 { Ok(()) } else { Err(format!("a look failed: {}", answer.escape_ascii()).into()) }
    }

    fn ask(&self, target: &str, body: &Value) -> Outcome<Value> {
        let (address, authorization, body) = (self.address, authorization(), body.to_string());
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (head, answer) = exchange(address, request.as_bytes())?;
        match head.status {
            200 | 201 => Ok(serde_json::from_slice(&answer[head.bytes..])?),
            _ => Err(format!("refused: {}", answer.escape_ascii()).into()),
        }
    }
}

/// Starts a receiver that tells what arrives; returns its address.
fn receive(machine: &Machine, told: mpsc::UnboundedSender<Arrived>) -> Outcome<String> {
    let listener = machine.runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    let told = Arc::new(told);
    machine.runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                // A connection that ends was not needed any more; what is missing is missed by who waits for it.
                let _ = serve(stream, &told).await;
            });
        }
    });
    Ok(url)
}

async fn serve(mut stream: TcpStream, told: &mpsc::UnboundedSender<Arrived>) -> Outcome {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let end = loop {
            if let Some(length) = whole(&bytes)? {
                break length;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let at = Instant::now();
        told.send((person(&bytes[..end])?, at))?;
        bytes.drain(..end);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}

/// How long the first request is, if all of it is there.
fn whole(bytes: &[u8]) -> Outcome<Option<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let length = memchr::memmem::find(&bytes[..end], LENGTH).ok_or("a delivery without its length")? + LENGTH.len();
    let digits = bytes[length..].split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    let length = end + 4 + std::str::from_utf8(digits)?.parse::<usize>()?;
    Ok((bytes.len() >= length).then_some(length))
}

/// Who a delivery is about.
fn person(bytes: &[u8]) -> Outcome<u64> {
    let before = format!("\"jid\":\"{COUNTRY}");
    let at = memchr::memmem::find(bytes, before.as_bytes()).ok_or("a delivery about nobody")? + before.len();
    let digits = bytes.get(at..at + DIGITS).ok_or("a delivery that is cut off")?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}
