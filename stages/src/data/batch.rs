//! A batch of input rows, with its all-zero rows counted instead of repeated where that changes nothing.
//!
//! At p = 0.05 with five features, three rows in four are entirely zero. A model for which such rows are inert
//! computes the same thing for each, so one of them, counted, stands for all. Rows keep their number in the whole
//! batch: draws are keyed by it, so a compact batch sees the very masks the dense one would.

use std::ops::Range;

/// Rows of input, feature-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The rows, `[features, R]`.
    pub input: Vec<f32>,
    /// The number of features.
    pub features: usize,
    /// The number of each row in the whole batch, `[R]`.
    pub rows: Vec<u32>,
    /// How many positions of the whole batch each row stands for, `[R]`; one each when absent.
    pub counts: Option<Vec<f32>>,
    /// The number of positions of the whole batch.
    pub positions: usize,
    /// How many consecutive rows are the positions of one sequence; 1 for vectors.
    pub sequence_length: usize,
}

impl Batch {
    /// Returns the batch of all rows of `input` `[features, positions]`.
    ///
    /// # Panics
    /// If the length is not `features * positions`.
    #[must_use]
    pub fn dense(input: Vec<f32>, features: usize, positions: usize) -> Self {
        assert_eq!(input.len(), features * positions, "a batch of [{features}, {positions}]");
        let rows = (0..u32::try_from(positions).expect("a batch has fewer than 2^32 rows")).collect();
        Self { input, features, rows, counts: None, positions, sequence_length: 1 }
    }

    /// Returns the batch of all positions of sequences of tokens, one sequence after the other.
    ///
    /// # Panics
    /// If the tokens do not fill whole sequences.
    #[must_use]
    pub fn sequences(tokens: Vec<f32>, sequence_length: usize) -> Self {
        let positions = tokens.len();
        assert!(positions.is_multiple_of(sequence_length), "{positions} tokens in sequences of {sequence_length}");
        Self { sequence_length, ..Self::dense(tokens, 1, positions) }
    }

    /// Returns the batch in parts of at most about `width` rows, all nearly equal and none dividing a sequence. They
    /// keep their rows' numbers and know the whole batch's positions. Several parts are a multiple of four, so that two
    /// or four threads have equal work.
    #[must_use]
    pub fn split(self, width: usize) -> Vec<Self> {
        let length = self.sequence_length;
        // A width of less than a sequence still takes one.
        let parts = parts_of(self.rows.len() / length, self.rows.len().div_ceil(width.max(1)), 1);
        if parts.len() < 2 {
            return vec![self];
        }
        parts.into_iter().map(|part| self.part(part.start * length..part.end * length)).collect()
    }

    /// Returns the share of rank `rank` of `ranks`: about as many rows as the others have, none dividing a sequence. The
    /// shares know the whole batch's positions, and are its rows in order.
    ///
    /// A batch whose zero rows are counted may have fewer rows than there are ranks. One that gets none takes a row of
    /// zeros, counted for no position: it adds nothing to any sum, and the rank takes part in everything.
    #[must_use]
    pub fn share(self, rank: usize, ranks: usize) -> Self {
        let length = self.sequence_length;
        let units = self.rows.len() / length;
        let [start, end] = [rank, rank + 1].map(|rank| units * rank / ranks * length);
        match end - start {
            rows if rows == self.rows.len() => self,
            0 => {
                assert!(self.counts.is_some(), "a batch of {units} in {ranks} shares");
                Self { input: vec![0.0; self.features], rows: vec![self.rows[0]], counts: Some(vec![0.0]), ..self }
            }
            _ => self.part(start..end),
        }
    }

    fn part(&self, rows: Range<usize>) -> Self {
        let features = self.input.chunks(self.rows.len());
        Self {
            input: features.flat_map(|feature| &feature[rows.clone()]).copied().collect(),
            rows: self.rows[rows.clone()].to_vec(),
            counts: self.counts.as_ref().map(|counts| counts[rows].to_vec()),
            ..*self
        }
    }

    /// Returns the batch with its all-zero rows but the first left out, and that one counted for all of them.
    #[must_use]
    pub fn compact(self) -> Self {
        let width = self.rows.len();
        let mut is_zero = vec![true; width];
        for feature in self.input.chunks(width.max(1)) {
            for (is_zero, x) in is_zero.iter_mut().zip(feature) {
                *is_zero &= *x == 0.0;
            }
        }
        let mut keep: Vec<usize> = (0..width).filter(|row| !is_zero[*row]).collect();
        let zeros = width - keep.len();
        if zeros < 2 {
            return self;
        }
        keep.push(is_zero.iter().position(|zero| *zero).expect("there are zero rows"));
        let input = self.input.chunks(width).flat_map(|feature| keep.iter().map(|row| feature[*row])).collect();
        let mut counts = vec![1.0; keep.len()];
        counts[keep.len() - 1] = zeros as f32;
        let rows = keep.iter().map(|row| self.rows[*row]).collect();
        Self { input, rows, counts: Some(counts), ..self }
    }
}

