//! One component's networks on sixteen rows at a time, with the GELU from tables (`gelu/avx512.rs`).
//!
//! As in `cpu.rs` a tile of rows passes all hidden units. Per unit and sixteen rows the forward pass costs 17
//! vector operations and the backward pass 29, five of them permutations.

use std::arch::x86_64::{_mm512_add_ps, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_ps};

use super::cpu::ComponentTask;
use crate::gelu::TILE;
use crate::gelu::avx512::{Gelu, load, store};
use crate::lanes::{LANES, tree_sum};

/// Registers in memory, at the start of cache lines: a load across two lines costs twice.
#[repr(align(64))]
struct Tile<const REGISTERS: usize>([[f32; LANES]; REGISTERS]);

impl<const REGISTERS: usize> Tile<REGISTERS> {
    const ZERO: Self = Self([[0.0; LANES]; REGISTERS]);

    /// Copies up to a tile of rows; the others keep what they hold.
    fn fill(&mut self, rows: &[f32]) {
        self.0.as_flattened_mut()[..rows.len()].copy_from_slice(rows);
    }

    fn rows(&self, count: usize) -> &[f32] {
        &self.0.as_flattened()[..count]
    }
}

/// Registers of a tile of the forward pass.
const FORWARD: usize = TILE / LANES;

/// As `cpu::component_forward_body`.
#[target_feature(enable = "avx512f")]
pub(super) fn component_forward(x: &[f32], w1: &[f32], b1: &[f32], w2: &[f32], b2: f32, out: &mut [f32]) {
    let gelu = Gelu::new();
    let mut tile = Tile::<FORWARD>::ZERO;
    for (x, out) in x.chunks(TILE).zip(out.chunks_mut(TILE)) {
        tile.fill(x);
        let mut sum = [_mm512_set1_ps(b2); FORWARD];
        for ((w1, b1), w2) in w1.iter().zip(b1).zip(w2) {
            let (w1, b1, w2) = (_mm512_set1_ps(*w1), _mm512_set1_ps(*b1), _mm512_set1_ps(*w2));
            for (x, sum) in tile.0.iter().zip(&mut sum) {
                *sum = _mm512_fmadd_ps(gelu.value(_mm512_fmadd_ps(load(x), w1, b1)), w2, *sum);
            }
        }
        for (tile, sum) in tile.0.iter_mut().zip(sum) {
            store(tile, sum);
        }
        out.copy_from_slice(tile.rows(out.len()));
    }
}

/// Registers of a tile of the backward pass: long enough that the three sums over its rows, which have to be
/// finished lane by lane for every unit, cost little; short enough for the first-level cache.
const BACKWARD: usize = 16;

/// As `cpu::component_backward_body`, with the factor `w2` of the sums over rows taken out of them.
#[target_feature(enable = "avx512f")]
pub(super) fn component_backward(task: ComponentTask<'_>) {
    const ROWS: usize = BACKWARD * LANES;
    let ComponentTask { x, grad_out, mut grad_x, w1, b1, w2, grad_w1, grad_b1, grad_w2, grad_b2 } = task;
    let gelu = Gelu::new();
    let zero = _mm512_set1_ps(0.0);
    let total = |register| {
        let mut lanes = [0.0; LANES];
        store(&mut lanes, register);
        tree_sum(&lanes)
    };
    let mut x_tile = Tile::<BACKWARD>::ZERO;
    for (index, (x, grad_out)) in x.chunks(ROWS).zip(grad_out.chunks(ROWS)).enumerate() {
        let registers = x.len().div_ceil(LANES);
        // Rows past the end have a zero upstream gradient, so they add nothing.
        let (mut upstream_tile, mut slope_tile) = (Tile::<BACKWARD>::ZERO, Tile::<BACKWARD>::ZERO);
        x_tile.fill(x);
        upstream_tile.fill(grad_out);
        for unit in 0..w1.len() {
            let into_x = _mm512_set1_ps(w1[unit] * w2[unit]);
            let (w1, b1) = (_mm512_set1_ps(w1[unit]), _mm512_set1_ps(b1[unit]));
            let (mut sum_w1, mut sum_b1, mut sum_w2) = (zero, zero, zero);
            let tiles = x_tile.0.iter().zip(&upstream_tile.0).zip(&mut slope_tile.0);
            for ((x, upstream), x_slope) in tiles.take(registers) {
                let (x, upstream) = (load(x), load(upstream));
                let (value, slope) = gelu.value_and_slope(_mm512_fmadd_ps(x, w1, b1));
                let at_z = _mm512_mul_ps(upstream, slope);
                sum_w2 = _mm512_fmadd_ps(upstream, value, sum_w2);
                sum_w1 = _mm512_fmadd_ps(at_z, x, sum_w1);
                sum_b1 = _mm512_add_ps(sum_b1, at_z);
                store(x_slope, _mm512_fmadd_ps(at_z, into_x, load(x_slope)));
            }
            grad_w1[unit] += w2[unit] * total(sum_w1);
            grad_b1[unit] += w2[unit] * total(sum_b1);
            grad_w2[unit] += total(sum_w2);
        }
        let ones = upstream_tile.0.iter().fold(zero, |sum, upstream| _mm512_add_ps(sum, load(upstream)));
        *grad_b2 += total(ones);
        if let Some((grad_x, store)) = &mut grad_x {
            for (grad_x, slope) in grad_x[index * ROWS..].iter_mut().zip(slope_tile.rows(x.len())) {
                *grad_x = store.merge(*grad_x, *slope);
            }
        }
    }
}
