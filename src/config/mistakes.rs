//! What is wrong with a configuration, in words for the person who wrote it.
//!
//! A mistake names its flag, and the variable or file the value came from; it says what would be right. It shows the value
//! unless that could hold a secret: secrets and the URL of a Redis never, any other value not if it contains an `@`, as a
//! URL with a password does, or a `?`.

use std::fmt;
use std::process::ExitCode;

use super::flags::{Flag, flags};

/// Why there is nothing to run.
pub enum Stop {
    /// Help or the version was asked for, or the command line has a shape that clap refuses.
    CommandLine(clap::Error),
    /// Flags or variables are wrong: all of them.
    Mistakes(Mistakes),
}

impl Stop {
    /// Tells the person at the terminal, and what the process should end with: 0 for help, 2 for mistakes.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // Nobody is left to be told that stdout is closed.
                let _ = error.print();
                if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
            }
            Self::Mistakes(mistakes) => {
                eprint!("{mistakes}");
                ExitCode::from(2)
            }
        }
    }
}

/// Every mistake of a configuration; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes {
    command: &'static str,
    list: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn new(command: &'static str, mut list: Vec<Mistake>) -> Self {
        let place = |mistake: &Mistake| flags().iter().position(|flag| Some(flag.name) == mistake.flag);
        // Variables that belong to no flag come last.
        list.sort_by_key(|mistake| place(mistake).unwrap_or(usize::MAX));
        Self { command, list }
    }

    /// In the order of the flags.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self.list.len() {
            1 => "one mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        writeln!(f, "avatar-proxy: {count} in the configuration; nothing was started\n")?;
        for mistake in &self.list {
            writeln!(f, "  {mistake}")?;
        }
        writeln!(f, "\nSee `avatar-proxy {} --help`.", self.command)
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    flag: Option<&'static str>,
    source: Source,
    text: String,
}

impl Mistake {
    pub(super) fn of(flag: &Flag, source: Source, text: impl Into<String>) -> Self {
        Self { flag: Some(flag.name), source, text: text.into() }
    }

    pub(super) fn of_variable(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { flag: None, source: Source::Variable(name.into()), text: text.into() }
    }

    /// The flag, with its dashes; none for a variable that belongs to no flag.
    #[must_use]
    pub fn flag(&self) -> Option<&'static str> {
        self.flag
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.flag, &self.source) {
            (Some(flag), Source::CommandLine) => write!(f, "{flag}"),
            (Some(flag), Source::Variable(name)) => write!(f, "{flag} ({name})"),
            (Some(flag), Source::File { variable, path }) => write!(f, "{flag} ({variable}, file {path:?})"),
            (None, Source::Variable(name) | Source::File { variable: name, .. }) => f.write_str(name),
            (None, Source::CommandLine) => Ok(()),
        }?;
        write!(f, ": {}", self.text)
    }
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A flag; also a default, or a value that is missing.
    CommandLine,
    /// The variable of this name.
    Variable(String),
    /// The file that this variable names.
    File { variable: String, path: String },
}

/// A value as a mistake may show it.
pub(super) fn shown(flag: &Flag, value: &str) -> String {
    const LONGEST: usize = 80;
    if flag.is_secret(value) || value.contains(['@', '?']) {
        return "the value (not shown here)".to_owned();
    }
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &value[..end]),
        None => format!("{value:?}"),
    }
}
