//! Products with few weights, by direct loops over the batch: others would spend their time packing.

use super::cpu::Sharing;
use crate::lanes::{LANES, tree_sum};
use crate::vector::{Vector, vectorise};
use crate::{Store, parallel};

/// The most weights of a small product.
const SMALL_WEIGHTS: usize = 512;

pub(super) fn is_small(m: usize, n: usize) -> bool {
    m * n <= SMALL_WEIGHTS
}

/// `y[i, r] = Σ_j w[i·stride_i + j·stride_j] x[j, r]`.
pub(super) fn small_apply(
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

vectorise! {
    fn combine(w: &[f32], strides: [usize; 2], n: usize, x: &[f32], y: &mut [f32], rows: usize, store: Store)
        = combine_body
}

#[inline(always)]
fn combine_body<V: Vector>(
    w: &[f32],
    strides: [usize; 2],
    n: usize,
    x: &[f32],
    y: &mut [f32],
    rows: usize,
    store: Store,
) {
    if V::HAS_MANY_REGISTERS {
        combine_rows::<V, 4, 4>(w, strides, x, y, Place { n, rows, start: 0, store });
    } else {
        combine_rows::<V, 2, 2>(w, strides, x, y, Place { n, rows, start: 0, store });
    }
}

/// Where in a product the next tile of rows is.
#[derive(Clone, Copy)]
struct Place {
    n: usize,
    rows: usize,
    start: usize,
    store: Store,
}

/// A tile of rows at a time for all outputs, so that the inputs are read from the first-level cache.
#[inline(always)]
fn combine_rows<V: Vector, const REGISTERS: usize, const OUTPUTS: usize>(
    w: &[f32],
    strides: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    mut place: Place,
) {
    while place.rows - place.start >= REGISTERS * LANES {
        combine_tile::<V, REGISTERS, OUTPUTS>(w, strides, x, y, place);
        place.start += REGISTERS * LANES;
    }
    while place.rows - place.start >= LANES {
        combine_tile::<V, 1, OUTPUTS>(w, strides, x, y, place);
        place.start += LANES;
    }
    if place.start < place.rows {
        combine_rest::<V>(w, strides, x, y, place);
    }
}

/// All outputs of a tile, several at a time: that hides the latency of the multiply-adds.
#[inline(always)]
fn combine_tile<V: Vector, const REGISTERS: usize, const OUTPUTS: usize>(
    w: &[f32],
    strides: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    place: Place,
) {
    let m = y.len() / place.rows;
    let mut i = 0;
    while i < m {
        let (w, y) = (&w[i * strides[0]..], &mut y[i * place.rows..]);
        i += match m - i {
            left if left >= OUTPUTS => combine_outputs::<V, REGISTERS, OUTPUTS>(w, strides, x, y, place),
            2.. => combine_outputs::<V, REGISTERS, 2>(w, strides, x, y, place),
            _ => combine_outputs::<V, REGISTERS, 1>(w, strides, x, y, place),
        };
    }
}

/// The first `OUTPUTS` outputs; returns how many.
#[inline(always)]
fn combine_outputs<V: Vector, const REGISTERS: usize, const OUTPUTS: usize>(
    w: &[f32],
    strides: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    Place { n, rows, start, store }: Place,
) -> usize {
    let mut sums = [[V::splat(0.0); REGISTERS]; OUTPUTS];
    for j in 0..n {
        let mut columns = [V::splat(0.0); REGISTERS];
        for (register, column) in columns.iter_mut().enumerate() {
            *column = load(x, j * rows + start + register * LANES);
        }
        for i in 0..OUTPUTS {
            let weight = V::splat(w[i * strides[0] + j * strides[1]]);
            for register in 0..REGISTERS {
                sums[i][register] = weight.multiply_add(columns[register], sums[i][register]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let y = &mut y[i * rows + start..][..REGISTERS * LANES];
        for (y, sum) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            match store {
                Store::Write => sum.store(y),
                Store::Add => V::load(y).add(*sum).store(y),
            }
        }
    }
    OUTPUTS
}

/// All outputs of the rows that do not fill a register.
#[inline(always)]
fn combine_rest<V: Vector>(
    w: &[f32],
    strides: [usize; 2],
    x: &[f32],
    y: &mut [f32],
    Place { n, rows, start, store }: Place,
) {
    for (i, y) in y.chunks_mut(rows).enumerate() {
        let mut sum = V::splat(0.0);
        for j in 0..n {
            let weight = V::splat(w[i * strides[0] + j * strides[1]]);
            sum = weight.multiply_add(load_padded(&x[j * rows + start..(j + 1) * rows]), sum);
        }
        let mut lanes = [0.0; LANES];
        sum.store(&mut lanes);
        y[start..].iter_mut().zip(lanes).for_each(|(y, sum)| *y = store.merge(*y, sum));
    }
}

/// Returns the sixteen numbers from `at` on.
#[inline(always)]
fn load<V: Vector>(x: &[f32], at: usize) -> V {
    V::load(x[at..].first_chunk().expect("sixteen numbers"))
}

/// Returns at most sixteen numbers, with zeros after the last.
#[inline(always)]
fn load_padded<V: Vector>(x: &[f32]) -> V {
    let mut lanes = [0.0; LANES];
    lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = *x);
    V::load(&lanes)
}

/// `g[i, j] = Σ_r y[i, r] x[j, r]`.
pub(super) fn small_outer(y: &[f32], x: &[f32], g: &mut [f32], n: usize, rows: usize, store: Store, sharing: Sharing) {
    if rows == 0 {
        return store.nothing(g);
    }
    let operations = sharing.operations(g.len() * rows);
    parallel::for_each_row(g, 2 * n, operations, |pair, g| {
        dots(&y[2 * pair * rows..][..g.len() / n * rows], x, g, rows, store);
    });
}

vectorise! {
    /// `g[i, j] = y_i · x_j` of one or two rows i.
    fn dots(y: &[f32], x: &[f32], g: &mut [f32], rows: usize, store: Store) = dots_body
}

#[inline(always)]
fn dots_body<V: Vector>(y: &[f32], x: &[f32], g: &mut [f32], rows: usize, store: Store) {
    let n = x.len() / rows;
    for first in (0..n).step_by(2) {
        let columns = &x[first * rows..n.min(first + 2) * rows];
        match (y.len() > rows, columns.len() > rows) {
            (true, true) => store_dots(products::<V, 2, 2>(y, columns, rows), &mut g[first..], n, store),
            (true, false) => store_dots(products::<V, 2, 1>(y, columns, rows), &mut g[first..], n, store),
            (false, true) => store_dots(products::<V, 1, 2>(y, columns, rows), &mut g[first..], n, store),
            (false, false) => store_dots(products::<V, 1, 1>(y, columns, rows), &mut g[first..], n, store),
        }
    }
}

#[inline(always)]
fn store_dots<const Y: usize, const X: usize>(dots: [[f32; X]; Y], g: &mut [f32], n: usize, store: Store) {
    for (i, dots) in dots.iter().enumerate() {
        for (g, dot) in g[i * n..].iter_mut().zip(dots) {
            *g = store.merge(*g, *dot);
        }
    }
}

/// Registers of partial sums of one dot product; they hide the latency of the multiply-adds.
const PARTS: usize = 4;

/// Returns the dot products of `Y` rows with `X` rows.
#[inline(always)]
fn products<V: Vector, const Y: usize, const X: usize>(y: &[f32], x: &[f32], rows: usize) -> [[f32; X]; Y] {
    let mut lanes = [[V::splat(0.0); X]; Y];
    if V::HAS_MANY_REGISTERS {
        add_parts::<V, Y, X, PARTS>(y, x, rows, 0, &mut lanes);
    } else {
        for first in 0..PARTS {
            add_parts::<V, Y, X, 1>(y, x, rows, first, &mut lanes);
        }
    }
    let mut dots = [[0.0; X]; Y];
    for i in 0..Y {
        for j in 0..X {
            let mut sums = [0.0; LANES];
            lanes[i][j].store(&mut sums);
            dots[i][j] = tree_sum(&sums);
        }
    }
    dots
}

/// Adds `COUNT` of the partial sums from `first` on.
#[inline(always)]
fn add_parts<V: Vector, const Y: usize, const X: usize, const COUNT: usize>(
    y: &[f32],
    x: &[f32],
    rows: usize,
    first: usize,
    lanes: &mut [[V; X]; Y],
) {
    let whole = rows - rows % (PARTS * LANES);
    let mut sums = [[[V::splat(0.0); COUNT]; X]; Y];
    // What is left after whole rounds comes first, and its products are rounded.
    for part in 0..COUNT {
        let [start, end] = [0, 1].map(|next| rows.min(whole + (first + part + next) * LANES));
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sums) in sums.iter_mut().enumerate() {
                let (y, x) = (&y[i * rows + start..i * rows + end], &x[j * rows + start..j * rows + end]);
                sums[part] = load_padded::<V>(y).multiply(load_padded(x));
            }
        }
    }
    for start in (first * LANES..whole).step_by(PARTS * LANES) {
        let mut columns = [[V::splat(0.0); COUNT]; X];
        for (j, column) in columns.iter_mut().enumerate() {
            for (part, column) in column.iter_mut().enumerate() {
                *column = load(x, j * rows + start + part * LANES);
            }
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            for part in 0..COUNT {
                let y: V = load(y, i * rows + start + part * LANES);
                for (sums, column) in sums.iter_mut().zip(&columns) {
                    sums[part] = y.multiply_add(column[part], sums[part]);
                }
            }
        }
    }
    for (lanes, sums) in lanes.iter_mut().zip(&sums) {
        for (lanes, sums) in lanes.iter_mut().zip(sums) {
            *lanes = sums.iter().fold(*lanes, |lanes, sum| lanes.add(*sum));
        }
    }
}
