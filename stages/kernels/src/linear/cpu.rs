//! The loops behind [`super::apply`] and its siblings.

use super::small::{is_small, small_apply, small_outer};
use crate::simd::{Level, level};
use crate::{Store, parallel};

/// Whether a product may go to other threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    Allowed,
    Forbidden,
}

impl Sharing {
    /// Returns the number of operations that decides whether threads pay.
    pub(super) fn operations(self, operations: usize) -> usize {
        match self {
            Self::Allowed => operations,
            Self::Forbidden => 0,
        }
    }
}

/// A matrix whose element `(i, j)` is `numbers[i · row + j · column]`; one of the strides is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strided<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Strided<'a> {
    /// Returns the matrix `[_, columns]` that lies row by row in `numbers`.
    fn by_rows(numbers: &'a [f32], columns: usize) -> Self {
        Self { numbers, row: columns, column: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Returns whether the slice holds a matrix `[m, n]`.
    pub(super) fn fits(self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.row + (n - 1) * self.column < self.numbers.len()
    }
}

/// `y [m, rows] = W [m, n] x`.
pub(super) fn apply(w: &[f32], x: &[f32], y: &mut [f32], [m, n, rows]: [usize; 3], store: Store, sharing: Sharing) {
    if is_small(m, n) {
        small_apply(w, x, y, [n, rows], [n, 1], store, sharing);
    } else {
        product(y, Strided::by_rows(w, n), Strided::by_rows(x, rows), [m, n, rows], store, sharing);
    }
}

/// `y [m, rows] = Wᵀ x` with `W [n, m]`.
pub(super) fn apply_transposed(
    w: &[f32],
    x: &[f32],
    y: &mut [f32],
    [m, n, rows]: [usize; 3],
    store: Store,
    sharing: Sharing,
) {
    if is_small(m, n) {
        small_apply(w, x, y, [n, rows], [1, m], store, sharing);
    } else {
        product(y, Strided::by_rows(w, m).transposed(), Strided::by_rows(x, rows), [m, n, rows], store, sharing);
    }
}

/// `g [m, n] = y xᵀ`.
pub(super) fn outer(y: &[f32], x: &[f32], g: &mut [f32], [m, n, rows]: [usize; 3], store: Store, sharing: Sharing) {
    if is_small(m, n) {
        small_outer(y, x, g, n, rows, store, sharing);
    } else {
        product(g, Strided::by_rows(y, rows), Strided::by_rows(x, rows).transposed(), [m, rows, n], store, sharing);
    }
}

/// Checks that everything fits the shape `[m, k, n]`; returns whether there is nothing to sum, and `out` is done.
///
/// # Panics
/// If a length does not fit.
pub(super) fn is_done(out: &mut [f32], a: Strided<'_>, b: Strided<'_>, [m, k, n]: [usize; 3], store: Store) -> bool {
    let fits = out.len() == m * n && a.fits(m, k) && b.fits(k, n);
    assert!(fits, "product: [{m}, {k}] by [{k}, {n}] into {} numbers", out.len());
    let is_empty = m == 0 || n == 0 || k == 0;
    if is_empty {
        store.nothing(out);
    }
    is_empty
}

/// `out [m, n] = a [m, k] · b [k, n]`; `out` lies row by row.
pub(super) fn product(
    out: &mut [f32],
    a: Strided<'_>,
    b: Strided<'_>,
    shape: [usize; 3],
    store: Store,
    sharing: Sharing,
) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { super::avx512::product(out, a, b, shape, store, sharing) };
    }
    general_product(out, a, b, shape, store, sharing);
}

/// [`product`] by the crate `gemm`.
pub(super) fn general_product(
    out: &mut [f32],
    a: Strided<'_>,
    b: Strided<'_>,
    [m, k, n]: [usize; 3],
    store: Store,
    sharing: Sharing,
) {
    if is_done(out, a, b, [m, k, n], store) {
        return;
    }
    // `gemm` splits the output among threads and never the sum over k, so the thread count does not change bits.
    let operations = sharing.operations(m * n * k);
    let parallelism = if operations >= 1_000_000 && parallel::is_worth_sharing(operations) {
        gemm::Parallelism::Rayon(rayon::current_num_threads())
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: the slices hold what the shape and the strides address, as was just checked; `out` is borrowed mutably,
    // so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            store == Store::Add,
            a.numbers.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.numbers.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
