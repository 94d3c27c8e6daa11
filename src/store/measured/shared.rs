//! The calls about flights, measured like all others. What only waits is not.

use std::future::pending;

use async_trait::async_trait;

use super::Measured;
use crate::outcome::Token;
use crate::store::{Landing, Question, Shared, StoreError, Told};

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
            Told::Failed(..) | Told::UnderWay { .. } => {}
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
