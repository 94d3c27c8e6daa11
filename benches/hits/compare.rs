//! Servers side by side: they take turns, and what is compared happened within seconds.

use std::fmt::Write as _;
use std::time::Duration;

use avatar_proxy::demo::SimulatedGateway;

use crate::load::{Ask, Report, drive};
use crate::machine::{Machine, report};
use crate::options::{Options, Which};
use crate::others::OTHERS;
use crate::server::{Server, folder, free_address};
use crate::wire::{Request, exchange, metric};
use crate::{Outcome, origin};

/// Before the first round, so that caches and branch predictors are warm.
const WARM_UP: Duration = Duration::from_millis(500);

struct Contestant {
    server: Server,
    which: Which,
    turns: Vec<Turn>,
}

/// What one turn of one server was like.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// CPU time of the server per request (us).
    pub(crate) cost: f64,
    /// The share of the turn that it was on a CPU.
    busy: f64,
    pub(crate) report: Report,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let machine = Machine::new()?;
    let gateway = origin::start(&machine)?;
    let (mut contestants, absent) = line_up(&machine, &gateway, options)?;
    let length = fill(&machine, &mut contestants, options)?;
    let lookups = gateway.lookups();
    for contestant in &contestants {
        turn(&machine, &contestant.server, options, Ask::For(WARM_UP), length)?;
    }
    for round in 0..options.rounds {
        println!("Round {} of {}", round + 1, options.rounds);
        for contestant in &mut contestants {
            let turn = turn(&machine, &contestant.server, options, Ask::For(options.turn()), length)?;
            contestant.turns.push(turn);
        }
        // Whoever comes after whom changes.
        contestants.rotate_left(1);
    }
    if gateway.lookups() != lookups {
        return Err(format!("not only hits: the gateway was asked {} times", gateway.lookups() - lookups).into());
    }
    only_memory_hits(&contestants)?;
    contestants.sort_by_key(|contestant| contestant.which as usize);
    let text = describe(&machine, &contestants, &absent, options, length)?;
    println!("\n{text}");
    report("hits.md", &text)
}

/// Starts everybody; with the packages of those that are not installed.
fn line_up(
    machine: &Machine,
    gateway: &SimulatedGateway,
    options: &Options,
) -> Outcome<(Vec<Contestant>, Vec<&'static str>)> {
    let (mut contestants, mut absent) = (Vec::new(), Vec::new());
    let mut enter = |which, server| contestants.push(Contestant { server, which, turns: Vec::new() });
    let proxy = origin::avatar_proxy(machine, machine.on_server_core(origin::PROGRAM), gateway, "1GiB", None)?;
    if options.wants(Which::Hyper) {
        enter(Which::Hyper, bare(machine, &proxy, None)?);
    }
    if options.wants(Which::AvatarProxy) {
        enter(Which::AvatarProxy, proxy);
    }
    for other in OTHERS.iter().filter(|other| options.wants(other.which)) {
        match other.start(machine, gateway.address())? {
            Some(server) => enter(other.which, server),
            None => absent.push(other.package),
        }
    }
    if !absent.is_empty() {
        println!("Not installed, so left out: {0} (apt-get install {0})", absent.join(" "));
    }
    Ok((contestants, absent))
}

/// A bare hyper server that answers what avatar-proxy answered; `valgrind` is a command that runs another.
pub(crate) fn bare(machine: &Machine, proxy: &Server, valgrind: Option<std::process::Command>) -> Outcome<Server> {
    let mut request = Request::new(proxy.address);
    // The first answer is a miss, the second a hit like all others.
    exchange(proxy.address, request.of(0))?;
    let (head, answer) = exchange(proxy.address, request.of(0))?;
    if head.status != 200 {
        return Err(format!("avatar-proxy answers {}: {}", answer.escape_ascii(), proxy.log()).into());
    }
    let (address, folder) = (free_address()?, folder()?);
    let file = folder.path().join("answer");
    std::fs::write(&file, answer)?;
    let program = std::env::current_exe()?;
    let mut command = match valgrind {
        Some(mut command) => {
            command.arg(program);
            command
        }
        None => machine.on_server_core(program),
    };
    command.arg("bare").arg(format!("--listen={address}")).arg("--answer").arg(file);
    Server::start(machine, "bare hyper", command, address, folder)
}

