//! Whole configurations against the shipped pipelines, the migrations one by one, and every message.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use spdflow_engine::diagnostic::Report;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::spec::{self, Files, LoadOptions};

use super::{Configuration, import};

/// The smallest configuration of a toy model, a line for each setting.
const SMALL: &str = r#"module_info: [{module_pattern: linear1, C: 20}]
loss_metric_configs: [{classname: StochasticReconLoss, coeff: 1}]
output_loss_type: mse
lr_schedule: {start_val: 1e-3}
steps: 100
batch_size: 64
eval_freq: 10
n_eval_steps: 1
autocast_bf16: false
pretrained_model_class: spd.experiments.tms.models.TMSModel
pretrained_model_path: wandb:goodfire/spd-pre-Sep-2025/runs/0hsp07o4
task_config: {task_name: tms, feature_probability: 0.05}
"#;

/// Returns [`SMALL`] without the lines that begin with `without`, and with `with` after it.
fn changed(without: &[&str], with: &str) -> String {
    let stays = |line: &&str| !without.iter().any(|key| line.starts_with(&format!("{key}:")));
    SMALL.lines().filter(stays).map(|line| line.to_owned() + "\n").collect::<String>() + with
}

fn imported(text: &str) -> Result<String, Report> {
    import(&Configuration { file: "config.yaml", text, name: "config", target: None })
}

#[track_caller]
fn written(text: &str) -> String {
    let pipeline = imported(text).unwrap_or_else(|report| panic!("{report}"));
    loaded(&pipeline);
    pipeline
}

/// Returns the lines of the decomposition's parameters.
#[track_caller]
fn decomposition(text: &str) -> String {
    let pipeline = written(text);
    let (_, rest) = pipeline.split_once("seed = \"${seed}\"\n").expect("a decomposition");
    rest.split_once("\n[stage.figures]").expect("figures").0.to_owned()
}

/// Returns the comments at the head, each on one line.
fn notes(text: &str) -> Vec<String> {
    let pipeline = written(text);
    let head = pipeline.split_once("[pipeline]").expect("a pipeline").0;
    let joined = head.replace("\n#   ", " ");
    joined.lines().filter_map(|line| line.strip_prefix("# * ")).map(str::to_owned).collect()
}

#[track_caller]
fn mistakes(text: &str) -> String {
    imported(text).expect_err("a mistake").to_string()
}

struct One<'a>(&'a str);

impl Files for One<'_> {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.to_owned())
    }
}

#[track_caller]
fn loaded(text: &str) -> Pipeline {
    let options = LoadOptions { files: &One(text), ..LoadOptions::default() };
    let loaded = spec::load(Path::new("imported.toml"), &options, &crate::registry());
    loaded.unwrap_or_else(|report| panic!("{report}\n{text}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn params(pipeline: &Pipeline, stage: &str) -> Json {
    let mut of_stage = pipeline.instances.iter().filter(|instance| instance.id.stage == stage);
    of_stage.next().expect("an instance").params.value().to_json()
}

/// Returns where two values differ, with both.
fn differences(path: &str, ours: &Json, theirs: &Json, found: &mut Vec<String>) {
    if let (Json::Object(a), Json::Object(b)) = (ours, theirs) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let of = |table: &serde_json::Map<String, Json>| table.get(key).cloned().unwrap_or(Json::Null);
            differences(&format!("{path}.{key}"), &of(a), &of(b), found);
        }
    } else if ours != theirs {
        found.push(format!("{path}: {ours} instead of {theirs}"));
    }
}

