//! Webhook endpoints and their deliveries.

use async_trait::async_trait;
use bytes::Bytes;

use super::Redis;
use super::reply::{Fields, bytes, number, unreadable};
use super::scripts::{Arguments, millis};
use crate::clock::Timestamp;
use crate::store::{Delivery, Endpoint, Endpoints, Kept, Known, Lease, Progress, Put, Standing, StoreError, Wish};

#[async_trait]
impl Endpoints for Redis {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        let mut known = Vec::new();
        for row in Fields::of(self.run(|scripts| &scripts.endpoints, Arguments::default()).await?)? {
            match read(Fields::of(row)?) {
                Ok(endpoint) => known.push(endpoint),
                // One that cannot be read is left as it is, and spoils nothing else.
                Err(error) => tracing::warn!(%error, "a webhook endpoint is passed over"),
            }
        }
        known.sort_unstable_by(|a, b| a.endpoint.id.cmp(&b.endpoint.id));
        Ok(known)
    }

    async fn put_endpoint(&self, endpoint: Endpoint, new: Standing, limit: u64) -> Result<Put, StoreError> {
        let arguments =
            Arguments::default().with(&endpoint.id).with(endpoint.encode()).with(new.encode()).number(limit);
        let done: u64 = number(self.run(|scripts| &scripts.put_endpoint, arguments).await?)?;
        Ok(if done > 0 { Put::Done } else { Put::TooMany })
    }

    async fn drop_endpoint(&self, id: &str) -> Result<bool, StoreError> {
        Ok(number::<u64>(self.run(|scripts| &scripts.drop_endpoint, Arguments::default().with(id)).await?)? > 0)
    }

    async fn deliveries(&self, id: &str, dead: bool, after: u64, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let list = if dead { "dead" } else { "waiting" };
        let arguments = Arguments::default().with(id).with(list).number(after).limit(limit);
        let rows = Fields::of(self.run(|scripts| &scripts.deliveries, arguments).await?)?;
        rows.map(|row| delivery(Fields::of(row)?, dead)).collect()
    }

    async fn kept(&self, id: &str) -> Result<Kept, StoreError> {
        kept(&mut Fields::of(self.run(|scripts| &scripts.kept, Arguments::default().with(id)).await?)?)
    }

    async fn progress(&self, progress: Progress) -> Result<(), StoreError> {
        let head = Arguments::default()
            .with(&progress.endpoint)
            .with(progress.standing.encode())
            .number(progress.lease.0)
            .or_empty(progress.becomes.as_ref().map(Endpoint::encode))
            .with(progress.kept.len());
        let kept = progress.kept.iter().fold(head, |arguments, delivery| {
            let subject = delivery.subject.as_ref();
            arguments
                .number(delivery.sequence)
                .with(&delivery.event_id)
                .or_empty(subject.map(|subject| subject.device.as_str()))
                .or_empty(subject.map(|subject| subject.jid.to_string()))
                .with(delivery.attempts)
                .or_empty(delivery.first_at.map(millis))
                .time(delivery.due_at)
                .with(u8::from(delivery.dead))
                .with(&delivery.json[..])
                .time(delivery.noticed_at)
        });
        let all = progress.ended.iter().fold(kept, |arguments, sequence| arguments.number(*sequence));
        let came = bytes(self.run(|scripts| &scripts.progress, all).await?)?;
        if came == b"fenced" { Err(StoreError::Fenced) } else { Ok(()) }
    }

    async fn lease(&self, holder: &str, wishes: &[(String, Wish)]) -> Result<Vec<Option<Lease>>, StoreError> {
        let head = Arguments::default().with(holder).number(self.token());
        let arguments = wishes.iter().fold(head, |arguments, (id, wish)| {
            let (word, seen) = match wish {
                Wish::Have => ("have", None),
                Wish::Inherit(seen) => ("inherit", Some(seen)),
                Wish::Seize => ("seize", None),
                Wish::GiveUp => ("give up", None),
            };
            let (token, beat) = seen.map_or((0, 0), |seen| (seen.token.0, seen.beat));
            arguments.with(id).with(word).number(token).number(beat)
        });
        let leases = Fields::of(self.run(|scripts| &scripts.lease, arguments).await?)?;
        leases.map(|lease| self.read_lease(Fields::of(lease)?)).collect()
    }

    async fn revive(&self, id: &str, after: u64, due: Timestamp) -> Result<u64, StoreError> {
        let arguments = Arguments::default().with(id).number(after).time(due);
        number(self.run(|scripts| &scripts.revive, arguments).await?)
    }

    async fn trim_dead(&self, before: Timestamp, limit: usize) -> Result<Vec<String>, StoreError> {
        let arguments = Arguments::default().time(before).limit(limit);
        let endpoints = Fields::of(self.run(|scripts| &scripts.trim_dead, arguments).await?)?;
        endpoints.map(|id| String::from_utf8(bytes(id)?).map_err(|_| unreadable("text"))).collect()
    }
}

impl Redis {
    fn read_lease(&self, mut lease: Fields) -> Result<Option<Lease>, StoreError> {
        if lease.is_empty() {
            return Ok(None);
        }
        let (holder, token) = (lease.text()?, self.saw(lease.number()?));
        Ok(Some(Lease { holder, token, beat: lease.number()? }))
    }
}

fn read(mut row: Fields) -> Result<Known, StoreError> {
    Ok(Known {
        endpoint: Endpoint::decode(row.text()?, &row.bytes()?)?,
        standing: Standing::decode(&row.bytes()?)?,
        kept: kept(&mut row)?,
    })
}

fn kept(row: &mut Fields) -> Result<Kept, StoreError> {
    Ok(Kept { pending: row.number()?, dead: row.number()? })
}

fn delivery(mut row: Fields, dead: bool) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        sequence: row.number()?,
        event_id: row.text()?,
        subject: row.optional_subject()?,
        attempts: row.number()?,
        first_at: row.optional_time()?,
        due_at: row.time()?,
        dead,
        json: Bytes::from(row.bytes()?),
        noticed_at: row.time()?,
    })
}
