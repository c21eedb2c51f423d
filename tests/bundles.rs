//! `spdflow bundle`: what it says, that it changes nothing, and that a stranger can make the results again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spdflow_engine::bundle::{Unpacked, unpack};
use spdflow_engine::sums::Sums;

use crate::support::{Bench, masked, snapshot};

const BASE: &str = r#"[stage.a]
uses = "command"
params = { run = ["sh", "../lib/make.sh", "{value.n}", "{out.x}"], outputs = { x = "x.txt" }, code = ["../lib/make.sh"], values = { n = 1 }, pass_env = ["SEEN", "ABSENT"] }

[stage.b]
uses = "command"
inputs = { a = "a" }
params = { run = ["cp", "{in.a}/x.txt", "{out.x}"], outputs = { x = "y.txt" } }

[stage.other]
uses = "command"
params = { run = ["false"] }
"#;

const TOP: &str = r#"base = "base/base.toml"
[pipeline]
name = "top"
description = "Two commands"
[profile.twice.set]
"stage.a.params.values.n" = 2
"#;

const SCRIPT: &str = "echo \"$1 $SEEN ${ABSENT-none}\" > \"$2\"\n";

/// The arguments of all calls: a profile, and a stage that not everything leads to.
const CALL: [&str; 4] = ["p/top.toml", "b", "--profile", "twice"];

fn bench() -> Bench {
    Bench::new().file("p/top.toml", TOP).file("p/base/base.toml", BASE).file("p/lib/make.sh", SCRIPT)
}

fn spdflow(bench: &Bench, command: &str, more: &[&str]) -> crate::support::Outcome {
    let mut command = bench.command(&[&[command][..], &CALL, more].concat());
    command.env("SEEN", "it's").env_remove("ABSENT");
    crate::support::Outcome::of(command.output().expect("the binary starts"))
}

fn run() -> Bench {
    let bench = bench();
    spdflow(&bench, "run", &["--quiet"]).assert(0, "", "");
    bench
}

fn unpacked(bench: &Bench, name: &str) -> (Unpacked, PathBuf) {
    let folder = bench.path().join("unpacked");
    let unpacked = unpack(&bench.path().join(name), &folder).expect("a bundle");
    assert_eq!(unpacked.problems, []);
    (unpacked, folder)
}

