//! What stops a run that was planned well: stages that fail, caches and disks that cannot be used, and company.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::runs::{bench, blob_of, events, outcomes, results};
use crate::support::{Bench, masked};

/// A stage that cannot be done, one that needs it, and one that does not.
const FAILING: &str = r#"
[stage.target]
uses = "train.tms"
params = { n_features = 5, n_hidden = 2, steps = 1, restarts = 1 }

[stage.decompose]
uses = "decompose.spd"
inputs = { target = "target" }
[stage.decompose.params]
steps = 10
batch_size = 4
lr = { start = 1e-3 }
sites = [{ pattern = "linear3", C = 3 }]
losses = [{ kind = "faithfulness", coeff = 1.0 }]

[stage.clusters]
uses = "cluster.kmeans"
inputs = { decomposition = "decompose" }
params = { n_clusters = 5 }

[stage.other]
uses = "train.tms"
params = { n_features = 4, n_hidden = 2, steps = 1, restarts = 1 }
"#;

#[test]
fn a_site_pattern_that_matches_nothing_fails_its_stage() {
    let bench = Bench::new().file("p.toml", FAILING);
    let outcome = bench.run(&["run", "p.toml"]);
    let stdout = "\
stage outcome time result artifact
target ran N s loss N DIGEST
decompose failed
clusters skipped
other skipped
";
    let stderr = "\
Running target (no earlier result)
Ran target in N s, loss N
Running decompose (no earlier result)
error: stage `decompose` failed: `sites[0]`: pattern `linear3` matches no module; the target has `linear1`, `linear2`
hint: a pattern matches whole names; `*` crosses dots
Failed N stages in N s: N ran, N failed, N skipped
";
    assert_eq!((outcome.code, &*masked(&outcome.stdout), &*masked(&outcome.stderr)), (Some(4), stdout, stderr));

    // What failed leaves its reason where a user looks for it.
    let log = "\
error: `sites[0]`: pattern `linear3` matches no module; the target has `linear1`, `linear2`
hint: a pattern matches whole names; `*` crosses dots
";
    bench.run(&["log", "p.toml", "decompose"]).assert(0, log, "");
    bench.run(&["run", "p.toml", "--quiet", "target"]).assert(0, "", "");
    let quiet = "\
error: stage `decompose` failed: `sites[0]`: pattern `linear3` matches no module; the target has `linear1`, `linear2`
  hint: a pattern matches whole names; `*` crosses dots
";
    bench.run(&["run", "p.toml", "--quiet"]).assert(4, "", quiet);
    bench.run(&["run", "p.toml", "--quiet", "--keep-going"]).assert(5, "", quiet);
    bench.run(&["run", "p.toml", "--quiet", "other"]).assert(0, "", "");
}

#[test]
fn a_stage_that_fails_is_an_event() {
    let bench = Bench::new().file("p.toml", FAILING);
    let outcome = bench.run(&["run", "p.toml", "--json", "--keep-going"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(5), ""));
    let events: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let failed = events.iter().find(|event| event["event"] == "failed").expect("a failure");
    let message = "`sites[0]`: pattern `linear3` matches no module; the target has `linear1`, `linear2`";
    assert_eq!((&failed["instance"], &failed["message"]), (&"decompose".into(), &message.into()));
    assert_eq!((&failed["is_bug"], &failed["log"]), (&false.into(), &serde_json::Value::Null));
    let skipped = events.iter().find(|event| event["event"] == "skipped").expect("a skipped stage");
    assert_eq!((&skipped["instance"], &skipped["because"]), (&"clusters".into(), &"decompose".into()));
    let last = events.last().expect("an end");
    assert_eq!((&last["event"], &last["status"]), (&"run_finished".into(), &"some_failed".into()));
    assert_eq!(last["counts"], serde_json::json!({ "ran": 2, "failed": 1, "skipped": 1 }));
}

#[test]
fn a_device_that_this_build_lacks() {
    let expected = "\
error: stage `target` failed: this build of spdflow has no CUDA support
  hint: leave out `--device`, or use `--device cpu`; building with `--features cuda` adds it
";
    bench().run(&["run", "small.toml", "--quiet", "--device", "cuda"]).assert(4, "", expected);
}

