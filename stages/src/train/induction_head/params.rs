//! The parameters of `train.induction_head`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;

use crate::data::InductionSequences;
use crate::models::InductionHeadConfig;
use crate::optimizer::schedule::Schedule;
use crate::train::run::Recipe;

/// The parameters of `train.induction_head`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainInductionHeadParams {
    /// How many ordinary tokens there are; a first token and the induction token come on top.
    pub vocab_size: usize,
    /// Positions in a sequence.
    pub seq_len: usize,
    /// The width of the residual stream.
    pub d_model: usize,
    /// Attention heads in each block; must divide `d_model`.
    #[serde(default = "one")]
    pub n_heads: usize,
    /// How many blocks.
    #[serde(default = "two")]
    pub n_layers: usize,
    /// How many times wider than the residual stream feed-forward layers are inside.
    #[serde(default = "four")]
    pub ff_fanout: usize,
    /// Whether blocks have feed-forward layers.
    #[serde(default)]
    pub use_ff: bool,
    /// Whether positions are added to queries and keys.
    #[serde(default = "yes")]
    pub use_pos_encoding: bool,
    /// Whether blocks and output are normalised.
    #[serde(default)]
    pub use_layer_norm: bool,
    /// The first induction token stands at position 2 or later, up to this one; `seq_len - 3`, the last possible one,
    /// where left out.
    #[serde(default)]
    pub prefix_window: Option<usize>,
    /// How many optimiser updates.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Sequences in a batch.
    #[serde(default = "default_batch")]
    pub batch_size: usize,
    /// The learning rate.
    #[serde(default = "default_lr")]
    pub lr: Schedule,
    /// Decoupled weight decay, on biases and norms too.
    #[serde(default = "default_decay")]
    pub weight_decay: f64,
    /// Batches on which the final loss and accuracy are measured.
    #[serde(default = "default_final_batches")]
    pub final_batches: u32,
    /// Batches over which attention is drawn.
    #[serde(default = "default_attention_batches")]
    pub attention_maps_batches: u32,
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

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn four() -> usize {
    4
}

fn default_steps() -> u64 {
    100_000
}

fn default_batch() -> usize {
    1024
}

fn default_lr() -> Schedule {
    Schedule { warmup_fraction: 0.01, ..Schedule::constant(1e-3) }
}

fn default_decay() -> f64 {
    0.01
}

fn default_final_batches() -> u32 {
    20
}

fn default_attention_batches() -> u32 {
    5
}

fn default_log() -> u64 {
    100
}

impl TrainInductionHeadParams {
    /// Returns the model's shape.
    pub(super) fn model(&self) -> InductionHeadConfig {
        InductionHeadConfig {
            vocab_size: self.vocab_size,
            seq_len: self.seq_len,
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_layers: self.n_layers,
            ff_fanout: self.ff_fanout,
            use_ff: self.use_ff,
            use_pos_encoding: self.use_pos_encoding,
            use_layer_norm: self.use_layer_norm,
        }
    }

    /// Returns the distribution of its sequences.
    pub(super) fn data(&self) -> InductionSequences {
        InductionSequences {
            vocab_size: self.vocab_size,
            seq_len: self.seq_len,
            prefix_window: self.prefix_window.unwrap_or(self.seq_len.saturating_sub(3)),
        }
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
        let mut issues = self.recipe().issues();
        let counts = [
            ("batch_size", self.batch_size as u64),
            ("final_batches", u64::from(self.final_batches)),
            ("attention_maps_batches", u64::from(self.attention_maps_batches)),
        ];
        for (path, _) in counts.iter().filter(|(_, n)| *n == 0) {
            issues.push(ParamIssue::new(*path, "must be at least 1, found 0"));
        }
        for (field, message) in self.data().mistake().into_iter().chain(self.model().mistake()) {
            issues.push(ParamIssue::new(field, message));
        }
        issues
    }
}
