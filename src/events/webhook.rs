//! Webhooks: events delivered to addresses that others chose.
mod schedule;
mod sign;
pub use sign::{BadSecret, check};
