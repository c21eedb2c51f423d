//! A configuration of the reference, in today's form, becomes the parameters of a decomposition.

use spdflow_engine::diagnostic::Diagnostic;

use super::fields::Form::{Count, Flag, Number, Word};
use super::fields::Missing::{Means, Refused, Unset};
use super::fields::{Mistakes, Rule, Table, count, flag, items, text, word};
use super::metrics::{Measured, listed_pairs, losses, measured, patterns};
use super::targets::{Clues, Target, find};
use super::toml::Toml;
use super::yaml::{Data, Node};

/// A stage's parameters, in the order in which they are written.
pub(super) type Params = Vec<(String, Toml)>;

/// What a configuration comes to.
pub(super) struct Imported {
    /// The target that it decomposes.
    pub(super) target: &'static Target,
    /// How that is known.
    pub(super) because: String,
    /// What the configuration calls the target.
    pub(super) path: Option<String>,
    /// The seed.
    pub(super) seed: Toml,
    /// The parameters of the decomposition, besides seed and evaluation.
    pub(super) params: Params,
    /// Those of its evaluation.
    pub(super) evaluation: Params,
    /// Sites of which a few components act together.
    pub(super) dense: Vec<String>,
}

/// What there is to know besides the configuration.
pub(super) struct Setting<'a> {
    /// The target that the user named.
    pub(super) target: Option<&'a str>,
    /// The name of the file, without its ending.
    pub(super) stem: &'a str,
}

const SEED: &[Rule] = &[("seed", "seed", Count, Unset)];
const LENGTH: &[Rule] = &[("steps", "steps", Count, Refused), ("batch_size", "batch_size", Count, Refused)];
const LR: &[Rule] = &[
    ("start_val", "start", Number, Refused),
    ("fn_type", "schedule", Word(&["constant", "cosine", "linear"]), Means("\"constant\"")),
    ("warmup_pct", "warmup_fraction", Number, Means("0.0")),
    ("final_val_frac", "final_fraction", Number, Means("1.0")),
];
const WARMUP: &[Rule] = &[
    ("faithfulness_warmup_steps", "steps", Count, Unset),
    ("faithfulness_warmup_lr", "lr", Number, Unset),
    ("faithfulness_warmup_weight_decay", "weight_decay", Number, Unset),
];
const CLIP: &[Rule] = &[
    ("grad_clip_norm_components", "components", Number, Unset),
    ("grad_clip_norm_ci_fns", "causal_importance", Number, Unset),
];
const FUNCTIONS: &[Rule] = &[
    (
        "sigmoid_type",
        "sigmoid",
        Word(&["leaky_hard", "normal", "hard", "upper_leaky_hard", "swish_hard"]),
        Means("\"leaky_hard\""),
    ),
    ("sampling", "sampling", Word(&["continuous", "binomial"]), Means("\"continuous\"")),
    ("use_delta_component", "use_delta_component", Flag, Means("true")),
    ("n_mask_samples", "mask_samples", Count, Means("1")),
];
const RECORDS: &[Rule] = &[("train_log_freq", "log_every", Count, Refused), ("save_freq", "save_every", Count, Unset)];

/// What the reference writes to W&B or reads for language models: nothing here depends on it.
const WITHOUT_MEANING: &[&str] = &["wandb_project", "wandb_run_name", "wandb_run_name_prefix", "tokenizer_name"];

/// What we cannot do, and how to say it.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "ci_config",
        "global causal-importance functions are not supported, expected `ci_fn_type` and `ci_fn_hidden_dims`",
    ),
    ("init_spd_checkpoint", "a decomposition cannot begin at another one's components"),
    ("pretrained_model_name", "models from a hub are not supported, expected a target that a stage `train.*` makes"),
    ("pretrained_model_output_attr", "taking a part of the target's output is not supported"),
];

