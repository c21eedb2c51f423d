//! Where a model's inputs come from: vectors of sparse features, or sequences of tokens.
//!
//! Adding a distribution is a file beside this one and a line here. Everything behind the data asks for a [`Batch`] and
//! need not know which distribution made it.

use serde::{Deserialize, Serialize};
use spdflow_kernels::philox::Stream;

use super::{Batch, InductionSequences, SparseFeatures};

/// A distribution of inputs, as `target.json` and `decomposition.json` record it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InputDistribution {
    /// Vectors with few active features.
    SparseFeatures(SparseFeatures),
    /// Sequences of random tokens in which one bigram comes back.
    InductionSequences(InductionSequences),
}

impl InputDistribution {
    /// Returns what is wrong with the distribution, if anything: the field and what was expected.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        match self {
            Self::SparseFeatures(data) => data.mistake(),
            Self::InductionSequences(data) => data.mistake(),
        }
    }

    /// Returns how many features a vector has; `None` for tokens, which have no features to look at one by one.
    #[must_use]
    pub fn n_features(&self) -> Option<usize> {
        match self {
            Self::SparseFeatures(data) => Some(data.n_features),
            Self::InductionSequences(_) => None,
        }
    }

    /// Returns how many positions belong together in a sequence; 1 for vectors.
    #[must_use]
    pub fn sequence_length(&self) -> usize {
        match self {
            Self::SparseFeatures(_) => 1,
            Self::InductionSequences(data) => data.seq_len,
        }
    }

    /// Returns the batch that belongs to `stream`: `size` vectors, or `size` sequences.
    #[must_use]
    pub fn batch(&self, stream: Stream, size: usize) -> Batch {
        match self {
            Self::SparseFeatures(data) => data.batch(stream, size),
            Self::InductionSequences(data) => data.sequences(stream, size).batch,
        }
    }

    /// Returns [`InputDistribution::batch`], if `compact` with its all-zero rows counted where rows can be zero.
    #[must_use]
    pub fn batch_counting(&self, stream: Stream, size: usize, compact: bool) -> Batch {
        match self {
            Self::SparseFeatures(data) if compact => data.compact_batch(stream, size),
            Self::SparseFeatures(_) | Self::InductionSequences(_) => self.batch(stream, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Generation;

    #[test]
    fn the_kind_of_a_distribution_is_recorded_beside_its_fields() {
        let tokens =
            InputDistribution::InductionSequences(InductionSequences { vocab_size: 9, seq_len: 8, prefix_window: 5 });
        let text = serde_json::to_string(&tokens).expect("a distribution can be expressed in JSON");
        assert_eq!(text, r#"{"kind":"induction_sequences","vocab_size":9,"seq_len":8,"prefix_window":5}"#);
        let vectors = InputDistribution::SparseFeatures(SparseFeatures {
            n_features: 3,
            feature_probability: 0.5,
            generation: Generation::AtLeastZeroActive,
            value_range: (-1.0, 1.0),
            synced_inputs: vec![vec![0, 1]],
        });
        for data in [tokens, vectors] {
            let text = serde_json::to_string(&data).expect("a distribution can be expressed in JSON");
            assert_eq!(serde_json::from_str::<InputDistribution>(&text).expect("it comes back"), data);
        }
    }
}
