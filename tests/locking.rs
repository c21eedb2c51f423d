//! Lock files, as a user keeps them beside a paper.

use std::fs;

use crate::support::Bench;
use crate::support::runs::{bench, events};

fn locked() -> Bench {
    let bench = bench();
    events(&bench, &[]);
    bench.run(&["lock", "small.toml"]).assert(0, "small.lock: 3 stages locked\n", "");
    bench
}

#[test]
fn a_pipeline_with_all_its_results_is_locked_and_stays_so() {
    let bench = bench();
    let nothing = "error: `target` has no result yet, so there is nothing to lock\n  \
                   hint: make it: `spdflow run small.toml`\n";
    bench.run(&["lock", "small.toml"]).assert(3, "", nothing);
    assert!(!bench.path().join("small.lock").exists());
    let bench = locked();
    bench.run(&["lock", "small.toml"]).assert(0, "small.lock: 3 stages unchanged\n", "");
    bench.run(&["lock", "small.toml", "--check"]).assert(0, "small.lock: as locked\n", "");
    assert_eq!(bench.run(&["run", "small.toml", "--locked", "--quiet"]).code, Some(0));
}

#[test]
fn a_locked_run_makes_the_same_results_in_another_cache_and_nothing_else() {
    let bench = locked();
    let elsewhere = ["--cache", "other", "--out", "elsewhere", "--threads", "1"];
    let run = bench.run(&[&["run", "small.toml", "--locked", "--quiet"][..], &elsewhere].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let file = "small/decompose/seed=1/components.safetensors";
    let (ours, theirs) = (bench.path().join("out").join(file), bench.path().join("elsewhere").join(file));
    assert_eq!(fs::read(ours).unwrap(), fs::read(theirs).unwrap());

    let edited = ["--set", "stage.decompose.params.steps=21", "--cache", "third", "--out", "third-out"];
    let drifted = bench.run(&[&["run", "small.toml", "--locked"][..], &edited].concat());
    assert_eq!(drifted.code, Some(10), "{}", drifted.stderr);
    assert!(drifted.stderr.contains("error: `decompose[seed=0]` has the key "), "{}", drifted.stderr);
    assert!(drifted.stderr.contains("the lock file says "), "{}", drifted.stderr);
    assert!(!bench.path().join("third-out/small/decompose").exists());
    let known = bench.run(&[&["run", "small.toml", "--locked"][..], &edited[..2]].concat());
    assert_eq!(known.code, Some(10));
    let first = "error: the pipeline is not what `small.lock` says:\n         `decompose[seed=0]` has the key ";
    assert!(known.stderr.starts_with(first), "{}", known.stderr);
}

#[test]
fn other_bytes_than_the_locked_ones_are_refused_before_they_are_kept() {
    let bench = locked();
    let text = fs::read_to_string(bench.path().join("small.lock")).unwrap();
    let line = text.lines().find(|line| line.starts_with("\"target\"")).expect("the target's line");
    let artifact = line.split("artifact = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a digest");
    let wrong = format!("{}{}", if artifact.starts_with('0') { '1' } else { '0' }, &artifact[1..]);
    fs::write(bench.path().join("small.lock"), text.replace(artifact, &wrong)).unwrap();
    let elsewhere = ["--cache", "other", "--out", "elsewhere"];
    let run = bench.run(&[&["run", "small.toml", "target", "--locked"][..], &elsewhere].concat());
    assert_eq!(run.code, Some(10), "{}", run.stderr);
    assert!(run.stderr.contains("error: `target` made other bytes: artifact "), "{}", run.stderr);
    assert!(!bench.path().join("elsewhere/small/target").exists());
    let status = bench.run(&[&["status", "small.toml", "target"][..], &elsewhere].concat());
    assert!(status.stdout.contains("1 run"), "the cache has no such result: {}", status.stdout);
}

#[test]
fn a_lock_file_that_is_missing_or_broken_is_an_error_that_names_it() {
    let bench = bench();
    let missing = "error: there is no lock file `small.lock`\n  \
                   hint: `spdflow lock` writes it when the pipeline has all its results\n";
    bench.run(&["run", "small.toml", "--locked"]).assert(2, "", missing);
    fs::write(bench.path().join("small.lock"), "version = 1\n<<<<<<< HEAD\n").unwrap();
    let broken = bench.run(&["lock", "small.toml", "--check"]);
    assert_eq!(broken.code, Some(2));
    assert!(broken.stderr.starts_with("error: `small.lock`: this is no lock file: line 2: "), "{}", broken.stderr);
}
