//! How far it has come, told on stderr: by a bar where that is a terminal, and else by a line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written.
const PAUSE: Duration = Duration::from_secs(5);

/// How progress is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// For somebody who looks on.
    Bar,
    /// For a file or a journal.
    Lines,
    /// To nobody.
    Nothing,
}

impl Telling {
    /// As suits where stderr leads to.
    #[must_use]
    pub fn as_suits_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }

    /// Begins a pass; of about `total` items some are done.
    pub(super) fn pass(self, word: &'static str, total: u64, done: u64) -> Progress {
        let shown = match self {
            Self::Bar => {
                let bar = ProgressBar::new(total.max(done)).with_position(done).with_prefix(word);
                // What an earlier run has done says nothing about the pace of this one.
                bar.reset_eta();
                let style =
                    ProgressStyle::with_template("{prefix:>9} {wide_bar} {human_pos} of {human_len}, {eta} left");
                Shown::Bar(bar.with_style(style.expect("the template is well formed")))
            }
            Self::Lines => Shown::Lines(Mutex::new(Instant::now())),
            Self::Nothing => Shown::Nothing,
        };
        let progress = Progress { word, total, done: AtomicU64::new(done), shown };
        if let Shown::Lines(_) = progress.shown {
            progress.line();
        }
        progress
    }
}

/// The progress of one pass.
pub(super) struct Progress {
    word: &'static str,
    total: u64,
    done: AtomicU64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    /// When the last line was written.
    Lines(Mutex<Instant>),
    Nothing,
}

impl Progress {
    /// Some more are done.
    pub(super) fn advance(&self, by: usize) {
        let done = self.done.fetch_add(by as u64, Ordering::Relaxed) + by as u64;
        match &self.shown {
            Shown::Bar(bar) => {
                // What is few is not counted beforehand.
                bar.set_length(self.total.max(done));
                bar.set_position(done);
            }
            Shown::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= PAUSE {
                    *last = Instant::now();
                    self.line();
                }
            }
            Shown::Nothing => {}
        }
    }

    /// All are done.
    pub(super) fn end(self) {
        match &self.shown {
            Shown::Bar(bar) => bar.finish(),
            Shown::Lines(_) => self.line(),
            Shown::Nothing => {}
        }
    }

    fn line(&self) {
        let done = self.done.load(Ordering::Relaxed);
        // Whoever closes our stderr does not end the migration.
        let _ = writeln!(std::io::stderr(), "{} {done} of {}", self.word, self.total.max(done));
    }
}
