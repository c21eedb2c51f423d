//! One head on one sequence. Probabilities are kept by what is looked at, `p[j, i]` for query i and key j, so that loops
//! run over consecutive queries; sums over queries run over the features of a head instead.

use crate::exponential::exp;
use crate::lanes::LANES;
use crate::simd::{dispatch, multiply_add};

/// Returns the first query of the tile that query `j` is in: nothing before it looks at key j.
fn tile_of(j: usize) -> usize {
    j - j % LANES
}

dispatch! {
    /// Fills `p [length (keys), length (queries)]`; features of q and k are `rows` apart.
    pub(super) fn probabilities(q: &[f32], k: &[f32], p: &mut [f32], d_head: usize, length: usize, rows: usize)
        = probabilities_body
}

#[inline(always)]
fn probabilities_body<const FUSED: bool>(
    q: &[f32],
    k: &[f32],
    p: &mut [f32],
    d_head: usize,
    length: usize,
    rows: usize,
) {
    let scale = 1.0 / (d_head as f32).sqrt();
    let mut most = vec![f32::NEG_INFINITY; length];
    for j in 0..length {
        let from = tile_of(j);
        let scores = &mut p[j * length + from..(j + 1) * length];
        for f in 0..d_head {
            let key = k[f * rows + j] * scale;
            for (score, query) in scores.iter_mut().zip(&q[f * rows + from..f * rows + length]) {
                *score = multiply_add::<FUSED>(key, *query, *score);
            }
        }
        for (most, score) in most[j..].iter_mut().zip(&p[j * length + j..]) {
            *most = if *score > *most { *score } else { *most };
        }
    }
    let mut sums = vec![0.0_f32; length];
    for j in 0..length {
        let row = &mut p[j * length..(j + 1) * length];
        row[tile_of(j)..j].fill(0.0);
        for ((p, most), sum) in row[j..].iter_mut().zip(&most[j..]).zip(&mut sums[j..]) {
            *p = exp::<FUSED>(*p - most);
            *sum += *p;
        }
    }
    for sum in &mut sums {
        *sum = 1.0 / *sum;
    }
    for (j, row) in p.chunks_mut(length.max(1)).enumerate() {
        for (p, share) in row[j..].iter_mut().zip(&sums[j..]) {
            *p *= share;
        }
    }
}

dispatch! {
    /// `out[f, i] += Σ_j p[j, i] x[f, j]`; features of x are `rows` apart, those of `out` `length`.
    pub(super) fn mix(p: &[f32], x: &[f32], out: &mut [f32], length: usize, rows: usize) = mix_body
}

#[inline(always)]
fn mix_body<const FUSED: bool>(p: &[f32], x: &[f32], out: &mut [f32], length: usize, rows: usize) {
    for (f, out) in out.chunks_mut(length.max(1)).enumerate() {
        for j in 0..length {
            let (from, x) = (tile_of(j), x[f * rows + j]);
            for (out, p) in out[from..].iter_mut().zip(&p[j * length + from..(j + 1) * length]) {
                *out = multiply_add::<FUSED>(*p, x, *out);
            }
        }
    }
}

dispatch! {
    /// `out[f, j] += Σ_i p[j, i] x[f, i]`.
    pub(super) fn contract(p: &[f32], x: &[f32], out: &mut [f32], length: usize, rows: usize) = contract_body
}

/// Keys that are summed side by side; a divisor of the tile, so that they begin in the same one.
const KEYS: usize = 8;

#[inline(always)]
fn contract_body<const FUSED: bool>(p: &[f32], x: &[f32], out: &mut [f32], length: usize, rows: usize) {
    // Sixteen features of one query side by side: then no sum runs across lanes.
    let mut by_query = vec![[0.0_f32; LANES]; length];
    for (group, out) in out.chunks_mut((LANES * length).max(1)).enumerate() {
        for (f, _) in out.chunks(length).enumerate() {
            let x = &x[(group * LANES + f) * rows..][..length];
            by_query.iter_mut().zip(x).for_each(|(lanes, x)| lanes[f] = *x);
        }
        let whole = length - length % KEYS;
        for first in (0..whole).step_by(KEYS) {
            contract_keys::<FUSED, KEYS>(p, &by_query, out, first);
        }
        for first in whole..length {
            contract_keys::<FUSED, 1>(p, &by_query, out, first);
        }
    }
}

/// The sums of `COUNT` keys from `first` on, all in one tile.
#[inline(always)]
fn contract_keys<const FUSED: bool, const COUNT: usize>(
    p: &[f32],
    by_query: &[[f32; LANES]],
    out: &mut [f32],
    first: usize,
) {
    let length = by_query.len();
    let p = &p[first * length..(first + COUNT) * length];
    let mut sums = [[0.0_f32; LANES]; COUNT];
    for (i, x) in by_query.iter().enumerate().skip(tile_of(first)) {
        for key in 0..COUNT {
            let weight = p[key * length + i];
            for lane in 0..LANES {
                sums[key][lane] = multiply_add::<FUSED>(weight, x[lane], sums[key][lane]);
            }
        }
    }
    for (f, out) in out.chunks_mut(length).enumerate() {
        out[first..first + COUNT].iter_mut().zip(&sums).for_each(|(out, sums)| *out += sums[f]);
    }
}

dispatch! {
    /// Replaces the probabilities by the gradient of the scores before scaling.
    pub(super) fn scores_backward(
        p: &mut [f32], v: &[f32], grad_out: &[f32], d_head: usize, length: usize, rows: usize,
    ) = scores_backward_body
}

#[inline(always)]
fn scores_backward_body<const FUSED: bool>(
    p: &mut [f32],
    v: &[f32],
    grad_out: &[f32],
    d_head: usize,
    length: usize,
    rows: usize,
) {
    let scale = 1.0 / (d_head as f32).sqrt();
    let mut grad_p = vec![0.0_f32; length * length];
    let mut means = vec![0.0_f32; length];
    for j in 0..length {
        let from = tile_of(j);
        let grads = &mut grad_p[j * length + from..(j + 1) * length];
        for f in 0..d_head {
            let value = v[f * rows + j];
            for (grad, upstream) in grads.iter_mut().zip(&grad_out[f * rows + from..f * rows + length]) {
                *grad = multiply_add::<FUSED>(value, *upstream, *grad);
            }
        }
        for ((mean, grad), p) in means[from..].iter_mut().zip(grads).zip(&p[j * length + from..]) {
            *mean = multiply_add::<FUSED>(*p, *grad, *mean);
        }
    }
    for (p, grad_p) in p.chunks_mut(length.max(1)).zip(grad_p.chunks(length.max(1))) {
        for ((p, grad), mean) in p.iter_mut().zip(grad_p).zip(&means) {
            *p *= scale * (grad - mean);
        }
    }
}
