//! What the planner costs with a million people.

use std::hint::black_box;
use std::mem::size_of;
use std::time::{Duration, Instant};

use avatar_proxy::clock::Timestamp;
use avatar_proxy::recheck::{Lessons, Look, Outlook};
use fastrand::Rng;

use crate::queues::{Queues, Taken};

const PEOPLE: u32 = 1_000_000;
const LOOKS: u32 = 1_000_000;

/// How often the program asks for who is next, when nobody is.
const IDLE_ROUNDS: u32 = 2;

/// Looks everybody up once, and then as fast as it can; prints what each step takes.
pub(crate) fn run() {
    let mut rng = Rng::with_seed(1);
    let (mut lessons, mut queues) = (Lessons::default(), Queues::new(PEOPLE as usize));
    let mut now = 1_700_000_000_000;
    let mut people: Vec<Outlook> = vec![];
    let before = resident();
    for person in 0..PEOPLE {
        let subject = lessons.met(0.0, Timestamp::from_millis(now), 1.0, rng.f64());
        queues.put(person, i64::MAX, now, subject.turn.rank);
        people.push(subject);
    }
    let held = resident().saturating_sub(before) / u64::from(PEOPLE);
    let began = Instant::now();
    for _ in 0..LOOKS {
        now += 86;
        let Some(Taken::Recheck(person)) = queues.take(now, now) else { break };
        let (at, virtual_now) = (Timestamp::from_millis(now), queues.virtual_now);
        let before = people[person as usize];
        let look = Look { changed: rng.u8(..) == 0, at, virtual_now };
        let subject = lessons.looked(&before, look, 1.0, rng.f64());
        lessons.learn(&before, look);
        queues.put(person, i64::MAX, now + 21_600_000, subject.turn.rank);
        people[person as usize] = subject;
    }
    let look = began.elapsed() / LOOKS;
    // Nobody may be looked at for hours: what a round of the loop costs then.
    let mut idle = Queues::new(PEOPLE as usize);
    for person in 0..PEOPLE {
        idle.put(person, i64::MAX, i64::MAX - i64::from(person), people[person as usize].turn.rank);
    }
    let began = Instant::now();
    for _ in 0..LOOKS {
        black_box(idle.take(black_box(now), now));
    }
    let round = began.elapsed() / LOOKS;
    let began = Instant::now();
    for _ in 0..LOOKS {
        let person = rng.u32(..PEOPLE);
        let (at, before) = (Timestamp::from_millis(now), people[person as usize]);
        if let Some(outlook) = lessons.active(&before, queues.virtual_now, at, Duration::ZERO) {
            queues.advance(person, outlook.turn.rank, now);
            people[person as usize] = outlook;
        }
    }
    let hint = began.elapsed() / LOOKS;
    let core = Duration::from_secs(1).as_secs_f64();
    println!("\n1,000,000 people, the planner alone, in memory:");
    println!("  a look: {look:?} to take, learn and place it anew; somebody's activity: {hint:?}");
    println!(
        "  idle: {round:?} a round, {:.5} % of a core at {IDLE_ROUNDS} rounds a second",
        round.as_secs_f64() * f64::from(IDLE_ROUNDS) / core * 100.0
    );
    println!("  memory: {} bytes of facts per person, {held} with both queues", size_of::<Outlook>());
}

/// Resident memory (bytes).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}
