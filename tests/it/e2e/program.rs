//! Programs in other languages: the README's, word for word, and those of this folder.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::support::eventually::eventually;

/// The Python that `make e2e` gives what it needs.
pub(super) fn python() -> Command {
    Command::new(std::env::var("E2E_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
}

/// Writes the first block of a language under a heading of the README into a file of the folder, and runs that there.
pub(super) fn from_readme(heading: &str, language: &str, mut interpreter: Command, folder: &Path) -> Command {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("the README is here");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).expect("the README has such a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let (_, behind) = section.split_once(&format!("```{language}\n")).expect("the section has such a block");
    let program = behind.split_once("```").expect("it ends").0;
    let file = folder.join(if language == "js" { "program.mjs" } else { "program.py" });
    std::fs::write(&file, program).unwrap();
    interpreter.arg(file).current_dir(folder);
    interpreter
}

/// A program that prints what it hears of. Dropping it kills it, in the middle of whatever it does.
pub(super) struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let out = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line with this text: all that it said up to then.
    pub(super) async fn says(&self, text: &str) -> Vec<String> {
        let mut said = vec![];
        eventually(&format!("it says {text}"), async || {
            said.extend(self.lines.try_iter());
            said.iter().any(|line: &String| line.contains(text))
        })
        .await;
        said
    }

    /// Kills it: what it said since it was last listened to.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.lines.iter().collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