#[test]
fn every_experiment_of_the_reference_becomes_the_shipped_pipeline() {
    // What a shipped pipeline measures beyond the configuration, or assumes where that is silent.
    let hidden = r#"[{"coeff":0.0,"kind":"stochastic_hidden_acts_recon"}]"#;
    let also = r#"[{"coeff":0.0,"kind":"faithfulness"},{"coeff":0.0,"kind":"unmasked_recon"},{"coeff":0.0,"kind":"ci_masked_recon"},{"coeff":0.0,"kind":"stochastic_hidden_acts_recon"}]"#;
    let more_losses = format!("decompose.evaluation.losses: {hidden} instead of {also}");
    let with_thresholds = |hidden: &str, others: &str| {
        let threshold = |name: &str, value: &str| format!("decompose.evaluation.{name}: null instead of {value}");
        vec![
            threshold("hidden_significance_threshold", hidden),
            more_losses.clone(),
            threshold("significance_threshold", others),
        ]
    };
    let of_heads = [
        "decompose.evaluation.alive_threshold: 0.0 instead of 0.1",
        r#"decompose.evaluation.metrics: [] instead of [{"kind":"ce_and_kl","rounding_threshold":0.0}]"#,
    ];
    let expected: [(&str, Vec<String>); 8] = [
        ("tms_5-2", vec![more_losses.clone()]),
        ("tms_5-2-id", with_thresholds("0.0115", "0.03")),
        ("tms_40-10", vec![more_losses.clone()]),
        ("tms_40-10-id", with_thresholds("0.1", "0.1")),
        ("resid_mlp1", vec![]),
        ("resid_mlp2", vec![]),
        ("resid_mlp3", vec![]),
        ("ih", of_heads.map(str::to_owned).into()),
    ];
    for (name, known) in expected {
        let file = root().join(format!("tests/fixtures/python_configs/{name}.yaml"));
        let text = fs::read_to_string(&file).expect("a configuration");
        let path = file.display().to_string();
        let pipeline = import(&Configuration { file: &path, text: &text, name, target: None });
        let ours = loaded(&pipeline.unwrap_or_else(|report| panic!("{report}")));
        let shipped = root().join(format!("pipelines/{name}.toml"));
        let shipped = spec::load(&shipped, &LoadOptions::default(), &crate::registry()).expect("a shipped pipeline");
        let mut found = Vec::new();
        for stage in ["target", "decompose"] {
            differences(stage, &params(&ours, stage), &params(&shipped, stage), &mut found);
        }
        assert_eq!(found, known, "{name}");
    }
}

#[test]
fn a_small_configuration_becomes_a_small_pipeline() {
    let expected = r#"# Made from `config.yaml` by `spdflow import-config`.
[pipeline]
name = "config"

[axes]
seed = [0]

# `wandb:goodfire/spd-pre-Sep-2025/runs/0hsp07o4` is taken to be the target of the shipped pipeline `tms_5-2`, trained
# here: the run that the configuration names is known.
[stage.target]
uses = "train.tms"
[stage.target.params]
n_features = 5
n_hidden = 2
tied_weights = true
feature_probability = 0.05
batch_size = 1024
steps = 10_000
lr = { start = 5e-3 }
restarts = 32
seed = 0

[stage.decompose]
uses = "decompose.spd"
inputs = { target = "target" }
matrix = ["seed"]
[stage.decompose.params]
seed = "${seed}"
steps = 100
batch_size = 64
lr = { start = 1e-3 }
sites = [{ pattern = "linear1", C = 20 }]
causal_importance = { kind = "vector_mlp", hidden = [8] }
losses = [{ kind = "stochastic_recon", coeff = 1.0 }]
log_every = 50
[stage.decompose.params.evaluation]
every = 10
batches = 1
alive_threshold = 0.0

[stage.figures]
uses = "plot"
[stage.figures.inputs]
decompositions = { from = "decompose", over = ["seed"] }
target = "target"
"#;
    assert_eq!(written(SMALL), expected);
}

