//! The target models of the reference's experiments, and which of them a configuration means.
//!
//! A configuration names its target by a path, mostly a run on Weights & Biases, and says nothing of its shape. What is
//! known of these runs stands here; the settings are those of the shipped pipelines, which train the same model.

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::suggest::{did_you_mean, listed};

use super::yaml::Node;

/// A target model.
#[derive(Debug)]
pub(super) struct Target {
    /// The experiment, as its shipped pipeline is called.
    pub(super) name: &'static str,
    /// The last part of `pretrained_model_class`.
    pub(super) class: &'static str,
    /// The run on Weights & Biases that holds it.
    pub(super) run: &'static str,
    /// How many features it has; nothing for targets that read tokens.
    pub(super) n_features: Option<u64>,
    /// The neurons of a layer, or the width of its fixed hidden layer: how many components act together there.
    pub(super) width: Option<u64>,
    /// The stage kind that trains it.
    pub(super) kind: &'static str,
    /// The parameters of that stage.
    pub(super) params: &'static str,
    /// What of its inputs a task may change: names and values as they are written.
    pub(super) data: &'static [(&'static str, &'static str)],
}

const TMS: &str = "TMSModel";
const RESID_MLP: &str = "ResidMLP";
const INDUCTION_HEAD: &str = "InductionTransformer";

const SPARSE_05: &[(&str, &str)] = &[("feature_probability", "0.05"), ("generation", "\"at_least_zero_active\"")];
const SPARSE_01: &[(&str, &str)] = &[("feature_probability", "0.01"), ("generation", "\"at_least_zero_active\"")];

/// Every target that is known.
pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "tms_5-2",
        class: TMS,
        run: "0hsp07o4",
        n_features: Some(5),
        width: None,
        kind: "train.tms",
        params: "n_features = 5
