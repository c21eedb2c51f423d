//! What makes a stage run again and what does not: situations in which other engines serve a stale result, run too much,
//! or need to be helped. The chain is `a -> b -> c`; each test says which of them ran.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::ledger::{DOUBLE, Ledger};
use crate::support::runs::{eventually, results, signal};

/// Changes a file's bytes and leaves its size and modification time, as `cp -p` and `rsync -t` do.
fn replace_unnoticed(path: &Path, bytes: &str) {
    let before = fs::metadata(path).expect("a file");
    assert_eq!(before.len(), bytes.len() as u64, "the same size");
    fs::write(path, bytes).expect("a file");
    let file = fs::File::options().write(true).open(path).expect("a file");
    file.set_modified(before.modified().expect("a time")).expect("a time");
}

/// Returns where the cache keeps the only blob with these bytes.
fn blob_with(ledger: &Ledger, bytes: &str) -> PathBuf {
    let folders = fs::read_dir(ledger.0.path().join(".spdflow/blobs")).expect("the blobs");
    let mut found = folders
        .flat_map(|folder| fs::read_dir(folder.expect("a folder").path()).expect("a folder"))
        .map(|blob| blob.expect("a blob").path())
        .filter(|blob| fs::read(blob).expect("a blob") == bytes.as_bytes());
    let blob = found.next().expect("a blob with these bytes");
    assert_eq!(found.next(), None);
    blob
}

#[test]
fn commands_run_once_and_then_are_cached() {
    let ledger = Ledger::new();
    assert_eq!(ledger.run(&[]), "abc");
    assert_eq!(ledger.text(), "6\nend\n");
    assert_eq!(ledger.run(&[]), "");
}

#[test]
fn a_touched_file_the_order_of_keys_and_a_comment_change_nothing() {
    let ledger = Ledger::new();
    ledger.run(&["--threads", "1"]);
    fs::write(ledger.0.path().join("double.sh"), DOUBLE).expect("the same bytes");
    ledger.edit(
        "p.toml",
        "code = [\"double.sh\"]\npass_env = [\"LEDGER\"]",
        "# a comment\npass_env = [\"LEDGER\"]\ncode = [\"./double.sh\"]",
    );
    ledger.edit(
        "p.toml",
        "uses = \"command\"\ninputs = { b = \"b\" }",
        "inputs = { b = \"b\" }\nuses = \"command\"\nretries = 3\ntimeout = \"1h\"",
    );
    assert_eq!(ledger.run(&["--threads", "2", "--jobs", "2"]), "");
}

#[test]
fn a_stage_that_makes_the_same_bytes_stops_the_cascade() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    assert_eq!(ledger.run(&["--set", "stage.a.params.values.number=33"]), "a", "33 and 23 leave the same remainder");
    assert_eq!(ledger.run(&["--force=a"]), "a");
}

#[test]
fn going_back_to_an_earlier_parameter_restores_its_results() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    assert_eq!(ledger.run(&["--set", "stage.a.params.values.number=24"]), "abc");
    assert_eq!(ledger.text(), "8\nend\n");
    assert_eq!(ledger.run(&[]), "");
    assert_eq!(ledger.text(), "6\nend\n");
}

#[test]
fn an_edited_result_is_restored() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    let result = ledger.0.path().join("out/p/b/number.txt");
    fs::write(&result, "seven\n").expect("a result");
    assert_eq!(ledger.run(&[]), "");
    assert_eq!(fs::read_to_string(&result).expect("a result"), "6\n");
}

#[test]
fn an_edited_result_of_the_same_size_and_time_is_restored() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    let result = ledger.0.path().join("out/p/b/number.txt");
    replace_unnoticed(&result, "7\n");
    assert_eq!(ledger.run(&[]), "");
    assert_eq!(fs::read_to_string(&result).expect("a result"), "6\n");
}

#[test]
fn edited_code_of_the_same_size_and_time_runs_its_stage() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    replace_unnoticed(&ledger.0.path().join("double.sh"), &DOUBLE.replace("2 * n", "3 * n"));
    assert_eq!(ledger.run(&[]), "bc");
    assert_eq!(ledger.text(), "9\nend\n");
}

#[test]
fn a_stage_that_failed_half_way_runs_again_and_nothing_of_it_is_used() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    ledger.edit("double.sh", "echo $((2 * n)) > \"$2\"", "echo half > \"$2\"; [ -e fixed ] || exit 3");
    assert_eq!(ledger.try_run(&[]), (Some(4), "b".to_owned()));
    assert_eq!(ledger.try_run(&[]), (Some(4), "b".to_owned()), "it is not up to date");
    assert_eq!(ledger.text(), "6\nend\n", "the last whole result stays");
    ledger.edit("double.sh", "[ -e fixed ] || exit 3", "true");
    assert_eq!(ledger.run(&[]), "bc");
    assert_eq!(ledger.text(), "half\nend\n");
}

#[test]
fn after_a_kill_the_next_run_goes_on_and_nobody_has_to_unlock() {
    let ledger = Ledger::new();
    let gate = ledger.0.path().join("gate");
    let wait = format!("echo half > \"$2\"; while [ ! -e {} ]; do sleep 0.01; done; echo $((2 * n))", gate.display());
    ledger.edit("double.sh", "echo $((2 * n))", &wait);
    let mut child = ledger.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("b to run", || (ledger.ran() == "ab").then_some(()));
    signal(&child, "-KILL");
    child.wait().expect("a child of ours");
    assert!(!ledger.0.path().join("out/p/b").exists(), "nothing partial is visible");
    fs::write(&gate, "").expect("a gate");
    assert_eq!(ledger.run(&[]), "bc");
    assert_eq!(ledger.text(), "6\nend\n");
}

