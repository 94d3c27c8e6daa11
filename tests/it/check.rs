//! `avatar-proxy check` tries the settings of a proxy, says what is wrong and what to do, and leaves everything as it was.

use std::process::{Command, Output};

use crate::support::app::World;

mod gateway;
mod machine;
mod store;

/// What it printed, and how it ended.
struct Checked {
    status: Option<i32>,
    lines: Vec<String>,
    complaint: String,
}

impl Checked {
    /// The line of one check, as printed: verdict and sentence.
    #[track_caller]
    fn of(&self, check: &str) -> &str {
        let is_it = |line: &&String| line.get(9..).is_some_and(|rest| rest.starts_with(&format!("{check} ")));
        self.lines
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no line of {check}: {:#?}\n{}", self.lines, self.complaint))
    }

    fn has(&self, check: &str) -> bool {
        self.lines.iter().any(|line| line.get(9..).is_some_and(|rest| rest.starts_with(&format!("{check} "))))
    }

    #[track_caller]
    fn says(&self, check: &str, verdict: &str, text: &str) {
        let line = self.of(check);
        assert!(line.starts_with(verdict) && line.contains(text), "{line}\nis not {verdict} with {text:?}");
    }

    #[track_caller]
    fn ends(&self, status: i32) {
        assert_eq!(self.status, Some(status), "{:#?}\n{}", self.lines, self.complaint);
    }
}

/// Runs it with a world's flags, and these, which count before those.
async fn check(world: &World, flags: &[&str]) -> Checked {
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
    let mut arguments = world.arguments();
    "check".clone_into(&mut arguments[0]);
    arguments.retain(|given| !flags.iter().any(|flag| name(flag) == name(given)));
    arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"));
    command.env_clear().args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program starts")).await.unwrap();
    checked(&output)
}

fn checked(output: &Output) -> Checked {
    Checked {
        status: output.status.code(),
        lines: String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[tokio::test]
async fn where_all_is_well_every_line_says_so_and_nobody_was_looked_up() {
    let world = World::new().await;
    let all = check(&world, &[]).await;
    all.ends(0);
    for name in ["listen", "open files", "gateway", "credentials", "device", "gateway's clock", "store", "store's room"]
    {
        assert!(all.of(name).starts_with("ok "), "{}", all.of(name));
    }
    assert_eq!(all.lines.len(), 8, "{:#?}", all.lines);
    assert_eq!(world.gateway.lookups(), 0);
}

#[tokio::test]
async fn programs_get_an_object_for_each_check() {
    let world = World::new().await;
    let all = check(&world, &["--log-format=json", "--store=sqlite:/proc/none.db"]).await;
    all.ends(1);
    let objects: Vec<serde_json::Value> = all.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let store = objects.iter().find(|object| object["check"] == "store").unwrap();
    assert_eq!((&store["verdict"], objects[0]["verdict"].as_str()), (&"wrong".into(), Some("ok")));
}

#[tokio::test]
async fn everything_is_tried_whatever_is_wrong() {
    let world = World::new().await;
    world.gateway.stop().await;
    let all = check(&world, &["--store=sqlite:/proc/none.db", "--webhook=http://127.0.0.1:9/secret-path"]).await;
    all.ends(1);
    all.says("gateway", "wrong", "nobody listens there: start the gateway");
    all.says("store", "wrong", "cannot be written");
    all.says("webhook 1", "wrong", "127.0.0.1: nobody accepts a connection");
    all.says("listen", "ok", "is free");
    assert!(all.complaint.contains("3 of 5 checks found something wrong"), "{}", all.complaint);
    assert!(!all.lines.concat().contains("secret-path"), "what stands behind a host may be its password");
}

#[tokio::test]
async fn mistaken_flags_are_told_as_elsewhere_and_nothing_is_tried() {
    let world = World::new().await;
    for (flag, text) in [
        ("--gateway-rate=often", "--gateway-rate"),
        ("--lookup=nobody-by-this-name", "--lookup: cannot use the value (not shown here)"),
        ("--gateway-only", "--gateway-only: is for `demo` alone"),
    ] {
        let mistaken = check(&world, &[flag]).await;
        mistaken.ends(2);
        assert!(mistaken.lines.is_empty() && mistaken.complaint.contains(text), "{}", mistaken.complaint);
    }
    let serve =
        Command::new(env!("CARGO_BIN_EXE_avatar-proxy")).args(["serve", "--lookup=99900000001"]).output().unwrap();
    assert!(checked(&serve).complaint.contains("--lookup: is for `check` alone"));
}
