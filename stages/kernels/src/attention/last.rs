//! Attention of each sequence's last position alone: all that a model reads of its last block when it is asked for what
//! follows a sequence. The formulas are those of the module with `i = length − 1`.

use super::{Gradients, Shape, check, columns};
use crate::exponential::exp;
use crate::lanes::sum_over;
use crate::parallel;
use crate::simd::{dispatch, multiply_add};

/// Writes the attention's output at the last positions: `q, out [H·d_head, sequences]`, `k, v [H·d_head, R]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward_last(q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], shape: Shape) {
    check(&[k, v], shape);
    check_last(&[q, out], shape);
    let (d_head, length, rows) = (shape.d_head, shape.length, shape.rows());
    let sequences = parallel::columns(out, shape.sequences, 1);
    let operations = shape.elements() * 2;
    parallel::for_each(sequences.into_iter().enumerate().collect(), operations, |(sequence, mut out)| {
        let mut p = vec![0.0; length];
        for head in 0..shape.heads {
            let at = shape.start(sequence * shape.heads + head);
            let query = column(q, shape, sequence, head);
            probabilities(&query, &k[at..], &mut p, rows);
            for f in 0..d_head {
                out[head * d_head + f][0] = product_sum(&p, &v[at + f * rows..][..length]);
            }
        }
    });
}

/// Adds the gradients for the upstream gradient `grad_out` `[H·d_head, sequences]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward_last(q: &[f32], k: &[f32], v: &[f32], grad_out: &[f32], grads: Gradients<'_>, shape: Shape) {
    check(&[k, v], shape);
    check_last(&[q, grad_out], shape);
    let (d_head, length, rows) = (shape.d_head, shape.length, shape.rows());
    let sequences = shape.sequences;
    let grad_q = columns(grads.q, sequences, sequences, 1);
    let grad_k = columns(grads.k, sequences, rows, length);
    let grad_v = columns(grads.v, sequences, rows, length);
    let tasks: Vec<_> = grad_q.into_iter().zip(grad_k).zip(grad_v).enumerate().collect();
    parallel::for_each(tasks, shape.elements() * 6, |(sequence, ((mut grad_q, mut grad_k), mut grad_v))| {
        let (mut p, mut slope) = (vec![0.0; length], vec![0.0; length]);
        for head in 0..shape.heads {
            let at = shape.start(sequence * shape.heads + head);
            let (query, upstream) = (column(q, shape, sequence, head), column(grad_out, shape, sequence, head));
            probabilities(&query, &k[at..], &mut p, rows);
            scores_backward(&p, &v[at..], &upstream, &mut slope, rows);
            for f in 0..d_head {
                let feature = head * d_head + f;
                if let Some(grad) = grad_q.get_mut(feature) {
                    grad[0] += product_sum(&slope, &k[at + f * rows..][..length]);
                }
                if let Some(grad) = grad_k.get_mut(feature) {
                    add_scaled(&slope, query[f], grad);
                }
                if let Some(grad) = grad_v.get_mut(feature) {
                    add_scaled(&p, upstream[f], grad);
                }
            }
        }
    });
}

fn check_last(slices: &[&[f32]], shape: Shape) {
    let expected = shape.heads * shape.d_head * shape.sequences;
    for slice in slices {
        assert_eq!(slice.len(), expected, "attention of last positions: {shape:?}");
    }
}

/// Returns the features of a head at a sequence's last position.
fn column(x: &[f32], shape: Shape, sequence: usize, head: usize) -> Vec<f32> {
    let features = head * shape.d_head..(head + 1) * shape.d_head;
    features.map(|feature| x[feature * shape.sequences + sequence]).collect()
}

dispatch! {
    /// Fills `p [length]` for one query; features of k are `rows` apart.
    fn probabilities(query: &[f32], k: &[f32], p: &mut [f32], rows: usize) = probabilities_body
}

#[inline(always)]
fn probabilities_body<const FUSED: bool>(query: &[f32], k: &[f32], p: &mut [f32], rows: usize) {
    let scale = 1.0 / (query.len() as f32).sqrt();
    p.fill(0.0);
    for (f, query) in query.iter().enumerate() {
        let query = query * scale;
        for (p, key) in p.iter_mut().zip(&k[f * rows..]) {
            *p = multiply_add::<FUSED>(query, *key, *p);
        }
    }
    let most = p.iter().fold(f32::NEG_INFINITY, |most, score| if *score > most { *score } else { most });
    for p in &mut *p {
        *p = exp::<FUSED>(*p - most);
    }
    let share = 1.0 / sum_over(p.len(), |j| p[j]);
    p.iter_mut().for_each(|p| *p *= share);
}

