//! The direction of imports: every module uses only what stands on a floor below its own (`src/lib.rs` draws them), or what
//! belongs to itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Modules of one floor do not know each other, but for those listed in [`NEIGHBOURS`].
const FLOORS: [&[&str]; 6] = [
    &["clock", "jid", "outcome", "entry", "change", "record", "go_json", "metrics"],
    &["store", "gateway"],
    &["budget", "avatars"],
    &["refresh"],
    &["http"],
    &["config", "telemetry"],
];

/// What may be used on the same floor: `entry` is made from what `change` says, the lookup asks the budget, and
/// `config` fills the log's part.
const NEIGHBOURS: [(&str, &[&str]); 5] = [
    ("outcome", &["clock", "jid", "go_json"]),
    ("entry", &["clock", "outcome", "change", "record", "jid"]),
    ("change", &["clock", "outcome", "record", "jid"]),
    ("avatars", &["budget"]),
    ("config", &["telemetry"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules named behind `crate::`, those of tests left out.
fn used(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                names.extend(list.split('}').next().unwrap_or_default().split(',').map(|one| name(one.trim())));
            }
            None => names.push(name(rest)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_go_down() {
    let floor_of: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(floor, modules)| modules.iter().map(move |name| (*name, floor))).collect();
    let neighbours: BTreeMap<&str, &[&str]> = NEIGHBOURS.into_iter().collect();
    let mut found = Vec::new();
    files(&source(), &mut found);
    assert!(found.len() > 30);
    let mut wrong = Vec::new();
    for path in found {
        let inside = path.strip_prefix(source()).unwrap().with_extension("");
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if module == "lib" || module == "main" || inside.ends_with("tests") {
            continue;
        }
        for used in used(&fs::read_to_string(&path).unwrap()) {
            let allowed = match floor_of.get(module.as_str()) {
                // The simulated gateway knows the vocabulary only.
                None if module == "demo" => ["clock", "jid", "demo"].contains(&used.as_str()),
                None => panic!("{module} stands on no floor: add it to FLOORS and to src/lib.rs"),
                Some(floor) => {
                    used == module
                        || floor_of.get(used.as_str()).is_some_and(|below| below < floor)
                        || neighbours.get(module.as_str()).is_some_and(|others| others.contains(&used.as_str()))
                }
            };
            if !allowed {
                wrong.push(format!("{} uses {used}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go up or sideways: {wrong:#?}");
}

#[test]
fn imports_are_seen() {
    let text =
        "use crate::store::Store;\nuse crate::{avatars, budget::Budget};\n// crate::http\nlet a = crate::jid::Jid;";
    assert_eq!(used(text), ["store", "avatars", "budget", "jid"]);
}
