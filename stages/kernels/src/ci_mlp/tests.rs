//! The private networks against their formula in f64, and by finite differences.

use super::*;
use crate::testing::{assert_close, erf_gelu, slopes, values, wide};

/// The formula in f64, all arguments in one slice: x, w1, b1, w2, b2.
fn exact(at: &[f64], components: usize, hidden: usize, rows: usize) -> Vec<f64> {
    let (x, rest) = at.split_at(components * rows);
    let (w1, rest) = rest.split_at(components * hidden);
    let (b1, rest) = rest.split_at(components * hidden);
    let (w2, b2) = rest.split_at(components * hidden);
    let mut z = Vec::with_capacity(components * rows);
    for c in 0..components {
        for r in 0..rows {
            let hidden_sum = (c * hidden..(c + 1) * hidden).map(|u| w2[u] * erf_gelu(w1[u] * x[c * rows + r] + b1[u]));
            z.push(b2[c] + hidden_sum.sum::<f64>());
        }
    }
    z
}

fn run(components: usize, hidden: usize, rows: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) {
    let units = components * hidden;
    let at = values(5, components * rows + 3 * units + components);
    let (x, rest) = at.split_at(components * rows);
    let (w1, rest) = rest.split_at(units);
    let (b1, rest) = rest.split_at(units);
    let (w2, b2) = rest.split_at(units);
    let weights = Weights { w1, b1, w2, b2 };
    let mut z = vec![f32::NAN; components * rows];
    forward(x, weights, &mut z, rows);
    let upstream = values(6, components * rows);
    let mut grads = vec![0.0; at.len()];
    let (grad_x, rest) = grads.split_at_mut(components * rows);
    let (w1, rest) = rest.split_at_mut(units);
    let (b1, rest) = rest.split_at_mut(units);
    let (w2, b2) = rest.split_at_mut(units);
    backward(x, weights, &upstream, Some((grad_x, Store::Add)), WeightGradients { w1, b1, w2, b2 }, rows);
    (at, z, upstream, grads)
}

#[test]
fn outputs_and_gradients_match_f64_for_odd_shapes() {
    for (components, hidden, rows) in
        [(1, 1, 1), (3, 16, 5), (2, 3, 64), (5, 16, 65), (0, 4, 3), (2, 2, 0), (2, 5, 131)]
    {
        let (at, z, upstream, grads) = run(components, hidden, rows);
        // Each of H terms is off by at most 2e-7·|z|·|w2|, with |z| up to 12 and |w2| up to 3.
        assert_close("z", &z, &exact(&wide(&at), components, hidden, rows), 1e-6, 4e-6 * hidden as f64);
        let loss = |at: &[f64]| {
            exact(at, components, hidden, rows).iter().zip(&upstream).map(|(z, g)| z * f64::from(*g)).sum()
        };
        // Weight gradients sum over rows, activation gradients over hidden units.
        assert_close("gradients", &grads, &slopes(&at, loss), 3e-6, 5e-6 * (rows.max(hidden) as f64));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| run(20, 16, 944))
    };
    assert!(bits(1) == bits(2) && bits(1) == bits(3));
}
