//! The scripts that spdflow leaves: `replay.sh` repeats a run, `repro.sh` a command that failed. Both are executed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{Bench, masked};

const BASE: &str = r#"[stage.a]
uses = "command"
params = { run = ["sh", "../lib/it's.sh", "{value.n}", "{out.x}"], outputs = { x = "x" }, code = ["../lib/it's.sh"], values = { n = 1 }, pass_env = ["SEEN", "ABSENT"] }

[stage.b]
uses = "command"
inputs = { a = "a" }
params = { run = ["cp", "{in.a}/x", "{out.x}"], outputs = { x = "x" } }

[stage.other]
uses = "command"
params = { run = ["false"] }
"#;

const TOP: &str = r#"base = "base/base.toml"
[pipeline]
name = "top"
[profile.twice.set]
"stage.a.params.values.n" = 2
"#;

const SCRIPT: &str = "echo \"$1 $SEEN ${ABSENT-none}\" > \"$2\"\n";

fn bench() -> Bench {
    Bench::new().file("p/top.toml", TOP).file("p/base/base.toml", BASE).file("p/lib/it's.sh", SCRIPT)
}

/// Returns the folder of the last run.
fn last_run(bench: &Bench) -> PathBuf {
    let runs = fs::read_dir(bench.path().join(".spdflow/runs")).expect("a cache");
    runs.map(|run| run.expect("a run").path()).max().expect("a run")
}

/// Copies a run's folder to another place and takes away what it was made from.
fn moved(bench: &Bench, run: &Path) -> TempDir {
    let place = TempDir::new().expect("a folder");
    assert!(Command::new("cp").arg("-r").arg(run).arg(place.path().join("run")).status().expect("cp").success());
    fs::remove_dir_all(bench.path().join("p")).expect("the pipeline");
    fs::remove_dir_all(bench.path().join(".spdflow")).expect("the cache");
    place
}

fn replay(place: &TempDir, more: &[&str]) -> Output {
    let mut script = Command::new("sh");
    script.arg(place.path().join("run/replay.sh")).args(more).current_dir("/");
    script.env("SPDFLOW", env!("CARGO_BIN_EXE_spdflow")).env("ABSENT", "set").env("SPDFLOW_CACHE", "/no/such/cache");
    script.output().expect("a shell")
}

fn run_once(bench: &Bench) -> PathBuf {
    let mut command = bench.command(&["run", "p/top.toml", "b", "--profile", "twice", "--quiet"]);
    let seen = "it's \"so\"\n$HOME";
    let output = command.env("SEEN", seen).env_remove("ABSENT").output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    last_run(bench)
}

fn run_once_plainly(bench: &Bench) -> PathBuf {
    bench.run(&["run", "p/top.toml", "--quiet"]).assert(0, "", "");
    last_run(bench)
}

#[test]
fn a_run_is_repeated_from_a_copy_of_its_folder_and_gives_the_same_bytes() {
    let bench = bench();
    let run = run_once(&bench);
    let expected = fs::read(bench.path().join("out/top/b/x")).expect("a result");
    assert_eq!(String::from_utf8_lossy(&expected), "2 it's \"so\"\n$HOME none\n");
    let syntax = Command::new("sh").arg("-n").arg(run.join("replay.sh")).output().expect("a shell");
    assert!(syntax.status.success() && syntax.stderr.is_empty());

    let place = moved(&bench, &run);
    let output = replay(&place, &["--jobs", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("a      ran")), "{table}");
    assert_eq!(fs::read(place.path().join("run/replay/out/top/b/x")).expect("a result"), expected);
    // A second time, what is there already is not computed again.
    let again = replay(&place, &[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("everything is cached"), "{again:?}");
}

#[test]
fn a_repetition_takes_nothing_from_the_remote_that_the_environment_names() {
    let bench = bench();
    let remote = TempDir::new().expect("a folder");
    bench.run(&["run", "p/top.toml", "b", "--quiet", "--remote", &remote.path().to_string_lossy()]).assert(0, "", "");
    let place = moved(&bench, &last_run(&bench));
    let mut script = Command::new("sh");
    script.arg(place.path().join("run/replay.sh")).env("SPDFLOW", env!("CARGO_BIN_EXE_spdflow"));
    let output = script.env("SPDFLOW_REMOTE", remote.path()).output().expect("a shell");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.lines().skip(1).all(|line| line.split_whitespace().nth(1) == Some("ran")), "{table}");
}

#[test]
fn a_repetition_with_another_result_ends_with_drift() {
    let bench = bench();
    let run = run_once(&bench);
    let place = moved(&bench, &run);
    fs::write(place.path().join("run/code-0-it's.sh"), "echo other > \"$2\"\n").expect("the code");
    let output = replay(&place, &[]);
    assert_eq!(output.status.code(), Some(10));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.starts_with("error: the pipeline is not what `../results.lock` says:\n")
            && message.contains(" `a` has the key "),
        "{message}"
    );
}

#[test]
fn a_run_that_failed_fails_again_and_one_that_did_nothing_has_no_script() {
    let bench = bench();
    assert_eq!(bench.run(&["run", "p/top.toml", "other", "-q"]).code, Some(4));
    let place = moved(&bench, &last_run(&bench));
    assert!(!place.path().join("run/results.lock").exists());
    assert_eq!(replay(&place, &[]).status.code(), Some(4));

    let bench = self::bench();
    for has_script in [true, false] {
        assert_eq!(bench.run(&["run", "p/top.toml", "b", "-q"]).code, Some(0));
        assert_eq!(last_run(&bench).join("replay.sh").exists(), has_script);
    }
}

