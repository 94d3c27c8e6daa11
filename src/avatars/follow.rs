//! What other replicas have noticed leaves this one's memory: a reader of the change log that throws out what has become old.
//!
//! The rules kept here:
//! * Of a subject whose change passes by, everything goes that is from before that change. What this replica has noticed itself
//!   is in its memory as it is afterwards, and stays: the history in a slot says which changes it has seen.
//! * Who was forgotten is not said: everything goes.
//! * Where something may have passed by unseen, because trimming was faster, everything goes; where the log is another one, `put_back`
//!   brings memory and store together.
//! * What is being brought from the store meanwhile may be from before, too: it is compared with what passed by lately, and thrown
//!   out again.
//!
//! Where nobody else uses the store there is nothing to follow.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::memory::Memory;
use super::{Avatars, Inner};
use crate::cursor::Cursor;
use crate::jid::{Key, Subject};
use crate::store::{Log, Page, What};

/// How many records are read at once.
const READ_MAX: usize = 500;

/// How long after a failure of the store it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long it is known what has passed by: longer than any call to the store takes.
const LATELY: Duration = Duration::from_secs(30);

/// Changes that have passed by lately, by subject.
#[derive(Default)]
pub(super) struct Passed(Mutex<Lately>);

#[derive(Default)]
struct Lately {
    /// The last version, and when it passed by, on the steady clock.
    versions: HashMap<Subject, (u64, Duration)>,
    /// The same in order; a subject stands here once for each of its changes.
    order: VecDeque<(Duration, Subject)>,
}

impl Passed {
    fn add(&self, subject: &Subject, version: u64, now: Duration) {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.versions.insert(subject.clone(), (version, now));
        lately.order.push_back((now, subject.clone()));
        while let Some((at, gone)) = lately.order.pop_front_if(|(at, _)| *at + LATELY < now) {
            if lately.versions.get(&gone).is_some_and(|(_, last)| *last == at) {
                lately.versions.remove(&gone);
            }
        }
    }

    /// Throws out of memory what was brought there and is from before a change that has passed by.
    pub(super) fn outdates(&self, key: &Key, memory: &Memory) {
        let lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, _)) = lately.versions.get(&key.subject) {
            memory.forget_before(&key.subject, *version);
        }
    }
}

impl Avatars {
    /// Follows the log until the program stops.
    pub async fn follow(self, log: Arc<dyn Log>) {
        if log.is_shared() {
            tokio::select! {
                () = self.0.follow(&*log) => {}
                () = self.put_back() => {}
                () = self.0.stop.cancelled() => {}
            }
        }
    }
}

impl Inner {
    async fn follow(&self, log: &dyn Log) {
        let mut tip = log.tip();
        let mut place: Option<Cursor> = None;
        loop {
            tip.mark_unchanged();
            let (after, limit) = place.map_or((0, 0), |place| (place.sequence, READ_MAX));
            match log.read_log(after, limit).await {
                Ok(page) => {
                    let is_full = limit > 0 && page.records.len() == limit;
                    place = Some(self.passes(place, &page, is_full));
                    if !is_full && tip.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the change log cannot be followed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes note of what has passed by; returns where to read on.
    fn passes(&self, place: Option<Cursor>, page: &Page, is_full: bool) -> Cursor {
        let end = page.extent.cursor(page.extent.last);
        if place.is_some_and(|place| place.epoch != page.extent.epoch) {
            self.put_back.begin(self.clock.now(), self.clock.elapsed());
            return end;
        }
        let Some(place) = place.filter(|place| page.extent.reaches(*place)) else {
            self.forget_all();
            return end;
        };
        for record in &page.records {
            match &record.what {
                What::Change(change) => {
                    let (subject, change) = &**change;
                    // In this order: what is brought between the two is compared with the first.
                    self.passed.add(subject, change.version, self.clock.elapsed());
                    self.memory.forget_before(subject, change.version);
                }
                What::Forgotten => self.forget_all(),
            }
        }
        let last = page.records.last().map_or(place.sequence, |record| record.sequence);
        if is_full { page.extent.cursor(last) } else { end }
    }

    /// Forgets every answer, those that are being brought included.
    pub(super) fn forget_all(&self) {
        // In this order: a flight that ends after the second step sees the first, and takes back what it has brought.
        self.forgets.fetch_add(1, Ordering::SeqCst);
        self.memory.clear();
        self.endings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avatars::slot::{History, Slot};
    use crate::change::Standing;
    use crate::clock::Timestamp;
    use crate::entry::{Entry, Jitter};
    use crate::jid::{Device, Jid, Variant};
    use crate::outcome::{Observation, Outcome, Picture, Rules, Token};

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn key(who: u64, preview: bool) -> Key {
        Key::new(Device::default(), Jid::parse(&who.to_string()).unwrap(), preview, false)
    }

    /// An answer of somebody who has changed so many times.
    fn slot(version: u64) -> Slot {
        let seen = Observation {
            variant: Variant::default(),
            outcome: Outcome::Present(Picture::new("https://h/p?oe=7FFFFFFF", "1", "image")),
            start: Token(1),
            started_at: NOW,
            ended_at: NOW,
        };
        let sure = Standing::Believed { repeats: 0 };
        let entry = Entry::after(None, &seen, sure, &Rules::default(), Jitter(0.0));
        Slot::new(&entry, History { version, changed_at: None }, None)
    }

    #[test]
    fn what_is_from_before_a_change_goes_and_what_has_seen_it_stays() {
        let memory = Memory::new(1 << 20);
        for (key, version) in [(key(1, false), 3), (key(1, true), 2), (key(2, true), 2)] {
            memory.insert(&key, slot(version));
        }
        memory.forget_before(&key(1, false).subject, 3);
        assert!(memory.get(&key(1, false)).is_some(), "it has seen the change");
        assert!(memory.get(&key(1, true)).is_none(), "it is from before");
        assert!(memory.get(&key(2, true)).is_some(), "it is somebody else's");
    }

    #[test]
    fn what_is_brought_while_a_change_passes_by_is_thrown_out_again() {
        let (memory, passed) = (Memory::new(1 << 20), Passed::default());
        let ada = key(1, false);
        passed.add(&ada.subject, 3, Duration::ZERO);
        for (version, stays) in [(2, false), (3, true), (4, true)] {
            memory.insert(&ada, slot(version));
            passed.outdates(&ada, &memory);
            assert_eq!(memory.get(&ada).is_some(), stays, "{version}");
        }
    }

    #[test]
    fn what_has_passed_by_is_known_for_a_while_and_no_longer() {
        let passed = Passed::default();
        let versions = || passed.0.lock().unwrap().versions.clone();
        passed.add(&key(1, false).subject, 1, Duration::ZERO);
        passed.add(&key(2, false).subject, 1, Duration::ZERO);
        passed.add(&key(1, false).subject, 2, LATELY);
        assert_eq!(versions().len(), 2);
        passed.add(&key(3, false).subject, 1, LATELY * 3 / 2);
        assert_eq!(versions()[&key(1, false).subject].0, 2, "its last change is not that long ago");
        assert_eq!(versions().len(), 2);
        passed.add(&key(4, false).subject, 1, LATELY * 3);
        assert_eq!(versions().len(), 1);
        assert_eq!(passed.0.lock().unwrap().order.len(), 1);
    }
}
