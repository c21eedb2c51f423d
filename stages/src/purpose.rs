//! What random numbers are for. Every use has its own stream; none is ever shared.

use spdflow_kernels::philox::Stream;

/// The purpose of a stream of draws. Numbers are part of the format: changing one changes results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights of a target model.
    TargetInit = 1,
    /// Batches a target model is trained on.
    TargetData = 2,
    /// Batches a target model's final loss is measured on.
    TargetEvaluation = 3,
    /// Coefficients of the labels a residual MLP is trained on.
    LabelCoefficients = 4,
    /// Initial V, U and causal-importance networks.
    ComponentInit = 10,
    /// Batches of the decomposition.
    Data = 11,
    /// Sources of component masks.
    Source = 12,
    /// Masks of the delta component.
    DeltaMask = 13,
    /// Which sites a position is routed through.
    Routing = 14,
    /// Starting points of adversaries.
    Adversary = 15,
    /// Noise on causal importances (binomial sampling).
    ImportanceNoise = 16,
    /// Batches the decomposition is evaluated on.
    EvaluationData = 20,
    /// Batches that attacks on many batches share; the index is 0 for all sites, 1 for subsets.
    AttackData = 21,
    /// Noise on the causal importances of the one-hot probe (binomial sampling).
    ProbeNoise = 22,
    /// Everything else drawn during evaluation is keyed like training with this added to its purpose.
    EvaluationOffset = 100,
    /// Batches for clustering and comparison.
    ProfileData = 30,
    /// Starting points of k-means; the step is the restart.
    Clustering = 31,
}

impl Purpose {
    /// Returns the stream for this purpose at `step`.
    #[must_use]
    pub fn stream(self, seed: u64, step: u32, index: u32) -> Stream {
        Stream { seed, purpose: self as u32, step, index }
    }
}
