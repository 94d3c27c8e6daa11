//! Where values come from, and which one counts: a flag beats its variable, which beats the file its variable names.
//!
//! A variable that is spelled nearly like one of ours is a mistake: an `AVATAR_PROXY_ATUH` that was passed over would leave
//! the door open. Others that begin with `AVATAR_PROXY_` are let be: Kubernetes sets some for a Service called
//! `avatar-proxy`, and scripts have their own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;

use super::command_line::Verb;
use super::flags::{Flag, PREFIX, Preset, flags};
use super::mistakes::{Mistake, Source, shown};

/// What the log shows; no flag of its own, since it is wanted most where the command line cannot be changed.
pub(super) const LOG: &str = "AVATAR_PROXY_LOG";

/// Longest file that can hold a value (bytes).
const FILE_LIMIT: u64 = 64 * 1024;

/// Something is wrong with a value, and is among the mistakes already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Noted;

/// The texts given, and the mistakes found so far.
pub(super) struct Settings {
    verb: Verb,
    given: BTreeMap<&'static str, Result<Given, Noted>>,
    log: Option<String>,
    mistakes: Vec<Mistake>,
}

struct Given {
    text: String,
    source: Source,
}

impl Settings {
    /// Takes the text of every flag from wherever it is given.
    pub(super) fn gather(
        verb: Verb,
        mut arguments: BTreeMap<&'static str, OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut settings = Self { verb, given: BTreeMap::new(), log: None, mistakes: Vec::new() };
        let mut variables: BTreeMap<String, OsString> = variables
            .into_iter()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .collect();
        for flag in flags() {
            let variable = flag.variable();
            let file = format!("{variable}_FILE");
            settings.gather_one(
                flag,
                arguments.remove(flag.name),
                variables.remove_entry(&variable),
                variables.remove_entry(&file),
            );
        }
        match variables.remove(LOG).map(OsString::into_string) {
            Some(Ok(text)) => settings.log = Some(text),
            Some(Err(_)) => settings.mistakes.push(Mistake::of_variable(LOG, "is not UTF-8")),
            None => {}
        }
        for (name, value) in variables {
            if !is_service_link(&name, &value) {
                settings.mistakes.extend(misspelt(&name));
            }
        }
        settings
    }

    fn gather_one(
        &mut self,
        flag: &'static Flag,
        argument: Option<OsString>,
        variable: Option<(String, OsString)>,
        file: Option<(String, OsString)>,
    ) {
        if let (Some((variable, _)), Some((file, _))) = (&variable, &file) {
            let text = format!("both {variable} and {file} are set; keep one of them");
            self.mistakes.push(Mistake::of(flag, Source::CommandLine, text));
        }
        let (source, text) = match (argument, variable, file) {
            (Some(text), _, _) => (Source::CommandLine, utf8(text)),
            (None, Some((name, text)), _) => (Source::Variable(name), utf8(text)),
            (None, None, Some((variable, path))) => {
                let text = read_file(&path);
                (Source::File { variable, path: path.to_string_lossy().into_owned() }, text)
            }
            (None, None, None) => return,
        };
        let text = if self.verb.preset(flag) == Preset::Elsewhere {
            // A variable may be meant for the other command, which runs in the same environment.
            if !matches!(source, Source::CommandLine) {
                return;
            }
            Err(match self.verb {
                Verb::Migrate => {
                    "has no effect with `migrate`, which goes with --from, --to and --log-format alone".to_owned()
                }
                _ if Verb::Migrate.preset(flag) == Preset::Required => "is for `migrate` alone".to_owned(),
                _ if Verb::Check.preset(flag) != flag.default => "is for `check` alone".to_owned(),
                Verb::Serve | Verb::Check => "is for `demo` alone".to_owned(),
                Verb::Health => {
                    "is nothing that `health` asks for: it needs to know where the proxy listens".to_owned()
                }
                Verb::Demo => {
                    "is for `serve` alone: `demo` brings a gateway and a temporary store of its own".to_owned()
                }
            })
        } else {
            text
        };
        let given = match text {
            Ok(text) => Ok(Given { text, source }),
            Err(wrong) => {
                self.mistakes.push(Mistake::of(flag, source, wrong));
                Err(Noted)
            }
        };
        self.given.insert(flag.name, given);
    }

