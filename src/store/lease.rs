//! Leases: which of the processes that share a store delivers for an endpoint.
//!
//! Nobody's clock is compared with another's. A holder keeps its lease by its beat; who would inherit it has seen the same beat for
//! long enough, on a steady clock of its own. The token fences off who had it before: what that one writes is turned away.

use crate::outcome::Token;

/// The right to deliver for an endpoint, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Who has it.
    pub holder: String,
    /// Greater than all before it: another one whenever it goes to somebody.
    pub token: Token,
    /// How often its holder has kept it.
    pub beat: u64,
}

/// What somebody wishes of an endpoint's lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    /// To have it or to keep it, unless it is somebody else's.
    Have,
    /// The same; and if it still stands like this, because its holder does not keep it, to have it all the same.
    Inherit(Lease),
    /// To have it, whosever it is.
    Seize,
    /// To have it no more.
    GiveUp,
}

impl Lease {
    /// One that nobody else wants.
    pub(super) fn uncontested(holder: &str) -> Self {
        Self { holder: holder.to_owned(), token: Token(0), beat: 0 }
    }
}
