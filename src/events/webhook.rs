//! Webhooks: events delivered to addresses that others chose.
mod desk;
mod schedule;
mod sign;
pub use sign::{BadSecret, check};
