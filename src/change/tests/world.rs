//! The state machine against a world that knows the truth: a person who changes pictures, a gateway that answers late, oddly or,
//! in its bad hours, the same of everybody, and looks of two kinds that overlap as they please.
//!
//! What was recorded must have happened, in that order; and once the truth stands still, it must be known.

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The person takes one of three pictures, or none for one of two reasons.
    Turn(usize),
    /// Time passes (s).
    Pass(i64),
    /// A look begins.
    Begin { preview: bool },
    /// The one that began so many looks ago ends. It saw what was true at its beginning or at its end, or something odd.
    End { which: usize, saw_late: bool, odd: bool },
    /// The device gets somebody else's picture.
    Vouch,
    /// The gateway says "not registered" of everybody, or no longer does.
    Trouble(bool),
    /// Everything about the person is forgotten.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..5).prop_map(Step::Turn),
        3 => (0i64..90).prop_map(Step::Pass),
        4 => any::<bool>().prop_map(|preview| Step::Begin { preview }),
        5 => (0usize..3, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(which, saw_late, odd)| Step::End { which, saw_late, odd }),
        1 => Just(Step::Vouch),
        1 => prop::bool::weighted(0.3).prop_map(Step::Trouble),
        1 => prop::bool::weighted(0.1).prop_map(|forget| if forget { Step::Forget } else { Step::Vouch }),
    ]
}

struct Look {
    start: Token,
    variant: Variant,
    began: i64,
    saw: usize,
    /// When the device had its last success by then.
    vouched_at: Option<Timestamp>,
    /// In which of the gateway's bad hours.
    hour: Option<u32>,
}

/// Why an answer is not true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    Odd,
    Hour(u32),
}

struct World {
    story: Story,
    now: i64,
    /// Every truth in its turn; what was true before is earlier in the list.
    truths: Vec<usize>,
    looks: Vec<Look>,
    trouble: bool,
    /// How many bad hours there were.
    hour: u32,
    /// Whether previews have ids of their own.
    twins: bool,
    /// The last answer that was applied was not true, and why.
    lie: Option<Lie>,
    /// How far in `truths` the chain of changes has come, and what it says.
    chain: Option<(usize, Option<String>)>,
}

const REASONS: [Reason; 2] = [Reason::NotSet, Reason::Hidden];

impl World {
    fn new(twins: bool) -> Self {
        Self {
            story: Story::new(),
            now: 0,
            truths: vec![0],
            looks: vec![],
            trouble: false,
            twins,
            hour: 0,
            lie: None,
            chain: None,
        }
    }

    fn truth(&self) -> usize {
        self.truths.len() - 1
    }

    /// The id that is shown to a look at what was true then.
    fn id(&self, truth: usize, preview: bool) -> Option<String> {
        let picture = self.truths[truth];
        (picture < 3).then(|| if preview && self.twins { format!("preview-{picture}") } else { picture.to_string() })
    }

    fn outcome(&self, truth: usize, preview: bool) -> Outcome {
        self.id(truth, preview).map_or_else(|| none(REASONS[self.truths[truth] - 3]), |shown| id(&shown))
    }

    fn begin(&mut self, preview: bool) {
        let variant = if preview { PREVIEW } else { FULL };
        let (start, saw) = (self.story.start(), self.truth());
        let hour = self.trouble.then_some(self.hour);
        self.looks.push(Look { start, variant, began: self.now, saw, vouched_at: self.story.success, hour });
    }