#[test]
fn deleted_results_are_restored() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    let before = results(&ledger.0);
    fs::remove_dir_all(ledger.0.path().join("out")).expect("results");
    assert_eq!(ledger.run(&[]), "");
    assert_eq!(results(&ledger.0), before);
}

#[test]
fn an_undeclared_variable_changes_nothing() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    fs::write(ledger.0.path().join("ledger"), "").expect("the ledger");
    let status = ledger.command(&[]).env("UNDECLARED", "1").status().expect("the binary starts");
    assert_eq!((status.code(), ledger.ran()), (Some(0), String::new()));
}

#[test]
fn a_comment_in_code_runs_its_stage_and_nothing_else() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    ledger.edit("double.sh", "read", "# twice as much\nread");
    assert_eq!(ledger.run(&[]), "b");
}

#[test]
fn a_damaged_blob_is_found_when_it_is_needed_and_made_again() {
    for keep_time in [false, true] {
        let ledger = Ledger::new();
        ledger.run(&[]);
        let blob = blob_with(&ledger, "6\nend\n");
        let mut permissions = fs::metadata(&blob).expect("a blob").permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
        permissions.set_readonly(false);
        fs::set_permissions(&blob, permissions).expect("a blob");
        if keep_time {
            replace_unnoticed(&blob, "9\nend\n");
        } else {
            fs::write(&blob, "9\nend\n").expect("a blob");
        }
        fs::remove_dir_all(ledger.0.path().join("out")).expect("results");
        assert_eq!(ledger.run(&[]), "c");
        assert_eq!(ledger.text(), "6\nend\n");
        let quarantine = fs::read_dir(ledger.0.path().join(".spdflow/quarantine")).expect("the quarantine");
        assert_eq!(quarantine.count(), 1, "the damaged file is kept as evidence");
    }
}

#[test]
fn an_edited_result_never_reaches_the_cache_through_a_consumer() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    replace_unnoticed(&ledger.0.path().join("out/p/b/number.txt"), "7\n");
    ledger.edit("p.toml", "echo end", "echo END");
    assert_eq!(ledger.run(&[]), "c");
    assert_eq!(ledger.text(), "6\nEND\n");
    fs::remove_dir_all(ledger.0.path().join("out")).expect("results");
    assert_eq!(ledger.run(&[]), "");
    assert_eq!(ledger.text(), "6\nEND\n", "what the cache holds is clean");
}

#[test]
fn swapped_arguments_run_the_stage() {
    let ledger = Ledger::new();
    ledger.edit("p.toml", r#"["sh", "-c", "echo c"#, r#"["sh", "-c", "echo $0 $1 >&2; echo c"#);
    ledger.edit("p.toml", r#"echo end) > {out.text}"]"#, r#"echo $0 $1) > {out.text}", "alpha", "beta"]"#);
    ledger.run(&[]);
    assert_eq!(ledger.text(), "6\nalpha beta\n");
    ledger.edit("p.toml", r#""alpha", "beta""#, r#""beta", "alpha""#);
    assert_eq!(ledger.run(&[]), "c");
    assert_eq!(ledger.text(), "6\nbeta alpha\n");
}

#[test]
fn eight_runs_at_once_execute_every_command_once() {
    let ledger = Ledger::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(ledger.command(&[]).status().expect("it starts").code(), Some(0)));
        }
    });
    assert_eq!(ledger.ran(), "abc");
    assert_eq!(ledger.text(), "6\nend\n");
}

#[test]
fn a_plan_says_that_what_follows_a_change_may_run() {
    let ledger = Ledger::new();
    ledger.run(&[]);
    ledger.edit("double.sh", "2 * n", "3 * n");
    let mut command = ledger.0.command(&["run", "p.toml", "--dry-run", "--json"]);
    let output = command.env("LEDGER", ledger.0.path().join("ledger")).output().expect("the binary starts");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let words: Vec<_> = plan["stages"].as_array().expect("stages").iter().map(|stage| &stage["plan"]).collect();
    assert_eq!(words, ["fresh", "run", "maybe"]);
}

#[test]
fn a_figure_is_drawn_anew_when_what_it_calls_its_inputs_changes_and_not_when_a_stage_is_renamed() {
    let figures = "\n[stage.figures]\nuses = \"plot\"\ninputs = { decompositions = { from = \"decompose\", over = [\"seed\"] } }\n";
    let text = crate::support::runs::PIPELINE.to_owned() + figures;
    let bench = crate::support::Bench::new().file("small.toml", &text);
    let run = |text: &str| {
        fs::write(bench.path().join("small.toml"), text).expect("the pipeline");
        let outcome = bench.run(&["run", "small.toml", "-v"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let row = outcome.stdout.lines().find(|line| line.starts_with("figures ")).expect("the figures").to_owned();
        let shown = fs::read_to_string(bench.path().join("out/small/figures/summary.json")).expect("the summary");
        (row.contains(" ran "), shown)
    };
    let (ran, first) = run(&text);
    assert!(ran && first.contains("\"seed = 1\""), "{first}");
    let renamed = text
        .replace("decompose]", "split]")
        .replace("stage.decompose.", "stage.split.")
        .replace("\"decompose\"", "\"split\"");
    assert!(renamed.contains("[stage.split]"));
    assert_eq!(run(&renamed), (false, first));
    // The same decompositions on an axis of another name.
    let other = text
        .replace("seed = [0, 1]", "draw = [0, 1]")
        .replace("matrix = [\"seed\"]", "matrix = [\"draw\"]")
        .replace("${seed}", "${draw}")
        .replace("over = [\"seed\"]", "over = [\"draw\"]");
    let (ran, shown) = run(&other);
    assert!(ran && shown.contains("\"draw = 1\""), "{shown}");
}
