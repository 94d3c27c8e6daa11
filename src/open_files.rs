//! How many files may be open: as many as the system allows, because every connection is one.
//!
//! Service managers start programs with a soft limit of 1024, for the sake of programs that use `select`. Raising it to the
//! hard limit is what they expect of the others.

/// What 10,000 connections take, beside the store, the log and the connections to the gateway.
pub const ENOUGH: u64 = 10_500;

/// Raises this process's soft limit to the hard one. Only speaks up where there is little; it never fails.
pub fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < ENOUGH => {
            tracing::info!(
                limit,
                "few files may be open, and so few connections; the system's hard limit can be raised"
            );
        }
        Ok(limit) => tracing::debug!(limit, "files may be open"),
        Err(error) => tracing::info!(%error, "the limit of open files stays as it is"),
    }
}

/// How many files this process may open now; without a limit, as many as there are numbers.
#[must_use]
pub fn limit() -> u64 {
    rlimit::Resource::NOFILE.get().map_or(rlimit::INFINITY, |(soft, _)| soft)
}