/// Returns what a configuration in today's form comes to.
pub(super) fn import(
    mut config: Table,
    setting: &Setting<'_>,
    notes: &mut Vec<String>,
    mistakes: &mut Mistakes,
) -> Option<Imported> {
    let task = task(&mut config, mistakes)?;
    for key in WITHOUT_MEANING {
        if let Some(field) = config.take(key)
            && let Ok(value) = text(&field.value)
            && !value.is_empty()
        {
            notes.push(format!("`{key}: {value}` has no meaning here"));
        }
    }
    for (key, message) in UNSUPPORTED {
        if let Some(field) = config.take(key) {
            mistakes.push(Diagnostic::new(format!("`{key}`: {message}")).at(Some(&field.key_origin)));
        }
    }
    let seed = config.convert(SEED, mistakes).pop().map_or(Toml::integer(0), |(_, seed)| seed);
    let (sites, identities) = sites(&mut config, mistakes);
    let (evaluation, measured) = evaluation(&mut config, notes, mistakes);
    let mut params = decomposition(&mut config, task, sites, identities, notes, mistakes);
    let class = config.require("pretrained_model_class", mistakes);
    let path = config.take("pretrained_model_path").and_then(|field| text(&field.value).ok().map(str::to_owned));
    let site_names: Vec<&str> = names(&params, "sites");
    let has_hidden = site_names.iter().any(|site| site.starts_with("hidden_layers"));
    let target = class.as_ref().and_then(|class| {
        let clues = Clues {
            asked_for: setting.target,
            class,
            class_path: text(class).unwrap_or_default(),
            path: path.as_deref(),
            stem: setting.stem,
            n_features: the_only(&measured.identity),
            width: the_only(&measured.dense),
            has_hidden,
        };
        find(&clues).map_err(|mistake| mistakes.push(mistake)).ok()
    });
    let data = config.require("task_config", mistakes).and_then(|table| Table::of(table, "`task_config`", mistakes));
    let data = data.map(|table| inputs(table, task, target.as_ref().map(|(target, _)| *target), mistakes));
    config.finish(mistakes);
    let (target, because) = target?;
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        params.push(("data".to_owned(), Toml::Table(data)));
    }
    let dense = measured.dense.into_iter().map(|(site, _)| site).collect();
    Some(Imported { target, because, path, seed, params, evaluation, dense })
}

/// What kind of task a configuration is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Vectors of sparse features.
    Features,
    /// Sequences of an induction task.
    Induction,
}

/// Returns the task; without one that we have, nothing else is worth saying.
fn task(config: &mut Table, mistakes: &mut Mistakes) -> Option<Task> {
    let task = config.peek("task_config").map(|node| node.data.clone());
    let Some(Data::Table(fields)) = task else { return Some(Task::Features) };
    let name = fields.into_iter().find(|field| field.key == "task_name")?.value;
    match text(&name) {
        Ok("tms" | "resid_mlp") => Some(Task::Features),
        Ok("ih") => Some(Task::Induction),
        Ok("lm") => {
            let message = "spdflow cannot decompose language models yet: `task_name` is `lm`, expected `tms`, `resid_mlp` or `ih`";
            mistakes.push(Diagnostic::new(message).at(Some(&name.origin)));
            None
        }
        _ => {
            mistakes.extend(word(&name, &["tms", "resid_mlp", "ih"]).err());
            None
        }
    }
}

fn sites(config: &mut Table, mistakes: &mut Mistakes) -> (Toml, Toml) {
    let mut list = |node: Option<Node>| {
        let pairs = node.map(|node| patterns(node, "module_pattern", "C", mistakes)).unwrap_or_default();
        listed_pairs(&pairs, "pattern", "C")
    };
    let identities = list(config.take("identity_module_info").map(|field| field.value));
    (list(config.take("module_info").map(|field| field.value)), identities)
}

/// Returns the parameters of the decomposition, in the order of the shipped pipelines.
fn decomposition(
    config: &mut Table,
    task: Task,
    sites: Toml,
    identities: Toml,
    notes: &mut Vec<String>,
    mistakes: &mut Mistakes,
) -> Params {
    let mut params = config.convert(LENGTH, mistakes);
    if let Some(schedule) = config.require("lr_schedule", mistakes)
        && let Some(mut table) = Table::of(schedule, "`lr_schedule`", mistakes)
    {
        params.push(("lr".to_owned(), Toml::Table(table.convert(LR, mistakes))));
        table.finish(mistakes);
    }
    params.push(("sites".to_owned(), sites));
    if identities != Toml::List(Vec::new()) {
        params.push(("identities".to_owned(), identities));
    }
    params.push(("causal_importance".to_owned(), causal_importance(config, mistakes)));
    let output = config.require("output_loss_type", mistakes).map(|node| word(&node, &["mse", "kl"]));
    match (output, task) {
        (Some(Err(mistake)), _) => mistakes.push(mistake),
        // What the targets of features have without being told.
        (Some(Ok("mse")), Task::Features) | (None, _) => {}
        (Some(Ok(loss)), _) => params.push(("output_loss".to_owned(), Toml::text(loss))),
    }
    let trained = config.require("loss_metric_configs", mistakes).map(|list| losses(list, mistakes));
    params.push(("losses".to_owned(), Toml::List(trained.unwrap_or_default())));
    let warmup = config.convert(WARMUP, mistakes);
    if warmup.iter().any(|(key, value)| key == "steps" && *value != Toml::integer(0)) {
        params.push(("faithfulness_warmup".to_owned(), Toml::Table(warmup)));
    }
    let clip = config.convert(CLIP, mistakes);
    if !clip.is_empty() {
        params.push(("grad_clip".to_owned(), Toml::Table(clip)));
    }
    params.extend(config.convert(FUNCTIONS, mistakes));
    match config.take("autocast_bf16").map(|field| flag(&field.value)) {
        Some(Err(mistake)) => mistakes.push(mistake),
        Some(Ok(false)) => {}
        Some(Ok(true)) | None => notes.push(
            "`autocast_bf16` is true, as it is by default in the reference: here products are computed in f32, which is \
             more exact; for products in bfloat16 add `precision = \"bf16\"` to the decomposition"
                .to_owned(),
        ),
    }
    params.extend(config.convert(RECORDS, mistakes));
    params
}

