//! A small pipeline of real kinds, and what the tests of its runs share.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Bench;

/// A model trained for a moment and taken apart at two seeds.
pub(crate) const PIPELINE: &str = r#"
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

/// Returns a folder with [`PIPELINE`] in `small.toml`.
pub(crate) fn bench() -> Bench {
    Bench::new().file("small.toml", PIPELINE)
}

/// Long enough to be stopped in the middle, also by a signal that a busy machine delivers late.
pub(crate) fn long_bench() -> Bench {
    Bench::new().file("small.toml", PIPELINE.replace("steps = 20\n", "steps = 6000\n"))
}

/// Returns every file below `out/` with its bytes.
pub(crate) fn results(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
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
pub(crate) fn events(bench: &Bench, more: &[&str]) -> Vec<serde_json::Value> {
    let outcome = bench.run(&[&["run", "small.toml", "--json"], more].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Returns `instance outcome` of every finished instance, sorted.
pub(crate) fn outcomes(events: &[serde_json::Value]) -> Vec<String> {
    let finished = events.iter().filter(|event| event["event"] == "finished");
    let mut lines: Vec<_> = finished
        .map(|event| format!("{} {}", event["instance"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

/// Starts a run and returns it as soon as `instance` has told of a step.
pub(crate) fn start_until_step(bench: &Bench, instance: &str, more: &[&str]) -> Child {
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

/// Returns what `look` finds, as soon as it finds something; it has a minute.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Returns where the cache keeps the bytes of a file of an instance.
pub(crate) fn blob_of(bench: &Bench, events: &[serde_json::Value], instance: &str, file: &str) -> PathBuf {
    let finished = events.iter().find(|event| event["event"] == "finished" && event["instance"] == instance).unwrap();
    let place =
        |folder: &str, digest: &str| bench.path().join(".spdflow").join(folder).join(&digest[..2]).join(&digest[2..]);
    let path = place("records", finished["fingerprint"].as_str().unwrap()).with_extension("json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let outputs = record["artifact"]["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|output| output["path"] == file).unwrap();
    place("blobs", output["digest"].as_str().unwrap())
}
