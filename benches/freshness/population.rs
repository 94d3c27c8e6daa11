//! The people of the simulation and their world. Written down before anything was measured, and left alone since.

use fastrand::Rng;

/// A day (ms).
pub(crate) const DAY: i64 = 86_400_000;

/// How many people there are.
pub(crate) const PEOPLE: usize = 50_000;

/// Pictures change as Poisson processes: which share of the people changes theirs every so many days, on average.
pub(crate) const CHANGES: [(f64, f64); 3] = [(0.05, 7.0), (0.25, 60.0), (0.70, 365.0)];

/// Clients' requests a day, over all people.
pub(crate) const REQUESTS: f64 = 2_000_000.0;

/// Who is asked for: Zipf's law with this exponent, whoever changes pictures how often.
pub(crate) const ZIPF: f64 = 1.0;

/// How far the rate of requests swings about its mean over a day, as a sine; most at 18:00, least at 6:00.
pub(crate) const SWING: f64 = 0.8;

/// Everybody writes once in so many days, on average; but in the day after a change of the picture, [`LIKELIER`] times as often.
pub(crate) const DAYS_BETWEEN_MESSAGES: f64 = 3.0;
pub(crate) const LIKELIER: f64 = 3.0;
/// Other worlds: people for whom a change makes writing likelier still.
pub(crate) const OTHER_WORLDS: [f64; 2] = [10.0, 30.0];

/// How long a URL lives (ms), before its expiry is rounded down to the grain.
pub(crate) const URL_LIFE: i64 = 10 * DAY;
pub(crate) const URL_GRAIN: i64 = DAY / 6;

/// How long a reply takes (ms): evenly between these.
pub(crate) const REPLY: (i64, i64) = (50, 3_000);

/// The share of answers that say "hidden" though they should not.
pub(crate) const ODD: f64 = 0.01;

/// WhatsApp asks to slow down so often a day: a Poisson process, whose events meet the next lookup.
pub(crate) const RATE_LIMITS: f64 = 1.0;

/// Days to learn, and days to measure afterwards.
pub(crate) const LEARNING: i64 = 60;
pub(crate) const MEASURED: i64 = 30;

/// Lookups a day.
pub(crate) const BUDGETS: [f64; 3] = [10_000.0, 20_000.0, 86_400.0];

/// One random world; the same seed, the same people, changes and messages, whatever a policy does.
pub(crate) struct World {
    /// Each person's changes a day.
    pub(crate) rates: Vec<f64>,
    /// By rank of popularity: who it is.
    pub(crate) by_rank: Vec<u32>,
    /// How much likelier a message is in the day after a change.
    pub(crate) likelier: f64,
    pub(crate) seed: u64,
}

impl World {
    /// `people` of them: fewer than [`PEOPLE`] only to see that the simulation works.
    pub(crate) fn new(seed: u64, people: usize, likelier: f64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut rates = Vec::with_capacity(people);
        let mut shares = 0.0;
        for (share, days) in CHANGES {
            shares += share;
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // few people
            rates.resize((people as f64 * shares).round() as usize, 1.0 / days);
        }
        rng.shuffle(&mut rates);
        let mut by_rank: Vec<u32> = (0..u32::try_from(people).unwrap_or(u32::MAX)).collect();
        rng.shuffle(&mut by_rank);
        Self { rates, by_rank, likelier, seed }
    }
}
