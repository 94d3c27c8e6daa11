//! The edge.

use crate::gateway::Credential;
use crate::jid::Device;

/// Who may ask, and what is assumed of a request.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may ask; empty: anybody.
    pub auth: Vec<Credential>,
    /// Anybody may ask although the address is not loopback's.
    pub allow_anonymous: bool,
    /// What an empty device means.
    pub default_device: Device,
    /// The origins whose pages may read answers: `*`, or a list.
    pub cors_origins: Vec<String>,
}