#[test]
fn code_that_is_too_large_to_keep_is_asked_for() {
    let stage =
        "[stage.b]\nuses = \"command\"\nparams = { run = [\"wc\", \"-c\", \"big.bin\"], code = [\"big.bin\"] }\n";
    let big = vec![b'x'; (16 << 20) + 1];
    let bench = Bench::new().file("p/top.toml", stage).file("p/big.bin", &big);
    let place = moved(&bench, &run_once_plainly(&bench));
    let output = replay(&place, &["--quiet"]);
    let asked = "put the file with digest DIGEST there, which was too large to keep: replay/files/big.bin\n";
    assert_eq!((output.status.code(), masked(&String::from_utf8_lossy(&output.stderr))), (Some(2), asked.to_owned()));
    fs::write(place.path().join("run/replay/files/big.bin"), &big).expect("the code");
    let output = replay(&place, &["--quiet"]);
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn one_file_that_is_too_large_to_keep_does_not_keep_out_those_behind_it() {
    let stage = "[stage.b]\nuses = \"command\"\nparams = { run = [\"wc\", \"-c\", \"z.txt\"], code = [\"a.bin\", \"z.txt\"] }\n";
    let bench = Bench::new().file("p/top.toml", stage).file("p/a.bin", vec![b'x'; (16 << 20) + 1]).file("p/z.txt", "z");
    let run = run_once_plainly(&bench);
    assert!(!run.join("code-0-a.bin").exists());
    assert_eq!(fs::read(run.join("code-1-z.txt")).expect("the code"), b"z");
}

#[test]
fn a_shipped_pipeline_is_repeated_from_the_recorded_text() {
    let bench = Bench::new();
    let set = ["--set", "stage.target.params.steps=10", "--set", "stage.target.params.restarts=1"];
    let outcome = bench.run(&[&["run", "paper/tms_5-2", "target", "--quiet"], &set[..]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let place = TempDir::new().expect("a folder");
    assert!(
        Command::new("cp").arg("-r").arg(last_run(&bench)).arg(place.path().join("run")).status().unwrap().success()
    );
    let output = replay(&place, &["--quiet"]);
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_failed_command_is_repeated_by_its_script_with_the_same_arguments_environment_and_folder() {
    let stage = r#"[stage.a]
uses = "command"
resources = { gpus = 1 }
[stage.a.params]
run = ["sh", "-c", "env | sort; pwd; cat ../up.txt here.txt; echo \"$1\"; exit 3", "sh", "it's", "{out.x}"]
outputs = { x = "x" }
env = { ODD = "a 'b' $c\n\"d\"" }
code = ["here.txt", "../up.txt"]
"#;
    let bench = Bench::new().file("p/p.toml", stage).file("p/here.txt", "here\n").file("up.txt", "up\n");
    let outcome = bench.run(&["run", "p/p.toml", "--quiet", "--gpus", "5"]);
    let work = fs::read_dir(bench.path().join(".spdflow/work")).expect("a folder").next().expect("one").expect("one");
    let work = work.path().canonicalize().expect("a folder");
    let expected = format!(
        "error: stage `a` failed: `sh` ended with exit status 3\n  hint: `sh {0}/repro.sh` runs it again just so\n  \
         hint: its log is `{0}/log`\n",
        work.display()
    );
    outcome.assert(4, "", &expected);
    let log = fs::read_to_string(work.join("log")).expect("a log");
    let log = log.split_once("error: ").expect("a reason").0;
    assert!(log.contains("\nCUDA_VISIBLE_DEVICES=5\n") && log.ends_with("/scratch/here\nup\nhere\nit's\n"), "{log}");
    // A copy elsewhere does as well; only the places differ.
    let copy = TempDir::new().expect("a folder");
    assert!(Command::new("cp").arg("-r").arg(&work).arg(copy.path().join("work")).status().expect("cp").success());
    let place = copy.path().canonicalize().expect("a folder").join("work");
    let output = Command::new("sh").arg("work/repro.sh").current_dir(copy.path()).output().expect("a shell");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(3), 0));
    let printed = String::from_utf8(output.stdout).expect("UTF-8 output");
    assert_eq!(printed.replace(&*place.to_string_lossy(), &work.to_string_lossy()), log);
    // Once the stage runs well, nothing of it is left.
    let bench = bench.file("p/p.toml", stage.replace("exit 3", "echo > \\\"$2\\\""));
    assert_eq!(bench.run(&["run", "p/p.toml", "--quiet", "--gpus", "5"]).code, Some(0));
}

#[test]
fn the_script_of_a_failed_command_is_named_as_a_shell_reads_it() {
    let stage = "[stage.a]\nuses = \"command\"\nparams = { run = [\"sh\", \"-c\", \"exit 3\"] }\n";
    let bench = Bench::new().file("p.toml", stage);
    let outcome = bench.run(&["run", "p.toml", "--quiet", "--cache", "my cache"]);
    let hint =
        outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: `")?.strip_suffix("` runs it again just so"));
    let script = hint.expect("a hint");
    let status = Command::new("sh").args(["-c", script]).current_dir(bench.path()).status().expect("a shell");
    assert_eq!(status.code(), Some(3), "{script}");
}
