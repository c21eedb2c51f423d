//! The parameters of `train.resid_mlp`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;
use spdflow_kernels::philox::uniform;

use crate::data::{Generation, LabelFunction, Labels, SparseFeatures};
use crate::models::{Activation, ResidMlpConfig};
use crate::optimizer::schedule::Schedule;
use crate::purpose::Purpose;
use crate::train::run::Recipe;

/// What the embedding and the unembedding are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Embedding {
    /// Trained like the other matrices.
    Trained,
    /// Each feature has a fixed direction at random, and is read off along the same direction.
    #[default]
    FixedRandom,
    /// Each feature has a dimension of its own; needs `n_features = d_embed`.
    FixedIdentity,
}

/// What the coefficients of the labels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelCoefficients {
    /// All 1.
    #[default]
    Trivial,
    /// Uniform in [1, 2), by `label_seed`.
    Random,
}

/// What the training minimises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "kind")]
pub enum TrainingLoss {
    /// The mean over rows and features of `(y − label)²`, weighted by feature.
    Readoff(Readoff),
    /// The mean over rows and dimensions of the squared difference between the residual stream and the embedded labels.
    Resid,
}

/// The parameter of [`TrainingLoss::Readoff`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Readoff {
    /// Feature i weighs this to the power of i.
    #[serde(default = "one")]
    pub importance_val: f64,
}

/// The parameters of `train.resid_mlp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainResidMlpParams {
    /// How many features go in and out.
    pub n_features: usize,
    /// The width of the residual stream.
    pub d_embed: usize,
    /// Neurons of one layer.
    pub d_mlp: usize,
    /// How many layers.
    pub n_layers: usize,
    /// The neurons' nonlinearity.
    #[serde(default)]
    pub act_fn: Activation,
    /// Whether the matrices into the neurons have a bias.
    #[serde(default)]
    pub in_bias: bool,
    /// Whether the matrices out of the neurons have one.
    #[serde(default)]
    pub out_bias: bool,
    /// What the embedding and the unembedding are.
    #[serde(default)]
    pub embedding: Embedding,
    /// The function of each feature that the model learns.
    #[serde(default)]
    pub label: LabelFunction,
    /// What multiplies each feature in its label.
    #[serde(default)]
    pub label_coefficients: LabelCoefficients,
    /// Seed of random label coefficients, apart from the other.
    #[serde(default)]
    pub label_seed: u64,
    /// What is minimised.
    #[serde(default = "default_loss")]
    pub loss: TrainingLoss,
    /// The probability that a feature is active.
    #[serde(default = "default_probability")]
    pub feature_probability: f64,
    /// How active features are chosen.
    #[serde(default = "default_generation")]
    pub generation: Generation,
    /// The range of active values.
    #[serde(default = "default_range")]
    pub value_range: (f32, f32),
    /// Groups of features that are active together.
    #[serde(default)]
    pub synced_inputs: Vec<Vec<usize>>,
    /// How many optimiser updates.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Rows in a batch.
    #[serde(default = "default_batch")]
    pub batch_size: usize,
    /// The learning rate.
    #[serde(default = "default_lr")]
    pub lr: Schedule,
    /// Decoupled weight decay, on biases too.
    #[serde(default = "default_decay")]
    pub weight_decay: f64,
    /// Batches over which the final loss is averaged.
    #[serde(default = "default_final_batches")]
    pub final_batches: u32,
    /// Seed of everything random but the label coefficients.
    #[serde(default)]
    pub seed: u64,
    /// Steps between records of the loss.
    #[serde(default = "default_log")]
    pub log_every: u64,
}

fn one() -> f64 {
    1.0
}

fn default_loss() -> TrainingLoss {
    TrainingLoss::Readoff(Readoff { importance_val: one() })
}

fn default_probability() -> f64 {
    0.01
}

fn default_generation() -> Generation {
    Generation::AtLeastZeroActive
}

fn default_range() -> (f32, f32) {
    (-1.0, 1.0)
}

fn default_steps() -> u64 {
    1000
}

fn default_batch() -> usize {
    2048
}

fn default_lr() -> Schedule {
    use crate::optimizer::schedule::Shape;
    Schedule { start: 3e-3, schedule: Shape::Cosine, warmup_fraction: 0.0, final_fraction: 0.0 }
}

fn default_decay() -> f64 {
    0.01
}

fn default_final_batches() -> u32 {
    10
}

fn default_log() -> u64 {
    100
}

impl TrainResidMlpParams {
    /// Returns the shape of the model.
    pub(super) fn model(&self) -> ResidMlpConfig {
        ResidMlpConfig {
            n_features: self.n_features,
            d_embed: self.d_embed,
            d_mlp: self.d_mlp,
            n_layers: self.n_layers,
            act_fn: self.act_fn,
            in_bias: self.in_bias,
            out_bias: self.out_bias,
        }
    }

    /// Returns the distribution of its inputs.
    pub(super) fn data(&self) -> SparseFeatures {
        SparseFeatures {
            n_features: self.n_features,
            feature_probability: self.feature_probability,
            generation: self.generation,
            value_range: self.value_range,
            synced_inputs: self.synced_inputs.clone(),
        }
    }

    /// Returns what it should answer.
    pub(super) fn labels(&self) -> Labels {
        let coefficients = match self.label_coefficients {
            LabelCoefficients::Trivial => vec![1.0; self.n_features],
            LabelCoefficients::Random => {
                let mut draws = vec![0.0; self.n_features];
                uniform(Purpose::LabelCoefficients.stream(self.label_seed, 0, 0), self.n_features, &[0], &mut draws);
                Labels::coefficients(&draws)
            }
        };
        Labels { function: self.label, act_fn: self.act_fn, coefficients }
    }

    /// Returns how it is trained.
    pub(super) fn recipe(&self) -> Recipe {
        Recipe {
            steps: self.steps,
            lr: self.lr,
            weight_decay: self.weight_decay,
            log_every: self.log_every,
            final_batches: self.final_batches,
        }
    }

    /// Returns everything that is wrong.
    pub(super) fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        let counts = [
            ("n_features", self.n_features as u64),
            ("d_embed", self.d_embed as u64),
            ("d_mlp", self.d_mlp as u64),
            ("n_layers", self.n_layers as u64),
            ("batch_size", self.batch_size as u64),
            ("final_batches", u64::from(self.final_batches)),
        ];
        for (path, _) in counts.iter().filter(|(_, n)| *n == 0) {
            issues.push(ParamIssue::new(*path, "must be at least 1, found 0"));
        }
        if let Some((field, message)) = self.data().mistake() {
            issues.push(ParamIssue::new(field, message));
        }
        issues.extend(self.recipe().issues());
        if self.embedding == Embedding::FixedIdentity && self.n_features != self.d_embed {
            issues.push(ParamIssue::new(
                "embedding",
                format!(
                    "\"fixed_identity\" needs as many dimensions as features, found d_embed = {} and n_features = {}",
                    self.d_embed, self.n_features
                ),
            ));
        }
        if let TrainingLoss::Readoff(Readoff { importance_val }) = self.loss
            && !(importance_val > 0.0 && importance_val.is_finite())
        {
            let message = format!("must be a positive number, found {importance_val}");
            issues.push(ParamIssue::new("loss.importance_val", message));
        }
        issues
    }
}
