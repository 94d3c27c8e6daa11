//! Somebody was active: a picture is likelier to have changed.

use super::{Avatars, RECENT};
use crate::jid::{Key, Subject, Variant};
use crate::store::{StoreError, Watch, Watched};

/// What came of the news that somebody was active.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noticed {
    /// They are looked at sooner.
    Sooner,
    /// They were heard of lately.
    Recent,
    /// Nobody cares for them: not asked for lately, not watched.
    Unknown,
    /// They are watched from now on.
    Discovered,
    /// They would be, but as many are watched as may be.
    TooMany,
}

impl Noticed {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sooner => "sooner",
            Self::Recent => "recent",
            Self::Unknown => "unknown",
            Self::Discovered => "discovered",
            Self::TooMany => "too-many",
        }
    }
}

impl Avatars {
    /// Has somebody looked at sooner who was active, if anybody cares, by as much as that was found to tell of changes: however
    /// often they are active, that is once per recheck interval.
    ///
    /// # Errors
    /// When the store fails: then nothing has changed.
    pub async fn notice(&self, subject: &Subject) -> Result<Noticed, StoreError> {
        let inner = &self.0;
        let now = inner.clock.now();
        for variant in [Variant::default(), Variant { preview: true, ..Variant::default() }] {
            let held = inner.store.find(&Key { subject: subject.clone(), variant }).await?;
            if held.watch.is_some() || held.is_warm(now, inner.config.warm_for) {
                let Some(outlook) = self.active(&held, now) else { return Ok(Noticed::Recent) };
                // With budget enough at once; but a look that was just made has seen what there is to see.
                let recheck_at = now.max(outlook.looked_at + RECENT);
                inner.store.advance(subject, held.revision, outlook, recheck_at).await?;
                return Ok(Noticed::Sooner);
            }
        }
        Ok(Noticed::Unknown)
    }

    /// Watches somebody who appeared, at the recheck interval.
    ///
    /// # Errors
    /// When the store fails: then nothing has changed.
    pub async fn discover(&self, subject: Subject, limit: u64) -> Result<Noticed, StoreError> {
        let watch = Watch { subject, interval: self.0.config.rules.recheck_interval };
        Ok(match self.watch(watch, limit).await? {
            Watched::Done => Noticed::Discovered,
            Watched::TooMany => Noticed::TooMany,
        })
    }
}
