//! Many replicas on one Redis behave as one: through whole programs, in front of one gateway.

pub(crate) mod budget;
pub(crate) mod confirmed;
mod emptied;
mod killed;
mod lookups;
mod memories;
mod opening;
mod stream;

const ADA: &str = "999001";
