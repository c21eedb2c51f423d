//! Sequences that an induction head can complete, the data of the induction-head transformer (spec section 1.5).
//!
//! A sequence is `BOS … S M … S`: random tokens, among them once the induction token S followed by a token M to
//! remember, and S again at the end. What comes next is M, and only attention can find it.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_kernels::philox::{Stream, uniform};

use super::Batch;

/// A distribution of sequences with one bigram that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InductionSequences {
    /// How many ordinary tokens there are: 1 to `vocab_size`. Token 0 begins a sequence, token `vocab_size + 1` is S.
    pub vocab_size: usize,
    /// Positions in a sequence.
    pub seq_len: usize,
    /// S comes first somewhere from position 2 to this one.
    pub prefix_window: usize,
}

/// Sequences and what follows each of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequences {
    /// All positions of all sequences, one sequence after the other.
    pub batch: Batch,
    /// The token M of each sequence.
    pub memorised: Vec<f32>,
}

/// The random tokens and places that sequences are made from.
#[derive(Debug, Clone, Default)]
pub struct InductionDraws {
    /// M, one for each sequence.
    pub memorised: Vec<u32>,
    /// The tokens between the first and the last, `[sequences, seq_len − 2]`.
    pub tokens: Vec<u32>,
    /// Where among these S stands, in `1..prefix_window`, one for each sequence.
    pub location: Vec<u32>,
}

impl InductionSequences {
    /// Returns how many different tokens there are, the two special ones included.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.vocab_size + 2
    }

    /// Returns what is wrong with the distribution, if anything: the field and what was expected.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        // Token ids travel as f32, which counts exactly up to 2^24.
        if !(1..1 << 24).contains(&self.vocab_size) {
            return Some(("vocab_size", format!("must be from 1 to 2^24 - 1, found {}", self.vocab_size)));
        }
        if self.seq_len < 5 {
            return Some(("seq_len", format!("must be at least 5, found {}", self.seq_len)));
        }
        if !(2..self.seq_len - 2).contains(&self.prefix_window) {
            let last = self.seq_len - 3;
            return Some((
                "prefix_window",
                format!("must be from 2 to seq_len - 3 = {last}, found {}", self.prefix_window),
            ));
        }
        None
    }

    /// Returns the `n` sequences that belong to `stream`.
    ///
    /// `stream.index` is overwritten: it tells the kinds of draws apart.
    #[must_use]
    pub fn sequences(&self, stream: Stream, n: usize) -> Sequences {
        self.part(stream, 0..n)
    }

    /// Returns the sequences of these numbers among those that belong to `stream`.
    #[must_use]
    pub fn part(&self, stream: Stream, numbers: Range<usize>) -> Sequences {
        let n = numbers.len();
        let number = |row: usize| u32::try_from(row).expect("a batch has fewer than 2^32 sequences");
        let rows: Vec<u32> = numbers.map(number).collect();
        let draw = |index: u32, features: usize, first: usize, choices: usize| -> Vec<u32> {
            let mut out = vec![0.0; features * n];
            uniform(Stream { index, ..stream }, features, &rows, &mut out);
            // Draws lie below 1 and f64 rounds no product of them up to `choices`.
            out.iter().map(|u| (first as f64 + (f64::from(*u) * choices as f64).floor()) as u32).collect()
        };
        let body = self.seq_len - 2;
        let by_position = draw(1, body, 1, self.vocab_size);
        let tokens = (0..n).flat_map(|row| (0..body).map(move |at| (at, row)));
        let draws = InductionDraws {
            memorised: draw(0, 1, 1, self.vocab_size),
            tokens: tokens.map(|(at, row)| by_position[at * n + row]).collect(),
            location: draw(2, 1, 1, self.prefix_window - 1),
        };
        self.assemble(&draws)
    }

    /// Returns the sequences that the given draws make.
    ///
    /// # Panics
    /// If the draws do not belong to the same number of sequences, or S would not fit where it should stand.
    #[must_use]
    pub fn assemble(&self, draws: &InductionDraws) -> Sequences {
        let (n, body) = (draws.memorised.len(), self.seq_len - 2);
        assert_eq!((draws.tokens.len(), draws.location.len()), (n * body, n), "draws of {n} sequences");
        let induction = (self.vocab_size + 1) as f32;
        let mut tokens = vec![0.0; n * self.seq_len];
        for (row, sequence) in tokens.chunks_mut(self.seq_len).enumerate() {
            for (token, drawn) in sequence[1..].iter_mut().zip(&draws.tokens[row * body..(row + 1) * body]) {
                *token = *drawn as f32;
            }
            let at = 1 + draws.location[row] as usize;
            sequence[at] = induction;
            sequence[at + 1] = draws.memorised[row] as f32;
            sequence[self.seq_len - 1] = induction;
        }
        let memorised = draws.memorised.iter().map(|token| *token as f32).collect();
        Sequences { batch: Batch::sequences(tokens, self.seq_len), memorised }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream { seed: 1, purpose: 1, step: 0, index: 0 };
    const DATA: InductionSequences = InductionSequences { vocab_size: 9, seq_len: 12, prefix_window: 6 };

    #[test]
    fn the_induction_token_stands_at_the_end_and_once_before_the_memorised_one() {
        let Sequences { batch, memorised } = DATA.sequences(STREAM, 3_000);
        assert_eq!((batch.features, batch.positions, batch.sequence_length), (1, 36_000, 12));
        let mut places = [0; 12];
        for (sequence, memorised) in batch.input.chunks(12).zip(memorised) {
            assert_eq!((sequence[0], sequence[11]), (0.0, 10.0));
            let at = sequence.iter().position(|token| *token == 10.0).expect("S");
            assert_eq!(sequence.iter().filter(|token| **token == 10.0).count(), 2);
            assert_eq!(sequence[at + 1], memorised);
            assert!(sequence[1..11].iter().all(|token| (1.0..=10.0).contains(token)));
            places[at] += 1;
        }
        // Five places among 3000 sequences: 600 each, standard deviation 22; five of them.
        assert_eq!(places.iter().filter(|n| **n > 0).count(), 5);
        assert!(places[2..7].iter().all(|n: &i32| n.abs_diff(600) < 110), "{places:?}");
    }

    #[test]
    fn every_ordinary_token_is_drawn_equally_often() {
        let Sequences { batch, .. } = DATA.sequences(STREAM, 3_000);
        let mut counts = [0_i32; 11];
        batch.input.iter().for_each(|token| counts[*token as usize] += 1);
        // 3000 · (10 − 1) ordinary tokens over 9 kinds: 3000 each, standard deviation 52; five of them.
        assert!(counts[1..10].iter().all(|n| n.abs_diff(3_000) < 260), "{counts:?}");
    }

    #[test]
    fn impossible_sequences_are_explained() {
        let with = |change: fn(&mut InductionSequences)| {
            let mut data = DATA;
            change(&mut data);
            data.mistake()
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(
            with(|data| data.vocab_size = 0),
            Some(("vocab_size", "must be from 1 to 2^24 - 1, found 0".to_owned()))
        );
        assert_eq!(with(|data| data.seq_len = 4), Some(("seq_len", "must be at least 5, found 4".to_owned())));
        assert_eq!(
            with(|data| data.prefix_window = 10),
            Some(("prefix_window", "must be from 2 to seq_len - 3 = 9, found 10".to_owned()))
        );
    }
}
