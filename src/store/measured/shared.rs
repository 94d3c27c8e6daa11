//! The calls about flights and the budget of all, measured like all others. What only waits is not.

use std::future::pending;

use async_trait::async_trait;

use super::Measured;
use crate::jid::Device;
use crate::outcome::Token;
use crate::store::{
    Draft, Drawn, KnownDevice, Landing, Lesson, Purse, Question, Share, ShareWish, Shared, StoreError, Taught, Told,
};

impl Measured {
    fn of_replicas(&self) -> Result<&dyn Shared, StoreError> {
        self.store.shared().ok_or_else(|| StoreError::Unavailable("it is nobody else's".to_owned()))
    }
}

#[async_trait]
impl Shared for Measured {
    async fn ask(&self, question: Question) -> Result<Told, StoreError> {
        let told = self.measure("ask", self.of_replicas()?.ask(question)).await?;
        match &told {
            Told::Held(held) => self.damaged(held),
            Told::Started { claim, .. } => self.damaged(&claim.held),
            Told::Failed(..) | Told::UnderWay { .. } | Told::NotYet(_) => {}
        }
        Ok(told)
    }

    async fn land(&self, landing: Landing) -> Result<(), StoreError> {
        self.measure("land", self.of_replicas()?.land(landing)).await
    }

    async fn landed(&self, flight: Token) {
        match self.store.shared() {
            Some(shared) => shared.landed(flight).await,
            None => pending().await,
        }
    }
}

#[async_trait]
impl Purse for Measured {
    async fn draw(&self, draft: Draft) -> Result<Drawn, StoreError> {
        self.measure("draw", self.of_replicas()?.draw(draft)).await
    }

    async fn give_back(&self, drafts: &[Draft]) -> Result<(), StoreError> {
        self.measure("give_back", self.of_replicas()?.give_back(drafts)).await
    }

    async fn known(&self, device: &Device) -> Result<KnownDevice, StoreError> {
        self.measure("device", self.of_replicas()?.known(device)).await
    }

    async fn teach(&self, lesson: Lesson) -> Result<Taught, StoreError> {
        self.measure("put_device", self.of_replicas()?.teach(lesson)).await
    }

    async fn reserve(&self, wish: ShareWish) -> Result<Share, StoreError> {
        self.measure("reserve", self.of_replicas()?.reserve(wish)).await
    }
}