#[test]
fn every_setting_has_its_counterpart() {
    let text = changed(
        &["loss_metric_configs", "lr_schedule", "task_config", "autocast_bf16"],
        r#"seed: 7
autocast_bf16: yes
n_mask_samples: 2
ci_fn_type: shared_mlp
ci_fn_hidden_dims: []
sampling: binomial
sigmoid_type: swish_hard
identity_module_info: [{module_pattern: linear2, C: 3}]
use_delta_component: off
lr_schedule: {start_val: 1e-3, fn_type: linear, warmup_pct: 0.1, final_val_frac: 0.5}
grad_clip_norm_components: 0.01
grad_clip_norm_ci_fns: 2
faithfulness_warmup_steps: 3
eval_batch_size: 8
slow_eval_freq: 20
slow_eval_on_first_step: false
save_freq: 50
ci_alive_threshold: 0.2
loss_metric_configs:
- {classname: ImportanceMinimalityLoss, coeff: 1, pnorm: 2, beta: 0.5, p_anneal_start_frac: 0, p_anneal_final_p: 0.3,
   p_anneal_end_frac: 0.9, eps: 1e-6}
- {classname: CIMaskedReconSubsetLoss, coeff: 1, routing: {type: static_probability, p: 0.4}}
- {classname: PGDReconLayerwiseLoss, coeff: 1, init: zeroes, step_size: 0.1, n_steps: 4, mask_scope: unique_per_datapoint}
eval_metric_configs:
- {classname: UVPlots, identity_patterns: [linear1], dense_patterns: null}
- {classname: PGDMultiBatchReconSubsetLoss, init: ones, step_size: 0.1, n_steps: 4, gradient_accumulation_steps: 2,
   routing: {type: uniform_k_subset}}
- {classname: CI_L0, groups: {total: ["*"], first: [linear1]}}
- {classname: UnmaskedReconLoss, coeff: null}
task_config: {task_name: tms, feature_probability: 0.1, data_generation_type: exactly_one_active}
"#,
    );
    let expected = r#"steps = 100
batch_size = 64
lr = { start = 1e-3, schedule = "linear", warmup_fraction = 0.1, final_fraction = 0.5 }
sites = [{ pattern = "linear1", C = 20 }]
identities = [{ pattern = "linear2", C = 3 }]
causal_importance = { kind = "shared_mlp", hidden = [] }
losses = [
  { kind = "importance_minimality", coeff = 1.0, p = 2.0, beta = 0.5, final_p = 0.3, anneal_from = 0.0, anneal_to = 0.9, eps = 1e-6 },
  { kind = "ci_masked_recon_subset", coeff = 1.0, routing = { kind = "static_probability", p = 0.4 } },
  { kind = "pgd_recon_layerwise", coeff = 1.0, init = "zeroes", step_size = 0.1, n_steps = 4, mask_scope = "unique_per_datapoint" },
]
faithfulness_warmup = { steps = 3 }
grad_clip = { components = 0.01, causal_importance = 2.0 }
sigmoid = "swish_hard"
sampling = "binomial"
use_delta_component = false
mask_samples = 2
log_every = 50
save_every = 50
data = { feature_probability = 0.1, generation = "exactly_one_active" }
[stage.decompose.params.evaluation]
every = 10
slow_every = 20
slow_on_first_step = false
batches = 1
batch_size = 8
alive_threshold = 0.2
metrics = [
  { kind = "uv_plots", identity_patterns = ["linear1"] },
  { kind = "pgd_multi_batch_recon_subset", init = "ones", step_size = 0.1, n_steps = 4, gradient_accumulation_steps = 2 },
  { kind = "ci_l0", groups = { total = ["*"], first = ["linear1"] } },
]
losses = [{ kind = "unmasked_recon", coeff = 0.0 }]
"#;
    assert_eq!(decomposition(&text), expected);
    assert!(written(&text).contains("\nseed = [7]\n"));
}

