//! What each command prints when all is well.

use std::fs;

use crate::support::runs::{PIPELINE, bench, events};
use crate::support::{Bench, masked};

/// Every stage of the shipped pipeline, small.
fn whole_bench() -> Bench {
    let rest = r#"
[stage.clusters]
uses = "cluster.kmeans"
matrix = ["seed"]
inputs = { decomposition = "decompose" }
params = { n_clusters = 2 }

[stage.compare]
uses = "compare.geometry"
inputs = { current = "decompose[seed=0]", reference = "decompose[seed=1]" }

[stage.figures]
uses = "plot"
inputs = { decompositions = { from = "decompose", over = ["seed"] }, comparison = "compare", target = "target" }
"#;
    Bench::new().file("small.toml", format!("{PIPELINE}{rest}"))
}

#[test]
fn check_counts_what_it_found_right() {
    let bench = whole_bench();
    bench.run(&["check", "small.toml"]).assert(0, "pipeline `small` is right: 5 stages, 7 instances\n", "");
    bench.run(&["check", "small.toml", "--quiet"]).assert(0, "", "");
    let json = "{
  \"errors\": [],
  \"instances\": 7,
  \"pipeline\": \"small\",
  \"stages\": 5,
  \"version\": 1
}
";
    bench.run(&["check", "small.toml", "--json"]).assert(0, json, "");
    let one = "[stage.target]\nuses = \"train.tms\"\nparams = { n_features = 5, n_hidden = 2 }\n";
    let bench = Bench::new().file("one.toml", one);
    bench.run(&["check", "one.toml"]).assert(0, "pipeline `one` is right: 1 stage, 1 instance\n", "");
}

#[test]
fn every_shipped_pipeline_and_its_profiles_load_and_plan() {
    let bench = Bench::new();
    let listed = bench.run(&["pipelines", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&listed.stdout).expect("one JSON document");
    let pipelines = document["pipelines"].as_array().expect("a list");
    let names: Vec<_> = pipelines.iter().map(|pipeline| pipeline["name"].as_str().expect("a name")).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let mut files = Vec::new();
    for prefix in ["", "paper/"] {
        let entries = fs::read_dir(folder.join(prefix)).expect("a folder of pipelines");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        files.extend(
            paths
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .map(|path| (format!("{prefix}{}", path.file_stem().expect("a name").to_string_lossy()), path)),
        );
    }
    files.sort();
    let stems: Vec<_> = files.iter().map(|(stem, _)| stem.as_str()).collect();
    assert_eq!(names, stems, "every file of pipelines/ is built into the binary");
    for pipeline in pipelines {
        assert!(pipeline["expected_seconds"].as_u64().is_some(), "{pipeline} says how long it takes");
    }
    for (name, path) in &files {
        let text: toml::Table = fs::read_to_string(path).expect("a pipeline").parse().expect("TOML");
        let profiles = text.get("profile").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        let choices: Vec<Vec<&str>> =
            [vec![]].into_iter().chain(profiles.map(|profile| vec!["--profile", profile])).collect();
        for choice in choices {
            for command in ["check", "graph", "plan", "status"] {
                let outcome = bench.run(&[&[command, name], &choice[..]].concat());
                assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{command} {name} {choice:?}");
            }
        }
    }
}

#[test]
fn pipelines_lists_what_is_shipped_with_its_time() {
    let bench = Bench::new();
    let listed = bench.run(&["pipelines"]);
    assert_eq!((listed.code, &listed.stderr[..]), (Some(0), ""));
    let described = bench.run(&["pipelines", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&described.stdout).expect("one JSON document");
    let pipelines = document["pipelines"].as_array().expect("a list");
    let name_width = listed.stdout.lines().map(|line| line.find(' ').expect("columns")).max().expect("lines");
    let mut starts = Vec::new();
    for (line, pipeline) in listed.stdout.lines().zip(pipelines) {
        let (name, description) = (pipeline["name"].as_str().expect("text"), pipeline["description"].as_str());
        let description = description.expect("text");
        assert!(line.starts_with(&format!("{name:name_width$}  ")) && line.ends_with(&format!("  {description}")));
        starts.push(line.len() - description.len());
    }
    assert!(starts.iter().all(|start| *start == starts[0]), "descriptions stand in a column: {starts:?}");
    let tms = listed.stdout.lines().find(|line| line.starts_with("tms ")).expect("the first pipeline");
    let words: Vec<&str> = tms.split_whitespace().collect();
    assert!(words[1].parse::<u32>().is_ok() && ["s", "min"].contains(&words[2]), "{tms}");
}

#[test]
fn graph_as_text() {
    let expected = "\
target             train.tms
decompose[seed=0]  decompose.spd     <-  target: target
decompose[seed=1]  decompose.spd     <-  target: target
clusters[seed=0]   cluster.kmeans    <-  decomposition: decompose[seed=0]
clusters[seed=1]   cluster.kmeans    <-  decomposition: decompose[seed=1]
compare            compare.geometry  <-  current: decompose[seed=0]; reference: decompose[seed=1]
figures            plot              <-  comparison: compare; decompositions: decompose[seed=0], decompose[seed=1]; \
target: target
";
    whole_bench().run(&["graph", "small.toml"]).assert(0, expected, "");
}

#[test]
fn graph_for_graphviz() {
    let expected = r#"digraph "small" {
  rankdir=LR;
  node [shape=box, style=rounded];
  n0 [label="target\ntrain.tms"];
  n1 [label="decompose[seed=0]\ndecompose.spd"];
  n2 [label="decompose[seed=1]\ndecompose.spd"];
  n0 -> n1 [label="target"];
  n0 -> n2 [label="target"];
}
"#;
    bench().run(&["graph", "small.toml", "--format", "dot"]).assert(0, expected, "");
}

#[test]
fn graph_for_mermaid() {
    let expected = r#"flowchart LR
  n0["target<br/>train.tms"]
  n1["decompose[seed=0]<br/>decompose.spd"]
  n2["decompose[seed=1]<br/>decompose.spd"]
  n0 -->|target| n1
  n0 -->|target| n2
"#;
    bench().run(&["graph", "small.toml", "--format", "mermaid"]).assert(0, expected, "");
}

#[test]
fn graph_as_json() {
    let expected = r#"{
  "edges": [
    {
      "from": "target",
      "input": "target",
      "to": "decompose[seed=0]"
    },
    {
      "from": "target",
      "input": "target",
      "to": "decompose[seed=1]"
    }
  ],
  "nodes": [
    {
      "axes": {},
      "id": "target",
      "kind": "train.tms",
      "stage": "target"
    },
    {
      "axes": {
        "seed": "0"
      },
      "id": "decompose[seed=0]",
      "kind": "decompose.spd",
      "stage": "decompose"
    },
    {
      "axes": {
        "seed": "1"
      },
      "id": "decompose[seed=1]",
      "kind": "decompose.spd",
      "stage": "decompose"
    }
  ],
  "pipeline": "small",
  "version": 1
}
"#;
    bench().run(&["graph", "small.toml", "--format", "json"]).assert(0, expected, "");
    bench().run(&["graph", "small.toml", "--json"]).assert(0, expected, "");
}

