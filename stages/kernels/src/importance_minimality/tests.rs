//! The known values of the method, and gradients by finite differences.

use super::*;
use crate::testing::{assert_close, slopes};

const BASE: Constants = Constants { p: 1.0, eps: 1e-12, beta: 0.0, ranks: 1.0 };
/// Spec appendix A.3 as `[C, R]`: component 0 of the first module is 0.5, 1; component 1 is 0.2, 0.
const A: [f32; 4] = [0.5, 1.0, 0.2, 0.0];
const B: [f32; 2] = [0.1, 0.3];

fn loss(constants: Constants) -> f64 {
    let (mut a, mut b) = ([0.0; 2], [0.0; 1]);
    sums(&A, None, constants, 2, &mut a);
    sums(&B, None, constants, 2, &mut b);
    value(&a, 2.0, constants) + value(&b, 2.0, constants)
}

#[test]
fn the_loss_has_the_known_values() {
    for (constants, expected) in [
        (BASE, 1.05),
        (Constants { p: 2.0, ..BASE }, 0.695),
        (Constants { p: 2.0, beta: 0.5, ..BASE }, 1.064_605),
        (Constants { p: 0.3, ..BASE }, 1.813_785),
        (Constants { p: 1.575, ..BASE }, 0.795_826),
    ] {
        assert!((loss(constants) - expected).abs() < 1e-6, "{constants:?}: {}", loss(constants));
    }
}

#[test]
fn gradients_match_finite_differences_with_and_without_row_weights() {
    let u: Vec<f32> = (0..3 * 19).map(|i| 0.05 + (i * 7 % 19) as f32 / 15.0).collect();
    let counts: Vec<f32> = (0..19).map(|r| if r == 18 { 40.0 } else { 1.0 }).collect();
    for weights in [None, Some(&counts[..])] {
        let n: f64 = weights.map_or(19.0, |w| w.iter().map(|w| f64::from(*w)).sum());
        for constants in
            [BASE, Constants { p: 2.0, beta: 0.3, ranks: 2.0, ..BASE }, Constants { p: 0.7, beta: 0.1, ..BASE }]
        {
            let exact = |u: &[f64]| -> f64 {
                (0..3)
                    .map(|c| {
                        let s: f64 = (0..19)
                            .map(|r| {
                                weights.map_or(1.0, |w| f64::from(w[r])) * u[c * 19 + r].powf(f64::from(constants.p))
                            })
                            .sum();
                        s / n * (1.0 + constants.beta * (1.0 + constants.ranks * s).log2())
                    })
                    .sum()
            };
            let mut s = [0.0; 3];
            sums(&u, weights, constants, 19, &mut s);
            let mut grad = vec![0.0; u.len()];
            backward(&u, weights, constants, &s, n, 1.5, (&mut grad, Store::Write), 19);
            let expected: Vec<f64> = slopes(&u, exact).iter().map(|g| 1.5 * g).collect();
            assert_close(&format!("{constants:?}"), &grad, &expected, 3e-6, 1e-7);
        }
    }
}

#[test]
fn a_weighted_row_counts_as_that_many_rows() {
    let dense = [0.3, 0.9, 0.9, 0.9];
    let (mut whole, mut compact) = ([0.0], [0.0]);
    let constants = Constants { p: 2.0, ..BASE };
    sums(&dense, None, constants, 4, &mut whole);
    sums(&[0.3, 0.9], Some(&[1.0, 3.0]), constants, 2, &mut compact);
    assert!((whole[0] - compact[0]).abs() < 1e-6);
}
