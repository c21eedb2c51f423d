//! Orders of components that bring a causal-importance matrix close to its expected form.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix as Weights;

use crate::matrix::Matrix;

/// From this size on (the smaller side), [`Assignment::Auto`] is greedy: the exact way takes cubic time.
const EXACT_BELOW: usize = 500;

/// How to find the order that is closest to the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// Exact for small matrices, greedy for large ones, as the reference does.
    Auto,
    /// The order with the largest possible sum on the diagonal.
    Exact,
    /// Each row in turn takes its largest column that is still free.
    Greedy,
}

/// Returns the order of columns that brings `ci` [features, components] closest to the identity.
///
/// Column `order[i]` belongs in place `i`. Only the first min(features, components) rows take part; columns that none
/// of them took follow in ascending order. Where several orders are equally good, which one is returned is fixed but
/// means nothing.
///
/// # Panics
/// If an entry is not finite; callers check that first (`SolutionError::NotFinite`).
#[must_use]
pub fn identity_permutation(ci: &Matrix, method: Assignment) -> Vec<usize> {
    let rows = ci.rows().min(ci.cols());
    let exact = match method {
        Assignment::Exact => true,
        Assignment::Greedy => false,
        Assignment::Auto => rows < EXACT_BELOW,
    };
    let mut order = if rows == 0 {
        Vec::new()
    } else if exact {
        exact_assignment(ci, rows)
    } else {
        greedy_assignment(ci, rows)
    };
    let mut is_taken = vec![false; ci.cols()];
    for &column in &order {
        is_taken[column] = true;
    }
    order.extend((0..ci.cols()).filter(|&column| !is_taken[column]));
    order
}

/// Returns the order of columns by descending sum; equal sums keep their order.
#[must_use]
pub fn dense_permutation(ci: &Matrix) -> Vec<usize> {
    let mut sums = vec![0.0_f64; ci.cols()];
    for row in 0..ci.rows() {
        for (sum, value) in sums.iter_mut().zip(ci.row(row)) {
            *sum += f64::from(*value);
        }
    }
    let mut order: Vec<usize> = (0..ci.cols()).collect();
    order.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]));
    order
}

/// Returns the order in which a heat map shows the columns of `ci` best: by descending sum, or closest to the identity.
///
/// A diverged decomposition is still worth a look: where an entry is not finite, columns keep their order.
#[must_use]
pub fn shown_order(ci: &Matrix, is_dense: bool) -> Vec<usize> {
    if !ci.data().iter().all(|value| value.is_finite()) {
        (0..ci.cols()).collect()
    } else if is_dense {
        dense_permutation(ci)
    } else {
        identity_permutation(ci, Assignment::Auto)
    }
}

fn exact_assignment(ci: &Matrix, rows: usize) -> Vec<usize> {
    let used = &ci.data()[..rows * ci.cols()];
    let weights = Weights::from_vec(rows, ci.cols(), scaled_to_integers(used, rows)).expect("the entries of all rows");
    kuhn_munkres(&weights).1
}

/// Returns the entries times a common power of two, as integers: exact, unless they span more than about 2^100, and
/// then the smallest ones are rounded to that grid.
///
/// Kuhn-Munkres compares sums for equality, which floats do not survive. An f32 is an integer of 24 bits times a power
/// of two; 127 bits minus the room for a sum of `rows` entries leaves the span.
fn scaled_to_integers(values: &[f32], rows: usize) -> Vec<i128> {
    let largest = values.iter().fold(0.0_f32, |largest, value| {
        assert!(value.is_finite(), "expected finite causal importances, found {value}");
        largest.max(value.abs())
    });
    if largest == 0.0 {
        return vec![0; values.len()];
    }
    // |value| < 2^(exponent + 1); labels and slacks of the algorithm stay below 4 * rows * 2^(exponent + 1).
    let exponent = i32::try_from(largest.to_bits() >> 23).expect("eight bits") - 127;
    let room_bits = i32::try_from(rows.ilog2()).expect("a small number") + 5;
    let shift = 126 - room_bits - (exponent + 1);
    // At most 149: the smallest f32 is 2^-149, so more shift adds nothing.
    let scale = 2.0_f64.powi(shift.min(149));
    // The product is exact (a power of two, far from f64's limits); rounding happens only below the grid.
    values.iter().map(|value| (f64::from(*value) * scale).round() as i128).collect()
}

