//! `spdflow log`: one stage and many, finished, failed and running ones, and those of an earlier run.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::support::Bench;

/// A chain of two talkative stages, one that says nothing, and one that fails.
const PIPELINE: &str = r#"[stage.a]
uses = "command"
params = { run = ["sh", "-c", "echo one; echo two >&2; echo > {out.x}"], outputs = { x = "x" } }

[stage.b]
uses = "command"
inputs = { a = "a" }
params = { run = ["sh", "-c", "printf three; echo > {out.x}"], outputs = { x = "x" } }

[stage.c]
uses = "command"
params = { run = ["sh", "-c", "echo > {out.x}"], outputs = { x = "x" } }

[stage.d]
uses = "command"
params = { run = ["sh", "-c", "echo four; exit 3"] }
"#;

fn bench() -> Bench {
    Bench::new().file("p.toml", PIPELINE)
}

/// Returns the id of the only run.
fn only_run(bench: &Bench) -> String {
    let mut runs = fs::read_dir(bench.path().join(".spdflow/runs")).expect("a cache");
    let run = runs.next().expect("a run").expect("a run");
    assert!(runs.next().is_none());
    run.file_name().into_string().expect("a name in UTF-8")
}

#[test]
fn logs_of_many_stages_are_printed_behind_their_names() {
    let bench = bench();
    assert_eq!(bench.run(&["run", "p.toml", "a", "b", "c", "--quiet"]).code, Some(0));
    bench.run(&["log", "p.toml"]).assert(0, "a: one\na: two\nb: three\n", "warning: without a log: `d`\n");
    bench.run(&["log", "p.toml", "a", "b"]).assert(0, "a: one\na: two\nb: three\n", "");
    bench.run(&["log", "p.toml", "a"]).assert(0, "one\ntwo\n", "");
    bench.run(&["log", "p.toml", "c"]).assert(0, "", "warning: stage `c` wrote nothing to its log\n");
    assert_eq!(bench.run(&["run", "p.toml", "d", "--quiet"]).code, Some(4));
    let failed = bench.run(&["log", "p.toml", "d"]);
    assert!(failed.stdout.starts_with("four\nerror: `sh` ended with exit status 3\n"), "{}", failed.stdout);
    let json = bench.run(&["log", "p.toml", "a", "c", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    let logs: Vec<_> = document["stages"].as_array().expect("a list").iter().map(|stage| &stage["log"]).collect();
    assert_eq!(logs, ["one\ntwo\n", ""]);
}

#[test]
fn without_any_log_there_is_one_message() {
    let bench = bench();
    let none = "error: none of 4 stages has a log yet\n  hint: `spdflow run` writes one\n";
    bench.run(&["log", "p.toml"]).assert(2, "", none);
    bench.run(&["log", "p.toml", "--follow"]).assert(2, "", none);
    let one = "error: stage `a` has no log: no earlier result\n  hint: `spdflow run` writes one\n";
    bench.run(&["log", "p.toml", "a"]).assert(2, "", one);
    bench.run(&["log", "p.toml", "a", "--follow"]).assert(2, "", one);
    let unknown = "error: stage `b` has no log yet: it depends on what `a` makes\n";
    bench.run(&["log", "p.toml", "b"]).assert(2, "", unknown);
}

#[test]
fn the_logs_of_an_earlier_run_are_found_by_its_id() {
    let bench = bench();
    assert_eq!(bench.run(&["run", "p.toml", "b", "--quiet"]).code, Some(0));
    let run = only_run(&bench);
    let changed = PIPELINE.replace("echo one", "echo other");
    let bench = bench.file("p.toml", changed);
    assert_eq!(bench.run(&["run", "p.toml", "b", "--quiet"]).code, Some(0));
    bench.run(&["log", "p.toml", "a"]).assert(0, "other\ntwo\n", "");
    bench.run(&["log", "p.toml", "a", "--run", &run]).assert(0, "one\ntwo\n", "");
    let rest = "warning: without a log: `c`, `d`\n";
    bench.run(&["log", "p.toml", "--run", &run]).assert(0, "a: one\na: two\nb: three\n", rest);
    let other = format!("error: stage `c` has no log yet: it did not run in run `{run}`\n");
    bench.run(&["log", "p.toml", "c", "--run", &run]).assert(2, "", &other);
    let unknown = "error: the cache has no run `yesterday`\n  hint: `spdflow cache ls --runs` lists them\n";
    bench.run(&["log", "p.toml", "--run", "yesterday"]).assert(2, "", unknown);
}

#[test]
fn many_stages_are_followed_from_before_they_start_until_all_have_ended() {
    let bench = Bench::new();
    let folder = bench.path().to_owned();
    let gate = |name: &str| folder.join(name).display().to_string();
    let wait = |name: &str| format!("until [ -e '{}' ]; do sleep 0.02; done", gate(name));
    let stage = |name: &str, inputs: &str, script: &str| {
        format!(
            "[stage.{name}]\nuses = \"command\"\n{inputs}params = {{ run = [\"sh\", \"-c\", \"{script}\"], outputs = \
             {{ x = \"x\" }} }}\n"
        )
    };
    let first = format!("echo begin; {}; echo end; echo > {{out.x}}", wait("first"));
    let second = format!("printf half; {}; echo .; echo > {{out.x}}", wait("second"));
    let pipeline = stage("a", "", &first)
        + &stage("b", "inputs = { a = \"a\" }\n", &second)
        + &stage("c", "inputs = { b = \"b\" }\n", "exit 3");
    let bench = bench.file("p.toml", pipeline);
    let mut run = bench.command(&["run", "p.toml", "--quiet", "--jobs", "2"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let begun = || {
        let runs = fs::read_dir(bench.path().join(".spdflow/runs")).into_iter().flatten().flatten();
        let journal = |run: fs::DirEntry| fs::read_to_string(run.path().join("journal.jsonl")).unwrap_or_default();
        runs.map(journal).any(|journal| journal.contains("\"started\""))
    };
    while !begun() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut follow = bench.command(&["log", "p.toml", "--follow"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("a line in UTF-8");
    assert_eq!(next(), "a: begin");
    fs::write(gate("first"), "").expect("a gate");
    assert_eq!(next(), "a: end");
    fs::write(gate("second"), "").expect("a gate");
    assert_eq!(next(), "b: half.", "a line is printed when it is whole");
    assert_eq!(next(), "c: error: `sh` ended with exit status 3");
    assert_eq!(run.wait().expect("an end").code(), Some(4));
    let rest: Vec<_> = lines.map(|line| line.expect("a line in UTF-8")).collect();
    assert!(rest.iter().all(|line| line.starts_with("c: hint: ")), "{rest:?}");
    assert_eq!(follow.wait().expect("an end").code(), Some(0));
    let mut said = String::new();
    follow.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
}
