//! A caching proxy for the avatar lookups of a self-hosted WhatsApp gateway.

pub mod avatars;
pub mod budget;
pub mod change;
pub mod clock;
pub mod demo;
pub mod entry;
pub mod gateway;
pub mod http;
pub mod jid;
pub mod outcome;
pub mod refresh;
pub mod store;
