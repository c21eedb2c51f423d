//! A matrix `[rows, cols]` as `[cols, rows]`, row-major both.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::Store;

/// Returns the transpose of `matrix` `[rows, cols]`.
#[must_use]
pub fn transposed(matrix: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrix.len()];
    transpose(matrix, rows, cols, &mut out, Store::Write);
    out
}

/// Writes the transpose of `matrix` `[rows, cols]` to `out`, or adds it.
///
/// # Panics
/// If a length is not `rows * cols`.
pub fn transpose(matrix: &[f32], rows: usize, cols: usize, out: &mut [f32], store: Store) {
    assert_eq!((matrix.len(), out.len()), (rows * cols, rows * cols), "transpose: a matrix [{rows}, {cols}]");
    for (column, out) in out.chunks_mut(rows.max(1)).enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            *out = store.merge(*out, matrix[row * cols + column]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let mut sum = [1.0; 2];
        transpose(&[2.0, 3.0], 2, 1, &mut sum, Store::Add);
        assert_eq!(sum, [3.0, 4.0]);
        assert!(transposed(&[], 0, 3).is_empty() && transposed(&[], 3, 0).is_empty());
    }
}
