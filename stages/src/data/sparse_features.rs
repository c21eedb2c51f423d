//! Sparse feature vectors, the data of the toy models (spec section 1.5).

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_kernels::philox::{Stream, uniform};
use spdflow_kernels::sparse;

use super::Batch;

/// How the active features of a row are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Generation {
    /// Each feature independently with the feature probability.
    AtLeastZeroActive,
    /// One feature.
    ExactlyOneActive,
    /// Two different features.
    ExactlyTwoActive,
    /// Three different features.
    ExactlyThreeActive,
    /// Four different features.
    ExactlyFourActive,
    /// Five different features.
    ExactlyFiveActive,
}

impl Generation {
    /// Returns how many features are active in every row, if that number is fixed.
    #[must_use]
    pub fn active(self) -> Option<usize> {
        match self {
            Self::AtLeastZeroActive => None,
            Self::ExactlyOneActive => Some(1),
            Self::ExactlyTwoActive => Some(2),
            Self::ExactlyThreeActive => Some(3),
            Self::ExactlyFourActive => Some(4),
            Self::ExactlyFiveActive => Some(5),
        }
    }
}

/// A distribution of sparse feature vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparseFeatures {
    /// The length of a vector.
    pub n_features: usize,
    /// The probability that a feature is active; only for `at_least_zero_active`.
    pub feature_probability: f64,
    /// How active features are chosen.
    pub generation: Generation,
    /// The range of active values.
    pub value_range: (f32, f32),
    /// Groups of features that are active together; only for `at_least_zero_active`.
    #[serde(default)]
    pub synced_inputs: Vec<Vec<usize>>,
}

/// The uniform draws that a batch is made from, each `[features, rows]`.
#[derive(Debug, Clone, Default)]
pub struct FeatureDraws {
    /// Values of the features; for `exactly_n` only the first n rows are read, one per active feature.
    pub value: Vec<f32>,
    /// A feature is active where this is below the probability.
    pub active: Vec<f32>,
    /// The active features are those with the smallest of these (`exactly_n`).
    pub order: Vec<f32>,
    /// Fresh values for each synced group.
    pub synced: Vec<Vec<f32>>,
}