/// Every server is asked for every key once; with the length of all answers.
fn fill(machine: &Machine, contestants: &mut [Contestant], options: &Options) -> Outcome<usize> {
    let mut length = None;
    for Contestant { server, .. } in contestants {
        println!("Filling {}", server.name);
        let filled = drive(machine, server.address, options.connections, 0..options.keys, Ask::Each, length);
        let filled = filled.map_err(|error| format!("{}: {error}; {}", server.name, server.log()))?;
        length = Some(filled.length);
    }
    length.ok_or_else(|| "there is no server to measure".into())
}

/// One turn of a server that has been asked for every key.
pub(crate) fn turn(machine: &Machine, server: &Server, options: &Options, ask: Ask, length: usize) -> Outcome<Turn> {
    let before = server.cpu();
    let report = drive(machine, server.address, options.connections, 0..options.keys, ask, Some(length));
    let report = report.map_err(|error| format!("{}: {error}; {}", server.name, server.log()))?;
    // A thread's time is brought up to date when it goes to sleep.
    std::thread::sleep(Duration::from_millis(5));
    let cpu = server.cpu().since(&before);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let cost = cpu.as_secs_f64() * 1e6 / report.requests as f64;
    Ok(Turn { cost, busy: cpu.div_duration_f64(report.took), report })
}

/// What was measured of avatar-proxy was its memory.
fn only_memory_hits(contestants: &[Contestant]) -> Outcome {
    for Contestant { server, turns, .. } in contestants.iter().filter(|one| one.which == Which::AvatarProxy) {
        let hits = metric(server.address, "avatar_proxy_lookups_total{met=\"memory\"}")?;
        let requests: u64 = turns.iter().map(|turn| turn.report.requests).sum();
        if hits < requests {
            return Err(format!("only {hits} of {requests} answers came from memory").into());
        }
    }
    Ok(())
}

fn describe(
    machine: &Machine,
    contestants: &[Contestant],
    absent: &[&str],
    options: &Options,
    length: usize,
) -> Outcome<String> {
    let reference = contestants.iter().find(|contestant| contestant.which == Which::Hyper);
    let mut text = String::new();
    writeln!(
        text,
        "| server | CPU us per hit (median, least to most) | to bare hyper | p50 us | p99 us | hits/s | busy |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for Contestant { server, turns, .. } in contestants {
        let of = |figure: fn(&Turn) -> f64| spread(turns.iter().map(figure).collect());
        let (least, cost, most) = of(|turn| turn.cost);
        let ratio = reference.map(|reference| {
            let pairs = turns.iter().zip(&reference.turns);
            spread(pairs.map(|(turn, bare)| turn.cost / bare.cost).collect())
        });
        let ratio = ratio.map_or_else(String::new, |(_, ratio, _)| format!("{ratio:.2}"));
        let (_, p50, _) = of(|turn| turn.report.p50.as_secs_f64() * 1e6);
        let (_, p99, _) = of(|turn| turn.report.p99.as_secs_f64() * 1e6);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (_, throughput, _) = of(|turn| turn.report.requests as f64 / turn.report.took.as_secs_f64());
        let (_, busy, _) = of(|turn| turn.busy * 100.0);
        writeln!(
            text,
            "| {} | {cost:.1} ({least:.1} to {most:.1}) | {ratio} | {p50:.0} | {p99:.0} | {throughput:.0} | {busy:.0} % |",
            server.name
        )?;
    }
    let Options { rounds, seconds, connections, keys, .. } = options;
    writeln!(
        text,
        "\n{}; {connections} keep-alive connections, {keys} keys, bodies of {length} bytes; {rounds} rounds of {seconds} s.",
        machine.describe()
    )?;
    if !absent.is_empty() {
        writeln!(text, "Not installed: {}.", absent.join(", "))?;
    }
    Ok(text)
}

/// Least, median and most.
pub(crate) fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    let (middle, last) = (figures.len() / 2, figures.len() - 1);
    let median = if last % 2 == 1 { f64::midpoint(figures[middle - 1], figures[middle]) } else { figures[middle] };
    (figures[0], median, figures[last])
}
