//! Values and gradients of every squashing function.

use super::*;

const X: [f32; 6] = [-2.0, -0.5, 0.0, 0.3, 1.0, 1.7];
const A: f32 = 0.01;

#[track_caller]
fn check(function: Sigmoid, values: [f32; 6], slopes: [f32; 6], upstream: f32) {
    for i in 0..6 {
        // The vectors are given to six decimals.
        assert!((function.value(X[i]) - values[i]).abs() < 1e-6, "{function:?} at {}: {}", X[i], function.value(X[i]));
        let gradient = function.gradient(X[i], upstream);
        assert!((gradient - slopes[i]).abs() < 1e-6, "{function:?} slope at {}: {gradient}", X[i]);
    }
}

#[test]
fn every_sigmoid_has_the_values_and_gradients_of_the_method() {
    // Spec appendix A.1.
    check(Sigmoid::Hard, [0.0, 0.0, 0.0, 0.3, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 1.0, 0.0], 1.0);
    check(Sigmoid::LeakyHard { alpha: A }, [-0.02, -0.005, 0.0, 0.3, 1.0, 1.0], [A, A, A, 1.0, 1.0, 0.0], 1.0);
    check(Sigmoid::UpperLeakyHard { alpha: A }, [0.0, 0.0, 0.0, 0.3, 1.0, 1.007], [0.0, 0.0, 1.0, 1.0, 1.0, A], 1.0);
    let lower = Sigmoid::LowerLeakyHard { alpha: A };
    check(lower, [0.0, 0.0, 0.0, 0.3, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0, 0.0], 1.0);
    check(lower, [0.0, 0.0, 0.0, 0.3, 1.0, 1.0], [-A, -A, -A, -1.0, -1.0, 0.0], -1.0);
    check(
        Sigmoid::SWISH_HARD,
        [0.0, -0.003_346, 0.000_045, 0.286_41, 0.999_955, 1.000_638],
        [0.0, -0.026_543, 0.500_409, 1.093_564, 0.500_409, -0.005_461],
        1.0,
    );
    let normal = [0.119_203, 0.377_541, 0.5, 0.574_443, 0.731_059, 0.845_535];
    check(Sigmoid::Normal, normal, normal.map(|y| y * (1.0 - y)), 1.0);
}

#[test]
fn slices_give_what_single_values_give() {
    let x: Vec<f32> = (0..37).map(|i| i as f32 * 0.11 - 1.5).collect();
    let g: Vec<f32> = (0..37).map(|i| if i % 3 == 0 { -0.7 } else { 0.4 }).collect();
    for function in [Sigmoid::LowerLeakyHard { alpha: A }, Sigmoid::UpperLeakyHard { alpha: A }, Sigmoid::Normal] {
        let (mut y, mut dx) = (vec![0.0; 37], vec![1.0; 37]);
        forward(function, &x, &mut y);
        backward(function, &x, &g, &mut dx, Store::Add);
        for i in 0..37 {
            assert_eq!((y[i], dx[i]), (function.value(x[i]), 1.0 + function.gradient(x[i], g[i])));
        }
    }
}