fn causal_importance(config: &mut Table, mistakes: &mut Mistakes) -> Toml {
    const KINDS: &[&str] = &["mlp", "vector_mlp", "shared_mlp"];
    let mut kind = "vector_mlp";
    match config.take("ci_fn_type").map(|field| word(&field.value, KINDS)) {
        Some(Ok(given)) => kind = given,
        Some(Err(mistake)) => mistakes.push(mistake),
        None => {}
    }
    let mut hidden = vec![Toml::integer(8)];
    if let Some(field) = config.take("ci_fn_hidden_dims") {
        let sizes = items(field.value, "whole numbers");
        match sizes.and_then(|sizes| sizes.iter().map(|size| count(size).map(Toml::integer)).collect()) {
            Ok(sizes) => hidden = sizes,
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Toml::variant(kind, vec![("hidden".to_owned(), Toml::List(hidden))])
}

/// Returns the parameters of the evaluation, and what of them tells of the target.
fn evaluation(config: &mut Table, notes: &mut Vec<String>, mistakes: &mut Mistakes) -> (Params, Measured) {
    let mut evaluation = config.convert(&[("eval_freq", "every", Count, Refused)], mistakes);
    let every = evaluation.first().map(|(_, every)| every.clone());
    let slow = config.convert(&[("slow_eval_freq", "slow_every", Count, Unset)], mistakes);
    evaluation.extend(slow.into_iter().filter(|(_, slow)| Some(slow) != every.as_ref()));
    evaluation.extend(config.convert(
        &[
            ("slow_eval_on_first_step", "slow_on_first_step", Flag, Means("true")),
            ("n_eval_steps", "batches", Count, Refused),
        ],
        mistakes,
    ));
    let batch = config.peek("batch_size").and_then(|node| count(node).ok()).map(Toml::integer);
    let size = config.convert(&[("eval_batch_size", "batch_size", Count, Unset)], mistakes);
    evaluation.extend(size.into_iter().filter(|(_, size)| Some(size) != batch.as_ref()));
    let threshold = config.convert(&[("ci_alive_threshold", "alive_threshold", Number, Unset)], mistakes).pop();
    // The default is another one here.
    evaluation.push(threshold.unwrap_or_else(|| ("alive_threshold".to_owned(), Toml::float(0.0))));
    let list = config.take("eval_metric_configs").map(|field| field.value);
    let measured = list.map(|list| measured(list, notes, mistakes)).unwrap_or_default();
    let mut add = |key: &str, items: Vec<Toml>| {
        if !items.is_empty() {
            evaluation.push((key.to_owned(), Toml::List(items)));
        }
    };
    let tables = |pairs: &[(String, u64)], number: &str| match listed_pairs(pairs, "pattern", number) {
        Toml::List(items) => items,
        _ => Vec::new(),
    };
    add("metrics", measured.metrics.clone());
    add("identity", tables(&measured.identity, "n_features"));
    add("dense", tables(&measured.dense, "k"));
    add("losses", measured.losses.clone());
    (evaluation, measured)
}

/// Returns what of the inputs differs from what the target is trained on.
fn inputs(mut table: Table, task: Task, target: Option<&Target>, mistakes: &mut Mistakes) -> Params {
    table.take("task_name");
    let rules: &[Rule] = match task {
        Task::Features => &[
            ("feature_probability", "feature_probability", Number, Refused),
            (
                "data_generation_type",
                "generation",
                Word(&[
                    "at_least_zero_active",
                    "exactly_one_active",
                    "exactly_two_active",
                    "exactly_three_active",
                    "exactly_four_active",
                    "exactly_five_active",
                ]),
                Means("\"at_least_zero_active\""),
            ),
        ],
        Task::Induction => &[("prefix_window", "prefix_window", Count, Unset)],
    };
    let mut data = table.convert(rules, mistakes);
    table.finish(mistakes);
    let known = target.map(|target| target.data).unwrap_or_default();
    data.retain(|(key, value)| !known.iter().any(|(name, known)| name == key && *known == value.inline()));
    data
}

fn the_only(pairs: &[(String, u64)]) -> Option<u64> {
    let (_, first) = pairs.first()?;
    pairs.iter().all(|(_, number)| number == first).then_some(*first)
}

fn names<'p>(params: &'p Params, key: &str) -> Vec<&'p str> {
    let list = params.iter().find(|(name, _)| name == key).map(|(_, list)| list);
    let Some(Toml::List(items)) = list else { return Vec::new() };
    let pattern = |item: &'p Toml| match item {
        Toml::Table(fields) => fields.iter().find_map(|(key, value)| match value {
            Toml::Text(text) if key == "pattern" => Some(text.as_str()),
            _ => None,
        }),
        _ => None,
    };
    items.iter().filter_map(pattern).collect()
}
