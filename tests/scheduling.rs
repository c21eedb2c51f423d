//! What a run may use of the machine, what its stages are given of that, and how long it is expected to take.

use std::fs;

use crate::support::Bench;

/// Two stages with resources, and one that takes what both make.
const PIPELINE: &str = r#"[stage.big]
uses = "command"
params = { run = ["sh", "-c", "printenv CUDA_VISIBLE_DEVICES > {out.x} || echo none > {out.x}"], outputs = { x = "x" } }
resources = { memory = "2GiB", gpus = 2 }

[stage.small]
uses = "command"
params = { run = ["sh", "-c", "printenv CUDA_VISIBLE_DEVICES > {out.x} || echo none > {out.x}"], outputs = { x = "y" } }

[stage.both]
uses = "command"
inputs = { big = "big", small = "small" }
params = { run = ["sh", "-c", "cat {in.big}/x {in.small}/y > {out.x}"], outputs = { x = "x" } }
"#;

fn bench() -> Bench {
    Bench::new().file("p.toml", PIPELINE)
}

/// Makes the cache believe that stages took so long.
fn believe(bench: &Bench, durations: &[(&str, f64)]) {
    let line = |(instance, seconds): &(&str, f64)| format!("{seconds}\tcommand\tp\t{instance}\n");
    let text: String = durations.iter().map(line).collect();
    fs::write(bench.path().join(".spdflow/index/durations"), text).expect("a cache");
}

