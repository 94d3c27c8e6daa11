//! The house stays as it was built: imports go down, files stay readable, time is read in one place.
//!
//! The floors are read from the table in `src/lib.rs`, so that the map cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What may be used on the same floor. `entry` and `change` speak of one another's types, the lookup asks the budget, and
/// `config` fills the log's part.
const NEIGHBOURS: [(&str, &[&str]); 9] = [
    ("activity", &["jid"]),
    ("outcome", &["clock", "jid", "go_json"]),
    ("entry", &["clock", "outcome", "change", "jid", "record"]),
    ("change", &["clock", "outcome", "entry", "jid", "record"]),
    ("recheck", &["change", "clock", "outcome", "record"]),
    ("record", &["clock", "outcome", "jid"]),
    ("avatars", &["budget"]),
    ("config", &["telemetry", "health"]),
    ("check", &["health", "open_files"]),
];

/// The simulated gateway stands beside the house and borrows its words.
const DEMO: (&str, &[&str]) = ("demo", &["clock", "jid"]);

/// Past this, something wants a room of its own.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, by its path from there, with its text.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let top = root().join(folder);
    let (mut folders, mut found) = (vec![top.clone()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources are here") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&top).expect("below the top").to_owned();
                found.push((inside, fs::read_to_string(&path).expect("it can be read")));
            }
        }
    }
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

/// The modules on each floor, from the top down, as `src/lib.rs` lists them.
fn floors() -> Vec<(String, Vec<String>)> {
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("it can be read");
    let rows = map.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |")?.split_once(" | "));
    let rows = rows.skip_while(|(floor, _)| *floor != "floor").skip(2);
    rows.map(|(floor, text)| {
        let named = text.split('`').skip(1).step_by(2).filter(|name| root().join(format!("src/{name}.rs")).exists());
        (floor.to_owned(), named.map(str::to_owned).collect())
    })
    .collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The names that follow a path's `::`: one, or those of a list, however deep the lists within it.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| text.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect::<String>();
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut begins) = (0, vec![], true);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            character if begins && !character.is_whitespace() => {
                names.push(name(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// The modules of this crate that a file's code names, by `crate::` or by climbing up with `super::`.
///
/// `module` is the file's own path, such as `["budget", "lane"]`; a module within the file stands one deeper.
fn used(module: &[String], text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for (keyword, climbs) in [("crate::", false), ("super::", true)] {
        for (at, _) in code.match_indices(keyword) {
            let before = &code[..at];
            if before.bytes().last().is_some_and(is_word) || before.ends_with("super::") {
                continue;
            }
            let mut rest = &code[at..];
            let mut climbed = 0;
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, climbed) = (further, climbed + 1);
            }
            rest = rest.strip_prefix("crate::").unwrap_or(rest);
            if !climbs || climbed >= module.len() && !before.contains("\nmod tests {") {
                names.extend(heads(rest));
            }
        }
    }
    names.retain(|name| root().join(format!("src/{name}.rs")).exists());
    names
}

#[test]
fn imports_go_down() {
    let floors = floors();
    let height: BTreeMap<&str, usize> = floors
        .iter()
        .rev()
        .enumerate()
        .flat_map(|(height, (_, modules))| modules.iter().map(move |name| (name.as_str(), height)))
        .collect();
    assert!(floors.len() == 6 && height.len() > 12, "the table of floors in src/lib.rs cannot be read: {floors:?}");
    let neighbours: BTreeMap<&str, &[&str]> = NEIGHBOURS.into_iter().collect();
    let mut wrong = vec![];
    for (path, text) in files("src") {
        let module: Vec<String> =
            path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let name = module[0].as_str();
        if ["lib", "main"].contains(&name) {
            continue;
        }
        for used in used(&module, &text).into_iter().filter(|used| used != name) {
            let may = if name == DEMO.0 {
                DEMO.1.contains(&used.as_str())
            } else {
                let own = height.get(name);
                let own =
                    own.unwrap_or_else(|| panic!("`{name}` stands on no floor: name it in the table of src/lib.rs"));
                height.get(used.as_str()).is_some_and(|other| other < own)
                    || neighbours.get(name).is_some_and(|others| others.contains(&used.as_str()))
            };
            if !may {
                wrong.push(format!("src/{} uses `{used}`", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that go up or sideways: {wrong:#?}\nHand in what is needed as a parameter, or move what both need to a floor \
         below. (The floors are in src/lib.rs; neighbours that may know each other are in tests/it/house.rs.)"
    );
}

#[test]
fn every_way_to_import_is_seen() {
    let module = ["budget".to_owned(), "lane".to_owned()];
    let seen = |text: &str| used(&module, text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(seen("use crate::store::Store;"), "store");
    assert_eq!(seen("use crate::{avatars::{self, Ask}, http, budget::{a::{b}}};"), "avatars budget http");
    assert_eq!(seen("use crate::{\n    avatars::{\n        Ask,\n    },\n    http,\n};"), "avatars http");
    assert_eq!(seen("let a = crate::jid::Jid; // crate::http"), "jid");
    assert_eq!(seen("/// [`crate::http`]\nuse super::Config;"), "");
    assert_eq!(seen("use super::super::http::Edge;"), "http");
    assert_eq!(seen("use super::super::{gateway, store};"), "gateway store");
    assert_eq!(used(&module[..1], "use super::http::Edge;").len(), 1);
    assert_eq!(used(&module[..1], "\nmod tests {\n    use super::http;").len(), 0);
}

#[test]
fn files_are_read_in_one_sitting() {
    for folder in ["src", "tests", "fuzz/fuzz_targets"] {
        for (path, text) in files(folder) {
            let lines = text.lines().count();
            let place = format!("{folder}/{}", path.display());
            assert!(lines <= LINES_MAX, "{place} has {lines} lines: give some of it a room of its own beside it");
            assert!(!path.ends_with("mod.rs"), "{place}: a module is `name.rs` beside `name/`, never `mod.rs`");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests", "fuzz/fuzz_targets"] {
        for (path, text) in files(folder) {
            // A module's tests are about what the module says of itself.
            let tests = path.file_stem().is_some_and(|name| name == "tests");
            assert!(tests || text.starts_with("//! "), "{folder}/{} begins with no `//!` line", path.display());
        }
    }
}

#[test]
fn the_time_of_day_is_read_in_one_place() {
    for (path, text) in files("src") {
        let reads =
            ["SystemTime", "UNIX_EPOCH", "jiff::Timestamp::now", "Zoned::now"].iter().find(|name| text.contains(*name));
        assert!(
            reads.is_none() || path == Path::new("clock.rs"),
            "src/{} has {reads:?}: take a `Clock`, so that a test can move time",
            path.display()
        );
    }
}
