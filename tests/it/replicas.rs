//! Many replicas on one Redis behave as one: through whole programs, in front of one gateway.

mod memories;
mod opening;

const ADA: &str = "999001";
