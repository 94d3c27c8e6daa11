//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures what a memory hit costs, beside other servers that would answer it.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench hits --", max_term_width = 120)]
pub(crate) struct Options {
    /// How often every server has its turn
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// How long a turn is
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Keep-alive connections of the load
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Keys asked for, each as often as any other
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) keys: u64,
    /// Which servers; all by default
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Which>,
    /// Instead: user-space instructions per hit, counted by valgrind, and compared with those recorded (or recorded)
    #[arg(long, conflicts_with_all = ["memory", "store", "start"], num_args = 0..=1, require_equals = true, default_missing_value = "compare")]
    pub(crate) instructions: Option<Counts>,
    /// Instead: bytes per entry in memory, and how the process stays below its limit
    #[arg(long, conflicts_with_all = ["store", "start"])]
    pub(crate) memory: bool,
    /// Instead: what a subscriber to changes weighs, and how soon so many of them know of one; 10,000 unless told otherwise
    #[arg(
        long,
        conflicts_with_all = ["instructions", "memory", "store", "start"],
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "10000"
    )]
    pub(crate) subscribers: Option<usize>,
    /// Instead: how soon 200 changes per second arrive at so many webhook endpoints (20 unless told otherwise), and how many
    /// deliveries per second one of them can get
    #[arg(
        long,
        conflicts_with_all = ["instructions", "memory", "store", "start", "subscribers"],
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "20",
        value_parser = clap::value_parser!(u64).range(1..=1000)
    )]
    pub(crate) webhooks: Option<u64>,
    #[command(flatten)]
    pub(crate) stored: Stored,
    /// How many entries; 200,000 with --memory, 1,000,000 with --store, --start and --redis
    #[arg(long, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub(crate) entries: Option<u64>,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    pub(crate) bench: bool,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What is measured of a store.
#[derive(Debug, Args)]
pub(crate) struct Stored {
    /// Instead: how fast entries are recorded in the store, and found there
    #[arg(long)]
    pub(crate) store: bool,
    /// Instead, or with --store: how fast a process starts on a full store, and what it does when nobody asks
    #[arg(long)]
    pub(crate) start: bool,
    /// Instead: how fast lookups are recorded in a Redis server and found there, what they take of its memory, and whether hits
    /// in memory are as fast as with a store in a file
    #[arg(long, conflicts_with_all = ["instructions", "memory", "store", "start", "subscribers"])]
    pub(crate) redis: bool,
}

/// A server that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    AvatarProxy,
    Hyper,
    Nginx,
    Haproxy,
    Varnish,
}

/// What becomes of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Counts {
    Compare,
    Record,
}

impl Options {
    pub(crate) fn wants(&self, which: Which) -> bool {
        self.only.is_empty() || self.only.contains(&which)
    }

    pub(crate) fn turn(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (0.05..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("must be between 0.05 and 3600".to_owned()) }
}

/// What this program is when it has started itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    #[command(hide = true)]
    Load(Load),
    #[command(hide = true)]
    Bare(Bare),
}

/// A run of the load.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    #[arg(long)]
    pub(crate) address: SocketAddr,
    #[arg(long)]
    pub(crate) connections: u32,
    #[arg(long)]
    pub(crate) first_key: u64,
    #[arg(long)]
    pub(crate) keys: u64,
    /// Asks for so long, at random; without this and `requests`, asks for each key once.
    #[arg(long)]
    pub(crate) millis: Option<u64>,
    /// Asks so often, at random.
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// With `millis`: asks so often per second whatever is still under way, each key at most once.
    #[arg(long, requires = "millis")]
    pub(crate) rate: Option<u64>,
    /// The length that every answer must have.
    #[arg(long)]
    pub(crate) length: Option<usize>,
}

/// A bare hyper server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Bare {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// A file with the answer, head and body.
    #[arg(long)]
    pub(crate) answer: PathBuf,
}