fn greedy_assignment(ci: &Matrix, rows: usize) -> Vec<usize> {
    let mut is_taken = vec![false; ci.cols()];
    (0..rows)
        .map(|row| {
            let free = (0..ci.cols()).filter(|&column| !is_taken[column]);
            // `max_by` keeps the last of equals; reversed, so that the first wins.
            let best = free.rev().max_by(|&a, &b| ci.at(row, a).total_cmp(&ci.at(row, b)));
            let best = best.expect("there are at least as many columns as rows in use");
            is_taken[best] = true;
            best
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Assignment, dense_permutation, identity_permutation};
    use crate::matrix::Matrix;

    fn sample() -> Matrix {
        Matrix::from_rows(&[[0.1, 0.9, 0.0, 0.05], [0.95, 0.8, 0.0, 0.2], [0.0, 0.3, 0.97, 0.0]])
    }

    #[test]
    fn all_three_orders_of_the_published_example_agree() {
        assert_eq!(identity_permutation(&sample(), Assignment::Exact), [1, 0, 2, 3]);
        assert_eq!(identity_permutation(&sample(), Assignment::Greedy), [1, 0, 2, 3]);
        assert_eq!(dense_permutation(&sample()), [1, 0, 2, 3]);
    }

    #[test]
    fn matrices_without_rows_or_columns_keep_their_order() {
        assert_eq!(identity_permutation(&Matrix::zeros(0, 3), Assignment::Auto), [0, 1, 2]);
        assert!(identity_permutation(&Matrix::zeros(3, 0), Assignment::Auto).is_empty());
        assert_eq!(dense_permutation(&Matrix::zeros(0, 2)), [0, 1]);
    }

    #[test]
    fn entries_of_very_different_size_are_still_told_apart() {
        // The second row decides: 1e-30 on column 1 against 0 on column 0.
        let m = Matrix::from_rows(&[[1.0, 1.0], [0.0, 1e-20]]);
        assert_eq!(identity_permutation(&m, Assignment::Exact), [0, 1]);
        let m = Matrix::from_rows(&[[1.0, 1.0], [1e-20, 0.0]]);
        assert_eq!(identity_permutation(&m, Assignment::Exact), [1, 0]);
    }

    fn best_by_trying_all(m: &Matrix, row: usize, taken: &mut Vec<usize>) -> f64 {
        if row == m.rows() {
            return 0.0;
        }
        let mut best = f64::NEG_INFINITY;
        for column in 0..m.cols() {
            if !taken.contains(&column) {
                taken.push(column);
                best = best.max(f64::from(m.at(row, column)) + best_by_trying_all(m, row + 1, taken));
                taken.pop();
            }
        }
        best
    }

    proptest! {
        #[test]
        fn the_exact_order_has_the_largest_diagonal_of_all_orders(
            (rows, cols, data) in (1usize..5, 0usize..3).prop_flat_map(|(rows, extra)| {
                let cols = rows + extra;
                (Just(rows), Just(cols), prop::collection::vec(0.0f32..1.0, rows * cols))
            })
        ) {
            let m = Matrix::new(rows, cols, data);
            let order = identity_permutation(&m, Assignment::Exact);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..cols).collect::<Vec<_>>());
            let diagonal: f64 = (0..rows).map(|i| f64::from(m.at(i, order[i]))).sum();
            prop_assert!((diagonal - best_by_trying_all(&m, 0, &mut Vec::new())).abs() < 1e-9);
        }
    }
}
