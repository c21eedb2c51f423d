//! Pipeline files: their common look, and new ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Bench;

/// Returns every shipped pipeline: its name and its file.
fn shipped() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let mut files = Vec::new();
    for prefix in ["", "paper/"] {
        for entry in fs::read_dir(folder.join(prefix)).expect("pipelines") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push((format!("{prefix}{}", path.file_stem().expect("a name").to_string_lossy()), path));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn shipped_pipelines_have_the_common_look() {
    for (_, path) in shipped() {
        Bench::new().run(&["fmt", "--check", &path.display().to_string()]).assert(0, "", "");
    }
}

#[test]
fn fmt_changes_the_look_and_nothing_else() {
    let ugly = "# mine\n[pipeline]\nname='a'   # so called\n\n\n\n[stage.target]\nuses=\"train.tms\"\nparams={n_features=5,n_hidden=2}\n";
    let nice = "# mine\n[pipeline]\nname = 'a'   # so called\n\n[stage.target]\nuses = \"train.tms\"\nparams = { n_features = 5, n_hidden = 2 }\n";
    let bench = Bench::new().file("a.toml", ugly).file("b.toml", nice);
    bench.run(&["fmt", "a.toml", "b.toml", "--check"]).assert(3, "a.toml: is not formatted\n", "");
    assert_eq!(fs::read_to_string(bench.path().join("a.toml")).expect("a file"), ugly);
    bench.run(&["fmt", "a.toml", "b.toml"]).assert(0, "a.toml: formatted\n", "");
    assert_eq!(fs::read_to_string(bench.path().join("a.toml")).expect("a file"), nice);
    bench.run(&["fmt", "a.toml", "b.toml", "--check"]).assert(0, "", "");
    let json = "{\n  \"files\": [\n    {\n      \"changed\": false,\n      \"file\": \"a.toml\"\n    }\n  ],\n  \"version\": 1\n}\n";
    bench.run(&["fmt", "a.toml", "--json"]).assert(0, json, "");
}

#[test]
fn a_file_with_a_mistake_keeps_all_as_they_are() {
    let bench = Bench::new().file("a.toml", "x=1\n").file("b.toml", "x = \n");
    let outcome = bench.run(&["fmt", "a.toml", "b.toml"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--> b.toml:1:"), "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(bench.path().join("a.toml")).expect("a file"), "x=1\n");
}

#[test]
fn a_new_pipeline_is_right_for_every_one_it_may_begin_with() {
    for (from, _) in shipped() {
        let bench = Bench::new();
        let outcome = bench.run(&["new", "mine", "--from", &from]);
        assert_eq!(outcome.code, Some(0), "{from}: {}", outcome.stderr);
        let checked = bench.run(&["check", "mine.toml"]);
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{from}");
        assert!(checked.stdout.starts_with("pipeline `mine` is right: "), "{from}: {}", checked.stdout);
        bench.run(&["fmt", "--check", "mine.toml"]).assert(0, "", "");
    }
}

#[test]
fn new_says_what_to_do_next_and_overwrites_nothing() {
    let bench = Bench::new().file("tms_5-2.toml", "# another\n");
    let next = |name: &str| {
        format!(
            "next: edit it, `spdflow check {name}.toml`, `spdflow plan {name}.toml`, `spdflow run {name}.toml`\n      \
             `spdflow schema > spdflow.schema.json` lets editors complete and check it\n"
        )
    };
    bench.run(&["new", "mine"]).assert(0, "mine.toml\n", &next("mine"));
    let text = fs::read_to_string(bench.path().join("mine.toml")).expect("a pipeline");
    assert!(text.starts_with("#:schema ./spdflow.schema.json\n# The toy model of superposition"), "{text}");
    bench.run(&["new", "mine"]).assert(0, "mine.toml\n", &next("mine"));
    let taken = |file: &str| {
        format!("error: `{file}` exists already and is not overwritten\n  hint: choose another name, or move it away\n")
    };
    bench.run(&["new", "mine", "--from", "ih"]).assert(2, "", &taken("mine.toml"));
    bench.run(&["new", "other", "--from", "tms_5-2-id"]).assert(2, "", &taken("tms_5-2.toml"));
    assert!(!bench.path().join("other.toml").exists());
    bench.run(&["new", "a/b"]).assert(
        2,
        "",
        "error: `a/b` cannot be a pipeline's name: expected letters, digits, `_`, `.` and `-`\n",
    );
    bench.run(&["new", "x", "--from", "tms_5-3"]).assert(
        2,
        "",
        "error: there is no shipped pipeline `tms_5-3`\n  hint: did you mean `tms_5-2`?\n",
    );
    let bench = Bench::new();
    bench.run(&["new", "mine", "--from", "paper/tms_5-2-id", "--quiet"]).assert(0, "", "");
    let mut files: Vec<_> =
        fs::read_dir(bench.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    files.sort();
    assert_eq!(files, ["mine.toml", "tms_5-2-id.toml", "tms_5-2.toml"]);
}
