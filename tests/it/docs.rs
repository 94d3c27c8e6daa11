//! What the documents say is true of the program beside them.
//!
//! The tables of flags and metrics are made from the program's own tables; when one of those changes, the test prints the
//! table to put into `README.md`.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use avatar_proxy::config::{Flag, Preset, flags};
use avatar_proxy::demo::people;
use avatar_proxy::metrics::ALL;

const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A table as `README.md` must hold it, line for line.
#[track_caller]
fn assert_in_readme(table: &str) {
    assert!(read("README.md").contains(table), "README.md needs this table instead of the one it has:\n\n{table}");
}

fn cell(preset: Preset) -> String {
    match preset {
        Preset::Is(value) => format!("`{}`", value.replace('|', "\\|")),
        Preset::Unset => "none".to_owned(),
        Preset::Required => "required".to_owned(),
        Preset::Elsewhere => "not there".to_owned(),
    }
}

#[test]
fn the_readme_lists_every_flag_with_its_defaults() {
    let row = |flag: &Flag| {
        // A switch stands alone.
        let form =
            if flag.form == "true|false" { String::new() } else { format!(" {}", flag.form.replace('|', "\\|")) };
        let demo = if flag.demo_default == flag.default { String::new() } else { cell(flag.demo_default) };
        format!("| `{}{form}` | {} | {demo} | {} |\n", flag.name, cell(flag.default), flag.help)
    };
    let rows = flags().iter().map(row).collect::<Vec<_>>().concat();
    assert_in_readme(&format!("| flag | default | in `demo` | meaning |\n| --- | --- | --- | --- |\n{rows}"));
}

#[test]
fn the_readme_lists_every_metric() {
    let kind = |kind: &str| {
        let kind = kind.trim_end_matches("Vec").trim_start_matches("Int").to_ascii_lowercase();
        assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{kind}");
        kind
    };
    let row =
        |(name, metric, help): &(&str, &str, &str)| format!("| `{name}` | {} | {} |\n", kind(metric), help.trim());
    let rows = ALL.iter().map(row).collect::<Vec<_>>().concat();
    assert_in_readme(&format!("| metric | kind | meaning |\n| --- | --- | --- |\n{rows}"));
}

/// What stands between backticks, in lines of prose and tables.
fn quoted(text: &str) -> Vec<String> {
    let mut inside = false;
    let prose = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The text of every Rust file.
fn sources() -> String {
    let mut found = Vec::new();
    files(&root().join("src"), &mut found);
    files(&root().join("tests"), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn every_file_that_is_named_exists() {
    let is_path = |word: &String| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
        let known = ["src/", "tests/", "scripts/", ".ci/", "dashboards/", "deploy/"]
            .iter()
            .any(|folder| word.starts_with(folder));
        plain && (known || [".rs", ".md", ".sql", ".toml", ".sh"].iter().any(|end| word.ends_with(end)))
    };
    for document in DOCUMENTS {
        let named: Vec<String> = quoted(&read(document)).into_iter().filter(is_path).collect();
        assert!(document != "ARCHITECTURE.md" || named.len() > 30, "the paths are not found: {named:?}");
        for path in named {
            assert!(root().join(&path).exists(), "{document} names {path}, which is not there");
        }
    }
}

#[test]
fn every_source_file_has_its_place_in_the_architecture() {
    let architecture = read("ARCHITECTURE.md");
    let mut found = Vec::new();
    files(&root().join("src"), &mut found);
    for path in found {
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        // What a module's files do is said by the module.
        let module = path.split('/').nth(1).unwrap();
        let module = module.strip_suffix(".rs").unwrap_or(module);
        assert!(architecture.contains(&format!("`src/{module}.rs`")), "ARCHITECTURE.md does not know src/{module}.rs");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = sources();
    let like_a_test = |word: &String| {
        word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && word.matches('_').count() >= 3
            && !word.starts_with("avatar_proxy_")
    };
    let mut known = 0;
    for document in DOCUMENTS {
        for name in quoted(&read(document)).into_iter().filter(like_a_test) {
            assert!(sources.contains(&format!("fn {name}(")), "{document} names the test {name}, which is not there");
            known += 1;
        }
    }
    assert!(known > 20, "the tests' names are not found");
}

#[test]
fn every_link_leads_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            if target.starts_with("https://") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { document } else { file };
            assert!(root().join(file).exists(), "{document} links to {target}");
            let anchor = |heading: &str| {
                let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_';
                heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
            };
            let anchors: HashSet<String> = if part.is_empty() {
                HashSet::from([String::new()])
            } else {
                let headings = read(file);
                headings
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|line| anchor(line.trim_start_matches('#')))
                    .collect()
            };
            assert!(anchors.contains(part), "{document} links to {target}: no such heading");
        }
    }
}

#[test]
fn the_numbers_in_the_readme_are_those_of_the_demonstration() {
    let known = [
        people::PRESENT,
        people::WITHOUT_PICTURE,
        people::SLOW,
        people::RESTLESS,
        people::HIDDEN,
        people::UNREGISTERED,
        people::GROUP,
        people::LID,
        people::CHANNEL,
    ];
    let known = known.map(|phone| phone.split('@').next().unwrap_or_default());
    let readme = read("README.md");
    let mut seen = 0;
    for mark in ["phone=", "/avatars/"] {
        for (at, _) in readme.match_indices(mark) {
            let rest = &readme[at + mark.len()..];
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            assert!(digits.is_empty() || known.contains(&digits.as_str()), "{mark}{digits} is nobody's");
            seen += usize::from(!digits.is_empty());
        }
    }
    assert!(seen >= 5);
}

#[test]
fn no_document_knows_a_machine_or_a_registry() {
    let mut found: Vec<PathBuf> = DOCUMENTS
        .iter()
        .chain(&["Makefile", "Cargo.toml", "LICENSE", ".gitignore", "Dockerfile", "docker-compose.yml"])
        .map(|name| root().join(name))
        .collect();
    for folder in [".ci", "dashboards", "deploy", "scripts", "src", "tests"] {
        files(&root().join(folder), &mut found);
    }
    found.retain(|path| !path.ends_with(file!()));
    let foreign =
        ["/home/", "/root/", "/work/", "/Users/", "/tmp/", "crates.io", "docs.rs/", "npmjs.", "pypi.", "ghcr.io"];
    for path in found {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for word in foreign {
            assert!(!text.contains(word), "{} contains {word}", path.display());
        }
    }
}
