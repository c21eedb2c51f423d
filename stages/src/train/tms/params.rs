//! The parameters of `train.tms`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;
use spdflow_kernels::philox::block;

use crate::data::{Generation, SparseFeatures};
use crate::models::TmsConfig;
use crate::optimizer::schedule::Schedule;
use crate::train::run::Recipe;

/// Batches on which the runs are compared.
const FINAL_BATCHES: u32 = 20;

/// What the matrices between the first and the last are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HiddenLayers {
    /// Trained like the others.
    #[default]
    Trained,
    /// Fixed to the identity.
    FixedIdentity,
    /// Fixed to independent standard normal entries.
    FixedRandom,
}

/// The parameters of `train.tms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTmsParams {
    /// How many features go in and out.
    pub n_features: usize,
    /// How many dimensions they share.
    pub n_hidden: usize,
    /// How many matrices lie between the first and the last.
    #[serde(default)]
    pub n_hidden_layers: usize,
    /// What those matrices are.
    #[serde(default)]
    pub hidden_layers: HiddenLayers,
    /// Whether the last matrix is the first one's transpose.
    #[serde(default = "yes")]
    pub tied_weights: bool,
    /// Whether the bias starts at zero instead of at random.
    #[serde(default)]
    pub init_bias_to_zero: bool,
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
    /// How many runs to choose from.
    #[serde(default = "one")]
    pub restarts: u32,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Steps between records of the loss.
    #[serde(default = "default_log")]
    pub log_every: u64,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn default_probability() -> f64 {
    0.05
}

fn default_generation() -> Generation {
    Generation::AtLeastZeroActive
}

fn default_range() -> (f32, f32) {
    (0.0, 1.0)
}

fn default_steps() -> u64 {
    10_000
}

fn default_batch() -> usize {
    1024
}

fn default_lr() -> Schedule {
    Schedule::constant(5e-3)
}

fn default_decay() -> f64 {
    0.01
}

fn default_log() -> u64 {
    100
}

impl TrainTmsParams {
    /// Returns the shape of the model.
    pub(super) fn model(&self) -> TmsConfig {
        TmsConfig {
            n_features: self.n_features,
            n_hidden: self.n_hidden,
            n_hidden_layers: self.n_hidden_layers,
            tied_weights: self.tied_weights,
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

    /// Returns the seed of restart `k`: the seed itself for the first, then numbers hashed from both.
    pub(super) fn restart_seed(&self, k: u32) -> u64 {
        if k == 0 {
            return self.seed;
        }
        let [low, high, ..] = block([k, 0, 0, 0], [self.seed as u32, (self.seed >> 32) as u32]);
        u64::from(high) << 32 | u64::from(low)
    }

    /// Returns how each run is trained.
    pub(super) fn recipe(&self) -> Recipe {
        Recipe {
            steps: self.steps,
            lr: self.lr,
            weight_decay: self.weight_decay,
            log_every: self.log_every,
            final_batches: FINAL_BATCHES,
        }
    }

    /// Returns everything that is wrong.
    pub(super) fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        let counts = [
            ("n_features", self.n_features as u64),
            ("n_hidden", self.n_hidden as u64),
            ("batch_size", self.batch_size as u64),
            ("restarts", u64::from(self.restarts)),
        ];
        for (path, _) in counts.iter().filter(|(_, n)| *n == 0) {
            issues.push(ParamIssue::new(*path, "must be at least 1, found 0"));
        }
        if let Some((field, message)) = self.data().mistake() {
            issues.push(ParamIssue::new(field, message));
        }
        issues.extend(self.recipe().issues());
        if self.n_hidden_layers == 0 && self.hidden_layers != HiddenLayers::Trained {
            issues
                .push(ParamIssue::new("hidden_layers", "says how hidden layers are fixed, but `n_hidden_layers` is 0"));
        }
        issues
    }
}