#[test]
fn one_number_of_components_for_all_modules_becomes_one_for_each() {
    let text = changed(
        &["module_info"],
        "C: 4\ntarget_module_patterns: [linear1, linear2]\nidentity_module_patterns: [linear2]\n",
    );
    let text = decomposition(&text);
    assert!(text.contains("sites = [{ pattern = \"linear1\", C = 4 }, { pattern = \"linear2\", C = 4 }]\n"), "{text}");
    assert!(text.contains("identities = [{ pattern = \"linear2\", C = 4 }]\n"), "{text}");
    assert_eq!(
        mistakes(&changed(&["module_info"], "target_module_patterns: [linear1]\n")),
        "config.yaml:12:1: `target_module_patterns` needs `C`, the number of components, which is missing"
    );
}

#[test]
fn a_learning_rate_and_the_name_of_its_schedule_become_a_table() {
    let with = |lines: &str| changed(&["lr_schedule"], lines);
    let schedule = |lines: &str| {
        let text = decomposition(&with(lines));
        text.lines().find(|line| line.starts_with("lr = ")).expect("a schedule").to_owned()
    };
    assert_eq!(schedule("lr: 1e-3\n"), "lr = { start = 1e-3 }");
    assert_eq!(
        schedule("lr: 0.01\nlr_schedule: cosine\nlr_warmup_pct: 0.1\n"),
        "lr = { start = 0.01, schedule = \"cosine\", warmup_fraction = 0.1, final_fraction = 0.0 }"
    );
    assert_eq!(schedule("lr: 1e-3\nlr_schedule: linear\n"), "lr = { start = 1e-3, schedule = \"linear\" }");
    assert_eq!(
        notes(&with("lr: 1e-3\nlr_schedule: linear\n")),
        ["The old `lr_schedule: linear` ends where it starts, as the reference's migration makes it; it once fell to \
          zero, which would be `final_fraction = 0.0`."]
    );
    assert!(mistakes(&with("lr: 1e-3\nlr_schedule: exponential\n")).starts_with(
        "config.yaml:13:14: `exponential` is not a schedule any more, expected `constant`, `cosine` or `linear`"
    ));
}

#[test]
fn coefficients_become_losses_unless_there_are_losses() {
    let coefficients = "faithfulness_coeff: 1e7\nrecon_coeff: null\nci_recon_coeff: 0.5\nstochastic_recon_coeff: 0\n\
                        ci_recon_layerwise_coeff: 2\nimportance_minimality_coeff: 3e-4\npnorm: 2\np_anneal_final_p: 0.1\n\
                        p_anneal_start_frac: 0.5\np_anneal_end_frac: 1.0\n";
    let text = decomposition(&changed(&["loss_metric_configs"], coefficients));
    let expected = r#"losses = [
  { kind = "faithfulness", coeff = 1e7 },
  { kind = "ci_masked_recon", coeff = 0.5 },
  { kind = "ci_masked_recon_layerwise", coeff = 2.0 },
  { kind = "importance_minimality", coeff = 3e-4, p = 2.0, final_p = 0.1, anneal_from = 0.5 },
]
"#;
    assert!(text.contains(expected), "{text}");
    let text = decomposition(&changed(&[], coefficients));
    assert!(text.contains("losses = [{ kind = \"stochastic_recon\", coeff = 1.0 }]\n"), "{text}");
    assert_eq!(
        mistakes(&changed(&["loss_metric_configs"], "recon_coeff: 1\nci_recon_coeff: 1\n")),
        "config.yaml:13:1: `ci_recon_coeff` is another name of a coefficient that is given too, for `CIMaskedReconLoss`"
    );
    assert_eq!(
        mistakes(&changed(&["loss_metric_configs"], "loss_metric_configs: []\n")),
        "config.yaml:12:22: `loss_metric_configs` is empty, expected at least one loss"
    );
    assert_eq!(mistakes(&changed(&["loss_metric_configs"], "")), "`loss_metric_configs` is missing");
}

