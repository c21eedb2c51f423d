//! Configurations of the Python implementation become pipelines: what the command says and writes.

use std::fs;
use std::path::Path;

use crate::support::Bench;

const HEADS: &str = include_str!("fixtures/python_configs/ih.yaml");
const TMS: &str = include_str!("fixtures/python_configs/tms_5-2.yaml");

#[test]
fn an_imported_configuration_is_a_right_pipeline() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/python_configs");
    let bench = Bench::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("configurations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let (from, to) = (path.display().to_string(), format!("{stem}.toml"));
        bench.run(&["import-config", &from, "--output", &to]).assert(
            0,
            &format!("{to}: made from {from}; its comments say what was dropped or assumed\n"),
            &format!("next: `spdflow plan {to}`, `spdflow run {to}`\n"),
        );
        bench.run(&["check", &to]).assert(0, &format!("pipeline `{stem}` is right: 3 stages, 3 instances\n"), "");
        bench.run(&["fmt", "--check", &to]).assert(0, "", "");
    }
    assert_eq!(count, 8);
}

#[test]
fn without_an_output_the_pipeline_is_printed() {
    let bench = Bench::new().file("old/tms_config.yaml", TMS);
    let outcome = bench.run(&["import-config", "old/tms_config.yaml"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.starts_with("# Made from `tms_config.yaml` by `spdflow import-config`.\n"));
    assert!(outcome.stdout.contains("\n[pipeline]\nname = \"tms\"\n"));
    let json = bench.run(&["import-config", "old/tms_config.yaml", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    assert_eq!(document["text"], outcome.stdout.as_str());
    assert_eq!((&document["pipeline"], &document["output"]), (&"tms".into(), &serde_json::Value::Null));
}

#[test]
fn an_import_overwrites_nothing() {
    let bench = Bench::new().file("c.yaml", TMS).file("c.toml", "# mine\n");
    bench.run(&["import-config", "c.yaml", "-o", "c.toml"]).assert(
        2,
        "",
        "error: `c.toml` exists already and is not overwritten\n  hint: choose another name, or move it away\n",
    );
    assert_eq!(fs::read_to_string(bench.path().join("c.toml")).expect("a file"), "# mine\n");
}

#[test]
fn mistakes_in_a_configuration_are_shown_where_they_are() {
    let text = HEADS.replace("gate_type", "gate_typo").replace("task_name: ih", "task_name: lm");
    let bench = Bench::new().file("c.yaml", text).file("d.yaml", TMS.replace("steps: 10_000", "stesp: 10_000"));
    bench.run(&["import-config", "c.yaml"]).assert(
        2,
        "",
        "error: spdflow cannot decompose language models yet: `task_name` is `lm`, expected `tms`, `resid_mlp` or `ih`
  --> c.yaml:45:14
   |
45 |   task_name: lm
   |              ^^
",
    );
    bench.run(&["import-config", "d.yaml", "-o", "d.toml"]).assert(
        2,
        "",
        "error: `steps` is missing

error: unknown key `stesp`
  --> d.yaml:31:1
   |
31 | stesp: 10_000
   | ^^^^^
   |
   = hint: did you mean `steps`?

found 2 mistakes
",
    );
    assert!(!bench.path().join("d.toml").exists());
    bench.run(&["import-config", "e.yaml"]).assert(2, "", "error: cannot read configuration `e.yaml`: no such file\n");
}

#[test]
fn what_a_pipeline_may_not_hold_is_refused_before_it_is_written() {
    let bench = Bench::new().file("c.yaml", TMS.replace("start_val: 1e-3", "start_val: 0"));
    let outcome = bench.run(&["import-config", "c.yaml", "-o", "c.toml"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("must be a positive number, found 0"), "{}", outcome.stderr);
    assert!(!bench.path().join("c.toml").exists());
}
