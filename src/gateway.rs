//! The gateway's client.

use std::fmt;
use std::time::Duration;

pub mod failure;
pub mod reply;

/// Most of a body that is read (bytes). A real answer has less than one KiB.
pub const BODY_LIMIT: usize = 64 << 10;

/// Where the gateway is and how to speak to it.
#[derive(Clone)]
pub struct Config {
    /// `http` or `https`; a path is kept as the base path.
    pub url: http::Uri,
    /// The proxy's own credentials at the gateway.
    pub auth: Option<Credential>,
    /// The longest a lookup may take.
    pub timeout: Duration,
}

/// A user and password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Without a colon.
    pub user: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}