    fn end(&mut self, which: usize, saw_late: bool, odd: bool) {
        if self.looks.is_empty() {
            return;
        }
        let look = self.looks.remove(which % self.looks.len());
        let saw = if saw_late { self.truth() } else { look.saw };
        // One odd answer is none, two at the right distance are believed, and rightly so.
        let lie = look.hour.map(Lie::Hour).or((odd && self.lie.is_none()).then_some(Lie::Odd));
        if look.hour.is_some() && self.lie.is_some() && self.lie != lie {
            // Nor are two bad hours, or one and an odd answer, with a good moment between them.
            return;
        }
        let misled = lie.is_some();
        let outcome = match lie {
            Some(Lie::Hour(_)) => none(Reason::Unregistered),
            Some(Lie::Odd) => none(Reason::Hidden),
            None => self.outcome(saw, look.variant.preview),
        };
        if !misled && matches!(outcome, Outcome::Present(_)) {
            self.story.success = Some(at(self.now));
        }
        // What a look saw that another one has overtaken since is no good moment, unless it is a picture.
        let overtaken = look.start <= self.story.applied && matches!(outcome, Outcome::Negative(_));
        if misled || !overtaken {
            self.lie = lie;
        }
        let now = self.story.success;
        self.story.success = look.vouched_at;
        let verdict = self.story.end_of(look.began, self.now, look.start, look.variant, outcome);
        self.story.success = now;
        self.check(&verdict);
        // What is asked for is looked at in the next moment, unless the gateway has its bad hour.
        if let Some(sight) = verdict.look_at.filter(|_| !self.trouble) {
            self.begin(sight == Sight::Preview);
            self.end(self.looks.len() - 1, true, false);
        }
    }

    /// What was recorded happened, and in that order.
    fn check(&mut self, verdict: &Verdict) {
        let Some(recorded) = &verdict.state.recorded else { return };
        let believed = match &recorded.belief {
            Belief::Id(id) => Some(id.clone()),
            Belief::Negative(_) => None,
        };
        if let Some(change) = &verdict.change {
            let (_, old) = self.chain.as_ref().expect("a baseline comes before a change");
            assert_eq!((&change.old_id, &change.new_id), (old, &believed));
            assert_ne!(change.old_id, change.new_id, "nothing changed");
        } else if self.chain.as_ref().is_some_and(|(_, known)| *known == believed) {
            return;
        }
        let from = self.chain.as_ref().map_or(0, |(from, _)| *from);
        let happened = (from..=self.truth()).find(|&truth| {
            believed == self.id(truth, false) || (believed.is_some() && believed == self.id(truth, true))
        });
        let happened = happened.unwrap_or_else(|| panic!("{believed:?} never was, after {from} of {:?}", self.truths));
        self.chain = Some((happened, believed));
    }

    fn follow(&mut self, step: &Step) {
        match *step {
            Step::Turn(picture) if picture != self.truths[self.truth()] => self.truths.push(picture),
            Step::Pass(seconds) => self.now += seconds,
            Step::Begin { preview } => self.begin(preview),
            Step::End { which, saw_late, odd } => self.end(which, saw_late, odd),
            Step::Vouch if !self.trouble => self.story.success = Some(at(self.now)),
            Step::Turn(_) | Step::Vouch => {}
            Step::Trouble(trouble) => {
                self.hour += u32::from(trouble && !self.trouble);
                self.trouble = trouble;
            }
            Step::Forget => {
                // The store turns away the looks that were under way.
                (self.story.state, self.story.applied) = (State::default(), Token(0));
                self.looks.clear();
                self.chain = None;
                self.lie = None;
            }
        }
    }

    /// The truth stands still and the gateway tells it: a few looks later it is known.
    fn settle(&mut self) {
        self.trouble = false;
        while !self.looks.is_empty() {
            self.end(0, true, false);
        }
        for _ in 0..4 {
            self.now += 61;
            self.story.success = Some(at(self.now));
            self.now += 61;
            self.begin(false);
            self.end(0, true, false);
        }
        let recorded = self.story.state.recorded.as_ref().expect("it was looked at");
        let believed = match &recorded.belief {
            Belief::Id(id) => Some(id.clone()),
            Belief::Negative(_) => None,
        };
        assert_eq!(believed, self.id(self.truth(), false), "of {:?}", self.truths);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_recorded_happened_and_what_stands_still_is_known(
        twins: bool,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(twins);
        for step in steps {
            world.follow(&step);
        }
        world.settle();
    }
}

/// A gateway that says "not registered" of everybody for ten minutes, to whoever asks however often, removes nobody's picture.
#[test]
fn ten_minutes_of_not_registered_make_no_event() {
    let mut world = World::new(false);
    world.begin(false);
    world.end(0, true, false);
    world.trouble = true;
    for _ in 0..120 {
        world.now += 5;
        world.begin(false);
        world.end(0, true, false);
    }
    world.trouble = false;
    world.now += 5;
    world.begin(false);
    world.end(0, true, false);
    assert_eq!(world.story.state.recorded.unwrap().version, 0);
}
