//! The budget of all replicas: what the scripts `draw`, `teach` and `reserve` are given, and what they answer.

use std::time::Duration;

use async_trait::async_trait;

use super::Redis;
use super::reply::{Fields, unreadable};
use super::scripts::Arguments;
use crate::jid::Device;
use crate::record::unless_damaged;
use crate::store::{
    DeviceRecord, Draft, Drawn, KnownDevice, Lesson, Marked, Purse, Share, ShareWish, StoreError, Taught,
};

/// As the scripts name a lane: that of a device, or the one of all that have none.
fn lane(device: &Device, is_own: bool) -> String {
    if is_own { format!("1{}", device.as_str()) } else { "0".to_owned() }
}

/// The version that was seen; none that there could be, if none is to be trusted.
fn version(version: Option<u64>) -> String {
    version.map_or_else(|| "-1".to_owned(), |version| version.to_string())
}

/// Eight arguments.
pub(super) fn draft(draft: &Draft) -> Arguments {
    Arguments::default()
        .with(draft.device.as_str())
        .with(lane(&draft.device, draft.is_own))
        .with(version(draft.version))
        .with(draft.rate.to_string())
        .number(draft.burst.into())
        .number(draft.concurrency.into())
        .with(draft.place)
        .with(draft.lease.as_millis().to_string())
}

/// What became of a draft, and the token that counts it if it was booked.
pub(super) fn drawn(mut answer: Fields) -> Result<(Drawn, u64), StoreError> {
    Ok(match answer.text()?.as_str() {
        "later" => (Drawn::Later(Duration::from_micros(answer.number()?)), 0),
        "changed" => (Drawn::Changed(known(answer.list()?)?), 0),
        _ => (Drawn::Booked, answer.number()?),
    })
}

fn known(mut fields: Fields) -> Result<KnownDevice, StoreError> {
    let version = fields.number()?;
    let record = fields.optional_bytes()?.map(|record| unless_damaged(DeviceRecord::decode(&record)));
    let cooling = Duration::from_micros(fields.number()?);
    Ok(KnownDevice { version, record: record.transpose()?.flatten(), cooling })
}

#[async_trait]
impl Purse for Redis {
    async fn draw(&self, wanted: Draft) -> Result<Drawn, StoreError> {
        let arguments = draft(&wanted).with(self.shared.replica).number(self.token()).clock(&self.shared.clock);
        let answer = Fields::of(self.run(|scripts| &scripts.draw, arguments).await?)?;
        let (drawn, token) = drawn(answer)?;
        self.saw(token);
        Ok(drawn)
    }

    async fn give_back(&self, drafts: &[Draft]) -> Result<(), StoreError> {
        let arguments = drafts.iter().fold(Arguments::default().with(self.shared.replica), |arguments, draft| {
            arguments.with(lane(&draft.device, draft.is_own)).with(draft.place)
        });
        self.run(|scripts| &scripts.give_back, arguments).await.map(drop)
    }

    async fn known(&self, device: &Device) -> Result<KnownDevice, StoreError> {
        let arguments = Arguments::default().with(device.as_str()).clock(&self.shared.clock);
        known(Fields::of(self.run(|scripts| &scripts.known, arguments).await?)?)
    }

    async fn teach(&self, lesson: Lesson) -> Result<Taught, StoreError> {
        let own = lesson.record.proven.then(|| lane(&lesson.device, true));
        let arguments = Arguments::default()
            .with(lesson.device.as_str())
            .with(version(lesson.version))
            .with(lesson.record.encode())
            .with(lesson.cooling.as_micros().to_string())
            .or_empty(own)
            .number(self.token())
            .clock(&self.shared.clock);
        let mut taught = Fields::of(self.run(|scripts| &scripts.teach, arguments).await?)?;
        Ok(match taught.text()?.as_str() {
            "done" => Taught::Done(self.saw(taught.number()?).0),
            _ => Taught::Changed(known(taught.list()?)?),
        })
    }

    async fn reserve(&self, wish: ShareWish) -> Result<Share, StoreError> {
        let arguments = Arguments::default()
            .with(wish.holder)
            .number(wish.turn)
            .with(wish.using.to_string())
            .number(wish.holders_max.into())
            .with(u8::from(wish.is_over))
            .clock(&self.shared.clock);
        let mut share = Fields::of(self.run(|scripts| &scripts.reserve, arguments).await?)?;
        let granted = share.text()?.parse().map_err(|_| unreadable("share"))?;
        Ok(Share { share: granted, mark: Marked(share.text()?) })
    }
}