    /// Reads a flag that has a value in any case.
    pub(super) fn value<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Noted> {
        self.optional(name, parse)?.ok_or_else(|| self.object(name, "is required"))
    }

    /// Reads a flag that may be unset.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        let flag = named(name);
        let (text, source) = match self.given.get(flag.name) {
            Some(Ok(Given { text, source })) => (text.as_str(), source.clone()),
            Some(Err(noted)) => return Err(*noted),
            None => match self.verb.preset(flag).value() {
                Some(text) => (text, Source::CommandLine),
                None => return Ok(None),
            },
        };
        parse(text).map(Some).map_err(|wrong| {
            let text = format!("cannot use {}: {wrong}", shown(flag, text));
            self.mistakes.push(Mistake::of(flag, source, text));
            Noted
        })
    }

    /// Notes that a flag, though well formed, does not go with the others.
    pub(super) fn object(&mut self, name: &str, text: impl Into<String>) -> Noted {
        let flag = named(name);
        let source = match self.given.get(flag.name) {
            Some(Ok(given)) => given.source.clone(),
            _ => Source::CommandLine,
        };
        self.mistakes.push(Mistake::of(flag, source, text));
        Noted
    }

    /// Objects to every flag given that is not among these.
    pub(super) fn only(&mut self, names: &[&str], why: &str) {
        let others = self.given.iter().filter(|(name, given)| !names.contains(name) && given.is_ok());
        let others: Vec<&str> = others.map(|(name, _)| *name).collect();
        for name in others {
            self.object(name, why);
        }
    }

    /// What the log shows, if that was said.
    pub(super) fn log(&mut self, check: impl FnOnce(&str) -> Result<(), String>) -> Option<String> {
        let text = self.log.take()?;
        if let Err(wrong) = check(&text) {
            self.mistakes.push(Mistake::of_variable(LOG, wrong));
        }
        Some(text)
    }

    /// Everything that was found wrong.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }
}

fn named(name: &str) -> &'static Flag {
    flags().iter().find(|flag| flag.name == name).expect("every flag that is read is in the table")
}

fn utf8(text: OsString) -> Result<String, String> {
    text.into_string().map_err(|_| "the value is not UTF-8".to_owned())
}

/// The content of a file without the newline at its end.
fn read_file(path: &OsStr) -> Result<String, String> {
    if path.is_empty() {
        return Err("names no file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err("the file is larger than 64 KiB".to_owned());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The mistake, if `name` is nearly one of ours.
fn misspelt(name: &str) -> Option<Mistake> {
    let known = flags().iter().map(Flag::variable).flat_map(|name| [format!("{name}_FILE"), name]);
    let (distance, known) = known
        .chain([LOG.to_owned()])
        .map(|known| (strsim::damerau_levenshtein(&known[PREFIX.len()..], &name[PREFIX.len()..]), known))
        .min_by_key(|(distance, _)| *distance)?;
    let near = distance <= (known.len() - PREFIX.len()) / 3;
    near.then(|| Mistake::of_variable(name, format!("no such setting; is it {known}?")))
}

/// Whether Kubernetes sets this for a Service whose name begins like ours: `AVATAR_PROXY_SERVICE_HOST`,
/// `AVATAR_PROXY_PORT=tcp://10.0.0.1:8080`, `AVATAR_PROXY_PORT_8080_TCP_ADDR`, `AVATAR_PROXY_METRICS_SERVICE_PORT_HTTP`.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let is_url =
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.as_encoded_bytes().starts_with(scheme.as_bytes()));
    let is_port_of = |rest: &str| {
        rest.split_once('_').is_some_and(|(port, rest)| {
            port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|protocol| rest.starts_with(protocol))
        })
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || name.split_once("_PORT_").is_some_and(|(_, rest)| is_port_of(rest))
}
