//! The loops behind [`super::apply`] and its siblings.

use crate::gelu::TILE;
use crate::lanes::{LANES, tree_sum};
use crate::simd::{Level, dispatch, level, multiply_add};
use crate::{Store, parallel};

/// Products with at most this many weights use direct loops: others would spend their time packing.
const SMALL_WEIGHTS: usize = 512;

fn is_small(m: usize, n: usize) -> bool {
    m * n <= SMALL_WEIGHTS
}

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

/// `y[i, r] = Σ_j w[i·stride_i + j·stride_j] x[j, r]`.
fn small_apply(
    w: &[f32],
    x: &[f32],
    y: &mut [f32],
    [n, rows]: [usize; 2],
    strides: [usize; 2],
    store: Store,
    sharing: Sharing,
) {
    if n == 0 || rows == 0 {
        return store.nothing(y);
    }
    let operations = sharing.operations(y.len() * n);
    if parallel::is_worth_sharing(operations) {
        parallel::for_each_row(y, rows, operations, |i, y| {
            combine(&w[i * strides[0]..], strides, n, x, y, rows, store)
        });
    } else {
        combine(w, strides, n, x, y, rows, store);
    }
}

dispatch! {
    fn combine(w: &[f32], strides: [usize; 2], n: usize, x: &[f32], y: &mut [f32], rows: usize, store: Store)
        = combine_body
}

/// A tile of rows at a time for all outputs, so that the inputs are read from the first-level cache.
#[inline(always)]
fn combine_body<const FUSED: bool>(
    w: &[f32],
    strides: [usize; 2],
    n: usize,
    x: &[f32],
    y: &mut [f32],
    rows: usize,
    store: Store,
) {
    let mut start = 0;
    while rows - start >= TILE {
        combine_tile::<FUSED, TILE>(w, strides, x, y, Place { n, rows, start, store });
        start += TILE;
    }
    while rows - start >= LANES {
        combine_tile::<FUSED, LANES>(w, strides, x, y, Place { n, rows, start, store });
        start += LANES;
    }
    for r in start..rows {
        combine_tile::<FUSED, 1>(w, strides, x, y, Place { n, rows, start: r, store });
    }
}

/// The rows of a tile.
#[derive(Clone, Copy)]
struct Place {
    n: usize,
    rows: usize,
    start: usize,
    store: Store,
}

/// All outputs of `ROWS` rows, two at a time: that hides the latency of the multiply-adds.
#[inline(always)]
fn combine_tile<const FUSED: bool, const ROWS: usize>(
    w: &[f32],
    strides: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    place: Place,
) {
    let m = y.len() / place.rows;
    for i in (0..m - m % 2).step_by(2) {
        combine_outputs::<FUSED, 2, ROWS>(&w[i * strides[0]..], strides, x, &mut y[i * place.rows..], place);
    }
    if m % 2 == 1 {
        let last = m - 1;
        combine_outputs::<FUSED, 1, ROWS>(&w[last * strides[0]..], strides, x, &mut y[last * place.rows..], place);
    }
}

#[inline(always)]
fn combine_outputs<const FUSED: bool, const OUTPUTS: usize, const ROWS: usize>(
    w: &[f32],
    strides: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    Place { n, rows, start, store }: Place,
) {
    let mut sums = [[0.0_f32; ROWS]; OUTPUTS];
    for j in 0..n {
        let x = &x[j * rows + start..j * rows + start + ROWS];
        for (i, sums) in sums.iter_mut().enumerate() {
            let weight = w[i * strides[0] + j * strides[1]];
            for row in 0..ROWS {
                sums[row] = multiply_add::<FUSED>(weight, x[row], sums[row]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let y = &mut y[i * rows + start..i * rows + start + ROWS];
        for row in 0..ROWS {
            y[row] = store.merge(y[row], sums[row]);
        }
    }
}

/// `g[i, j] = Σ_r y[i, r] x[j, r]`.
fn small_outer(y: &[f32], x: &[f32], g: &mut [f32], n: usize, rows: usize, store: Store, sharing: Sharing) {
    if rows == 0 {
        return store.nothing(g);
    }
    let operations = sharing.operations(g.len() * rows);
    parallel::for_each_row(g, n, operations, |i, g| {
        let (y, mut x) = (&y[i * rows..(i + 1) * rows], x.chunks(rows));
        let (pairs, last) = g.as_chunks_mut::<2>();
        for pair in pairs {
            let sums = dots_of_two(y, x.next().expect("a row for each entry"), x.next().expect("a row for each entry"));
            pair.iter_mut().zip(sums).for_each(|(g, sum)| *g = store.merge(*g, sum));
        }
        for g in last {
            *g = store.merge(*g, dot(y, x.next().expect("a row for each entry")));
        }
    });
}

dispatch! { fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body }

#[inline(always)]
fn dot_body<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    dots::<FUSED, 1>(a, [b])[0]
}

dispatch! { fn dots_of_two(a: &[f32], b: &[f32], c: &[f32]) -> [f32; 2] = dots_of_two_body }

#[inline(always)]
fn dots_of_two_body<const FUSED: bool>(a: &[f32], b: &[f32], c: &[f32]) -> [f32; 2] {
    dots::<FUSED, 2>(a, [b, c])
}

/// Returns `a · b` of each b. Four registers of partial sums for each hide the latency of the multiply-adds.
#[inline(always)]
fn dots<const FUSED: bool, const COUNT: usize>(a: &[f32], b: [&[f32]; COUNT]) -> [f32; COUNT] {
    let whole = a.len() - a.len() % TILE;
    let mut sums = [[0.0_f32; TILE]; COUNT];
    for (of_b, sums) in sums.iter_mut().enumerate() {
        for (lane, (a, b)) in a[whole..].iter().zip(&b[of_b][whole..]).enumerate() {
            sums[lane] = a * b;
        }
    }
    for start in (0..whole).step_by(TILE) {
        let a = &a[start..start + TILE];
        for (of_b, sums) in sums.iter_mut().enumerate() {
            let b = &b[of_b][start..start + TILE];
            for lane in 0..TILE {
                sums[lane] = multiply_add::<FUSED>(a[lane], b[lane], sums[lane]);
            }
        }
    }
    sums.map(|sums| {
        let mut lanes = [0.0_f32; LANES];
        for part in sums.chunks_exact(LANES) {
            for lane in 0..LANES {
                lanes[lane] += part[lane];
            }
        }
        tree_sum(&lanes)
    })
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
