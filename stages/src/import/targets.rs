//! The target models of the reference's experiments, and which of them a configuration means.
//!
//! A configuration names its target by a path, mostly a run on Weights & Biases, and says nothing of its shape. What is
//! known of these runs stands here; the settings are read from the shipped pipelines, which train the same model.

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
    /// The texts of the shipped pipeline that trains it and of the one below it, the lower first.
    pipelines: &'static [&'static str],
    /// What of its inputs a task may change: names and values as they are written.
    pub(super) data: &'static [(&'static str, &'static str)],
}

/// The text of a shipped pipeline.
macro_rules! shipped {
    ($name:literal) => {
        include_str!(concat!("../../../pipelines/", $name, ".toml"))
    };
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
        pipelines: &[shipped!("tms_5-2")],
        data: SPARSE_05,
    },
    Target {
        name: "tms_5-2-id",
        class: TMS,
        run: "gfgchmxj",
        n_features: Some(5),
        width: Some(2),
        kind: "train.tms",
        pipelines: &[shipped!("tms_5-2"), shipped!("tms_5-2-id")],
        data: SPARSE_05,
    },
    Target {
        name: "tms_40-10",
        class: TMS,
        run: "urpntmfu",
        n_features: Some(40),
        width: None,
        kind: "train.tms",
        pipelines: &[shipped!("tms_40-10")],
        data: SPARSE_05,
    },
    Target {
        name: "tms_40-10-id",
        class: TMS,
        run: "eggs3wp8",
        n_features: Some(40),
        width: Some(10),
        kind: "train.tms",
        pipelines: &[shipped!("tms_40-10"), shipped!("tms_40-10-id")],
        data: SPARSE_05,
    },
    Target {
        name: "resid_mlp1",
        class: RESID_MLP,
        run: "pziyck78",
        n_features: Some(100),
        width: Some(50),
        kind: "train.resid_mlp",
        pipelines: &[shipped!("resid_mlp1")],
        data: SPARSE_01,
    },
    Target {
        name: "resid_mlp2",
        class: RESID_MLP,
        run: "any9ekl9",
        n_features: Some(100),
        width: Some(25),
        kind: "train.resid_mlp",
        pipelines: &[shipped!("resid_mlp1"), shipped!("resid_mlp2")],
        data: SPARSE_01,
    },
    Target {
        name: "resid_mlp3",
        class: RESID_MLP,
        run: "6hk3uciu",
        n_features: Some(102),
        width: Some(17),
        kind: "train.resid_mlp",
        pipelines: &[shipped!("resid_mlp1"), shipped!("resid_mlp3")],
        data: SPARSE_01,
    },
    Target {
        name: "ih",
        class: INDUCTION_HEAD,
        run: "xaji0y6d",
        n_features: None,
        width: None,
        kind: "train.induction_head",
        pipelines: &[shipped!("ih")],
        data: &[("prefix_window", "61")],
    },
];

impl Target {
    /// Returns the parameters of the stage that trains it, a line each, as the shipped pipeline has them.
    pub(super) fn params(&self) -> String {
        let key = |line: &str| line.split(" = ").next().map(str::to_owned);
        let mut lines: Vec<&str> = Vec::new();
        for line in self.pipelines.iter().flat_map(|text| settings(text)) {
            match lines.iter_mut().find(|known| key(known) == key(line)) {
                Some(known) => *known = line,
                None => lines.push(line),
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Returns the lines of `[stage.target.params]`; an empty line ends the table.
fn settings(pipeline: &'static str) -> impl Iterator<Item = &'static str> {
    let lines = pipeline.lines().skip_while(|line| *line != "[stage.target.params]").skip(1);
    lines.take_while(|line| !line.is_empty())
}

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
