//! Clients that make mistakes, or mean no good: each is answered by the book or refused, and nobody else notices.

mod framing;
mod heads;
mod http2;
mod order;
mod slow;

use std::ops::Deref;

use crate::support::app::{TestApp, World};
use crate::support::eventually::eventually;
use crate::support::wire::{Said, Wire};

/// A proxy under attack.
struct Besieged {
    world: World,
    app: TestApp,
}

impl Besieged {
    async fn new() -> Self {
        Self::of(World::new().await).await
    }

    async fn of(world: World) -> Self {
        world.gateway.person("999001").picture("17");
        let app = world.start().await;
        app.avatar("999001").await.expect(200, "fwd=miss");
        Self { world, app }
    }

    async fn wire(&self) -> Wire {
        Wire::open(self.app.app().address()).await
    }

    /// Sends bytes on a connection of their own: all answers until it ends. The bytes must lead to its end.
    async fn says(&self, bytes: impl AsRef<[u8]>) -> Vec<Said> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        let mut answers = vec![];
        while let Some(answer) = wire.answer().await {
            answers.push(answer);
        }
        answers
    }

    /// The statuses of [`Besieged::says`].
    async fn statuses(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        self.says(bytes).await.iter().map(|answer| answer.status).collect()
    }

    /// Nothing is left of it: others are answered, and only their connection is open.
    async fn is_unharmed(&self) {
        let connections = &self.app.app().metrics().http_connections;
        eventually("every connection is given back", async || {
            self.app.avatar("999001").await.expect(200, "hit; ttl=");
            connections.get() == 1
        })
        .await;
    }

    /// The end of every siege.
    async fn survives(self) {
        self.is_unharmed().await;
        self.app.stop().await;
        drop(self.world);
    }
}

impl Deref for Besieged {
    type Target = TestApp;

    fn deref(&self) -> &TestApp {
        &self.app
    }
}
