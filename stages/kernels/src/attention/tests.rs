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

/// Shapes with several tiles of positions and of features, whole and not, aligned and not.
#[cfg(feature = "cuda")]
const LARGER: [Shape; 5] = [
    Shape { heads: 2, d_head: 7, sequences: 2, length: 65 },
    Shape { heads: 1, d_head: 64, sequences: 1, length: 128 },
    Shape { heads: 2, d_head: 70, sequences: 1, length: 37 },
    Shape { heads: 1, d_head: 130, sequences: 2, length: 68 },
    Shape { heads: 2, d_head: 4, sequences: 1, length: 201 },
];

#[cfg(feature = "cuda")]
#[test]
fn the_twins_agree() {
    use crate::testing::{cuda_device, from_device, on_device, unwritten};
    let device = cuda_device(crate::cuda::MODULES);
    for shape in SHAPES.into_iter().chain(LARGER) {
        let n = shape.elements();
        // Scores of a few units, whatever the number of features.
        let small = |seed| values(seed, n).iter().map(|x| x / (shape.d_head as f32).powf(0.25)).collect();
        let [q, k]: [Vec<f32>; 2] = [1, 2].map(small);
        let [v, g] = [3, 4].map(|seed| values(seed, n));
        let [q_there, k_there, v_there, g_there] = [&q, &k, &v, &g].map(|data| on_device(&device, data));
        let held = [5, 6, 7].map(|seed| values(seed, n));
        let (mut here, mut there) = (held[0].clone(), on_device(&device, &held[0]));
        forward(&q, &k, &v, &mut here, shape);
        cuda::forward(&q_there, &k_there, &v_there, &mut there, shape).expect("a launch");
        // Scores up to 9 √d, here 40, lose 40 · 6e-8 · 2 in the exponent; means of numbers up to 3.
        assert_close("output", &from_device(&there), &wide(&here), 1e-5, 1.5e-5);

        let mut there = unwritten(&device, shape.sequences * shape.heads * shape.length * shape.length);
        cuda::weights(&q_there, &k_there, &mut there, shape).expect("a launch");
        assert_close("weights", &from_device(&there), &wide(&weights(&q, &k, shape)), 1e-5, 1e-6);

        let [mut grad_q, mut grad_k, mut grad_v] = held.clone();
        let grads = Gradients { q: Some(&mut grad_q), k: Some(&mut grad_k), v: Some(&mut grad_v) };
        backward(&q, &k, &v, &g, grads, shape);
        let expected = [grad_q, grad_k, grad_v];
        // Slopes up to 9 √d with the relative error above, times features up to 3, some of each sign.
        assert_wanted_gradients(&device, &held, &expected, |grads| {
            cuda::backward(&q_there, &k_there, &v_there, &g_there, grads, shape)
        });
    }
}

/// Asserts that `launch` adds `expected − held` to the gradients that it is given, whichever they are.
#[cfg(feature = "cuda")]
#[track_caller]
fn assert_wanted_gradients(
    device: &crate::cuda::Handle,
    held: &[Vec<f32>; 3],
    expected: &[Vec<f32>; 3],
    launch: impl Fn(cuda::Gradients<'_>) -> crate::cuda::Launched,
) {
    use crate::testing::{from_device, on_device};
    for wanted in [[true; 3], [true, false, false], [false, true, false], [false, false, true], [false; 3]] {
        let mut there = held.each_ref().map(|held| on_device(device, held));
        let [q, k, v] = there.each_mut();
        let [q, k, v] =
            [(q, wanted[0]), (k, wanted[1]), (v, wanted[2])].map(|(grad, is_wanted)| is_wanted.then_some(grad));
        launch(cuda::Gradients { q, k, v }).expect("a launch");
        for (i, grad) in there.iter().enumerate() {
            if wanted[i] {
                assert_close(["q", "k", "v"][i], &from_device(grad), &wide(&expected[i]), 2e-5, 2e-4);
            } else {
                assert_eq!(from_device(grad), held[i], "a gradient that nobody wants");
            }
        }
    }
}

#[cfg(feature = "cuda")]
#[test]
fn the_twins_agree_on_last_positions() {
    use crate::testing::{cuda_device, from_device, on_device, unwritten};
    let device = cuda_device(crate::cuda::MODULES);
    let longer = Shape { heads: 2, d_head: 9, sequences: 2, length: 300 };
    for shape in SHAPES.into_iter().chain(LARGER).chain([longer]) {
        let (n, ones) = (shape.elements(), shape.heads * shape.d_head * shape.sequences);
        let small = |(seed, n)| values(seed, n).iter().map(|x| x / (shape.d_head as f32).powf(0.25)).collect();
        let [q, k]: [Vec<f32>; 2] = [(1, ones), (2, n)].map(small);
        let (v, g) = (values(3, n), values(4, ones));
        let [q_there, k_there, v_there, g_there] = [&q, &k, &v, &g].map(|data| on_device(&device, data));
        let (mut here, mut there) = (vec![f32::NAN; ones], unwritten(&device, ones));
        forward_last(&q, &k, &v, &mut here, shape);
        cuda::forward_last(&q_there, &k_there, &v_there, &mut there, shape).expect("a launch");
        assert_close("output", &from_device(&there), &wide(&here), 1e-5, 1.5e-5);

        let held = [(5, ones), (6, n), (7, n)].map(|(seed, n)| values(seed, n));
        let [mut grad_q, mut grad_k, mut grad_v] = held.clone();
        let grads = Gradients { q: Some(&mut grad_q), k: Some(&mut grad_k), v: Some(&mut grad_v) };
        backward_last(&q, &k, &v, &g, grads, shape);
        let expected = [grad_q, grad_k, grad_v];
        assert_wanted_gradients(&device, &held, &expected, |grads| {
            cuda::backward_last(&q_there, &k_there, &v_there, &g_there, grads, shape)
        });
    }
}
