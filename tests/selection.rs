//! Which part of a pipeline a command line means: targets, `--downstream`, `--only`, `--force`, `--keep-going`.

use crate::support::{Bench, masked};

/// `a -> b -> c`, and `d` beside them.
fn bench() -> Bench {
    let stage = |name: &str, input: &str| {
        let inputs = if input.is_empty() { String::new() } else { format!("inputs = {{ from = \"{input}\" }}\n") };
        format!(
            "[stage.{name}]\nuses = \"command\"\n{inputs}params = {{ run = [\"sh\", \"-c\", \"echo {name} > {{out.x}}\"], \
             outputs = {{ x = \"x\" }} }}\n"
        )
    };
    Bench::new().file("p.toml", [stage("a", ""), stage("b", "a"), stage("c", "b"), stage("d", "")].concat())
}

/// Runs and returns `instance outcome` of everything in scope.
fn outcomes(bench: &Bench, more: &[&str]) -> Vec<String> {
    let outcome = bench.run(&[&["run", "p.toml"], more].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let rows = outcome.stdout.lines().skip(1).map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    rows.collect()
}

#[test]
fn downstream_means_a_stage_what_depends_on_it_and_what_those_need() {
    let bench = bench();
    assert_eq!(outcomes(&bench, &["--downstream", "b"]), ["a ran", "b ran", "c ran"]);
    assert_eq!(outcomes(&bench, &["--downstream", "d", "a"]), ["a cached", "d ran"]);
    let plan = bench.run(&["plan", "p.toml", "--downstream", "c", "--force=c"]);
    let rows: Vec<_> =
        plan.stdout.lines().skip(1).map(|line| line.split_whitespace().take(2).collect::<Vec<_>>()).collect();
    assert_eq!(rows, [["a", "fresh"], ["b", "fresh"], ["c", "run"]]);
}

#[test]
fn only_means_a_stage_alone_and_takes_its_inputs_from_the_cache() {
    let bench = bench();
    let expected = "\
error: stage `b` cannot run alone: it needs the result of `a`, which is not in the cache (no earlier result)
  hint: name it as a target instead of with `--only`, and what it needs runs first: `b`
";
    bench.run(&["run", "p.toml", "--only", "b"]).assert(2, "", expected);
    bench.run(&["plan", "p.toml", "--only", "b"]).assert(2, "", expected);
    assert_eq!(outcomes(&bench, &["--only", "a"]), ["a ran"]);
    // The cache is enough: results need not be in place, and are not put there.
    std::fs::remove_dir_all(bench.path().join("out")).expect("results");
    assert_eq!(outcomes(&bench, &["--only", "b"]), ["b ran"]);
    assert!(!bench.path().join("out/p/a").exists());
    assert_eq!(outcomes(&bench, &["--only", "b", "--only", "c", "--force=b"]), ["b ran", "c ran"]);
    let edit = [
        "--set",
        "stage.b.params.values.n=1",
        "--set",
        "stage.b.params.run=[\"sh\", \"-c\", \"echo {value.n} > {out.x}\"]",
    ];
    let mut run = vec!["run", "p.toml", "--only", "c"];
    run.extend(edit);
    let outcome = bench.run(&run);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(
        outcome.stderr.starts_with("error: stage `c` cannot run alone: it needs the result of `b`"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn only_stands_alone_on_the_command_line() {
    let outcome = bench().run(&["run", "p.toml", "a", "--only", "b"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.starts_with("error: the argument '[STAGE]...' cannot be used with '--only <STAGE>'"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_input_that_was_damaged_in_the_cache_is_named_when_a_stage_runs_alone() {
    let bench = bench();
    assert_eq!(outcomes(&bench, &["a"]), ["a ran"]);
    std::fs::remove_dir_all(bench.path().join("out")).expect("results");
    let blobs = walk(&bench.path().join(".spdflow/blobs"));
    for blob in blobs.iter().filter(|blob| std::fs::read(blob).is_ok_and(|bytes| bytes == b"a\n")) {
        std::fs::remove_file(blob).expect("a blob");
        std::fs::write(blob, "b\n").expect("a blob");
    }
    let outcome = bench.run(&["run", "p.toml", "--only", "b", "--quiet"]);
    let expected = "\
error: stage `b` cannot run alone: it needs the result of `a`, which is not in the cache (its files were lost from the cache)
  hint: name it as a target instead of with `--only`, and what it needs runs first: `b`
";
    outcome.assert(2, "", expected);
    assert_eq!(outcomes(&bench, &["b"]), ["a ran", "b ran"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn keep_going_does_the_rest_and_lists_what_failed_and_what_was_skipped() {
    let bench = bench();
    let fail = ["--set", "stage.b.params.run=[\"false\"]", "--set", "stage.b.params.outputs={}"];
    let run = |more: &[&str]| bench.run(&[&["run", "p.toml"], &fail[..], more].concat());
    let outcome = run(&["--keep-going"]);
    let stdout = "\
stage outcome time result artifact
a ran N s DIGEST
b failed
c skipped
d ran N s DIGEST
";
    let stderr = "\
Running a (no earlier result)
Ran a in N s
Running b (no earlier result)
error: stage `b` failed: `false` ended with exit status N
Running d (no earlier result)
Ran d in N s
Failed N stages in N s: N ran, N failed, N skipped
";
    let ordered = |text: &str| {
        // Where the script lies that repeats the failure is another place each time.
        let mut lines: Vec<_> = text.lines().filter(|line| !line.contains("/repro.sh` ")).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    assert_eq!((outcome.code, masked(&outcome.stdout).as_str()), (Some(5), stdout));
    assert_eq!(ordered(&masked(&outcome.stderr)), ordered(stderr));
    let outcome = run(&[]);
    assert_eq!(outcome.code, Some(4));
}
