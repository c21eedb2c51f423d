//! Real runs of the binary: reuse, interruption, damage, company, and how a run ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Bench;
use crate::support::runs::{PIPELINE, bench, events, long_bench, outcomes, results, signal, start_until_step};

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
  run     decompose[seed=0]: `params.steps` 20 → 21
  run     decompose[seed=1]: `params.steps` 20 → 21
";
    bench.run(&[&["status", "small.toml", "--exit-code"][..], &edit].concat()).assert(3, expected, "");
    let edited = events(&bench, &edit);
    assert_eq!(outcomes(&edited), ["decompose[seed=0] ran", "decompose[seed=1] ran", "target cached"]);
    let reverted = events(&bench, &[]);
    assert_eq!(outcomes(&reverted), ["decompose[seed=0] cached", "decompose[seed=1] cached", "target cached"]);
}

#[test]
fn a_plan_says_what_differs_from_an_earlier_result() {
    let bench = bench();
    events(&bench, &["decompose[seed=0]"]);
    let other_seed = "\
small: 2 fresh, 1 run
  run     decompose[seed=2]: no earlier result; unlike `decompose[seed=0]`: `params.seed` 0 → 2
";
    bench.run(&["status", "small.toml", "--set", "axes.seed=[0, 2]"]).assert(0, other_seed, "");
    let edit = ["--set", "stage.target.params.seed=1", "--set", "stage.decompose.params.lr.start=2e-3"];
    events(&bench, &[&["target"][..], &edit].concat());
    let other_target = "\
small: 1 fresh, 2 run
  run     decompose[seed=0]: `params.lr.start` 0.001 → 0.002; input `target`: different bytes, produced by `target`
  run     decompose[seed=1]: no earlier result; unlike `decompose[seed=0]`: `params.lr.start` 0.001 → 0.002; `params.seed` 0 → 1; input `target`: different bytes, produced by `target`
";
    bench.run(&[&["status", "small.toml"][..], &edit].concat()).assert(0, other_target, "");
    let json = bench.run(&[&["plan", "small.toml", "--json"][..], &edit].concat());
    let plan: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    let compared = &plan["stages"][1]["compared"];
    assert_eq!(compared["instance"], "decompose[seed=0]");
    let first = serde_json::json!({ "field": "params.lr.start", "before": 0.001, "after": 0.002 });
    assert_eq!(compared["differences"][0], first);
    assert_eq!(compared["differences"][1]["producers"], serde_json::json!(["target"]));
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

/// Everything that an evaluation can draw, at steps of which some come before and some after a kill.
const FIGURES: &str = "
save_every = 500
[stage.decompose.params.evaluation]
every = 250
slow_every = 750
batches = 2
metrics = [\"ci_l0\", { kind = \"ci_histograms\", n_batches_accum = 1 }, \"permuted_ci_plots\", \"uv_plots\"]
";

#[test]
fn what_is_measured_and_how_often_does_not_change_what_is_learned() {
    let learned = |text: String| {
        let bench = Bench::new().file("small.toml", text);
        events(&bench, &[]);
        let results = results(&bench);
        let of = |file: &str| results[Path::new(&format!("small/decompose/seed=1/{file}"))].clone();
        assert_eq!(results.contains_key(Path::new("small/decompose/seed=1/evaluation.parquet")), results.len() > 20);
        (of("components.safetensors"), of("ci.parquet"))
    };
    let plain = learned(PIPELINE.to_owned());
    let often = "
[stage.decompose.params.evaluation]
every = 3
slow_every = 9
batches = 4
batch_size = 17
losses = [{ kind = \"unmasked_recon\", coeff = 0.0 }]
metrics = [
  \"component_activation_density\",
  { kind = \"pgd_multi_batch_recon\", init = \"random\", step_size = 0.1, n_steps = 2, gradient_accumulation_steps = 2 },
]
";
    assert!(learned(format!("{PIPELINE}{often}")) == plain);
    assert!(learned(format!("{PIPELINE}{FIGURES}")) == plain);
}

#[test]
fn figures_and_saves_made_before_a_kill_are_in_the_result() {
    let bench = || {
        let long = PIPELINE.replace("steps = 20\n", "steps = 1500\n").replace("seed = [0, 1]", "seed = [0]");
        Bench::new().file("small.toml", format!("{long}{FIGURES}"))
    };
    let undisturbed = bench();
    events(&undisturbed, &[]);
    let expected = results(&undisturbed);
    let folder = Path::new("small/decompose/seed=0");
    let figures = ["causal_importances", "causal_importance_values", "uv_matrices"].map(|key| format!("figures_{key}"));
    for step in [0, 750, 1500] {
        for name in figures.iter().chain([&"l0_bar_chart".to_owned()]) {
            for format in ["png", "svg"] {
                let file = folder.join(format!("figures/{name}_{step}.{format}"));
                assert!(expected.contains_key(&file), "{}", file.display());
            }
        }
        // What charts show lies beside them; a heat map shows what is in other files.
        for (name, has_numbers) in [("l0_bar_chart", true), ("figures_uv_matrices", false)] {
            let file = folder.join(format!("figures/{name}_{step}.json"));
            assert_eq!(expected.contains_key(&file), has_numbers, "{}", file.display());
        }
        let chart: serde_json::Value =
            serde_json::from_slice(&expected[&folder.join(format!("figures/l0_bar_chart_{step}.json"))]).unwrap();
        assert_eq!(chart["columns"], serde_json::json!(["series", "x", "width", "value"]));
        assert_eq!((&chart["step"], &chart["data"][0][0]), (&step.into(), &"linear1".into()));
        assert_eq!(chart["data"].as_array().map(Vec::len), Some(2), "a bar for each site");
    }
    for step in [500, 1000] {
        assert!(expected.contains_key(&folder.join(format!("checkpoints/components_{step}.safetensors"))));
    }
    assert!(
        !expected.contains_key(&folder.join("checkpoints/components_1500.safetensors")),
        "that is the result itself"
    );

    let bench = bench();
    for name in ["-KILL", "-INT"] {
        let mut child = start_until_step(&bench, "decompose[seed=0]", &["--checkpoint-seconds", "0"]);
        signal(&child, name);
        child.wait().unwrap();
    }
    let outcomes = outcomes(&events(&bench, &[]));
    assert_eq!(outcomes, ["decompose[seed=0] resumed", "target cached"]);
    let differing: Vec<_> = expected.iter().filter(|(path, bytes)| results(&bench).get(*path) != Some(bytes)).collect();
    assert!(differing.is_empty(), "{:?}", differing.iter().map(|(path, _)| path).collect::<Vec<_>>());
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
fn an_edited_result_is_restored() {
    let bench = bench();
    events(&bench, &[]);
    let before = results(&bench);
    fs::write(bench.path().join("out/small/target/target.json"), "{}").unwrap();
    let outcome = bench.run(&["run", "small.toml", "-q"]);
    outcome.assert(0, "", "");
    assert_eq!(results(&bench), before);
}
