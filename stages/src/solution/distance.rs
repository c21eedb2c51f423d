//! The number of entries in which a causal-importance matrix differs from its expected form.

use super::permutation::{Assignment, dense_permutation, identity_permutation};
use crate::matrix::Matrix;

/// A matrix that cannot be compared with the expected form.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SolutionError {
    /// The probe has another number of features than the expected solution.
    #[error("expected {expected} features, found {found}")]
    Features {
        /// What the pattern says.
        expected: usize,
        /// Rows of the matrix.
        found: usize,
    },
    /// There are too few components for one per feature.
    #[error("expected at least {expected} components, one per feature, found {found}")]
    Components {
        /// Rows of the matrix.
        expected: usize,
        /// Columns of the matrix.
        found: usize,
    },
    /// There are fewer components than the expected full columns.
    #[error("expected at least {expected} components, the `k` of the pattern, found {found}")]
    Columns {
        /// What the pattern says.
        expected: usize,
        /// Columns of the matrix.
        found: usize,
    },
    /// An entry is NaN or infinite.
    #[error("causal importance of component {component} for feature {feature} is {value}, expected a finite number")]
    NotFinite {
        /// Row.
        feature: usize,
        /// Column.
        component: usize,
        /// The entry.
        value: f32,
    },
}

/// Returns how many entries of `ci` [features, components] differ from the identity, up to the order of components.
///
/// Counted are entries off the leading diagonal (all further columns included) above `tolerance`, and entries on it
/// below 1 - `tolerance`; thresholds are rounded to f32 as the reference compares them. `assignment` says how the
/// order is found, `None` that columns stay where they are.
///
/// # Errors
/// [`SolutionError::Components`] if there are fewer components than features; [`SolutionError::NotFinite`].
pub fn identity_distance(ci: &Matrix, tolerance: f64, assignment: Option<Assignment>) -> Result<usize, SolutionError> {
    check_finite(ci)?;
    if ci.cols() < ci.rows() {
        return Err(SolutionError::Components { expected: ci.rows(), found: ci.cols() });
    }
    let order =
        assignment.map_or_else(|| (0..ci.cols()).collect::<Vec<_>>(), |method| identity_permutation(ci, method));
    let (small, large) = thresholds(tolerance);
    let is_wrong = |row: usize, place: usize, value: f32| if row == place { value < large } else { value > small };
    Ok((0..ci.rows())
        .map(|row| order.iter().enumerate().filter(|&(place, &col)| is_wrong(row, place, ci.at(row, col))).count())
        .sum())
}

/// Returns how far `ci` [features, components] is from `k` full columns and nothing else.
///
/// The `k` columns of the largest sums should each have at least `min_entries` entries of at least 1 - `tolerance`;
/// each missing one counts, and so does each entry above `tolerance` in the other columns.
///
/// # Errors
/// [`SolutionError::Columns`] if there are fewer than `k` components; [`SolutionError::NotFinite`].
pub fn dense_distance(ci: &Matrix, k: usize, min_entries: usize, tolerance: f64) -> Result<usize, SolutionError> {
    check_finite(ci)?;
    if ci.cols() < k {
        return Err(SolutionError::Columns { expected: k, found: ci.cols() });
    }
    let order = dense_permutation(ci);
    let (small, large) = thresholds(tolerance);
    let count =
        |column: usize, counts: &dyn Fn(f32) -> bool| (0..ci.rows()).filter(|&row| counts(ci.at(row, column))).count();
    let missing: usize =
        order[..k].iter().map(|&column| min_entries.saturating_sub(count(column, &|value| value >= large))).sum();
    let surplus: usize = order[k..].iter().map(|&column| count(column, &|value| value > small)).sum();
    Ok(missing + surplus)
}

/// Returns `tolerance` and 1 - `tolerance` in f32. The subtraction is done in f64, as in the reference, so that an
/// entry of f32(0.9) counts as 1 at a tolerance of 0.1.
fn thresholds(tolerance: f64) -> (f32, f32) {
    (tolerance as f32, (1.0 - tolerance) as f32)
}

fn check_finite(ci: &Matrix) -> Result<(), SolutionError> {
    match ci.data().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(i) => {
            Err(SolutionError::NotFinite { feature: i / ci.cols(), component: i % ci.cols(), value: ci.data()[i] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SolutionError, dense_distance, identity_distance};
    use crate::matrix::Matrix;
    use crate::solution::Assignment;

    fn sample() -> Matrix {
        Matrix::from_rows(&[[0.1, 0.9, 0.0, 0.05], [0.95, 0.8, 0.0, 0.2], [0.0, 0.3, 0.97, 0.0]])
    }

    #[test]
    fn the_published_example_has_its_published_distances() {
        // In order [1, 0, 2, 3]: 0.8 and 0.2 in row 1, 0.3 in row 2 are above 0.1; above 0.2 are 0.8 and 0.3.
        let exact = Some(Assignment::Exact);
        assert_eq!(identity_distance(&sample(), 0.1, exact), Ok(3));
        assert_eq!(identity_distance(&sample(), 0.2, exact), Ok(2));
        assert_eq!(dense_distance(&sample(), 2, 1, 0.1), Ok(2));
        assert_eq!(dense_distance(&sample(), 1, 1, 0.1), Ok(3));
        assert_eq!(dense_distance(&sample(), 2, 2, 0.1), Ok(4));
    }

    #[test]
    fn a_permuted_identity_has_distance_zero() {
        let m = Matrix::from_rows(&[[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);
        assert_eq!(identity_distance(&m, 0.1, Some(Assignment::Auto)), Ok(0));
        assert_eq!(identity_distance(&m, 0.1, None), Ok(6));
    }

    #[test]
    fn matrices_of_the_wrong_form_are_refused() {
        let tall = Matrix::zeros(3, 2);
        assert_eq!(identity_distance(&tall, 0.1, None), Err(SolutionError::Components { expected: 3, found: 2 }));
        assert_eq!(dense_distance(&tall, 3, 1, 0.1), Err(SolutionError::Columns { expected: 3, found: 2 }));
        let nan = Matrix::from_rows(&[[0.0, 1.0], [f32::NAN, 0.0]]);
        let message = identity_distance(&nan, 0.1, None).unwrap_err().to_string();
        assert_eq!(message, "causal importance of component 0 for feature 1 is NaN, expected a finite number");
    }
}
