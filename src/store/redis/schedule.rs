//! Deadlines and rechecks: three sorted sets for each device.

use async_trait::async_trait;

use super::scripts::{Arguments, millis};
use super::{BATCH, Redis, of_key, of_subject, reply, rows};
use crate::clock::Timestamp;
use crate::jid::{Device, Key, Subject};
use crate::outcome::Token;
use crate::recheck::{Lessons, Outlook};
use crate::record::unless_damaged;
use crate::store::{Agenda, Candidate, Due, Outlay, Schedule, StoreError, Touch};

#[async_trait]
impl Schedule for Redis {
    async fn agenda(&self) -> Result<Vec<Agenda>, StoreError> {
        rows::agenda(self.run(|scripts| &scripts.agenda, Arguments::default()).await?)
    }

    async fn take_due(
        &self,
        device: &Device,
        until: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        let arguments = Arguments::default().with(device.as_str()).time(until).time(lease).limit(limit);
        let arguments = arguments.with(self.shared.replica);
        let (taken, unreadable) = rows::taken(self.run(|scripts| &scripts.take_due, arguments).await?)?;
        if let Some(unreadable) = unreadable {
            // Nobody could look at them; left in the schedule, they would come up for ever.
            self.run(|scripts| &scripts.reschedule, unreadable).await?;
        }
        Ok(taken)
    }

    async fn take_rechecks(
        &self,
        device: &Device,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let arguments = Arguments::default().with(device.as_str()).time(now).time(lease).limit(limit);
        let arguments = arguments.limit(rows::PROMOTED_MAX).with(self.shared.replica);
        let (taken, unreadable) = rows::candidates(self.run(|scripts| &scripts.take_rechecks, arguments).await?)?;
        if let Some(unreadable) = unreadable {
            self.run(|scripts| &scripts.defer, unreadable).await?;
        }
        Ok(taken)
    }

    async fn outlay(&self, device: &Device, counts: &[usize]) -> Result<Outlay, StoreError> {
        let arguments = Arguments::default().with(device.as_str());
        let arguments = counts.iter().fold(arguments, |arguments, count| arguments.limit(*count));
        rows::outlay(self.run(|scripts| &scripts.outlay, arguments).await?, counts)
    }

    async fn reschedule(&self, keys: Vec<(Key, Option<Timestamp>)>) -> Result<(), StoreError> {
        for keys in keys.chunks(BATCH) {
            let arguments = keys.iter().fold(Arguments::default(), |arguments, (key, due)| {
                arguments.and(of_key(key)).or_empty(due.map(millis))
            });
            self.run(|scripts| &scripts.reschedule, arguments).await?;
        }
        Ok(())
    }

    async fn defer(&self, subjects: Vec<(Subject, Option<Timestamp>)>) -> Result<(), StoreError> {
        for subjects in subjects.chunks(BATCH) {
            let arguments = subjects.iter().fold(Arguments::default(), |arguments, (subject, recheck_at)| {
                arguments.and(of_subject(subject)).or_empty(recheck_at.map(millis))
            });
            self.run(|scripts| &scripts.defer, arguments).await?;
        }
        Ok(())
    }

    async fn advance(
        &self,
        subject: &Subject,
        expected: Token,
        outlook: Outlook,
        recheck_at: Timestamp,
    ) -> Result<(), StoreError> {
        let arguments = of_subject(subject).number(expected.0).with(outlook.turn.rank).with(outlook.encode());
        let arguments = arguments.time(recheck_at);
        self.run(|scripts| &scripts.advance, arguments).await.map(drop)
    }

    async fn touch(&self, touches: Vec<Touch>) -> Result<(), StoreError> {
        for touches in touches.chunks(BATCH) {
            let arguments = touches.iter().fold(Arguments::default(), |arguments, touch| {
                let arguments = arguments.and(of_key(&touch.key)).time(touch.at);
                arguments.or_empty(touch.due_at.map(millis)).time(touch.recheck_at)
            });
            self.run(|scripts| &scripts.touch, arguments).await?;
        }
        Ok(())
    }

    async fn lessons(&self) -> Result<Option<Lessons>, StoreError> {
        match self.run(|scripts| &scripts.lessons, Arguments::default()).await? {
            redis::Value::Nil => Ok(None),
            record => Ok(unless_damaged(Lessons::decode(&reply::bytes(record)?))?),
        }
    }

    async fn put_lessons(&self, lessons: &Lessons) -> Result<(), StoreError> {
        self.run(|scripts| &scripts.put_lessons, Arguments::default().with(lessons.encode())).await.map(drop)
    }
}