/// Returns `0..count` in parts of at most about `width`, nearly equal multiples of `unit`. Several parts are a multiple
/// of four as far as that can be, so that two or four threads have equal work.
#[must_use]
pub fn parts(count: usize, width: usize, unit: usize) -> Vec<Range<usize>> {
    parts_of(count, count.div_ceil(width.max(1)), unit)
}

fn parts_of(count: usize, parts: usize, unit: usize) -> Vec<Range<usize>> {
    if parts < 2 {
        return vec![0..count];
    }
    let each = count.div_ceil(parts.next_multiple_of(4)).next_multiple_of(unit).max(1);
    (0..count).step_by(each).map(|start| start..(start + each).min(count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_keeps_rows_their_numbers_and_the_count_of_zeros() {
        // Rows: (1, 0), (0, 0), (0, 2), (0, 0), (0, 0).
        let batch = Batch::dense(vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0], 2, 5).compact();
        assert_eq!(batch.input, [1.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
        assert_eq!(batch.rows, [0, 2, 1]);
        assert_eq!(batch.counts, Some(vec![1.0, 1.0, 3.0]));
        assert_eq!(batch.positions, 5);
    }

    #[test]
    fn the_parts_of_a_batch_are_its_rows_in_order() {
        let rows = 1000;
        let batch = Batch::dense((0..3 * rows).map(|x| x as f32).collect(), 3, rows);
        let batch = Batch { counts: Some((0..rows).map(|row| row as f32 + 1.0).collect()), ..batch };
        let parts = batch.clone().split(200);
        assert_eq!(parts.len(), 8);
        let mut row = 0;
        for part in &parts {
            assert_eq!((part.positions, part.features, part.input.len()), (rows, 3, 3 * part.rows.len()));
            assert!(part.rows.len() <= 200);
            for (at, number) in part.rows.iter().enumerate() {
                assert_eq!(*number as usize, row);
                assert_eq!(part.input[2 * part.rows.len() + at], (2 * rows + row) as f32);
                assert_eq!(part.counts.as_ref().unwrap()[at], row as f32 + 1.0);
                row += 1;
            }
        }
        assert_eq!(row, rows);
        assert_eq!(batch.clone().split(rows), [batch]);
    }

    #[test]
    fn the_shares_of_a_batch_are_its_rows_in_order_and_nearly_equal() {
        let batch = Batch::sequences((0..77).map(|x| x as f32).collect(), 7);
        let shares: Vec<Batch> = (0..4).map(|rank| batch.clone().share(rank, 4)).collect();
        assert_eq!(shares.iter().map(|share| share.rows.len()).collect::<Vec<_>>(), [14, 21, 21, 21]);
        assert!(shares.iter().flat_map(|share| &share.rows).copied().eq(0..77));
        assert!(shares.iter().flat_map(|share| share.input.clone()).eq(batch.input.clone()));
        assert!(shares.iter().all(|share| share.positions == 77));
        assert_eq!(batch.clone().share(0, 1), batch);
    }

    #[test]
    fn a_share_without_rows_has_a_zero_row_that_counts_for_nothing() {
        let batch = Batch::dense(vec![0.0, 0.0, 5.0, 0.0], 1, 4).compact();
        let share = batch.clone().share(0, 3);
        assert_eq!((&share.input[..], &share.counts), (&[0.0][..], &Some(vec![0.0])));
        assert_eq!((share.rows.len(), share.positions), (1, 4));
        assert_eq!(batch.clone().share(1, 3).counts, Some(vec![1.0]));
        assert_eq!(batch.share(2, 3).counts, Some(vec![3.0]));
    }

    #[test]
    fn sequences_stay_whole() {
        let parts = Batch::sequences((0..70).map(|x| x as f32).collect(), 7).split(20);
        assert_eq!(parts.iter().map(|part| part.rows.len()).collect::<Vec<_>>(), [21, 21, 21, 7]);
        assert!(parts.iter().all(|part| part.sequence_length == 7 && part.positions == 70));
    }

    #[test]
    fn a_batch_with_at_most_one_zero_row_stays_as_it_is() {
        let batch = Batch::dense(vec![1.0, 0.0, 3.0], 1, 3);
        assert_eq!(batch.clone().compact(), batch);
    }
}
