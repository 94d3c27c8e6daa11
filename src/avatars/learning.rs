//! What looks teach about who changes pictures, and what is foreseen of each device's budget: known to every look, because both
//! decide when the next one is made.
//!
//! The lessons are few numbers for all people together ([`Lessons`]); they are remembered now and then, and a `kill -9` loses no
//! more than a minute of them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Avatars;
use crate::change::{Standing, Verdict};
use crate::clock::Timestamp;
use crate::jid::Device;
use crate::outcome::{Observation, Rules};
use crate::recheck::forecast::Forecast;
use crate::recheck::pace::Wanted;
use crate::recheck::{Lessons, Look, Outlook};
use crate::store::Held;

/// What was learnt and what is foreseen.
#[derive(Default)]
pub(super) struct Learning {
    lessons: Mutex<Lessons>,
    /// Whether what was learnt before this process began is part of it.
    recalled: AtomicBool,
    /// Each with when it was made, on the steady clock.
    forecasts: Mutex<HashMap<Device, (Forecast, Duration)>>,
}

/// When a subject is rechecked next.
pub(super) struct Next {
    pub(super) outlook: Outlook,
    pub(super) recheck_at: Timestamp,
    /// What is to be learnt, once the look is recorded.
    lesson: Option<(Outlook, Look)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Learning {
    pub(super) fn forecast(&self, device: &Device) -> Forecast {
        lock(&self.forecasts).get(device).map(|(forecast, _)| *forecast).unwrap_or_default()
    }

    /// What follows from a look for the subject's next recheck. A look that is not believed leaves it where it stands.
    pub(super) fn next(
        &self,
        held: &Held,
        seen: &Observation,
        verdict: &Verdict,
        wanted: Wanted,
        rules: &Rules,
        forecast: &Forecast,
    ) -> Next {
        let (share, now) = (wanted.share(rules), seen.ended_at);
        let look = Look { changed: verdict.change.is_some(), at: now, virtual_now: held.virtual_now };
        let lessons = lock(&self.lessons);
        let believed = matches!(verdict.standing, Standing::Believed { .. });
        let (outlook, lesson) = match held.outlook {
            Some(before) if believed => (lessons.looked(&before, look, share, fastrand::f64()), Some((before, look))),
            Some(before) => (before, None),
            None => (lessons.met(held.virtual_now, now, share, fastrand::f64()), None),
        };
        let soonest = wanted.soonest(&seen.outcome, verdict.standing, rules, forecast, fastrand::f64());
        Next { outlook, recheck_at: now + soonest, lesson }
    }

    /// Somebody of whom nothing else is known.
    pub(super) fn met(&self, held: &Held, at: Timestamp) -> Outlook {
        lock(&self.lessons).met(held.virtual_now, at, 1.0, fastrand::f64())
    }

    /// Learns from a look that was recorded.
    pub(super) fn learn(&self, next: &Next) {
        if let Some((before, look)) = &next.lesson {
            lock(&self.lessons).learn(before, *look);
        }
    }
}

impl Avatars {
    /// What is foreseen of a device's budget, from now on; `made_at` on the steady clock.
    pub fn foresee(&self, device: &Device, forecast: Forecast, made_at: Duration) {
        lock(&self.0.learning.forecasts).insert(device.clone(), (forecast, made_at));
    }

    /// What was foreseen of a device's budget last, and when.
    #[must_use]
    pub fn foreseen(&self, device: &Device) -> Option<(Forecast, Duration)> {
        lock(&self.0.learning.forecasts).get(device).copied()
    }

    /// What is foreseen of every device's budget.
    #[must_use]
    pub fn forecasts(&self) -> Vec<(Device, Forecast)> {
        let forecasts = lock(&self.0.learning.forecasts);
        forecasts.iter().map(|(device, (forecast, _))| (device.clone(), *forecast)).collect()
    }

    /// Forgets what was foreseen of all devices but these.
    pub fn foresee_only(&self, devices: &HashSet<&Device>) {
        lock(&self.0.learning.forecasts).retain(|device, _| devices.contains(device));
    }

    /// Has the store remember what was learnt; before the first time, recalls what it remembers.
    pub async fn remember_lessons(&self) {
        let Learning { lessons, recalled, .. } = &self.0.learning;
        if !recalled.load(Ordering::Relaxed) {
            match self.0.store.lessons().await {
                Ok(before) => {
                    if let Some(before) = before {
                        *lock(lessons) = before;
                    }
                    recalled.store(true, Ordering::Relaxed);
                }
                Err(error) => tracing::debug!(%error, "what was learnt before cannot be read"),
            }
            return;
        }
        let learnt = lock(lessons).clone();
        if let Err(error) = self.0.store.put_lessons(&learnt).await {
            tracing::debug!(%error, "what was learnt is not remembered");
        }
    }

    /// A subject of whom was heard, if that moves it; see [`Lessons::active`].
    pub(super) fn active(&self, held: &Held, now: Timestamp) -> Option<Outlook> {
        let outlook = held.outlook.as_ref()?;
        lock(&self.0.learning.lessons).active(outlook, held.virtual_now, now, self.0.config.rules.recheck_interval)
    }
}