impl SparseFeatures {
    /// Returns what is wrong with the distribution, if anything: the field and what was expected.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let (low, high) = self.value_range;
        if !(0.0..=1.0).contains(&self.feature_probability) {
            return Some(("feature_probability", format!("must be in [0, 1], found {}", self.feature_probability)));
        }
        if low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) {
            return Some(("value_range", format!("must go from low to high, found [{low}, {high}]")));
        }
        if let Some(active) = self.generation.active().filter(|active| *active > self.n_features) {
            return Some((
                "generation",
                format!("needs at least {active} features, found n_features = {}", self.n_features),
            ));
        }
        if self.generation.active().is_some() && !self.synced_inputs.is_empty() {
            return Some(("synced_inputs", "works only with generation = \"at_least_zero_active\"".to_owned()));
        }
        let mut seen = vec![false; self.n_features];
        for feature in self.synced_inputs.iter().flatten() {
            match seen.get_mut(*feature) {
                None => {
                    return Some((
                        "synced_inputs",
                        format!("names feature {feature}, but there are only {}", self.n_features),
                    ));
                }
                Some(true) => {
                    return Some(("synced_inputs", format!("names feature {feature} twice; groups must not overlap")));
                }
                Some(seen) => *seen = true,
            }
        }
        None
    }

    /// Returns the batch of `positions` rows that belongs to `stream`.
    ///
    /// `stream.index` is overwritten: it tells the kinds of draws apart.
    #[must_use]
    pub fn batch(&self, stream: Stream, positions: usize) -> Batch {
        self.part(stream, 0..positions)
    }

    /// Returns the rows of these numbers of the batch that belongs to `stream`, as a batch of their own.
    #[must_use]
    pub fn part(&self, stream: Stream, numbers: Range<usize>) -> Batch {
        let positions = numbers.len();
        let number = |row: usize| u32::try_from(row).expect("a batch has fewer than 2^32 rows");
        let rows: Vec<u32> = numbers.map(number).collect();
        let draw = |index: u32, features: usize| {
            let mut out = vec![0.0; features * positions];
            uniform(Stream { index, ..stream }, features, &rows, &mut out);
            out
        };
        let n = self.n_features;
        let draws = match self.generation.active() {
            None => FeatureDraws {
                value: draw(0, n),
                active: draw(1, n),
                order: Vec::new(),
                synced: (0..self.synced_inputs.len()).map(|group| draw(3 + group as u32, n)).collect(),
            },
            Some(active) => FeatureDraws { value: draw(0, active), order: draw(2, n), ..FeatureDraws::default() },
        };
        Batch { rows, ..Batch::dense(self.assemble(&draws, positions), n, positions) }
    }

    /// Returns [`SparseFeatures::batch`] with its all-zero rows counted, [`Batch::compact`], without making those rows.
    ///
    /// At low feature probabilities most of a batch's draws belong to rows that are entirely zero.
    #[must_use]
    pub fn compact_batch(&self, stream: Stream, positions: usize) -> Batch {
        if self.generation.active().is_some() {
            return self.batch(stream, positions).compact();
        }
        let all: Vec<u32> = (0..u32::try_from(positions).expect("a batch has fewer than 2^32 rows")).collect();
        let n = self.n_features;
        let mut active = vec![0.0; n * positions];
        uniform(Stream { index: 1, ..stream }, n, &all, &mut active);
        let probability = self.feature_probability as f32;
        let mut is_active = vec![false; positions];
        for feature in active.chunks(positions.max(1)) {
            for (is_active, u) in is_active.iter_mut().zip(feature) {
                *is_active |= *u < probability;
            }
        }
        let mut rows: Vec<u32> = all.iter().copied().filter(|row| is_active[*row as usize]).collect();
        // One zero row stands for all of them and is a row like any other until it is counted.
        rows.extend(is_active.iter().position(|is_active| !is_active).map(|row| row as u32));
        let draw = |index: u32| {
            let mut out = vec![0.0; n * rows.len()];
            uniform(Stream { index, ..stream }, n, &rows, &mut out);
            out
        };
        let gathered =
            active.chunks(positions.max(1)).flat_map(|feature| rows.iter().map(|row| feature[*row as usize]));
        let draws = FeatureDraws {
            value: draw(0),
            active: gathered.collect(),
            order: Vec::new(),
            synced: (0..self.synced_inputs.len()).map(|group| draw(3 + group as u32)).collect(),
        };
        let input = self.assemble(&draws, rows.len());
        // A feature may be active with the value zero: such rows are zero rows too.
        let width = rows.len();
        let is_zero = |row: usize| (0..n).all(|feature| input[feature * width + row] == 0.0);
        let zeros = positions - (0..width).filter(|row| !is_zero(*row)).count();
        if (0..width.saturating_sub(1)).any(is_zero) || zeros < 2 {
            return self.batch(stream, positions).compact();
        }
        let mut counts = vec![1.0; width];
        counts[width - 1] = zeros as f32;
        Batch { input, features: n, rows, counts: Some(counts), positions, sequence_length: 1 }
    }

    /// Returns the rows `[features, positions]` that the given draws make.
    ///
    /// # Panics
    /// If a draw that is needed does not have the right length.
    #[must_use]
    pub fn assemble(&self, draws: &FeatureDraws, positions: usize) -> Vec<f32> {
        let (low, high) = self.value_range;
        let scale = |u: f32| u * (high - low) + low;
        let n = self.n_features;
        let mut out = vec![0.0; n * positions];
        if let Some(active) = self.generation.active() {
            assert_eq!(
                (draws.order.len(), draws.value.len()),
                (n * positions, active * positions),
                "draws of exactly {active} features"
            );
            let mut features: Vec<usize> = Vec::with_capacity(n);
            for row in 0..positions {
                features.clear();
                features.extend(0..n);
                features.sort_by(|a, b| draws.order[a * positions + row].total_cmp(&draws.order[b * positions + row]));
                for (position, feature) in features[..active].iter().enumerate() {
                    out[feature * positions + row] = scale(draws.value[position * positions + row]);
                }
            }
            return out;
        }
        assert_eq!((draws.value.len(), draws.active.len()), (n * positions, n * positions), "draws of sparse features");
        let probability = self.feature_probability as f32;
        sparse::features(&draws.value, &draws.active, probability, self.value_range, &mut out);
        for (group, fresh) in self.synced_inputs.iter().zip(&draws.synced) {
            for row in 0..positions {
                if group.iter().any(|feature| out[feature * positions + row] != 0.0) {
                    for feature in group {
                        // The reference draws downwards from the upper end; the distribution is the same.
                        out[feature * positions + row] = fresh[feature * positions + row] * (low - high) + high;
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream { seed: 1, purpose: 1, step: 0, index: 0 };

    fn features(generation: Generation) -> SparseFeatures {
        SparseFeatures {
            n_features: 8,
            feature_probability: 0.1,
            generation,
            value_range: (-1.0, 1.0),
            synced_inputs: Vec::new(),
        }
    }

    #[test]
    fn features_are_active_at_their_probability_and_within_range() {
        let batch = features(Generation::AtLeastZeroActive).batch(STREAM, 10_000);
        let active = batch.input.iter().filter(|x| **x != 0.0).count();
        // 80 000 coins at 0.1: standard deviation 85; four of them.
        assert!(active.abs_diff(8_000) < 340, "{active}");
        assert!(batch.input.iter().all(|x| (-1.0..=1.0).contains(x)));
    }

    #[test]
    fn a_compact_batch_is_the_batch_compacted() {
        let mut synced = features(Generation::AtLeastZeroActive);
        synced.synced_inputs = vec![vec![0, 3]];
        let always = SparseFeatures { feature_probability: 1.0, ..features(Generation::AtLeastZeroActive) };
        let never = SparseFeatures { feature_probability: 0.0, ..always.clone() };
        let all =
            [features(Generation::AtLeastZeroActive), features(Generation::ExactlyTwoActive), synced, always, never];
        for data in all {
            for positions in [0, 1, 2, 17, 1000] {
                assert_eq!(
                    data.compact_batch(STREAM, positions),
                    data.batch(STREAM, positions).compact(),
                    "{data:?} {positions}"
                );
            }
        }
    }

    #[test]
    fn exactly_n_features_are_active_in_every_row() {
        for (generation, n) in [(Generation::ExactlyOneActive, 1), (Generation::ExactlyFourActive, 4)] {
            let batch = features(generation).batch(STREAM, 500);
            for row in 0..500 {
                assert_eq!((0..8).filter(|f| batch.input[f * 500 + row] != 0.0).count(), n);
            }
        }
    }

    #[test]
    fn synced_features_are_active_together() {
        let mut synced = features(Generation::AtLeastZeroActive);
        synced.synced_inputs = vec![vec![0, 3], vec![5, 6, 7]];
        assert_eq!(synced.mistake(), None);
        let batch = synced.batch(STREAM, 2_000);
        for row in 0..2_000 {
            for group in &synced.synced_inputs {
                let active = group.iter().filter(|f| batch.input[*f * 2_000 + row] != 0.0).count();
                assert!(active == 0 || active == group.len());
            }
        }
    }

    #[test]
    fn impossible_distributions_are_explained() {
        let mut wrong = features(Generation::AtLeastZeroActive);
        wrong.feature_probability = 1.5;
        assert_eq!(wrong.mistake(), Some(("feature_probability", "must be in [0, 1], found 1.5".to_owned())));
        wrong = features(Generation::ExactlyFiveActive);
        wrong.n_features = 4;
        assert_eq!(wrong.mistake(), Some(("generation", "needs at least 5 features, found n_features = 4".to_owned())));
        wrong = features(Generation::AtLeastZeroActive);
        wrong.synced_inputs = vec![vec![0, 1], vec![1, 2]];
        assert_eq!(
            wrong.mistake(),
            Some(("synced_inputs", "names feature 1 twice; groups must not overlap".to_owned()))
        );
    }
}