#[test]
fn a_stage_that_another_process_holds_is_waited_for() {
    let bench = bench();
    let plan = bench.run(&["plan", "small.toml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).expect("one JSON document");
    let fingerprint = plan["stages"][0]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    // We are the other process: the lock is ours until `held` is dropped.
    let folder = bench.path().join(".spdflow/work").join(fingerprint);
    fs::create_dir_all(&folder).expect("a work folder");
    fs::write(folder.join("lock"), "4242").expect("a lock file");
    let held = File::open(folder.join("lock")).expect("the lock file");
    held.lock().expect("a lock nobody holds");

    let mut child = bench
        .command(&["run", "small.toml", "target"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert_eq!(line, "     Waiting for target, which process 4242 is computing\n");
    assert_eq!(child.try_wait().expect("a child of ours"), None, "it waits");
    drop(held);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    let expected = "\
Running target (no earlier result)
Ran target in N s, loss N
Finished N stage in N s: N ran
";
    assert_eq!(masked(&rest), expected);
    let output = child.wait_with_output().expect("a child of ours");
    let stdout = "stage outcome time result artifact\ntarget ran N s loss N DIGEST\n";
    assert_eq!((output.status.code(), &*masked(&String::from_utf8_lossy(&output.stdout))), (Some(0), stdout));
}

#[test]
fn a_wait_for_another_process_can_be_interrupted() {
    let bench = bench();
    let plan = bench.run(&["plan", "small.toml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).expect("one JSON document");
    let folder = bench.path().join(".spdflow/work").join(plan["stages"][0]["fingerprint"].as_str().unwrap());
    fs::create_dir_all(&folder).expect("a work folder");
    let held = File::create(folder.join("lock")).expect("a lock file");
    held.lock().expect("a lock nobody holds");
    let mut command = bench.command(&["run", "small.toml", "target"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert_eq!(line, "     Waiting for target, which another process is computing\n");
    crate::support::runs::signal(&child, "-INT");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(130));
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
    let stderr = "\
Restored target, loss N
Restored decompose[seed=0], loss N
warning: `decompose[seed=1]`: file `components.safetensors` is damaged in the cache; it was moved to `QUARANTINE`
Running decompose[seed=1] (file `components.safetensors` was lost from the cache)
Ran decompose[seed=1] in N s, loss N
Finished N stages in N s: N ran, N cached
";
    let quarantined: Vec<_> = fs::read_dir(bench.path().join(".spdflow/quarantine"))
        .expect("a quarantine")
        .map(|entry| entry.expect("an entry").path().canonicalize().expect("a path").display().to_string())
        .collect();
    assert_eq!(quarantined.len(), 1);
    let found = masked(&outcome.stderr.replace(&quarantined[0], "QUARANTINE"));
    assert_eq!((outcome.code, &*found), (Some(0), stderr));
    assert_eq!(results(&bench), before);
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
fn a_cache_that_may_not_be_read_is_named() {
    let bench = bench();
    events(&bench, &["target"]);
    let records = bench.path().join(".spdflow/records");
    fs::set_permissions(&records, Permissions::from_mode(0o000)).expect("a folder of ours");
    if fs::read_dir(&records).is_ok() {
        println!("skipped: this user may read everything (root)");
        return;
    }
    let outcome = bench.run(&["run", "small.toml", "target"]);
    fs::set_permissions(&records, Permissions::from_mode(0o755)).expect("a folder of ours");
    let record = outcome.stderr.split('`').nth(1).expect("a path in backticks").to_owned();
    assert!(record.contains(".spdflow/records/"), "{outcome:?}");
    let expected = format!(
        "error: no permission to read `{record}`: Permission denied (os error 13)\n  hint: allow yourself to read it, or \
         choose another cache with `--cache DIR`\n"
    );
    outcome.assert(7, "", &expected);
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
    let cache = bench.path().join(".spdflow").canonicalize().expect("a path").display().to_string();
    let (before, after) = stderr.split_once(&cache).expect("the path of a file in the cache");
    assert_eq!((output.status.code(), before), (Some(7), "error: no space left while trying to write `"), "{stderr}");
    let hint = "`\n  hint: free some space and run again: finished stages and checkpoints are kept\n";
    assert_eq!(after.split_once('`').map(|(_, rest)| format!("`{rest}")).as_deref(), Some(hint), "{stderr}");
    assert!(output.stdout.is_empty());
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
