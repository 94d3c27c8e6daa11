//! Promise 5 where it is kept, whatever happens in whatever order: devices that prove themselves, rate limits, lookups given up.

use proptest::prelude::*;

use super::*;
use crate::outcome::{Class, Envelope, Failure, Negative, Outcome, Picture, Reason};

const RATE: f64 = 2.0;
const BURST: u32 = 4;
const CONCURRENCY: usize = 3;
const COOL_DOWN: Duration = Duration::from_secs(30);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Ask(usize, Priority),
    /// A lookup that was let through asks the gateway, and gives up if it may not.
    Start(usize),
    /// A lookup ends so, if it was started; if not, it is given up.
    End(usize, End),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Present,
    Unregistered,
    RateLimited,
    UnknownDevice,
    Passing,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop::sample::select(vec![Priority::Miss, Priority::Expiring, Priority::Recheck]);
    let end = prop::sample::select(vec![
        End::Present,
        End::Present,
        End::Present,
        End::Unregistered,
        End::RateLimited,
        End::UnknownDevice,
        End::Passing,
    ]);
    let step = prop_oneof![
        3 => (0u64..2500).prop_map(Step::Pass),
        5 => (0usize..3, priority).prop_map(|(device, priority)| Step::Ask(device, priority)),
        4 => (0usize..8).prop_map(Step::Start),
        4 => (0usize..8, end).prop_map(|(which, end)| Step::End(which, end)),
    ];
    prop::collection::vec(step, 1..250)
}

fn result(end: End) -> Result<Outcome, Failure> {
    let failure = |class| {
        let reply = Envelope { status: 500, code: "C".into(), message: "m".into(), results: None };
        Err(Failure { class, retry: false, reply, detail: "d".into() })
    };
    match end {
        End::Present => Ok(Outcome::Present(Picture::new("https://h/p", "1", "image"))),
        End::Unregistered => {
            let (code, message) = ("C".into(), "m".into());
            Ok(Outcome::Negative(Negative { reason: Reason::Unregistered, status: 400, code, message }))
        }
        End::RateLimited => failure(Class::RateLimited),
        End::UnknownDevice => failure(Class::Device),
        End::Passing => failure(Class::Passing),
    }
}

/// A lookup under way.
struct Running {
    device: Device,
    probes: Probes,
    started: bool,
}

struct Story {
    ledger: Ledger,
    now: Now,
    devices: Vec<Device>,
    running: Vec<Running>,
    /// every question to the gateway
    starts: Vec<(Device, Duration)>,
    /// cool-downs: of whom, from when to when, and after how many questions
    cooling: Vec<(Device, Duration, Duration, usize)>,
    /// kept so that nobody in the queue has left
    waiting: Vec<oneshot::Receiver<Answer>>,
}

impl Story {
    fn new() -> Self {
        let config = Config {
            rate: RATE,
            burst: BURST,
            concurrency: u32::try_from(CONCURRENCY).unwrap(),
            cool_down: COOL_DOWN,
            max_wait: Duration::from_secs(10),
        };
        Self {
            ledger: Ledger::new(config, false),
            now: Now { steady: Duration::ZERO, wall: Timestamp::from_seconds(1_700_000_000) },
            devices: ["a", "b", "c"].map(|name| Device::new(name).unwrap()).to_vec(),
            running: vec![],
            starts: vec![],
            cooling: vec![],
            waiting: vec![],
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => {
                let by = Duration::from_millis(millis);
                self.now = Now { steady: self.now.steady + by, wall: self.now.wall + by };
            }
            Step::Ask(device, priority) => {
                let device = self.devices[device].clone();
                self.ledger.meet(&device, Ok(None), self.now);
                let (answer, waiting) = oneshot::channel();
                let patience = Duration::from_secs(30);
                if self.ledger.enqueue(&device, priority, patience, answer, self.now).is_ok() {
                    self.waiting.push(waiting);
                }
            }
            Step::Start(which) if which < self.running.len() => self.start(which),
            Step::End(which, end) if which < self.running.len() => self.end(which, end),
            Step::Start(_) | Step::End(..) => {}
        }
        for Started { device, probes, .. } in self.ledger.pump(self.now).0 {
            self.running.push(Running { device, probes, started: false });
        }
    }

    fn start(&mut self, which: usize) {
        let Running { device, probes, started } = &mut self.running[which];
        if *started {
            return;
        }
        if self.ledger.start(device, *probes, self.now).is_ok() {
            *started = true;
            self.starts.push((device.clone(), self.now.steady));
        } else {
            self.end(which, End::Passing);
        }
    }

    fn end(&mut self, which: usize, end: End) {
        let Running { device, mut probes, started } = self.running.remove(which);
        if started {
            let lesson = self.ledger.learn(&device, probes, &result(end), self.now);
            probes = Probes::default();
            if let Some(length) = lesson.cool_down {
                self.cooling.push((device.clone(), self.now.steady, self.now.steady + length, self.starts.len()));
            }
        }
        self.ledger.end(&device, probes, !started, self.now);
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for device in &self.devices {
            let running = self.running.iter().filter(|running| running.device == *device).count();
            prop_assert!(running <= CONCURRENCY, "{running} at once");
            let starts: Vec<Duration> =
                self.starts.iter().filter(|(other, _)| other == device).map(|(_, at)| *at).collect();
            for (index, from) in starts.iter().enumerate() {
                for (count, to) in starts[index..].iter().enumerate() {
                    let allowed = to.saturating_sub(*from).as_secs_f64() * RATE + f64::from(BURST);
                    #[allow(clippy::cast_precision_loss)]
                    let made = (count + 1) as f64;
                    prop_assert!(made <= allowed + 1e-6, "{made} starts where {allowed} are allowed");
                }
            }
            for (_, _, to, before) in self.cooling.iter().filter(|(other, ..)| other == device) {
                let within = self.starts[*before..].iter().filter(|(other, at)| other == device && at < to).count();
                prop_assert_eq!(within, 0, "questions while cooling down");
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_devices_budget_holds_whatever_happens(steps in steps()) {
        let mut story = Story::new();
        for step in &steps {
            story.step(step);
        }
        story.check()?;
    }

    /// However lookups end: when all have ended, the next one gets through after a while, and nothing is left behind.
    #[test]
    fn nothing_is_left_behind(steps in steps()) {
        let mut story = Story::new();
        for step in &steps {
            story.step(step);
        }
        for _ in 0..1000 {
            while !story.running.is_empty() {
                story.end(0, End::Passing);
            }
            story.step(&Step::Pass(10_000));
        }
        prop_assert_eq!(story.ledger.lanes.values().map(Lane::waiting).sum::<usize>(), 0);
        while !story.running.is_empty() {
            story.end(0, End::Present);
        }
        prop_assert!(story.ledger.devices.values().all(|known| known.running == 0 && known.reserved == 0));
        story.step(&Step::Pass(3_600_000));
        let now = story.now;
        let ids: Vec<LaneId> = story.ledger.lanes.keys().cloned().collect();
        for id in ids {
            prop_assert!(story.ledger.lanes[&id].is_idle());
            let tokens = story.ledger.tokens(&id, now);
            prop_assert!((tokens - f64::from(BURST)).abs() < 1e-6, "{} tokens in a full bucket", tokens);
        }
    }
}
