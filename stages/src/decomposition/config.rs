//! The parameters of a decomposition, as a pipeline states them and as `decomposition.json` records them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;

use super::causal_importance::{CausalImportance, HiddenLayers, SigmoidType};
use super::draws::Sampling;
use super::evaluation::{END_OF_BATCHES, MetricConfig};
use super::loss::LossConfig;
use super::site::SitePattern;
use super::step::OutputLoss;
use crate::bridge::Precision;
use crate::data::Generation;
use crate::optimizer::schedule::Schedule;
use crate::solution::{DensePattern, IdentityPattern};

/// The parameters of `decompose.spd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecomposeParams {
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// How many optimiser updates.
    pub steps: u64,
    /// Vectors in a batch, or sequences if the target reads tokens.
    pub batch_size: usize,
    /// The learning rate of components and networks.
    pub lr: Schedule,
    /// Which matrices to decompose, and into how many components each.
    pub sites: Vec<SitePattern>,
    /// Modules before which an identity matrix is inserted and decomposed.
    #[serde(default)]
    pub identities: Vec<SitePattern>,
    /// The networks that compute causal importances.
    #[serde(default = "default_importance")]
    pub causal_importance: CausalImportance,
    /// The squashing functions of the causal importances.
    #[serde(default)]
    pub sigmoid: SigmoidType,
    /// How mask sources are distributed.
    #[serde(default)]
    pub sampling: Sampling,
    /// Whether the difference between the target's weights and the components' sum takes part as one more component
    /// that is always maskable.
    #[serde(default = "yes")]
    pub use_delta_component: bool,
    /// Whether the components of matrices that share storage share theirs too.
    #[serde(default = "yes")]
    pub tie_components: bool,
    /// Mask samples that each stochastic loss averages.
    #[serde(default = "one")]
    pub mask_samples: usize,
    /// How reconstruction losses compare outputs; where left out, `mse` for targets that read vectors and `kl` for those
    /// that read tokens.
    #[serde(default)]
    pub output_loss: Option<OutputLoss>,
    /// The losses and their weights.
    pub losses: Vec<LossConfig>,
    /// Updates on faithfulness alone before the first step.
    #[serde(default)]
    pub faithfulness_warmup: Warmup,
    /// Gradient clipping.
    #[serde(default)]
    pub grad_clip: GradClip,
    /// The inputs; what the target was trained on where left out.
    #[serde(default)]
    pub data: DataOverride,
    /// How exactly the products of a training step are computed. Parameters, gradients and the optimiser are always
    /// f32, and so is evaluation.
    #[serde(default)]
    pub precision: Precision,
    /// Steps between records of the training losses.
    #[serde(default = "hundred")]
    pub log_every: u64,
    /// Steps between saves of the components into the artifact's folder `checkpoints`; only at the end where left out.
    #[serde(default)]
    pub save_every: Option<u64>,
    /// What is measured, and how often.
    #[serde(default)]
    pub evaluation: Evaluation,
}

/// Updates on faithfulness alone (spec section 6.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    /// How many.
    #[serde(default)]
    pub steps: u64,
    /// Their learning rate.
    #[serde(default = "warmup_lr")]
    pub lr: f64,
    /// Their weight decay.
    #[serde(default)]
    pub weight_decay: f64,
}

impl Default for Warmup {
    fn default() -> Self {
        Self { steps: 0, lr: warmup_lr(), weight_decay: 0.0 }
    }
}

/// The largest global L2 norm of each group's gradients; unlimited where left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GradClip {
    /// For V and U.
    #[serde(default)]
    pub components: Option<f64>,
    /// For the causal-importance networks.
    #[serde(default)]
    pub causal_importance: Option<f64>,
}

/// What of the input distribution differs from the target's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataOverride {
    /// The probability that a feature is active.
    #[serde(default)]
    pub feature_probability: Option<f64>,
    /// How active features are chosen.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Up to which position the first induction token of a sequence stands.
    #[serde(default)]
    pub prefix_window: Option<usize>,
}