#[test]
fn kinds_lists_every_kind() {
    let expected = "\
cluster.kmeans        groups components that matter on the same inputs, by k-means
command               any program, with inputs, outputs, code and environment as declared
compare.geometry      for each live subcomponent the most similar one of another decomposition, by cosine
decompose.spd         splits a target's matrices into rank-one components and learns which ones matter for each input
plot                  figures of decompositions, clusters and comparisons, as SVG and PNG
train.induction_head  trains a small transformer to find a token that followed the last one before
train.resid_mlp       trains a residual MLP: a function of each sparse feature, computed by fewer neurons than features
train.tms             trains a toy model of superposition: sparse features squeezed through a few dimensions
";
    Bench::new().run(&["kinds"]).assert(0, expected, "");
}

#[test]
fn kinds_describes_a_kind() {
    let expected = "\
compare.geometry  for each live subcomponent the most similar one of another decomposition, by cosine

Inputs
  current  one decompose.*
      whose live subcomponents are looked for
  reference  one decompose.*
      among whose subcomponents they are looked for

Parameters
  ci_alive_threshold  number, default 0.0
      A subcomponent is active on an input when its causal importance is above this.
  density_threshold  number, default 0.001
      A subcomponent is compared when it is active on more than this share of inputs.
  eval_batch_size  whole number, default 32
      The inputs of one batch.
  n_eval_steps  whole number, default 5
      How many batches of inputs that share is measured on.
  seed  whole number, default 0
      Of the inputs drawn.
";
    let outcome = Bench::new().run(&["kinds", "compare.geometry"]);
    outcome.assert(0, expected, "");
}

