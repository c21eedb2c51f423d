//! The loops over logits: row after row of the vocabulary, the positions of a tile side by side.

use super::TILE;
use crate::exponential::{exp, exp_wide};
use crate::simd::dispatch;

/// The largest logit of each position; `logits` begins at the tile's first.
#[inline(always)]
fn largest(logits: &[f32], count: usize, rows: usize, most: &mut [f32]) {
    most.fill(f32::NEG_INFINITY);
    for v in 0..count {
        for (most, x) in most.iter_mut().zip(&logits[v * rows..]) {
            // A NaN must come out as one.
            *most = if *x <= *most { *most } else { *x };
        }
    }
}

dispatch! {
    /// Writes for each position of a tile the divergence and z of prediction and target.
    pub(super) fn kl_tile(prediction: &[f32], target: &[f32], count: usize, rows: usize, results: &mut [[f64; 3]])
        = kl_tile_body
}

#[inline(always)]
fn kl_tile_body<const FUSED: bool>(
    prediction: &[f32],
    target: &[f32],
    count: usize,
    rows: usize,
    results: &mut [[f64; 3]],
) {
    let width = results.len();
    let (mut most_p, mut most_t) = ([0.0_f32; TILE], [0.0_f32; TILE]);
    let (most_p, most_t) = (&mut most_p[..width], &mut most_t[..width]);
    largest(prediction, count, rows, most_p);
    largest(target, count, rows, most_t);
    let (mut sums_p, mut sums_t, mut weighted) = ([0.0_f64; TILE], [0.0_f64; TILE], [0.0_f64; TILE]);
    for v in 0..count {
        let (p, t) = (&prediction[v * rows..v * rows + width], &target[v * rows..v * rows + width]);
        for r in 0..width {
            sums_p[r] += exp_wide(f64::from(p[r] - most_p[r]));
            let share = exp_wide(f64::from(t[r] - most_t[r]));
            sums_t[r] += share;
            weighted[r] += share * f64::from(t[r] - p[r]);
        }
    }
    for (r, result) in results.iter_mut().enumerate() {
        let (z_p, z_t) = (f64::from(most_p[r]) + sums_p[r].ln(), f64::from(most_t[r]) + sums_t[r].ln());
        *result = [weighted[r] / sums_t[r] + z_p - z_t, z_p, z_t];
    }
}

dispatch! {
    /// Writes z of each position of a tile.
    pub(super) fn normalisers_tile(logits: &[f32], count: usize, rows: usize, normalisers: &mut [f64])
        = normalisers_tile_body
}

#[inline(always)]
fn normalisers_tile_body<const FUSED: bool>(logits: &[f32], count: usize, rows: usize, normalisers: &mut [f64]) {
    let width = normalisers.len();
    let mut most = [0.0_f32; TILE];
    let most = &mut most[..width];
    largest(logits, count, rows, most);
    normalisers.fill(0.0);
    for v in 0..count {
        for ((sum, x), most) in normalisers.iter_mut().zip(&logits[v * rows..]).zip(&*most) {
            *sum += exp_wide(f64::from(x - most));
        }
    }
    for (sum, most) in normalisers.iter_mut().zip(most) {
        *sum = f64::from(*most) + sum.ln();
    }
}

dispatch! {
    /// Adds `factor · e^{x − z}`, a share of a softmax.
    pub(super) fn add_softmax(x: &[f32], z: &[f32], factor: f32, grad: &mut [f32]) = add_softmax_body
}

#[inline(always)]
fn add_softmax_body<const FUSED: bool>(x: &[f32], z: &[f32], factor: f32, grad: &mut [f32]) {
    for ((x, z), grad) in x.iter().zip(z).zip(grad) {
        *grad += factor * exp::<FUSED>(x - z);
    }
}
