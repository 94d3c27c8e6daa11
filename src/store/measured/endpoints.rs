//! The calls about webhooks, measured like all others.

use async_trait::async_trait;

use super::Measured;
use crate::clock::Timestamp;
use crate::store::{Delivery, Endpoint, Endpoints, Kept, Known, Lease, Progress, Put, Standing, StoreError, Wish};

#[async_trait]
impl Endpoints for Measured {
    async fn endpoints(&self) -> Result<Vec<Known>, StoreError> {
        self.measure("endpoints", self.store.endpoints()).await
    }

    async fn put_endpoint(&self, endpoint: Endpoint, new: Standing, limit: u64) -> Result<Put, StoreError> {
        self.measure("put_endpoint", self.store.put_endpoint(endpoint, new, limit)).await
    }

    async fn drop_endpoint(&self, id: &str) -> Result<bool, StoreError> {
        self.measure("drop_endpoint", self.store.drop_endpoint(id)).await
    }

    async fn deliveries(&self, id: &str, dead: bool, after: u64, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.measure("deliveries", self.store.deliveries(id, dead, after, limit)).await
    }

    async fn kept(&self, id: &str) -> Result<Kept, StoreError> {
        self.measure("kept", self.store.kept(id)).await
    }

    async fn progress(&self, progress: Progress) -> Result<(), StoreError> {
        self.measure("progress", self.store.progress(progress)).await
    }

    async fn lease(&self, holder: &str, wishes: &[(String, Wish)]) -> Result<Vec<Option<Lease>>, StoreError> {
        self.measure("lease", self.store.lease(holder, wishes)).await
    }

    async fn revive(&self, id: &str, after: u64, due: Timestamp) -> Result<u64, StoreError> {
        self.measure("revive", self.store.revive(id, after, due)).await
    }

    async fn trim_dead(&self, before: Timestamp, limit: usize) -> Result<Vec<String>, StoreError> {
        self.measure("trim_dead", self.store.trim_dead(before, limit)).await
    }
}
