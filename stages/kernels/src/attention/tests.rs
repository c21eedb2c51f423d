//! Attention against f64, its gradients against finite differences.

use super::*;
use crate::testing::{assert_close, slopes, values, wide};

const SHAPES: [Shape; 6] = [
    Shape { heads: 1, d_head: 1, sequences: 1, length: 1 },
    Shape { heads: 2, d_head: 3, sequences: 2, length: 5 },
    Shape { heads: 1, d_head: 4, sequences: 3, length: 16 },
    Shape { heads: 3, d_head: 2, sequences: 1, length: 17 },
    Shape { heads: 1, d_head: 17, sequences: 1, length: 9 },
    Shape { heads: 1, d_head: 2, sequences: 0, length: 4 },
];

/// Returns output and probabilities in f64, straight from the formula.
fn exact(q: &[f64], k: &[f64], v: &[f64], shape: Shape) -> (Vec<f64>, Vec<f64>) {
    let Shape { heads, d_head, sequences, length } = shape;
    let rows = sequences * length;
    let (mut out, mut weights) = (vec![0.0; q.len()], Vec::new());
    for sequence in 0..sequences {
        for head in 0..heads {
            let at = |f: usize, position: usize| (head * d_head + f) * rows + sequence * length + position;
            for i in 0..length {
                let score = |j: usize| -> f64 {
                    (0..d_head).map(|f| q[at(f, i)] * k[at(f, j)]).sum::<f64>() / (d_head as f64).sqrt()
                };
                let powers: Vec<f64> = (0..=i).map(|j| score(j).exp()).collect();
                let sum: f64 = powers.iter().sum();
                for f in 0..d_head {
                    out[at(f, i)] = (0..=i).map(|j| powers[j] / sum * v[at(f, j)]).sum();
                }
                weights.extend((0..length).map(|j| powers.get(j).map_or(0.0, |power| power / sum)));
            }
        }
    }
    (out, weights)
}

#[test]
fn attention_and_its_weights_agree_with_f64_and_the_output_accumulates() {
    for shape in SHAPES {
        let [q, k, v] = [1, 2, 3].map(|seed| values(seed, shape.elements()));
        let (expected, expected_weights) = exact(&wide(&q), &wide(&k), &wide(&v), shape);
        let mut out = vec![1.0; q.len()];
        forward(&q, &k, &v, &mut out, shape);
        let expected: Vec<f64> = expected.iter().map(|y| y + 1.0).collect();
        // Scores of at most 36 lose 36 · 6e-8 · 2 in the exponent.
        assert_close("output", &out, &expected, 1e-5, 1e-5);
        assert_close("weights", &weights(&q, &k, shape), &expected_weights, 1e-5, 1e-6);
    }
}

#[test]
fn gradients_match_finite_differences() {
    for shape in SHAPES {
        let [q, k, v, upstream] = [1, 2, 3, 4].map(|seed| values(seed, shape.elements()));
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            exact(q, k, v, shape).0.iter().zip(&upstream).map(|(y, g)| y * f64::from(*g)).sum()
        };
        let [mut grad_q, mut grad_k, mut grad_v] = [0; 3].map(|_| vec![0.0; q.len()]);
        let grads = Gradients { q: Some(&mut grad_q), k: Some(&mut grad_k), v: Some(&mut grad_v) };
        backward(&q, &k, &v, &upstream, grads, shape);
        let (q64, k64, v64) = (wide(&q), wide(&k), wide(&v));
        assert_close("q", &grad_q, &slopes(&q, |q| loss(q, &k64, &v64)), 2e-5, 2e-4);
        assert_close("k", &grad_k, &slopes(&k, |k| loss(&q64, k, &v64)), 2e-5, 2e-4);
        assert_close("v", &grad_v, &slopes(&v, |v| loss(&q64, &k64, v)), 2e-5, 2e-4);
        let mut alone = vec![0.0; q.len()];
        backward(&q, &k, &v, &upstream, Gradients { v: Some(&mut alone), ..Gradients::default() }, shape);
        assert_eq!(alone, grad_v, "the same without the others");
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let shape = Shape { heads: 2, d_head: 8, sequences: 40, length: 33 };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            let [q, k, v, upstream] = [1, 2, 3, 4].map(|seed| values(seed, shape.elements()));
            let [mut out, mut grad_q, mut grad_k, mut grad_v] = [0; 4].map(|_| vec![0.0; q.len()]);
            forward(&q, &k, &v, &mut out, shape);
            let grads = Gradients { q: Some(&mut grad_q), k: Some(&mut grad_k), v: Some(&mut grad_v) };
            backward(&q, &k, &v, &upstream, grads, shape);
            [out, grad_q, grad_k, grad_v]
        })
    };
    assert!(run(1) == run(2) && run(1) == run(3));
}