/// What is measured during the run (spec sections 5.5 to 5.9).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Steps between evaluations.
    #[serde(default = "thousand")]
    pub every: u64,
    /// Batches in one evaluation.
    #[serde(default = "hundred_batches")]
    pub batches: usize,
    /// Vectors or sequences in an evaluation batch; the training batch's where left out.
    #[serde(default)]
    pub batch_size: Option<usize>,
    /// A component counts as alive where its lower causal importance exceeds this.
    #[serde(default = "tenth")]
    pub alive_threshold: f64,
    /// Losses that are only measured.
    #[serde(default)]
    pub losses: Vec<LossConfig>,
    /// What else is measured: numbers and figures.
    #[serde(default)]
    pub metrics: Vec<MetricConfig>,
    /// Steps between slow evaluations, which draw the figures; a multiple of `every`, and `every` where left out. The
    /// evaluation after the last step is always a slow one.
    #[serde(default)]
    pub slow_every: Option<u64>,
    /// Whether the evaluation before the first step is a slow one.
    #[serde(default = "yes")]
    pub slow_on_first_step: bool,
    /// Sites of which each component should answer for one feature.
    #[serde(default)]
    pub identity: Vec<IdentityPattern>,
    /// Sites of which a few components should act together.
    #[serde(default)]
    pub dense: Vec<DensePattern>,
    /// A component is significant if its subnet is larger than this: for toy models of superposition the sum over input
    /// features of the length of what it writes, else its Frobenius norm. Where left out, 0.017 for toy models of
    /// superposition; other targets have no usual threshold, and their significant components are not counted.
    #[serde(default)]
    pub significance_threshold: Option<f64>,
    /// The same for the hidden layers of toy models of superposition, in whose subnets no feature has a row of its own: a
    /// Frobenius norm, 0.009 where left out. Nothing of other targets.
    #[serde(default)]
    pub hidden_significance_threshold: Option<f64>,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            every: thousand(),
            batches: hundred_batches(),
            batch_size: None,
            alive_threshold: tenth(),
            losses: Vec::new(),
            metrics: Vec::new(),
            slow_every: None,
            slow_on_first_step: true,
            identity: Vec::new(),
            dense: Vec::new(),
            significance_threshold: None,
            hidden_significance_threshold: None,
        }
    }
}

fn default_importance() -> CausalImportance {
    CausalImportance::VectorMlp(HiddenLayers { hidden: vec![8] })
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn hundred() -> u64 {
    100
}

fn hundred_batches() -> usize {
    100
}

fn thousand() -> u64 {
    1000
}

fn tenth() -> f64 {
    0.1
}

fn warmup_lr() -> f64 {
    1e-3
}

impl DecomposeParams {
    /// Returns everything that is out of range.
    #[must_use]
    pub fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        let mut at_least_one = |path: &str, n: u64| {
            if n == 0 {
                issues.push(ParamIssue::new(path, "must be at least 1, found 0"));
            }
        };
        at_least_one("batch_size", self.batch_size as u64);
        at_least_one("mask_samples", self.mask_samples as u64);
        at_least_one("log_every", self.log_every);
        at_least_one("save_every", self.save_every.unwrap_or(1));
        at_least_one("evaluation.every", self.evaluation.every);
        at_least_one("evaluation.slow_every", self.evaluation.slow_every.unwrap_or(1));
        at_least_one("evaluation.batches", self.evaluation.batches as u64);
        at_least_one("evaluation.batch_size", self.evaluation.batch_size.unwrap_or(1) as u64);
        for (list, sites) in [("sites", &self.sites), ("identities", &self.identities)] {
            for (i, site) in sites.iter().enumerate() {
                at_least_one(&format!("{list}[{i}].C"), site.components as u64);
            }
        }
        if let Some((field, message)) = self.lr.mistake() {
            issues.push(ParamIssue::new(format!("lr.{field}"), message));
        }
        if self.sites.is_empty() && self.identities.is_empty() {
            issues.push(ParamIssue::new("sites", "names no site to decompose, expected at least one"));
        }
        if self.losses.is_empty() {
            issues.push(ParamIssue::new("losses", "is empty, expected at least one loss"));
        }
        if let Some(message) = self.causal_importance.mistake() {
            issues.push(ParamIssue::new("causal_importance.hidden", message));
        }
        for (list, losses) in [("losses", &self.losses), ("evaluation.losses", &self.evaluation.losses)] {
            for (i, loss) in losses.iter().enumerate() {
                issues.extend(
                    loss.issues()
                        .into_iter()
                        .map(|issue| ParamIssue { path: format!("{list}[{i}].{}", issue.path), ..issue }),
                );
                if losses[..i].iter().any(|other| other.class() == loss.class()) {
                    issues
                        .push(ParamIssue::new(format!("{list}[{i}].kind"), "names a loss that is in the list already"));
                }
            }
        }
        for (i, metric) in self.evaluation.metrics.iter().enumerate() {
            let path = format!("evaluation.metrics[{i}]");
            let own = metric.issues().into_iter();
            issues.extend(own.map(|issue| ParamIssue { path: format!("{path}.{}", issue.path), ..issue }));
            let kind = std::mem::discriminant(metric);
            if self.evaluation.metrics[..i].iter().any(|other| std::mem::discriminant(other) == kind) {
                issues.push(ParamIssue::new(format!("{path}.kind"), "names a metric that is in the list already"));
            }
        }
        let every = self.evaluation.every.max(1);
        // Batches and passes are numbered through all evaluations, and numbers name draws.
        let evaluations = self.steps.div_ceil(every).saturating_add(1);
        let mut numbered = |path: String, what: &str, each: u64| {
            let all = evaluations.saturating_mul(each);
            if all >= u64::from(END_OF_BATCHES) {
                let message = format!(
                    "gives {all} {what} in {evaluations} evaluations, expected fewer than {END_OF_BATCHES}; evaluate less \
                     often (`evaluation.every`)"
                );
                issues.push(ParamIssue::new(path, message));
            }
        };
        numbered("evaluation.batches".to_owned(), "batches", self.evaluation.batches as u64);
        for (i, metric) in self.evaluation.metrics.iter().enumerate() {
            numbered(format!("evaluation.metrics[{i}]"), "passes", metric.passes());
        }
        if let Some(slow) = self.evaluation.slow_every.filter(|slow| slow % every != 0) {
            let message = format!("must be a multiple of `evaluation.every`, which is {every}, found {slow}");
            issues.push(ParamIssue::new("evaluation.slow_every", message));
        }
        let mut positive = |path: &str, value: f64| {
            if !(value > 0.0 && value.is_finite()) {
                issues.push(ParamIssue::new(path, format!("must be a positive number, found {value}")));
            }
        };
        positive("faithfulness_warmup.lr", self.faithfulness_warmup.lr);
        positive("grad_clip.components", self.grad_clip.components.unwrap_or(1.0));
        positive("grad_clip.causal_importance", self.grad_clip.causal_importance.unwrap_or(1.0));
        if !(self.faithfulness_warmup.weight_decay >= 0.0 && self.faithfulness_warmup.weight_decay.is_finite()) {
            let message = format!("must not be negative, found {}", self.faithfulness_warmup.weight_decay);
            issues.push(ParamIssue::new("faithfulness_warmup.weight_decay", message));
        }
        for (path, threshold) in [
            ("evaluation.significance_threshold", self.evaluation.significance_threshold),
            ("evaluation.hidden_significance_threshold", self.evaluation.hidden_significance_threshold),
        ] {
            if let Some(threshold) = threshold.filter(|threshold| threshold.is_nan() || *threshold < 0.0) {
                issues.push(ParamIssue::new(path, format!("must not be negative, found {threshold}")));
            }
        }
        for (path, fraction) in [
            ("evaluation.alive_threshold", Some(self.evaluation.alive_threshold)),
            ("data.feature_probability", self.data.feature_probability),
        ] {
            if let Some(fraction) = fraction.filter(|fraction| !(0.0..=1.0).contains(fraction)) {
                issues.push(ParamIssue::new(path, format!("must be in [0, 1], found {fraction}")));
            }
        }
        issues
    }
}

