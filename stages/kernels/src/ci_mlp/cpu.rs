//! The loops: a tile of 64 rows of one component stays in registers and L1 while its hidden units pass by.

use super::{WeightGradients, Weights};
use crate::gelu::{INV_SQRT_2PI, TILE, normal};
use crate::lanes::{LANES, tree_sum};
use crate::simd::{Level, dispatch, level, multiply_add};
use crate::{Store, parallel};

/// Vector operations per hidden unit, roughly; decides whether threads pay.
const OPERATIONS_PER_UNIT: usize = 40;

pub(super) fn forward(x: &[f32], weights: Weights<'_>, out: &mut [f32], hidden: usize, rows: usize) {
    let operations = out.len() * hidden * OPERATIONS_PER_UNIT / LANES;
    parallel::for_each_row(out, rows, operations, |c, out| {
        let units = c * hidden..(c + 1) * hidden;
        component_forward(
            &x[c * rows..(c + 1) * rows],
            &weights.w1[units.clone()],
            &weights.b1[units.clone()],
            &weights.w2[units],
            weights.b2[c],
            out,
        );
    });
}

/// Runs the tables of [`super::avx512`] where there are such registers, else the general formula.
fn component_forward(x: &[f32], w1: &[f32], b1: &[f32], w2: &[f32], b2: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { super::avx512::component_forward(x, w1, b1, w2, b2, out) };
    }
    general_forward(x, w1, b1, w2, b2, out);
}

dispatch! {
    fn general_forward(x: &[f32], w1: &[f32], b1: &[f32], w2: &[f32], b2: f32, out: &mut [f32]) = component_forward_body
}

#[inline(always)]
fn component_forward_body<const FUSED: bool>(x: &[f32], w1: &[f32], b1: &[f32], w2: &[f32], b2: f32, out: &mut [f32]) {
    let mut x_tile = [0.0_f32; TILE];
    for (x, out) in x.chunks(TILE).zip(out.chunks_mut(TILE)) {
        x_tile[..x.len()].copy_from_slice(x);
        let mut sum = [b2; TILE];
        for ((w1, b1), w2) in w1.iter().zip(b1).zip(w2) {
            for lane in 0..TILE {
                let z = multiply_add::<FUSED>(x_tile[lane], *w1, *b1);
                let activated = z * normal::<FUSED>(z).0;
                sum[lane] = multiply_add::<FUSED>(activated, *w2, sum[lane]);
            }
        }
        out.copy_from_slice(&sum[..out.len()]);
    }
}

/// One component's share of the backward pass.
pub(super) struct ComponentTask<'a> {
    pub(super) x: &'a [f32],
    pub(super) grad_out: &'a [f32],
    pub(super) grad_x: Option<(&'a mut [f32], Store)>,
    pub(super) w1: &'a [f32],
    pub(super) b1: &'a [f32],
    pub(super) w2: &'a [f32],
    pub(super) grad_w1: &'a mut [f32],
    pub(super) grad_b1: &'a mut [f32],
    pub(super) grad_w2: &'a mut [f32],
    pub(super) grad_b2: &'a mut f32,
}

pub(super) fn backward(
    x: &[f32],
    weights: Weights<'_>,
    grad_out: &[f32],
    grad_x: Option<(&mut [f32], Store)>,
    grads: WeightGradients<'_>,
    hidden: usize,
    rows: usize,
) {
    if hidden == 0 || rows == 0 {
        if let Some((grad_x, store)) = grad_x {
            store.nothing(grad_x);
        }
        return;
    }
    let mut grad_x = grad_x.map(|(grad_x, store)| (grad_x.chunks_mut(rows), store));
    let mut tasks = Vec::with_capacity(weights.b2.len());
    let gradient_rows = grads.w1.chunks_mut(hidden).zip(grads.b1.chunks_mut(hidden)).zip(grads.w2.chunks_mut(hidden));
    for (c, (((grad_w1, grad_b1), grad_w2), grad_b2)) in gradient_rows.zip(grads.b2).enumerate() {
        let (units, span) = (c * hidden..(c + 1) * hidden, c * rows..(c + 1) * rows);
        tasks.push(ComponentTask {
            x: &x[span.clone()],
            grad_out: &grad_out[span],
            grad_x: grad_x.as_mut().and_then(|(rows, store)| Some((rows.next()?, *store))),
            w1: &weights.w1[units.clone()],
            b1: &weights.b1[units.clone()],
            w2: &weights.w2[units],
            grad_w1,
            grad_b1,
            grad_w2,
            grad_b2,
        });
    }
    let operations = x.len() * hidden * 2 * OPERATIONS_PER_UNIT / LANES;
    parallel::for_each(tasks, operations, component_backward);
}

fn component_backward(task: ComponentTask<'_>) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { super::avx512::component_backward(task) };
    }
    general_backward(task);
}

dispatch! { fn general_backward(task: ComponentTask<'_>) = component_backward_body }

#[inline(always)]
fn component_backward_body<const FUSED: bool>(task: ComponentTask<'_>) {
    let ComponentTask { x, grad_out, mut grad_x, w1, b1, w2, grad_w1, grad_b1, grad_w2, grad_b2 } = task;
    for (tile, (x, grad_out)) in x.chunks(TILE).zip(grad_out.chunks(TILE)).enumerate() {
        // Rows past the end have a zero upstream gradient, so they add nothing.
        let (mut x_tile, mut upstream) = ([0.0_f32; TILE], [0.0_f32; TILE]);
        x_tile[..x.len()].copy_from_slice(x);
        upstream[..x.len()].copy_from_slice(grad_out);
        let mut x_slope = [0.0_f32; TILE];
        for unit in 0..w1.len() {
            let (w1, b1, w2) = (w1[unit], b1[unit], w2[unit]);
            let (mut sum_w1, mut sum_b1, mut sum_w2) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
            for start in (0..TILE).step_by(LANES) {
                for lane in 0..LANES {
                    let (x, upstream) = (x_tile[start + lane], upstream[start + lane]);
                    let z = multiply_add::<FUSED>(x, w1, b1);
                    let (cdf, e) = normal::<FUSED>(z);
                    let slope = multiply_add::<FUSED>(z * INV_SQRT_2PI, e, cdf);
                    let at_z = upstream * w2 * slope;
                    sum_w2[lane] = multiply_add::<FUSED>(upstream, z * cdf, sum_w2[lane]);
                    sum_w1[lane] = multiply_add::<FUSED>(at_z, x, sum_w1[lane]);
                    sum_b1[lane] += at_z;
                    x_slope[start + lane] = multiply_add::<FUSED>(at_z, w1, x_slope[start + lane]);
                }
            }
            grad_w1[unit] += tree_sum(&sum_w1);
            grad_b1[unit] += tree_sum(&sum_b1);
            grad_w2[unit] += tree_sum(&sum_w2);
        }
        let mut sum_b2 = [0.0_f32; LANES];
        for start in (0..TILE).step_by(LANES) {
            for lane in 0..LANES {
                sum_b2[lane] += upstream[start + lane];
            }
        }
        *grad_b2 += tree_sum(&sum_b2);
        if let Some((grad_x, store)) = &mut grad_x {
            for (grad_x, slope) in grad_x[tile * TILE..].iter_mut().zip(&x_slope[..x.len()]) {
                *grad_x = store.merge(*grad_x, *slope);
            }
        }
    }
}