dispatch! {
    /// Writes the gradients of the scores before scaling.
    fn scores_backward(p: &[f32], v: &[f32], upstream: &[f32], slope: &mut [f32], rows: usize) = scores_backward_body
}

#[inline(always)]
fn scores_backward_body<const FUSED: bool>(p: &[f32], v: &[f32], upstream: &[f32], slope: &mut [f32], rows: usize) {
    slope.fill(0.0);
    for (f, upstream) in upstream.iter().enumerate() {
        for (slope, value) in slope.iter_mut().zip(&v[f * rows..]) {
            *slope = multiply_add::<FUSED>(*upstream, *value, *slope);
        }
    }
    let mean = sum_over(p.len(), |j| p[j] * slope[j]);
    let scale = 1.0 / (upstream.len() as f32).sqrt();
    for (slope, p) in slope.iter_mut().zip(p) {
        *slope = *p * scale * (*slope - mean);
    }
}

dispatch! { fn product_sum(a: &[f32], b: &[f32]) -> f32 = product_sum_body }

#[inline(always)]
fn product_sum_body<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    sum_over(a.len(), |i| a[i] * b[i])
}

dispatch! { fn add_scaled(x: &[f32], factor: f32, out: &mut [f32]) = add_scaled_body }

#[inline(always)]
fn add_scaled_body<const FUSED: bool>(x: &[f32], factor: f32, out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = multiply_add::<FUSED>(*x, factor, *out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{backward, forward};
    use crate::testing::{assert_close, values, wide};

    const SHAPES: [Shape; 4] = [
        Shape { heads: 1, d_head: 1, sequences: 1, length: 1 },
        Shape { heads: 2, d_head: 3, sequences: 2, length: 5 },
        Shape { heads: 3, d_head: 2, sequences: 3, length: 33 },
        Shape { heads: 1, d_head: 2, sequences: 0, length: 4 },
    ];

    /// Returns the last positions of `x`.
    fn last(x: &[f32], shape: Shape) -> Vec<f32> {
        x.iter().skip(shape.length - 1).step_by(shape.length).copied().collect()
    }

    #[test]
    fn the_last_positions_attend_as_they_do_among_the_others() {
        for shape in SHAPES {
            let [q, k, v] = [1, 2, 3].map(|seed| values(seed, shape.elements()));
            let mut all = vec![0.0; q.len()];
            forward(&q, &k, &v, &mut all, shape);
            let (expected, queries) = (last(&all, shape), last(&q, shape));
            let mut out = vec![f32::NAN; queries.len()];
            forward_last(&queries, &k, &v, &mut out, shape);
            // Two sums of the same terms in f32.
            assert_close("output", &out, &wide(&expected), 2e-5, 2e-5);

            // An upstream gradient at the last positions only.
            let upstream = values(4, queries.len());
            let mut everywhere = vec![0.0; q.len()];
            everywhere
                .iter_mut()
                .skip(shape.length - 1)
                .step_by(shape.length)
                .zip(&upstream)
                .for_each(|(g, u)| *g = *u);
            let [mut grad_q, mut grad_k, mut grad_v] = [0; 3].map(|_| vec![0.0; q.len()]);
            let grads = Gradients { q: Some(&mut grad_q), k: Some(&mut grad_k), v: Some(&mut grad_v) };
            backward(&q, &k, &v, &everywhere, grads, shape);
            let [mut last_q, mut last_k, mut last_v] =
                [vec![1.0; queries.len()], vec![1.0; k.len()], vec![1.0; k.len()]];
            let grads = Gradients { q: Some(&mut last_q), k: Some(&mut last_k), v: Some(&mut last_v) };
            backward_last(&queries, &k, &v, &upstream, grads, shape);
            let grown = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x) + 1.0).collect() };
            assert_close("q", &last_q, &grown(&last(&grad_q, shape)), 2e-5, 5e-5);
            assert_close("k", &last_k, &grown(&grad_k), 2e-5, 5e-5);
            assert_close("v", &last_v, &grown(&grad_v), 2e-5, 5e-5);
            let mut alone = vec![1.0; k.len()];
            let grads = Gradients { k: Some(&mut alone), ..Gradients::default() };
            backward_last(&queries, &k, &v, &upstream, grads, shape);
            assert_eq!(alone, last_k, "the same without the others");
        }
    }
}
