//! Real runs of the binary: reuse, interruption, damage, company, and how a run ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Bench, Outcome};

/// A model trained for a moment and taken apart at two seeds.
const PIPELINE: &str = r#"
[pipeline]
name = "small"

[axes]
seed = [0, 1]

[stage.target]
uses = "train.tms"
params = { n_features = 5, n_hidden = 2, feature_probability = 0.05, steps = 50, restarts = 1, seed = 0 }

[stage.decompose]
uses = "decompose.spd"
inputs = { target = "target" }
matrix = ["seed"]
[stage.decompose.params]
seed = "${seed}"
steps = 20
batch_size = 64
lr = { start = 1e-3 }
sites = [{ pattern = "linear1", C = 4 }, { pattern = "linear2", C = 4 }]
causal_importance = { kind = "mlp", hidden = [4] }
losses = [{ kind = "importance_minimality", coeff = 3e-3, p = 1.0 }, { kind = "stochastic_recon", coeff = 1.0 }]
"#;

fn bench() -> Bench {
    Bench::new().file("small.toml", PIPELINE)
}

/// Long enough to be stopped in the middle.
fn long_bench() -> Bench {
    Bench::new().file("small.toml", PIPELINE.replace("steps = 20\n", "steps = 1500\n"))
}

/// Returns every file below `out/` with its bytes.
fn results(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = bench.path().join("out");
    let mut files = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(&root).expect("below").to_owned(), fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

/// Runs with `--json` and returns the events.
fn events(bench: &Bench, more: &[&str]) -> Vec<serde_json::Value> {
    let outcome = bench.run(&[&["run", "small.toml", "--json"], more].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Returns `instance outcome` of every finished instance, sorted.
fn outcomes(events: &[serde_json::Value]) -> Vec<String> {
    let finished = events.iter().filter(|event| event["event"] == "finished");
    let mut lines: Vec<_> = finished
        .map(|event| format!("{} {}", event["instance"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

/// Starts a run and returns it as soon as `instance` has told of a step.
fn start_until_step(bench: &Bench, instance: &str, more: &[&str]) -> Child {
    let arguments = [&["run", "small.toml", "--json"], more].concat();
    let mut child = bench.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines.by_ref().map_while(Result::ok).any(|line| {
        let event: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        event["event"] == "progress" && event["instance"] == instance && event["step"].as_u64() > Some(0)
    });
    assert!(reached, "`{instance}` never told of a step");
    // The pipe has to be read, or the run would wait for us.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn undisturbed_long_results() -> BTreeMap<PathBuf, Vec<u8>> {
    let bench = long_bench();
    assert_eq!(bench.run(&["run", "small.toml", "-q"]).code, Some(0));
    results(&bench)
}

#[test]
fn a_second_run_says_that_everything_is_cached() {
    let bench = bench();
    let first = events(&bench, &[]);
    assert_eq!(outcomes(&first), ["decompose[seed=0] ran", "decompose[seed=1] ran", "target ran"]);
    assert_eq!(first.first().unwrap()["event"], "run_started");
    assert_eq!(first.last().unwrap()["event"], "run_finished");
    assert_eq!(first.last().unwrap()["status"], "done");
    let before = results(&bench);
    assert!(before.contains_key(Path::new("small/decompose/seed=0/components.safetensors")));

    let second = bench.run(&["run", "small.toml"]);
    assert_eq!(second.code, Some(0));
    assert!(second.stderr.starts_with("    Finished 3 stages in "), "{}", second.stderr);
    assert!(second.stderr.ends_with(": everything is cached\n"), "{}", second.stderr);
    assert_eq!(results(&bench), before);
    bench.run(&["run", "small.toml", "--quiet"]).assert(0, "", "");
    bench.run(&["status", "small.toml", "--exit-code"]).assert(0, "small: 3 fresh\n", "");
}

#[test]
fn an_edited_parameter_runs_its_stage_and_a_reverted_one_nothing() {
    let bench = bench();
    events(&bench, &[]);
    let edit = ["--set", "stage.decompose.params.steps=21"];
    let expected = "\
small: 1 fresh, 2 run
  run     decompose[seed=0]: parameters, inputs or version changed
  run     decompose[seed=1]: parameters, inputs or version changed
";
    bench.run(&[&["status", "small.toml", "--exit-code"][..], &edit].concat()).assert(3, expected, "");
    let edited = events(&bench, &edit);
    assert_eq!(outcomes(&edited), ["decompose[seed=0] ran", "decompose[seed=1] ran", "target cached"]);
    let reverted = events(&bench, &[]);
    assert_eq!(outcomes(&reverted), ["decompose[seed=0] cached", "decompose[seed=1] cached", "target cached"]);
}

#[test]
fn a_comment_and_a_spelled_out_default_change_nothing() {
    let bench = bench();
    events(&bench, &[]);
    let text =
        PIPELINE.replace("steps = 20\n", "# twenty are enough\nuse_delta_component = true\nsteps = 20 # really\n");
    fs::write(bench.path().join("small.toml"), text).unwrap();
    bench.run(&["status", "small.toml"]).assert(0, "small: 3 fresh\n", "");
}

#[test]
fn a_dry_run_changes_nothing() {
    let bench = bench();
    let outcome = bench.run(&["run", "small.toml", "--dry-run"]);
    let fingerprint = outcome.stdout.lines().nth(1).unwrap().split_whitespace().nth(2).unwrap().to_owned();
    let expected = format!(
        "\
stage              plan   fingerprint   why
target             run    {fingerprint}  no earlier result
decompose[seed=0]  maybe                depends on what `target` makes
decompose[seed=1]  maybe                depends on what `target` makes
"
    );
    outcome.assert(0, &expected, "");
    assert!(!bench.path().join("out").exists());
}

#[test]
fn forcing_a_stage_gives_the_same_bytes_and_stops_there() {
    let bench = bench();
    events(&bench, &[]);
    let before = results(&bench);
    let forced = events(&bench, &["--force=target"]);
    assert_eq!(outcomes(&forced), ["decompose[seed=0] cutoff", "decompose[seed=1] cutoff", "target ran"]);
    assert!(forced.iter().all(|event| event["event"] != "warning"));
    assert_eq!(results(&bench), before);
}

#[test]
fn ctrl_c_saves_the_state_and_the_next_run_gives_the_same_bytes() {
    let bench = long_bench();
    let mut child = start_until_step(&bench, "decompose[seed=0]", &[]);
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(outcomes(&events(&bench, &[])), ["decompose[seed=0] resumed", "decompose[seed=1] ran", "target cached"]);
    assert_eq!(results(&bench), undisturbed_long_results());
}

#[test]
fn a_termination_signal_ends_with_143() {
    let bench = long_bench();
    let mut child = start_until_step(&bench, "decompose[seed=0]", &[]);
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_killed_run_goes_on_from_its_checkpoint_and_gives_the_same_bytes() {
    let bench = long_bench();
    let mut child = start_until_step(&bench, "decompose[seed=0]", &["--checkpoint-seconds", "0"]);
    signal(&child, "-KILL");
    assert_eq!(child.wait().unwrap().code(), None);
    assert!(!bench.path().join("out/small/decompose").exists(), "nothing partial is visible");
    let outcomes = outcomes(&events(&bench, &[]));
    assert_eq!(outcomes, ["decompose[seed=0] resumed", "decompose[seed=1] ran", "target cached"]);
    assert_eq!(results(&bench), undisturbed_long_results());
}

#[test]
fn neither_threads_nor_jobs_reach_the_bytes() {
    let (one, two) = (bench(), bench());
    events(&one, &["--threads", "1"]);
    events(&two, &["--threads", "2", "--jobs", "2"]);
    assert_eq!(results(&one), results(&two));
}

#[test]
fn two_runs_at_once_compute_every_stage_once() {
    let bench = bench();
    let both = std::thread::scope(|scope| {
        let runs = [0, 1].map(|_| scope.spawn(|| events(&bench, &[])));
        runs.map(|run| run.join().unwrap())
    });
    let mut started: Vec<_> = both
        .iter()
        .flatten()
        .filter(|event| event["event"] == "started")
        .map(|event| event["instance"].as_str().unwrap().to_owned())
        .collect();
    started.sort();
    assert_eq!(started, ["decompose[seed=0]", "decompose[seed=1]", "target"]);
}

#[test]
fn a_damaged_blob_is_reported_and_computed_again() {
    let bench = bench();
    let first = events(&bench, &[]);
    let before = results(&bench);
    let blob = blob_of(&bench, &first, "decompose[seed=1]", "components.safetensors");
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    fs::remove_dir_all(bench.path().join("out")).unwrap();
    let outcome = bench.run(&["run", "small.toml"]);
    assert_eq!(outcome.code, Some(0));
    let warning = outcome.stderr.lines().find(|line| line.starts_with("warning")).expect("a warning");
    let start =
        "warning: `decompose[seed=1]`: file `components.safetensors` is damaged in the cache; it was moved to `";
    assert!(warning.starts_with(start), "{warning}");
    assert_eq!(results(&bench), before);
}

#[test]
fn an_edited_result_is_restored() {
    let bench = bench();
    events(&bench, &[]);
    let before = results(&bench);
    fs::write(bench.path().join("out/small/target/target.json"), "{}").unwrap();
    let outcome = bench.run(&["run", "small.toml", "-q"]);
    outcome.assert(0, "", "");
    assert_eq!(results(&bench), before);
}

fn blob_of(bench: &Bench, events: &[serde_json::Value], instance: &str, file: &str) -> PathBuf {
    let finished = events.iter().find(|event| event["event"] == "finished" && event["instance"] == instance).unwrap();
    let place =
        |folder: &str, digest: &str| bench.path().join(".spdflow").join(folder).join(&digest[..2]).join(&digest[2..]);
    let path = place("records", finished["fingerprint"].as_str().unwrap()).with_extension("json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let outputs = record["artifact"]["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|output| output["path"] == file).unwrap();
    place("blobs", output["digest"].as_str().unwrap())
}

#[test]
fn a_cache_that_cannot_be_used_is_named() {
    let bench = bench().file("file", "x").file("foreign/thesis.tex", "x").file("newer/VERSION", "spdflow-cache 9\n");
    let hint = "  hint: name an empty or new folder with `--cache DIR` or `SPDFLOW_CACHE`\n";
    let run = |cache: &str| bench.run(&["run", "small.toml", "--cache", cache]);
    run("file").assert(7, "", &format!("error: the cache `file` is not a folder\n{hint}"));
    let folder = |name: &str| bench.path().join(name).canonicalize().unwrap().display().to_string();
    let foreign = format!(
        "error: the folder `{}` is not a spdflow cache: it holds `thesis.tex` but no `VERSION`\n{hint}",
        folder("foreign")
    );
    run("foreign").assert(7, "", &foreign);
    let newer = format!(
        "error: the cache `{}` has format 9, but this spdflow reads format 1\n  hint: use a newer spdflow, or another \
         cache with `--cache DIR`\n",
        folder("newer")
    );
    run("newer").assert(7, "", &newer);
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let bench = bench();
    assert_eq!(bench.run(&["run", "small.toml", "target", "-q"]).code, Some(0));
    // A limit on the size of files acts like a full disk: every larger write fails.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" run small.toml -q";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_spdflow")]).current_dir(bench.path());
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert!(stderr.starts_with("error: no space left while trying to write `"), "{stderr}");
    let hint = "  hint: free some space and run again: finished stages and checkpoints are kept\n";
    assert!(stderr.ends_with(hint), "{stderr}");
    assert_eq!(outcomes(&events(&bench, &[]))[2], "target cached");
}

#[test]
fn a_users_folder_in_the_place_of_a_result_is_not_touched() {
    let bench = bench().file("out/small/target/thesis.tex", "x");
    let outcome = bench.run(&["run", "small.toml", "-q"]);
    let expected = "error: the result of `target` belongs at `out/small/target`, but something that spdflow did not \
                    make is there\n  hint: move it away, or choose another folder with `--out DIR`\n";
    outcome.assert(2, "", expected);
    assert_eq!(fs::read_to_string(bench.path().join("out/small/target/thesis.tex")).unwrap(), "x");
}

#[test]
fn the_log_of_a_stage_is_kept() {
    let bench = bench();
    events(&bench, &[]);
    let log = |stage: &str| -> Outcome { bench.run(&["log", "small.toml", stage]) };
    assert_eq!(log("target").code, Some(0));
    log("decompose").assert(
        2,
        "",
        "error: `decompose` means 2 stages, but a log belongs to one\n  hint: name one of them: `decompose[seed=0]`\n",
    );
}