#[test]
fn a_stage_that_asks_for_more_than_the_run_has_is_an_error_before_anything_runs() {
    let bench = bench();
    let memory = "\
error: stage `big` asks for 2GiB of memory, but the run has 1.5GiB
 --> p.toml:4:24
  |
4 | resources = { memory = \"2GiB\", gpus = 2 }
  |                        ^^^^^^
  |
  = hint: give the run more, `--memory 2GiB`, or the stage less
";
    bench.run(&["run", "p.toml", "--memory", "1.5GiB", "--gpus", "0,1"]).assert(2, "", memory);
    let gpus = "\
error: stage `big` asks for 2 GPUs, but the run has none
 --> p.toml:4:39
  |
4 | resources = { memory = \"2GiB\", gpus = 2 }
  |                                       ^
  |
  = hint: name the GPUs that the run may use, as in `--gpus 0,1`
";
    bench.run(&["run", "p.toml", "--memory", "4GiB"]).assert(2, "", gpus);
    let one = bench.command(&["run", "p.toml", "--memory", "4GiB"]).env("CUDA_VISIBLE_DEVICES", "3").output();
    let one = String::from_utf8(one.expect("the binary starts").stderr).expect("UTF-8 output");
    assert!(one.starts_with("error: stage `big` asks for 2 GPUs, but the run has 1 (3)\n"), "{one}");
    assert!(!bench.path().join("out").exists(), "nothing ran");
    // What needs nothing of the kind runs.
    bench.run(&["run", "p.toml", "small", "--memory", "1GiB", "--quiet"]).assert(0, "", "");
}

#[test]
fn what_is_wrong_with_resources_is_said_with_its_line() {
    let wrong = PIPELINE.replace("\"2GiB\", gpus = 2", "\"2\", gpus = -1");
    let expected = "\
error: resources `memory` of stage `big`: expected an amount of memory like `\"4GiB\"` or `\"500MB\"`, found `\"2\"`
 --> p.toml:4:24
  |
4 | resources = { memory = \"2\", gpus = -1 }
  |                        ^^^

error: resources `gpus` of stage `big`: expected a whole number of at least 0, found `-1`
 --> p.toml:4:36
  |
4 | resources = { memory = \"2\", gpus = -1 }
  |                                    ^^

found 2 mistakes
";
    Bench::new().file("p.toml", wrong).run(&["run", "p.toml"]).assert(2, "", expected);
    let unit = "\
error: invalid value '16' for '--memory <SIZE>': expected an amount of memory such as `16GiB` or `500MB`

For more information, try '--help'.
";
    bench().run(&["run", "p.toml", "--memory", "16"]).assert(2, "", unit);
    let twice = "error: `--gpus` names `1` twice\n";
    bench().run(&["run", "p.toml", "--gpus", "1,1"]).assert(2, "", twice);
    let bench = bench();
    let mut hidden = bench.command(&["run", "p.toml", "--gpus", "0"]);
    let hidden = hidden.env("CUDA_VISIBLE_DEVICES", "4,5").output().expect("the binary starts");
    let expected = "\
error: `--gpus` names `0`, which this process cannot see
  hint: `CUDA_VISIBLE_DEVICES` lets it see `4`, `5`
";
    assert_eq!(String::from_utf8_lossy(&hidden.stderr), expected);
}

#[test]
fn a_command_sees_the_gpus_it_was_given_and_its_key_does_not_depend_on_them() {
    let bench = bench();
    bench.run(&["run", "p.toml", "--quiet", "--gpus", "7,5,6", "--jobs", "2"]).assert(0, "", "");
    let result = fs::read_to_string(bench.path().join("out/p/both/x")).expect("a result");
    assert_eq!(result, "7,5\nnone\n");
    let shown = bench.run(&["show", "p.toml", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("one JSON document");
    let gpus = |stage: usize| shown["stages"][stage]["record"]["usage"]["gpus"].clone();
    assert_eq!((gpus(0), gpus(1)), (serde_json::json!(["7", "5"]), serde_json::json!([])));
    // Neither other GPUs nor other resources make anything run again.
    let file = bench.path().join("p.toml");
    let text = fs::read_to_string(&file).expect("the pipeline");
    fs::write(&file, text.replace("memory = \"2GiB\", gpus = 2", "gpus = 1, threads = 1")).expect("the pipeline");
    bench.run(&["status", "p.toml", "--exit-code"]).assert(0, "p: 3 fresh\n", "");
}

#[test]
fn plan_and_status_say_how_long_it_will_take_if_that_is_known() {
    let bench = bench();
    let arguments = ["--memory", "4GiB", "--gpus", "0,1"];
    let plan = |more: &[&str]| bench.run(&[&["plan", "p.toml"], &arguments[..], more].concat());
    assert!(!plan(&[]).stdout.contains("about"), "nothing is known");
    let json: serde_json::Value = serde_json::from_str(&plan(&["--json"]).stdout).expect("one JSON document");
    let seconds = |document: &serde_json::Value| {
        let stages = document["stages"].as_array().expect("a list").clone();
        let of_stages: Vec<_> = stages.into_iter().map(|stage| stage["expected_seconds"].clone()).collect();
        (of_stages, document["expected_seconds"].clone())
    };
    let null = serde_json::Value::Null;
    assert_eq!(seconds(&json), (vec![null.clone(), null.clone(), null.clone()], null));

    believe(&bench, &[("big", 100.0), ("small", 80.0), ("both", 20.0)]);
    assert!(plan(&[]).stdout.ends_with("\nabout 3 min 20 s with 1 job\n"), "{}", plan(&[]).stdout);
    assert!(plan(&["--jobs", "2"]).stdout.ends_with("\nabout 2 min 0 s with 2 jobs\n"));
    assert!(plan(&["small", "--jobs", "2"]).stdout.ends_with("\nabout 80 s with 2 jobs\n"));
    let dry = bench.run(&["run", "p.toml", "--dry-run", "--jobs", "2"]).stdout;
    assert!(dry.ends_with("\nabout 2 min 0 s with 2 jobs\n"), "{dry}");
    let json: serde_json::Value =
        serde_json::from_str(&plan(&["--json", "--jobs", "2"]).stdout).expect("one JSON document");
    let numbers = |numbers: &[f64]| numbers.iter().map(|number| serde_json::json!(number)).collect::<Vec<_>>();
    assert_eq!(seconds(&json), (numbers(&[100.0, 80.0, 20.0]), 120.0.into()));
    let status = "\
p: 2 run, 1 maybe
  run     big: no earlier result
  run     small: no earlier result
  maybe   both: depends on what `big` makes
about 2 min 0 s with 2 jobs
";
    bench.run(&["status", "p.toml", "--jobs", "2"]).assert(0, status, "");
    bench.run(&[&["run", "p.toml", "--quiet"], &arguments[..]].concat()).assert(0, "", "");
    let json: serde_json::Value = serde_json::from_str(&plan(&["--json"]).stdout).expect("one JSON document");
    assert_eq!(seconds(&json), (numbers(&[0.0, 0.0, 0.0]), 0.0.into()));
}
