//! Clients' requests: one after the other, in the rhythm of a day, for people by Zipf's law.

use std::f64::consts::TAU;

use fastrand::Rng;

use crate::population::{DAY, PEOPLE, REQUESTS, SWING, World, ZIPF};

/// Minutes in a day.
const MINUTES: f64 = 1440.0;

/// The stream of requests.
pub(crate) struct Requests {
    rng: Rng,
    /// Walker's alias method: a column, and who has the rest of it.
    columns: Vec<(f32, u32)>,
    by_rank: Vec<u32>,
    /// The most there are per millisecond, and which part of it in each minute of the day.
    most: f64,
    rhythm: Vec<f64>,
    at: f64,
}

impl Requests {
    /// As many for each person as [`REQUESTS`] says, however many people there are.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a day
    pub(crate) fn new(world: &World) -> Self {
        let people = world.by_rank.len();
        let most = a_day(people) * (1.0 + SWING) / DAY as f64;
        let swing = |minute| 1.0 + SWING * (TAU * (f64::from(minute) / MINUTES - 0.5)).sin();
        let rhythm = (0..MINUTES as u32).map(|minute| swing(minute) / (1.0 + SWING)).collect();
        let rng = Rng::with_seed(world.seed ^ 0xA5C);
        Self { rng, columns: alias(&shares(people)), by_rank: world.by_rank.clone(), most, rhythm, at: 0.0 }
    }

    /// When the next request comes (ms).
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // far less than 2^52 ms
    pub(crate) fn next_at(&mut self) -> i64 {
        loop {
            self.at -= (1.0 - self.rng.f64()).ln() / self.most;
            let minute = (self.at * (MINUTES / DAY as f64)) as usize % self.rhythm.len();
            if self.rng.f64() < self.rhythm[minute] {
                return self.at as i64;
            }
        }
    }

    /// For whom it is.
    pub(crate) fn whom(&mut self) -> usize {
        let column = self.rng.usize(..self.columns.len());
        let (own, other) = self.columns[column];
        let rank = if self.rng.f32() < own { column } else { other as usize };
        self.by_rank[rank] as usize
    }
}

/// Each person's requests a day.
#[allow(clippy::cast_precision_loss)] // few people
pub(crate) fn rates(world: &World) -> Vec<f64> {
    let shares = shares(world.by_rank.len());
    let all: f64 = shares.iter().sum();
    let mut rates = vec![0.0; shares.len()];
    for (share, person) in shares.iter().zip(&world.by_rank) {
        rates[*person as usize] = a_day(shares.len()) * share / all;
    }
    rates
}

/// Requests a day, over so many people.
#[allow(clippy::cast_precision_loss)] // few people
fn a_day(people: usize) -> f64 {
    REQUESTS * people as f64 / PEOPLE as f64
}

/// How often people are asked for, by rank.
#[allow(clippy::cast_precision_loss)] // few people
fn shares(people: usize) -> Vec<f64> {
    (1..=people).map(|rank| (rank as f64).powf(-ZIPF)).collect()
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // few people
fn alias(shares: &[f64]) -> Vec<(f32, u32)> {
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let mut left: Vec<f64> = shares.iter().map(|share| share / mean).collect();
    let mut columns = vec![(1.0, 0); left.len()];
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|&at| left[at] < 1.0);
    while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
        columns[poor] = (left[poor] as f32, rich as u32);
        left[rich] -= 1.0 - left[poor];
        if left[rich] < 1.0 {
            large.pop();
            small.push(rich);
        }
    }
    columns
}
