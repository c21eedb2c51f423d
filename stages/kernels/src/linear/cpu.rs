//! The loops behind [`super::apply`] and its siblings.

use crate::gelu::TILE;
use crate::lanes::{LANES, tree_sum};
use crate::parallel;
use crate::simd::{dispatch, multiply_add};

/// Products with at most this many weights use direct loops: `gemm` would spend its time packing.
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
    fn operations(self, operations: usize) -> usize {
        match self {
            Self::Allowed => operations,
            Self::Forbidden => 0,
        }
    }
}

/// `y [m, rows] += W [m, n] x`.
pub(super) fn apply(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize, sharing: Sharing) {
    if is_small(m, n) {
        small_apply(w, x, y, n, rows, [n, 1], sharing);
    } else {
        product(y, w, x, [m, n, rows], [n as isize, 1], [rows as isize, 1], sharing);
    }
}

/// `y [m, rows] += Wᵀ x` with `W [n, m]`.
pub(super) fn apply_transposed(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize, sharing: Sharing) {
    if is_small(m, n) {
        small_apply(w, x, y, n, rows, [1, m], sharing);
    } else {
        product(y, w, x, [m, n, rows], [1, m as isize], [rows as isize, 1], sharing);
    }
}

/// `g [m, n] += y xᵀ`.
pub(super) fn outer(y: &[f32], x: &[f32], g: &mut [f32], m: usize, n: usize, rows: usize, sharing: Sharing) {
    if is_small(m, n) {
        small_outer(y, x, g, n, rows, sharing);
    } else {
        product(g, y, x, [m, rows, n], [rows as isize, 1], [1, rows as isize], sharing);
    }
}

/// `y[i, r] += Σ_j w[i·stride_i + j·stride_j] x[j, r]`, one output feature at a time.
fn small_apply(
    w: &[f32],
    x: &[f32],
    y: &mut [f32],
    n: usize,
    rows: usize,
    [stride_i, stride_j]: [usize; 2],
    sharing: Sharing,
) {
    if n == 0 {
        return;
    }
    let operations = sharing.operations(y.len() * n);
    parallel::for_each_row(y, rows, operations, |i, y| combine_rows(&w[i * stride_i..], stride_j, n, x, y));
}

dispatch! { fn combine_rows(w: &[f32], stride: usize, n: usize, x: &[f32], y: &mut [f32]) = combine_rows_body }

#[inline(always)]
fn combine_rows_body<const FUSED: bool>(w: &[f32], stride: usize, n: usize, x: &[f32], y: &mut [f32]) {
    let rows = y.len();
    for start in (0..rows).step_by(TILE) {
        let count = TILE.min(rows - start);
        if count == TILE {
            let y = &mut y[start..start + TILE];
            let mut sum = [0.0_f32; TILE];
            for j in 0..n {
                let (weight, x) = (w[j * stride], &x[j * rows + start..j * rows + start + TILE]);
                for lane in 0..TILE {
                    sum[lane] = multiply_add::<FUSED>(weight, x[lane], sum[lane]);
                }
            }
            for lane in 0..TILE {
                y[lane] += sum[lane];
            }
        } else {
            for r in start..rows {
                let mut sum = 0.0;
                for j in 0..n {
                    sum = multiply_add::<FUSED>(w[j * stride], x[j * rows + r], sum);
                }
                y[r] += sum;
            }
        }
    }
}

/// `g[i, j] += Σ_r y[i, r] x[j, r]`.
fn small_outer(y: &[f32], x: &[f32], g: &mut [f32], n: usize, rows: usize, sharing: Sharing) {
    if rows == 0 {
        return;
    }
    let operations = sharing.operations(g.len() * rows);
    parallel::for_each_row(g, n, operations, |i, g| {
        for (j, g) in g.iter_mut().enumerate() {
            *g += dot(&y[i * rows..(i + 1) * rows], &x[j * rows..(j + 1) * rows]);
        }
    });
}

dispatch! { fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body }

/// Four registers of partial sums hide the latency of the multiply-adds.
#[inline(always)]
fn dot_body<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; TILE];
    let (a_tiles, b_tiles) = (a.chunks_exact(TILE), b.chunks_exact(TILE));
    for (lane, (a, b)) in a_tiles.remainder().iter().zip(b_tiles.remainder()).enumerate() {
        sums[lane] = a * b;
    }
    for (a, b) in a_tiles.zip(b_tiles) {
        for lane in 0..TILE {
            sums[lane] = multiply_add::<FUSED>(a[lane], b[lane], sums[lane]);
        }
    }
    let mut lanes = [0.0_f32; LANES];
    for part in sums.chunks_exact(LANES) {
        for lane in 0..LANES {
            lanes[lane] += part[lane];
        }
    }
    tree_sum(&lanes)
}

/// `out [m, n] += a [m, k] · b [k, n]`, with `a` and `b` addressed by their (row, column) strides; `out` is row-major.
fn product(
    out: &mut [f32],
    a: &[f32],
    b: &[f32],
    [m, k, n]: [usize; 3],
    a_strides: [isize; 2],
    b_strides: [isize; 2],
    sharing: Sharing,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    // `gemm` splits the output among threads and never the sum over k, so the thread count does not change bits.
    let operations = sharing.operations(m * n * k);
    let parallelism = if operations >= 1_000_000 && parallel::is_worth_sharing(operations) {
        gemm::Parallelism::Rayon(rayon::current_num_threads())
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: the public functions checked that the slices hold m·k, k·n and m·n elements, and the strides given
    // address each of them exactly once; `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.as_ptr(),
            a_strides[1],
            a_strides[0],
            b.as_ptr(),
            b_strides[1],
            b_strides[0],
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
