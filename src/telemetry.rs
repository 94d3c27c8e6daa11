//! The log: one line for each thing an operator would want to know, on stderr.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// What is logged and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The form of a line.
    pub format: Format,
    /// What is logged, in the words of `tracing_subscriber::EnvFilter`: `info,avatar_proxy=debug`.
    pub filter: String,
}

/// The form of the log's lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object to a line, for collectors.
    Json,
}

/// Whether [`Config::filter`] could be this.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Starts logging, for the whole process: to be called once, by `main`.
///
/// # Panics
/// When called twice.
pub fn start(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.filter))
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    match config.format {
        Format::Text => log.init(),
        Format::Json => log.json().init(),
    }
}
