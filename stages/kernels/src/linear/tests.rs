//! The three products against f64.

use super::*;
use crate::testing::{assert_close, values, wide};

/// `[m, k] · [k, n]` in f64.
fn product(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            for j in 0..n {
                out[i * n + j] += a[i * k + l] * b[l * n + j];
            }
        }
    }
    out
}

fn transpose(a: &[f64], m: usize, n: usize) -> Vec<f64> {
    (0..m * n).map(|i| a[(i % m) * n + i / m]).collect()
}

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (2, 5, 17), (20, 2, 944), (5, 20, 64), (0, 3, 4), (3, 4, 0), (40, 30, 129), (100, 50, 65)];

#[test]
fn the_three_products_agree_with_f64_and_accumulate() {
    for (m, n, rows) in SHAPES {
        let (w, x, y) = (values(1, m * n), values(2, n * rows), values(3, m * rows));
        let mut out = y.clone();
        apply(&w, &x, &mut out, m, n, rows);
        let exact: Vec<f64> =
            product(&wide(&w), &wide(&x), m, n, rows).iter().zip(&y).map(|(p, y)| p + f64::from(*y)).collect();
        // n products of size up to 4·3, each rounded at 6e-8.
        assert_close("apply", &out, &exact, 1e-6, 1e-6 * n as f64);

        let mut out = vec![0.0; m * rows];
        apply_transposed(&w, &x, &mut out, m, n, rows);
        assert_close(
            "apply_transposed",
            &out,
            &product(&transpose(&wide(&w), n, m), &wide(&x), m, n, rows),
            1e-6,
            1e-6 * n as f64,
        );

        let mut g = vec![0.0; m * n];
        outer(&y, &x, &mut g, m, n, rows);
        assert_close(
            "outer",
            &g,
            &product(&wide(&y), &transpose(&wide(&x), n, rows), m, rows, n),
            1e-6,
            1e-6 * (rows as f64).max(1.0),
        );
    }
}

#[test]
fn products_have_the_same_bits_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            let (m, n, rows) = (200, 130, 1030);
            let (w, x) = (values(1, m * n), values(2, n * rows));
            let mut y = vec![0.0; m * rows];
            apply(&w, &x, &mut y, m, n, rows);
            let mut g = vec![0.0; m * n];
            outer(&y, &x, &mut g, m, n, rows);
            (y, g)
        })
    };
    assert!(run(1) == run(2) && run(1) == run(3));
}