#[test]
fn what_the_reference_deletes_is_dropped_and_said() {
    let text = changed(
        &[],
        "eval_metrics: [a, b]\nimage_freq: 10\nout_dir: null\ndist_backend: nccl\n\
         gradient_accumulation_steps: 4\nwandb_run_name: trial\nwandb_run_name_prefix: ''\n",
    );
    assert_eq!(
        notes(&text),
        [
            "`eval_metrics: [a, b]` is dropped: an old list of names; metrics are chosen by `eval_metric_configs`.",
            "`image_freq: 10` is dropped: the reference has no such setting any more.",
            "`dist_backend: nccl` is dropped: the reference has no such setting any more.",
            "`gradient_accumulation_steps: 4` is dropped: the reference has no such setting any more.",
            "`wandb_run_name: trial` has no meaning here.",
        ]
    );
    assert!(notes(SMALL).is_empty());
}

#[test]
fn old_names_are_known_by_their_new_ones() {
    let text = changed(
        &["eval_freq"],
        "grad_clip_norm: 0.5\nprint_freq: 25\ngate_type: mlp\ngate_hidden_dims: [16]\npretrained_model_name_hf: null\n",
    );
    let text = decomposition(&text);
    for line in
        ["grad_clip = { components = 0.5 }", "every = 25", "causal_importance = { kind = \"mlp\", hidden = [16] }"]
    {
        assert!(text.contains(&format!("{line}\n")), "{text}");
    }
    assert_eq!(
        mistakes(&changed(&[], "print_freq: 25\n")),
        "config.yaml:13:1: `print_freq` is the old name of `eval_freq`, which is given too"
    );
}

#[test]
fn old_forms_of_metrics_are_dropped_or_completed() {
    let text = changed(
        &["loss_metric_configs"],
        "loss_metric_configs: [{classname: ImportanceMinimalityLoss, coeff: 1, pnorm: 1}]\n\
         eval_metric_configs: [{classname: UVPlots, extra_init_kwargs: {a: 1}}, {classname: PermutedCIPlots, \
         sigmoid_type: hard}]\n",
    );
    assert!(decomposition(&text).contains("metrics = [\"permuted_ci_plots\"]\n"));
    assert_eq!(
        notes(&text),
        [
            "`UVPlots` of `eval_metric_configs` is dropped: its `extra_init_kwargs` is an old form.",
            "`ImportanceMinimalityLoss` has no `beta`, which then is 0.",
        ]
    );
}

#[test]
fn a_configuration_of_the_papers_time_has_no_delta_component() {
    let text = decomposition(&changed(&[], "n_ci_mlp_neurons: 16\n"));
    assert!(text.contains("causal_importance = { kind = \"mlp\", hidden = [16] }\n"), "{text}");
    assert!(text.contains("use_delta_component = false\n"), "{text}");
    assert!(mistakes(&changed(&[], "n_ci_mlp_neurons: 0\n")).contains("networks without hidden neurons"));
}

#[test]
fn the_target_is_told_from_what_the_configuration_says() {
    let unknown = "pretrained_model_path: local:tms.pth\n";
    let solution = |n: u32| {
        format!(
            "{unknown}eval_metric_configs: [{{classname: IdentityCIError, identity_ci: [{{layer_pattern: linear1, n_features: {n}}}]}}]\n"
        )
    };
    let target = |text: &str, file: &str| {
        import(&Configuration { file, text, name: "x", target: None }).map(|text| {
            let comment = text.split("# `local:tms.pth`").nth(1).expect("a comment").split("[stage").next();
            comment.expect("words").replace("\n# ", " ").trim().to_owned()
        })
    };
    let without_path = |with: &str| changed(&["pretrained_model_path"], with);
    assert_eq!(
        target(&without_path(&solution(40)), "c.yaml").expect("a target"),
        "is taken to be the target of the shipped pipeline `tms_40-10`, trained here: it is the only one of this shape."
    );
    assert_eq!(
        target(&without_path(unknown), "tms_40-10_config.yaml").expect("a target"),
        "is taken to be the target of the shipped pipeline `tms_40-10`, trained here: the file is called so."
    );
    let report = target(&without_path(unknown), "c.yaml").expect_err("nothing is known");
    assert_eq!(
        report.to_string(),
        "c.yaml:10:25: it is not known what the target `local:tms.pth` of this configuration looks like"
    );
    assert_eq!(
        report.diagnostics[0].hints,
        ["say which it is with `--target NAME`: `tms_5-2`, `tms_5-2-id`, `tms_40-10`, `tms_40-10-id`"]
    );
    let text = without_path(&solution(41));
    assert!(target(&text, "tms_40-10.yaml").is_err(), "no known model has 41 features");
    let named = import(&Configuration { file: "c.yaml", text: &text, name: "x", target: Some("tms_40-10") });
    assert!(named.expect("a target").contains("trained here: you asked for it."));
    let named = import(&Configuration { file: "c.yaml", text: &text, name: "x", target: Some("tms_40-1") });
    let report = named.expect_err("no such target");
    assert_eq!(report.to_string(), "there is no target `tms_40-1` of class `TMSModel`");
    assert_eq!(report.diagnostics[0].hints, ["did you mean `tms_40-10`?"]);
}

