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

/// Small ones, then one that starts a chunk, a block and a panel more than it fills, and others of the large ones.
const SHAPES: [(usize, usize, usize); 13] = [
    (1, 1, 1),
    (2, 5, 17),
    (20, 2, 944),
    (5, 20, 64),
    (0, 3, 4),
    (3, 4, 0),
    (40, 30, 129),
    (100, 50, 65),
    (37, 193, 417),
    (13, 385, 33),
    (1, 521, 7),
    (521, 1, 193),
    (0, 600, 5),
];

#[test]
fn the_three_products_agree_with_f64_written_or_added() {
    for (m, n, rows) in SHAPES {
        let (w, x, y) = (values(1, m * n), values(2, n * rows), values(3, m * rows));
        let mut out = y.clone();
        apply(&w, &x, &mut out, [m, n, rows], Store::Add);
        let exact: Vec<f64> =
            product(&wide(&w), &wide(&x), m, n, rows).iter().zip(&y).map(|(p, y)| p + f64::from(*y)).collect();
        // n products of size up to 4·3, each rounded at 6e-8.
        assert_close("apply", &out, &exact, 1e-6, 1e-6 * n as f64);

        let mut out = vec![f32::NAN; m * rows];
        apply_transposed(&w, &x, &mut out, [m, n, rows], Store::Write);
        assert_close(
            "apply_transposed",
            &out,
            &product(&transpose(&wide(&w), n, m), &wide(&x), m, n, rows),
            1e-6,
            1e-6 * n as f64,
        );

        let mut g = vec![f32::NAN; m * n];
        outer(&y, &x, &mut g, [m, n, rows], Store::Write);
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
            apply(&w, &x, &mut y, [m, n, rows], Store::Write);
            let mut g = vec![0.0; m * n];
            outer(&y, &x, &mut g, [m, n, rows], Store::Write);
            (y, g)
        })
    };
    assert!(run(1) == run(2) && run(1) == run(3));
}

#[test]
fn packed_tiles_agree_with_the_general_product() {
    // Heights of 1 to 13 rows, chunks of 192 terms and one more, panels of one register, two, and a part.
    for m in 1..=13 {
        for (k, n) in [(1, 33), (50, 16), (192, 32), (193, 47), (400, 391)] {
            let (a, b, held) = (values(1, m * k), values(2, k * n), values(3, m * n));
            let transposed =
                |x: &[f32], m: usize, n: usize| -> Vec<f32> { (0..m * n).map(|i| x[(i % m) * n + i / m]).collect() };
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let by_rows = |numbers, columns| cpu::Strided { numbers, row: columns, column: 1 };
            for a in [by_rows(&a, k), by_rows(&at, m).transposed()] {
                for b in [by_rows(&b, n), by_rows(&bt, k).transposed()] {
                    for store in [Store::Write, Store::Add] {
                        let (mut ours, mut general) = (held.clone(), held.clone());
                        cpu::product(&mut ours, a, b, [m, k, n], store, Sharing::Allowed);
                        cpu::general_product(&mut general, a, b, [m, k, n], store, Sharing::Forbidden);
                        // k products of size up to 4, each rounded at 6e-8, on both sides.
                        assert_close(&format!("{m} {k} {n} {store:?}"), &ours, &wide(&general), 1e-6, 2e-6 * k as f64);
                    }
                }
            }
        }
    }
}