#[cfg(test)]
mod tests {
    use super::DecomposeParams;

    fn issues(evaluation: &str) -> Vec<String> {
        let text = format!(
            r#"{{
                "steps": 100, "batch_size": 8, "lr": {{ "start": 1e-3 }},
                "sites": [{{ "pattern": "linear1", "C": 4 }}],
                "losses": [{{ "faithfulness": {{ "coeff": 1.0 }} }}],
                "evaluation": {evaluation}
            }}"#
        );
        let params: DecomposeParams = serde_json::from_str(&text).expect("the form is right");
        params.issues().iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect()
    }

    #[test]
    fn what_is_wrong_with_an_evaluation_is_said_where() {
        assert!(issues(r#"{ "every": 10, "slow_every": 30 }"#).is_empty());
        assert_eq!(
            issues(
                r#"{
                    "every": 10, "slow_every": 25,
                    "metrics": [
                        { "ci_histograms": { "n_batches_accum": 0 } }, { "uv_plots": {} }, { "uv_plots": {} },
                        { "pgd_multi_batch_recon": {
                            "init": "ones", "step_size": -1.0, "n_steps": 999999999, "gradient_accumulation_steps": 3
                        } }
                    ]
                }"#
            ),
            [
                "evaluation.metrics[0].n_batches_accum: must be at least 1, found 0",
                "evaluation.metrics[2].kind: names a metric that is in the list already",
                "evaluation.metrics[3].step_size: must not be negative, found -1",
                "evaluation.metrics[3]: gives 66000000000 passes in 11 evaluations, expected fewer than 2147483648; \
                 evaluate less often (`evaluation.every`)",
                "evaluation.slow_every: must be a multiple of `evaluation.every`, which is 10, found 25",
            ]
        );
    }
}
