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

#[cfg(feature = "cuda")]
#[test]
fn the_twins_agree() {
    use crate::testing::{cuda_device, from_device, on_device, unwritten, values, wide};
    let device = cuda_device(crate::cuda::MODULES);
    let all = [
        BASE,
        Constants { p: 2.0, beta: 0.3, ranks: 2.0, ..BASE },
        Constants { p: 0.7, beta: 0.1, ..BASE },
        Constants { p: 1.5, eps: 1e-3, ..BASE },
    ];
    for (components, rows) in [(0, 3), (3, 0), (1, 1), (5, 19), (2, 256), (3, 1031)] {
        let u: Vec<f32> = values(1, components * rows).iter().map(|u| 0.01 + u.abs() / 3.0).collect();
        let counts: Vec<f32> = (0..rows).map(|r| 1.0 + (r % 3) as f32).collect();
        let [u_there, counts_there, g] = [&u[..], &counts, &[1.5]].map(|data| on_device(&device, data));
        for (constants, weighted) in all.into_iter().flat_map(|constants| [(constants, false), (constants, true)]) {
            let (weights, weights_there) = (weighted.then_some(&counts[..]), weighted.then_some(&counts_there));
            let n = rows.max(1) as f64;
            let (mut s, mut s_there) = (vec![f32::NAN; components], unwritten(&device, components));
            sums(&u, weights, constants, rows, &mut s);
            cuda::sums(&u_there, weights_there, constants, rows, &mut s_there).expect("a launch");
            // Up to 1031 terms of one sign, in sixteen lanes of f32 on the CPU: (1031/16 + 16) · 6e-8, and a power's 1e-6.
            assert_close("sums", &from_device(&s_there), &wide(&s), 6e-6, 0.0);
            let mut out = unwritten(&device, 1);
            cuda::value(&s_there, n, constants, &mut out).expect("a launch");
            assert_close("value", &from_device(&out), &[value(&s, n, constants)], 1.2e-5, 0.0);
            let held = values(2, u.len());
            for (store, mut there, mut here) in [
                (Store::Write, unwritten(&device, u.len()), vec![f32::NAN; u.len()]),
                (Store::Add, on_device(&device, &held), held.clone()),
            ] {
                backward(&u, weights, constants, &s, n, 1.5, (&mut here, store), rows);
                let to = (&mut there, store);
                cuda::backward(&u_there, weights_there, constants, &s_there, n, &g, to, rows).expect("a launch");
                // The sums' error, and a power's.
                assert_close("gradient", &from_device(&there), &wide(&here), 1e-5, 1e-6);
            }
        }
    }
}