#[test]
fn a_bundle_is_made_without_a_change_of_the_cache_and_the_same_each_time() {
    let bench = run();
    let cache = bench.path().join(".spdflow");
    let before = snapshot(&cache);
    let outcome = spdflow(&bench, "bundle", &[]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(masked(&outcome.stdout), "top.twice.spdflow.tar.zst: N results, N files, N B\n");
    let json = spdflow(&bench, "bundle", &["--json", "--output", "other"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    let (first, second) =
        (fs::read(bench.path().join("top.twice.spdflow.tar.zst")), fs::read(bench.path().join("other")));
    let (first, second) = (first.expect("a bundle"), second.expect("a bundle"));
    assert!(first == second, "two bundles of the same results differ");
    assert!(snapshot(&cache) == before, "the cache was changed");
    assert_eq!(document["size_bytes"], first.len());
    assert_eq!(
        (&document["pipeline"], &document["file"], &document["results"]),
        (&"top".into(), &"other".into(), &2.into())
    );
    assert!(fs::read_dir(bench.path()).expect("a folder").count() == 5, "something else was left");
    spdflow(&bench, "bundle", &["--quiet", "-o", "third"]).assert(0, "", "");
}

#[test]
fn a_stranger_makes_the_same_results_with_the_script_alone() {
    let bench = run();
    spdflow(&bench, "bundle", &["--quiet", "-o", "it"]).assert(0, "", "");
    let made = fs::read(bench.path().join("out/top/b/y.txt")).expect("a result");
    assert_eq!(String::from_utf8_lossy(&made), "2 it's none\n");
    for gone in ["p", ".spdflow", "out"] {
        fs::remove_dir_all(bench.path().join(gone)).expect("a folder");
    }
    let (unpacked, folder) = unpacked(&bench, "it");
    assert_eq!(unpacked.pipeline, folder.join("pipeline/top.toml"));
    assert_eq!(fs::read_to_string(folder.join("pipeline/base/base.toml")).expect("the base"), BASE);
    assert_eq!(fs::read_to_string(folder.join("pipeline/lib/make.sh")).expect("the code"), SCRIPT);
    assert_eq!(unpacked.arguments.words(), ["--profile=twice", "--device=cpu", "b"]);
    assert_eq!(unpacked.variables, [("ABSENT".to_owned(), None), ("SEEN".to_owned(), Some("it's".to_owned()))].into());

    let script = |folder: &Path| {
        let mut script = Command::new("sh");
        script.arg(folder.join("repro.sh")).current_dir("/").env("SPDFLOW", env!("CARGO_BIN_EXE_spdflow"));
        let output = script.env("ABSENT", "set").env("SPDFLOW_CACHE", "/no/such").output().expect("a shell");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let syntax = Command::new("sh").arg("-n").arg(folder.join("repro.sh")).output().expect("a shell");
    assert!(syntax.status.success() && syntax.stderr.is_empty());
    let (code, said) = script(&folder);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read(folder.join("repro/out/top/b/y.txt")).expect("a result"), made);
    // In the cache that was unpacked everything is there already.
    let mut plan =
        bench.command(&["plan", "unpacked/pipeline/top.toml", "b", "--profile", "twice", "--cache", "unpacked/cache"]);
    let plan = plan.env("SEEN", "it's").env_remove("ABSENT").output().expect("the binary starts");
    let table = "stage plan fingerprint why\na cached DIGEST its result is not in place\n\
                 b cached DIGEST its result is not in place\n";
    assert_eq!(masked(&String::from_utf8_lossy(&plan.stdout)), table);

    fs::write(folder.join("pipeline/lib/make.sh"), "echo other > \"$2\"\n").expect("the code");
    fs::remove_dir_all(folder.join("repro")).expect("a folder");
    let (code, said) = script(&folder);
    assert_eq!(code, Some(10), "{said}");
    assert!(said.starts_with("error: the pipeline is not what `pipeline.lock` says:\n"), "{said}");
}

#[test]
fn the_text_for_strangers_names_program_files_and_how_to_check_them() {
    let bench = run();
    spdflow(&bench, "bundle", &["--quiet", "-o", "it"]).assert(0, "", "");
    let (unpacked, folder) = unpacked(&bench, "it");
    let text = fs::read_to_string(folder.join("REPRODUCE.md")).expect("the text");
    let shown = bench.run(&["cache", "ls", "--json"]);
    let results: serde_json::Value = serde_json::from_str(&shown.stdout).expect("one JSON document");
    let fingerprint = results["results"][0]["fingerprint"].as_str().expect("a fingerprint");
    let record = unpacked.cache.join("records").join(&fingerprint[..2]).join(format!("{}.json", &fingerprint[2..]));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).expect("a record")).expect("JSON");
    let build = |key: &str| record["build"][key].as_str().expect("a text");
    let program = format!(
        "* program: spdflow {}, commit {}, {} build, by {}, `Cargo.lock` {}\n",
        build("version"),
        build("git_commit"),
        build("profile"),
        build("rustc"),
        build("cargo_lock")
    );
    assert_eq!(text.matches(&program).count(), 1, "{text}");
    assert!(
        text.starts_with("# top: results, and how they were made\n\nTwo commands\n\nThis is a bundle of spdflow: ")
    );
    assert!(text.contains("\nspdflow audit top.spdflow.tar.zst\n") && text.contains(" sh bundle/repro.sh\n"), "{text}");
    for (stage, file) in [("a", "x.txt"), ("b", "y.txt")] {
        let bytes = fs::read(bench.path().join("out/top").join(stage).join(file)).expect("a result");
        let row = format!("\n| {file} | {} | {} |\n", bytes.len(), Sums::of(&bytes).sha256);
        assert!(text.contains(&row), "{text}");
    }
    let run = fs::read_dir(bench.path().join(".spdflow/runs")).expect("runs").next().expect("a run").expect("a run");
    let histories = folder.join("cache/runs").join(run.file_name());
    for file in ["journal.jsonl", "plan.jsonl", "summary.json", "results", "replay.sh", "results.lock"] {
        assert_eq!(fs::read(histories.join(file)).expect(file), fs::read(run.path().join(file)).expect(file));
    }
}

#[test]
fn of_digests_alone_the_bundle_holds_no_result() {
    let bench = run();
    spdflow(&bench, "bundle", &["--quiet", "-o", "it", "--digests-only"]).assert(0, "", "");
    let (unpacked, folder) = unpacked(&bench, "it");
    let bytes = fs::read(bench.path().join("out/top/a/x.txt")).expect("a result");
    let sums = Sums::of(&bytes);
    let left = unpacked.left_out.iter().find(|left| left.blake3 == sums.blake3).expect("the result's digest");
    assert_eq!((&left.sha256, left.size_bytes), (&sums.sha256, sums.size_bytes));
    assert_eq!(fs::read_dir(folder.join("cache/blobs")).expect("a folder").count(), 0);
}

#[test]
fn results_that_are_missing_are_named_and_nothing_is_made() {
    let bench = bench();
    let no_cache = "error: there is no cache in `.spdflow`\n  \
                    hint: name one with `--cache DIR` or `SPDFLOW_CACHE`; `spdflow run` makes it\n";
    spdflow(&bench, "bundle", &[]).assert(2, "", no_cache);
    assert_eq!(fs::read_dir(bench.path()).expect("a folder").count(), 1);
    let bench = run();
    let missing = "error: 2 results are not there:\n         `a` has no result yet\n         \
                   `b` has no result yet: it depends on `a`\n  \
                   hint: make what is missing: `spdflow run p/top.toml`\n";
    // Another value of a variable, another key.
    bench.run(&["bundle", "p/top.toml", "b"]).assert(3, "", missing);
    let one = "error: `a` has no result yet\n  hint: make what is missing: `spdflow run p/top.toml`\n";
    bench.run(&["bundle", "p/top.toml", "a"]).assert(3, "", one);
    let unknown = "error: there is no stage `c`\n  hint: known stages: `a`, `b`, `other`\n";
    bench.run(&["bundle", "p/top.toml", "c"]).assert(2, "", unknown);
}

#[test]
fn a_damaged_record_is_named_and_stays_where_it_is() {
    let bench = run();
    let mut records = Vec::new();
    for head in fs::read_dir(bench.path().join(".spdflow/records")).expect("records") {
        records.extend(
            fs::read_dir(head.expect("a folder").path()).expect("records").map(|entry| entry.expect("one").path()),
        );
    }
    for record in &records {
        let text = fs::read_to_string(record).expect("a record");
        fs::write(record, text.replace("\"interruptions\": 0", "\"interruptions\": 1")).expect("a record");
    }
    let before = snapshot(&bench.path().join(".spdflow"));
    let outcome = spdflow(&bench, "bundle", &[]);
    assert_eq!(outcome.code, Some(7), "{}", outcome.stderr);
    let first = outcome.stderr.lines().nth(1).expect("a line").trim();
    assert!(
        first.starts_with("`a`: its record `") && first.ends_with("cannot be trusted: its bytes do not match its seal"),
        "{first}"
    );
    let hint = "  hint: `spdflow cache verify` puts it aside, then `spdflow run p/top.toml` makes it anew";
    assert_eq!(outcome.stderr.lines().last(), Some(hint));
    assert!(snapshot(&bench.path().join(".spdflow")) == before, "the cache was changed");
}

#[test]
fn a_file_that_is_there_is_replaced_only_if_that_is_asked_for() {
    let bench = run().file("it", "mine");
    let taken = "error: `it` exists already and is not overwritten\n  \
                 hint: choose another name with `--output`, or give `--force`\n";
    spdflow(&bench, "bundle", &["-o", "it"]).assert(2, "", taken);
    assert_eq!(fs::read(bench.path().join("it")).expect("a file"), b"mine");
    spdflow(&bench, "bundle", &["-o", "it", "--force", "-q"]).assert(0, "", "");
    unpacked(&bench, "it");
    let nowhere = spdflow(&bench, "bundle", &["-o", "no/where"]);
    nowhere.assert(2, "", "error: cannot write `no/where`: No such file or directory (os error 2)\n");
}
