//! Large pipelines are kept in the cache's index; what lies outside them is looked at all the same.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::Bench;

const PIPELINE: &str = r#"
base = "base.toml"
[axes]
number = { range = [0, 70] }
[stage.a]
uses = "command"
matrix = ["number"]
params = { run = ["sh", "run.sh", "no-${number}"], code = ["run.sh"], pass_env = ["SPDFLOW_TEST_MODE"] }
"#;

fn bench() -> Bench {
    let bench = Bench::new().file("p.toml", PIPELINE).file("base.toml", "[pipeline]\nname = \"p\"\n");
    bench.file("run.sh", "echo 1\n")
}

/// Returns what `spdflow plan` says, with the cache that keeps the pipeline and with one that never saw it; the two must
/// be the same.
fn plan(bench: &Bench, mut command: Command, more: &[&str]) -> String {
    let program = command.get_program().to_owned();
    command.args([&["plan", "p.toml", "--json", "--cache", "kept"], more].concat());
    let told = |command: &mut Command| {
        let output = command.output().expect("the binary starts");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let kept = told(&mut command);
    let mut fresh = Command::new(program);
    fresh.current_dir(bench.path()).args([&["plan", "p.toml", "--json", "--cache", "fresh"], more].concat());
    for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        fresh.env(name, value);
    }
    let expected = told(&mut fresh);
    fs::remove_dir_all(bench.path().join("fresh")).unwrap_or_default();
    assert_eq!(kept, expected);
    kept
}

fn index_files(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.path().join("kept/index")).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "pipeline")).collect()
}

/// Plans until the pipeline is kept: the program's own file must be two seconds old for that.
fn plan_until_kept(bench: &Bench, command: impl Fn() -> Command, count: usize) -> String {
    for _ in 0..50 {
        let told = plan(bench, command(), &[]);
        if index_files(bench).len() == count {
            return told;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("found {} kept pipelines, expected {count}", index_files(bench).len());
}

/// Writes another text of the same length and gives the file its old modification time.
fn edit_in_secret(bench: &Bench, name: &str, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = bench.path().join(name);
    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
    let text = fs::read_to_string(&path).expect("a text").replace(from, to);
    fs::write(&path, text).expect("a new text");
    fs::File::options().write(true).open(&path).expect("a file").set_modified(modified).expect("an old time");
}

#[test]
fn edits_that_keep_size_and_time_are_seen_in_every_file() {
    let bench = bench();
    let command = || bench.command(&[]);
    let mut before = plan_until_kept(&bench, command, 1);
    for (name, from, to) in [
        ("run.sh", "echo 1", "echo 2"),
        ("p.toml", "\"sh\", \"run.sh\"", "\"sh\", \"./r.sh\""),
        ("p.toml", "\"sh\", \"./r.sh\"", "\"sh\", \"run.sh\""),
        ("base.toml", "\"p\"", "\"q\""),
        ("base.toml", "name =", "nome ="),
    ] {
        edit_in_secret(&bench, name, from, to);
        let after = plan(&bench, command(), &[]);
        assert_ne!(after, before, "{name}: {to}");
        before = after;
    }
}

#[test]
fn a_variable_that_changes_and_an_argument_are_seen() {
    let bench = bench();
    let command = |mode: &str| {
        let mut command = bench.command(&[]);
        command.env("SPDFLOW_TEST_MODE", mode);
        command
    };
    let fast = plan_until_kept(&bench, || command("fast"), 1);
    assert_eq!(plan(&bench, command("fast"), &[]), fast);
    let slow = plan(&bench, command("slow"), &[]);
    assert_ne!(slow, fast);
    assert_eq!(plan(&bench, command("fast"), &[]), fast);
    let set = ["--set", "stage.a.params.values={ x = 1 }", "--set", "stage.a.params.run[1]=\"{value.x}\""];
    assert_ne!(plan(&bench, command("fast"), &set), fast);
    assert_eq!(plan(&bench, command("fast"), &[]), fast);
}

#[test]
fn another_program_keeps_its_own() {
    let bench = bench();
    let told = plan_until_kept(&bench, || bench.command(&[]), 1);
    let copy = bench.path().join("copy");
    fs::copy(env!("CARGO_BIN_EXE_spdflow"), &copy).expect("a copy of the program");
    let command = || {
        let mut command = Command::new(&copy);
        command.current_dir(bench.path());
        command
    };
    // Its file could still change without its stamp telling.
    assert_eq!(plan(&bench, command(), &[]), told);
    assert_eq!(index_files(&bench).len(), 1);
    assert_eq!(plan_until_kept(&bench, command, 2), told);
}