#[test]
fn kinds_describes_choices_within_parameters() {
    let outcome = Bench::new().run(&["kinds", "decompose.spd"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let start = "\
decompose.spd  splits a target's matrices into rank-one components and learns which ones matter for each input

Inputs
  target  one train.*
      the network to take apart

Parameters
  batch_size  whole number, required
      Vectors in a batch, or sequences if the target reads tokens.
  causal_importance  one of these tables, default { hidden = [8], kind = \"vector_mlp\" }
      The networks that compute causal importances.
      kind = \"mlp\"
          One small private network per component, reading the component's own activation.
        hidden  list of whole numbers, required
            Units in each hidden layer, first to last.
";
    assert!(outcome.stdout.starts_with(start), "{}", outcome.stdout);
    let schedule = "
  lr  table, required
      The learning rate of components and networks.
      final_fraction  number, default 1.0
          The final value as a fraction of the start value; 1 for a constant schedule.
      schedule  one of, default \"constant\"
          How it changes from there.
          \"constant\"
              Stays at the start value.
";
    assert!(outcome.stdout.contains(schedule), "{}", outcome.stdout);
    // Every loss is described, once as something to train on and once as something to measure.
    assert_eq!(outcome.stdout.matches("kind = \"stochastic_recon\"\n").count(), 2);
}

#[test]
fn plan_status_and_run_agree_on_what_is_to_be_done() {
    let bench = bench();
    let none = "\
stage plan fingerprint why
target run DIGEST no earlier result
decompose[seed=0] maybe depends on what `target` makes
decompose[seed=1] maybe depends on what `target` makes
";
    let plan = |more: &[&str]| {
        let outcome = bench.run(&[&["plan", "small.toml"], more].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        masked(&outcome.stdout)
    };
    assert_eq!(plan(&[]), none);
    let status = "\
small: 1 run, 2 maybe
  run     target: no earlier result
  maybe   decompose[seed=0]: depends on what `target` makes
  maybe   decompose[seed=1]: depends on what `target` makes
";
    bench.run(&["status", "small.toml"]).assert(0, status, "");
    bench.run(&["status", "small.toml", "--exit-code"]).assert(3, status, "");
    let one = "small: 1 run\n  run     target: no earlier result\n";
    bench.run(&["status", "small.toml", "target", "--exit-code"]).assert(3, one, "");
    events(&bench, &[]);
    let all = "\
stage plan fingerprint why
target fresh DIGEST up to date
decompose[seed=0] fresh DIGEST up to date
decompose[seed=1] fresh DIGEST up to date
";
    assert_eq!(plan(&[]), all);
    bench.run(&["status", "small.toml", "--exit-code"]).assert(0, "small: 3 fresh\n", "");
    let forced = "\
stage plan fingerprint why
target fresh DIGEST up to date
decompose[seed=0] fresh DIGEST up to date
decompose[seed=1] run DIGEST forced
";
    assert_eq!(plan(&["--force=decompose[seed=1]"]), forced);
    let elsewhere = "\
stage plan fingerprint why
target cached DIGEST its result is not in place
decompose[seed=0] cached DIGEST its result is not in place
decompose[seed=1] cached DIGEST its result is not in place
";
    assert_eq!(plan(&["--out", "elsewhere"]), elsewhere);
}

#[test]
fn plan_and_status_as_json() {
    let bench = bench();
    events(&bench, &["target"]);
    let plan = bench.run(&["plan", "small.toml", "--json"]);
    let mut plan: serde_json::Value = serde_json::from_str(&plan.stdout).expect("one JSON document");
    let status = bench.run(&["status", "small.toml", "--json", "--exit-code"]);
    assert_eq!(status.code, Some(3));
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("one JSON document");
    assert_eq!(plan["counts"], serde_json::json!({ "fresh": 1, "cached": 0, "run": 2, "maybe": 0 }));
    assert_eq!(plan["stages"][1]["plan"], "run");
    assert_eq!(plan["stages"][1]["artifact"], serde_json::Value::Null);
    assert_eq!(plan["stages"][0]["artifact"].as_str().map(str::len), Some(64));
    // The status is the plan, and whether anything is to be done.
    plan["is_stale"] = true.into();
    assert_eq!(plan, status);
}

#[test]
fn show_tells_of_files_and_with_a_stage_of_everything() {
    let bench = bench();
    let nothing = "\
target has no result yet: no earlier result

decompose[seed=0] has no result yet: depends on what `target` makes

decompose[seed=1] has no result yet: depends on what `target` makes
";
    bench.run(&["show", "small.toml"]).assert(0, nothing, "");
    events(&bench, &[]);
    let outcome = bench.run(&["show", "small.toml", "decompose[seed=1]"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let text = masked(&outcome.stdout);
    let lines = [
        "decompose[seed=1]",
        "kind decompose.spd",
        "fingerprint DIGEST",
        "artifact DIGEST",
        "folder out/small/decompose/seed=1",
        "metric loss N",
        "metric significant/linear1 N",
        "input target: DIGEST",
        "parameter batch_size = N",
        "parameter causal_importance.hidden = [4]",
        "parameter causal_importance.kind = \"mlp\"",
        "parameter losses[1].kind = \"stochastic_recon\"",
        "parameter seed = N",
        "file format size digest what",
        "artifact.json json N B DIGEST what this artifact holds",
        "components.safetensors safetensors N B DIGEST target model, components and causal-importance networks",
    ];
    let missing: Vec<_> = lines.into_iter().filter(|line| text.lines().all(|found| found != *line)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in\n{text}");
    for start in ["computed 20", "run 20", "with ", "machine ", "program spdflow ", "built by rustc "] {
        assert!(text.lines().any(|line| line.starts_with(start)), "`{start}` is missing in\n{text}");
    }
    let all = masked(&bench.run(&["show", "small.toml"]).stdout);
    assert!(all.contains("target.safetensors safetensors N B DIGEST the trained weights"), "{all}");
    assert!(!all.contains("parameter"), "{all}");
}

#[test]
fn show_as_json_holds_the_record() {
    let bench = bench();
    events(&bench, &["target"]);
    let outcome = bench.run(&["show", "small.toml", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("one JSON document");
    let (made, missing) = (&document["stages"][0], &document["stages"][1]);
    assert_eq!(
        (&made["stage"], &made["plan"], &made["path"]),
        (&"target".into(), &"fresh".into(), &"out/small/target".into())
    );
    assert_eq!(made["record"]["preimage"]["params"]["steps"], 50);
    assert_eq!(made["record"]["fingerprint"], made["fingerprint"]);
    assert_eq!((&missing["plan"], &missing["record"]), (&"run".into(), &serde_json::Value::Null));
}

#[test]
fn metrics_are_one_line_each() {
    let bench = bench();
    events(&bench, &["decompose[seed=0]"]);
    let expected = "\
stage metric value
target loss N
target restart N
target min_feature_norm N
target angle_deviation N
decompose[seed=0] loss N
decompose[seed=0] significant/linear1 N
decompose[seed=0] significant/linear2 N
decompose[seed=0] mmcs N
decompose[seed=0] ml2r N
decompose[seed=0] StochasticReconLoss N
decompose[seed=0] l0/0.1_linear1 N
decompose[seed=0] l0/0.1_linear2 N
decompose[seed=1] no result: no earlier result
";
    let outcome = bench.run(&["metrics", "small.toml"]);
    assert_eq!((outcome.code, &*masked(&outcome.stdout), outcome.stderr.as_str()), (Some(0), expected, ""));
    let json = bench.run(&["metrics", "small.toml", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    assert_eq!(document["stages"][0]["metrics"][0]["name"], "loss");
    assert!(document["stages"][0]["metrics"][0]["value"].as_f64() > Some(0.0));
    assert_eq!(document["stages"][2]["metrics"], serde_json::Value::Null);
}

#[test]
fn log_prints_what_the_stage_wrote() {
    let bench = bench();
    let none = "error: stage `target` has no log: no earlier result\n  hint: `spdflow run` writes one\n";
    bench.run(&["log", "small.toml", "target"]).assert(2, "", none);
    let unknown = "error: stage `decompose[seed=0]` has no log yet: it depends on what `target` makes\n";
    bench.run(&["log", "small.toml", "decompose[seed=0]"]).assert(2, "", unknown);
    events(&bench, &[]);
    let outcome = bench.run(&["log", "small.toml", "target"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(masked(&outcome.stdout), "restart N, seed N: final loss N (kept)\n");
    let json = bench.run(&["log", "small.toml", "target", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    assert_eq!((&document["stage"], &document["log"]), (&"target".into(), &outcome.stdout.as_str().into()));
}

#[test]
fn results_are_found_with_the_arguments_that_made_them() {
    let bench = bench();
    let place = ["--out", "here", "--cache", "there", "--set", "stage.target.params.seed=3", "--device", "cpu"];
    bench.run(&[&["run", "small.toml", "--quiet"], &place[..]].concat()).assert(0, "", "");
    for arguments in [
        &["plan", "small.toml"][..],
        &["status", "small.toml", "--exit-code"],
        &["show", "small.toml"],
        &["metrics", "small.toml"],
        &["log", "small.toml", "target"],
    ] {
        let outcome = bench.run(&[arguments, &place[..]].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(!outcome.stdout.contains("no earlier result"), "{arguments:?}: {}", outcome.stdout);
    }
    assert!(!bench.path().join(".spdflow").exists());
}