#[test]
fn what_cannot_be_run_is_named() {
    let lm = changed(&["task_config"], "task_config: {task_name: lm, max_seq_len: 512}\n");
    assert_eq!(
        mistakes(&lm),
        "config.yaml:12:26: spdflow cannot decompose language models yet: `task_name` is `lm`, expected `tms`, \
         `resid_mlp` or `ih`"
    );
    let others = changed(
        &["loss_metric_configs", "pretrained_model_class"],
        "loss_metric_configs: [{classname: PersistentPGDReconSubsetLoss, coeff: 0.5}]\n\
         ci_config: {mode: global}\npretrained_model_class: transformers.GPT2LMHeadModel\n\
         eval_metric_configs: [{classname: CIHistogram}]\n",
    );
    assert_eq!(
        mistakes(&others),
        "config.yaml:11:35: spdflow has no loss `PersistentPGDReconSubsetLoss`\n\
         config.yaml:12:1: `ci_config`: global causal-importance functions are not supported, expected `ci_fn_type` and \
         `ci_fn_hidden_dims`\n\
         config.yaml:13:25: spdflow cannot make a target of class `transformers.GPT2LMHeadModel`\n\
         config.yaml:14:35: spdflow has no metric `CIHistogram`"
    );
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "module_info: [{module_pattern: linear1}]\n\
                loss_metric_configs: [{classname: StochasticReconLoss}, {coeff: 1}, 3]\n\
                output_loss_type: mae\n\
                lr_schedule: {start_val: fast, fn: cosine}\n\
                steps: 1.5\n\
                batch_size:\n\
                stepz: 1\n\
                autocast_bf16: 1\n\
                task_config: {task_name: tms, feature_probability: 0.05, seed: 1}\n";
    assert_eq!(
        mistakes(text),
        "`eval_freq` is missing\n\
         `n_eval_steps` is missing\n\
         `pretrained_model_class` is missing\n\
         config.yaml:1:15: `C` of a table with `module_pattern` and `C` is missing\n\
         config.yaml:2:23: `coeff` of `StochasticReconLoss` is missing\n\
         config.yaml:2:57: `classname` of a table with a `classname` is missing\n\
         config.yaml:2:69: expected a table with a `classname`, found `3`\n\
         config.yaml:3:19: expected one of `mse`, `kl`, found `mae`\n\
         config.yaml:4:26: expected a number, found `fast`\n\
         config.yaml:4:32: unknown key `fn` of `lr_schedule`\n\
         config.yaml:5:8: expected a whole number that is not negative, found `1.5`\n\
         config.yaml:6:1: `batch_size` is given without a value\n\
         config.yaml:7:1: unknown key `stepz`\n\
         config.yaml:8:16: expected `true` or `false`, found `1`\n\
         config.yaml:9:58: unknown key `seed` of `task_config`"
    );
    assert_eq!(mistakes("- 1\n"), "config.yaml:1:1: expected a table, found a list");
}
