//! Which endpoints are this replica's to deliver for, where several share a store.
//!
//! The rules kept here:
//! * Who has a lease keeps it once a second. Who wants it has seen its beat stand still for [`LASTS`], on a steady clock of its own.
//! * Who could not keep it for as long, because it was stopped or lost sight of the store, sends nothing until it has kept it again:
//!   it counts from before it asked, and others from after that, so that both never send at once.
//! * What somebody writes whose lease has gone is turned away by the store, whatever any clock says.

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::outcome::Token;
use crate::store::{Lease, Wish};

/// How long a lease lasts that its holder does not keep.
pub(super) const LASTS: Duration = Duration::from_secs(5);

/// The right to deliver for an endpoint.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) token: Token,
    /// Until when it is held for certain; `None`: there is nobody else.
    until: watch::Receiver<Option<Instant>>,
}

impl Held {
    /// Where nobody else uses the store.
    pub(super) fn for_good() -> Self {
        Self { token: Token(0), until: watch::channel(None).1 }
    }

    /// Whether it is still held for certain.
    pub(super) fn is_good(&self) -> bool {
        self.until.borrow().is_none_or(|until| Instant::now() < until)
    }

    /// Waits until it was kept once more.
    pub(super) async fn kept(&mut self) {
        if self.until.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// What this replica knows of all leases.
pub(super) struct Leases {
    /// What it is called in them: another name after every start.
    pub(super) me: String,
    others: HashMap<String, Seen>,
    mine: HashMap<String, (Held, watch::Sender<Option<Instant>>)>,
    /// When was asked what is known.
    asked: HashMap<String, Instant>,
}

/// Somebody else's lease, and since when it has stood like this.
struct Seen {
    lease: Lease,
    since: Instant,
}

impl Leases {
    pub(super) fn new(me: String) -> Self {
        Self { me, others: HashMap::new(), mine: HashMap::new(), asked: HashMap::new() }
    }

    /// What to wish for of each of these endpoints.
    pub(super) fn wishes(&self, ids: impl IntoIterator<Item = String>, now: Instant) -> Vec<(String, Wish)> {
        let wish = |id: String| {
            let seen = self.others.get(&id).filter(|seen| now - seen.since >= LASTS);
            let wish = seen.map_or(Wish::Have, |seen| Wish::Inherit(seen.lease.clone()));
            (id, wish)
        };
        ids.into_iter().map(wish).collect()
    }

    /// Notes how a lease stands, as the store told who asked at `asked` and was answered at `now`. Returns whether it has come to
    /// this replica, or gone from it.
    pub(super) fn note(&mut self, id: &str, lease: Option<Lease>, asked: Instant, now: Instant) -> bool {
        // An answer that was overtaken by a later one's is news of the past.
        if self.asked.get(id).is_some_and(|last| *last > asked) {
            return false;
        }
        self.asked.insert(id.to_owned(), asked);
        let before = self.held(id).map(|held| held.token);
        match lease {
            Some(lease) if lease.holder == self.me => {
                self.others.remove(id);
                let until = Some(asked + LASTS);
                match self.mine.get(id) {
                    Some((held, sender)) if held.token == lease.token => _ = sender.send_replace(until),
                    _ => {
                        let (sender, until) = watch::channel(until);
                        self.mine.insert(id.to_owned(), (Held { token: lease.token, until }, sender));
                    }
                }
            }
            Some(lease) => {
                self.mine.remove(id);
                if self.others.get(id).is_none_or(|seen| seen.lease != lease) {
                    self.others.insert(id.to_owned(), Seen { lease, since: now });
                }
            }
            None => {
                self.mine.remove(id);
                self.others.remove(id);
            }
        }
        before != self.held(id).map(|held| held.token)
    }

    pub(super) fn held(&self, id: &str) -> Option<Held> {
        self.mine.get(id).map(|(held, _)| held.clone())
    }

    /// There is no such endpoint any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.asked.remove(id);
        self.mine.remove(id);
        self.others.remove(id);
    }

    /// Takes all that are held, to give them up.
    pub(super) fn give_up(&mut self) -> Vec<(String, Wish)> {
        self.mine.drain().map(|(id, _)| (id, Wish::GiveUp)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, token: u64, beat: u64) -> Lease {
        Lease { holder: holder.into(), token: Token(token), beat }
    }

    fn wish(leases: &Leases, now: Instant) -> Wish {
        leases.wishes(["e".to_owned()], now).remove(0).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_inherited_when_its_beat_has_stood_still_for_long_enough() {
        let (mut leases, began) = (Leases::new("me".into()), Instant::now());
        assert_eq!(wish(&leases, began), Wish::Have);
        for second in 0..20 {
            let now = began + Duration::from_secs(second);
            assert!(!leases.note("e", Some(lease("other", 7, second)), now, now));
            assert_eq!(wish(&leases, now), Wish::Have, "it is kept");
        }
        let last = began + Duration::from_secs(19);
        leases.note("e", Some(lease("other", 7, 19)), last + LASTS / 2, last + LASTS / 2);
        assert_eq!(wish(&leases, last + LASTS - Duration::from_millis(1)), Wish::Have);
        assert_eq!(wish(&leases, last + LASTS), Wish::Inherit(lease("other", 7, 19)));
        leases.note("e", Some(lease("third", 8, 0)), last + LASTS, last + LASTS);
        assert_eq!(wish(&leases, last + LASTS), Wish::Have, "somebody else was faster");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_kept_is_good_for_no_longer_than_others_wait() {
        let mut leases = Leases::new("me".into());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(leases.note("e", Some(lease("me", 7, 0)), asked, Instant::now()), "it has come");
        let held = leases.held("e").unwrap();
        tokio::time::advance(Duration::from_millis(3999)).await;
        assert!(held.is_good());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!held.is_good(), "it counts from when it was asked for");
        assert!(!leases.note("e", Some(lease("me", 7, 1)), Instant::now(), Instant::now()), "it is the same");
        assert!(held.is_good());
        assert!(leases.note("e", Some(lease("other", 8, 0)), Instant::now(), Instant::now()), "it has gone");
        assert!(leases.held("e").is_none());
        assert!(leases.note("e", Some(lease("me", 9, 0)), Instant::now(), Instant::now()));
        assert_eq!(leases.give_up(), [("e".to_owned(), Wish::GiveUp)]);
    }
}