n_hidden = 2
tied_weights = true
feature_probability = 0.05
batch_size = 1024
steps = 10_000
lr = { start = 5e-3 }
restarts = 32
seed = 0
",
        data: SPARSE_05,
    },
    Target {
        name: "tms_5-2-id",
        class: TMS,
        run: "gfgchmxj",
        n_features: Some(5),
        width: Some(2),
        kind: "train.tms",
        params: "n_features = 5
n_hidden = 2
n_hidden_layers = 1
hidden_layers = \"fixed_identity\"
tied_weights = true
feature_probability = 0.05
batch_size = 1024
steps = 10_000
lr = { start = 5e-3 }
restarts = 32
seed = 0
",
        data: SPARSE_05,
    },
    Target {
        name: "tms_40-10",
        class: TMS,
        run: "urpntmfu",
        n_features: Some(40),
        width: None,
        kind: "train.tms",
        params: "n_features = 40
n_hidden = 10
tied_weights = true
init_bias_to_zero = true
feature_probability = 0.05
batch_size = 8192
steps = 10_000
lr = { start = 5e-3 }
seed = 0
",
        data: SPARSE_05,
    },
    Target {
        name: "tms_40-10-id",
        class: TMS,
        run: "eggs3wp8",
        n_features: Some(40),
        width: Some(10),
        kind: "train.tms",
        params: "n_features = 40
n_hidden = 10
n_hidden_layers = 1
hidden_layers = \"fixed_identity\"
tied_weights = true
init_bias_to_zero = true
feature_probability = 0.05
batch_size = 8192
steps = 10_000
lr = { start = 5e-3 }
seed = 0
",
        data: SPARSE_05,
    },
    Target {
        name: "resid_mlp1",
        class: RESID_MLP,
        run: "pziyck78",
        n_features: Some(100),
        width: Some(50),
        kind: "train.resid_mlp",
        params: "n_features = 100
d_embed = 1000
d_mlp = 50
n_layers = 1
act_fn = \"relu\"
embedding = \"fixed_random\"
label = \"act_plus_resid\"
label_coefficients = \"trivial\"
loss = { kind = \"readoff\", importance_val = 1.0 }
feature_probability = 0.01
batch_size = 2048
steps = 1000
lr = { start = 3e-3, schedule = \"cosine\", final_fraction = 0.0 }
seed = 0
",
        data: SPARSE_01,
    },
    Target {
        name: "resid_mlp2",
        class: RESID_MLP,
        run: "any9ekl9",
        n_features: Some(100),
        width: Some(25),
        kind: "train.resid_mlp",
        params: "n_features = 100
d_embed = 1000
d_mlp = 25
n_layers = 2
act_fn = \"relu\"
embedding = \"fixed_random\"
label = \"act_plus_resid\"
label_coefficients = \"trivial\"
loss = { kind = \"readoff\", importance_val = 1.0 }
feature_probability = 0.01
batch_size = 2048
steps = 1000
lr = { start = 3e-3, schedule = \"cosine\", final_fraction = 0.0 }
seed = 0
",
        data: SPARSE_01,
    },
    Target {
        name: "resid_mlp3",
        class: RESID_MLP,
        run: "6hk3uciu",
        n_features: Some(102),
        width: Some(17),
        kind: "train.resid_mlp",
        params: "n_features = 102
d_embed = 1000
d_mlp = 17
n_layers = 3
act_fn = \"relu\"
embedding = \"fixed_random\"
label = \"act_plus_resid\"
label_coefficients = \"trivial\"
loss = { kind = \"readoff\", importance_val = 1.0 }
feature_probability = 0.01
batch_size = 2048
steps = 10_000
lr = { start = 3e-3, schedule = \"cosine\", final_fraction = 0.0 }
seed = 0
",
        data: SPARSE_01,
    },
    Target {
        name: "ih",
        class: INDUCTION_HEAD,
        run: "xaji0y6d",
        n_features: None,
        width: None,
        kind: "train.induction_head",
        params: "vocab_size = 128
seq_len = 64
d_model = 16
n_heads = 1
n_layers = 2
use_ff = false
use_pos_encoding = true
use_layer_norm = false
prefix_window = 61
steps = 100_000
batch_size = 1024
lr = { start = 1e-3, warmup_fraction = 0.01 }
weight_decay = 0.01
seed = 42
",
        data: &[("prefix_window", "61")],
    },
];

/// What a configuration says of its target.
pub(super) struct Clues<'a> {
    /// The target that the user named.
    pub(super) asked_for: Option<&'a str>,
    /// `pretrained_model_class`.
    pub(super) class: &'a Node,
    /// The text of `pretrained_model_class`.
    pub(super) class_path: &'a str,
    /// `pretrained_model_path`.
    pub(super) path: Option<&'a str>,
    /// The name of the file.
    pub(super) stem: &'a str,
    /// How many features a faithful decomposition tells apart, if the configuration says so.
    pub(super) n_features: Option<u64>,
    /// How many components act together, if the configuration says so.
    pub(super) width: Option<u64>,
    /// Whether hidden layers of a toy model are decomposed.
    pub(super) has_hidden: bool,
}

/// Returns the target that a configuration means, and how that is known.
pub(super) fn find(clues: &Clues<'_>) -> Result<(&'static Target, String), Diagnostic> {
    let class = clues.class_path.rsplit('.').next().unwrap_or_default();
    let mut candidates: Vec<&Target> = TARGETS.iter().filter(|target| target.class == class).collect();
    if candidates.is_empty() {
        let message = format!("spdflow cannot make a target of class `{}`", clues.class_path);
        let hint = format!("targets there are: {}", listed([TMS, RESID_MLP, INDUCTION_HEAD]));
        return Err(Diagnostic::new(message).at(Some(&clues.class.origin)).hint(hint));
    }
    if let Some(name) = clues.asked_for {
        return candidates
            .iter()
            .find(|target| target.name == name)
            .map(|target| (*target, "you asked for it".to_owned()))
            .ok_or_else(|| {
                let names = candidates.iter().map(|target| target.name);
                let hint = did_you_mean(name, names.clone())
                    .unwrap_or_else(|| format!("targets of this class: {}", listed(names)));
                Diagnostic::new(format!("there is no target `{name}` of class `{class}`")).hint(hint)
            });
    }
    if let [only] = candidates[..] {
        return Ok((only, "it is the only one of its class".to_owned()));
    }
    let run = clues.path.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if let Some(target) = candidates.iter().find(|target| target.run == run) {
        return Ok((*target, "the run that the configuration names is known".to_owned()));
    }
    // A clue that fits nothing leaves no candidate: better to ask than to train another model.
    candidates.retain(|target| clues.n_features.is_none() || clues.n_features == target.n_features);
    if class == TMS {
        candidates.retain(|target| clues.has_hidden == target.width.is_some());
    }
    candidates.retain(|target| clues.width.is_none() || clues.width == target.width);
    if let [only] = candidates[..] {
        return Ok((only, "it is the only one of this shape".to_owned()));
    }
    let by_name = candidates.iter().filter(|target| clues.stem.starts_with(target.name));
    if let Some(target) = by_name.max_by_key(|target| target.name.len()) {
        return Ok((*target, "the file is called so".to_owned()));
    }
    let named = clues.path.map_or_else(String::new, |path| format!(" `{path}`"));
    let all = TARGETS.iter().filter(|target| target.class == class).map(|target| target.name);
    Err(Diagnostic::new(format!("it is not known what the target{named} of this configuration looks like"))
        .at(Some(&clues.class.origin))
        .hint(format!("say which it is with `--target NAME`: {}", listed(all))))
}
