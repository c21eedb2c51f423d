//! One factor for each row of the batch: `y[f, r] = s[r] x[f, r]`.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::elementwise::{add_product, multiply, store_product};
use crate::{Store, parallel};

/// Writes `s ⊙ x`: `x`, `out` `[features, R]`, `factors` `[R]`.
///
/// # Panics
/// If a length does not fit.
pub fn scale(x: &[f32], factors: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(factors.len().max(1)), "rows: lengths");
    let rows = factors.len();
    parallel::for_each_row(out, rows, x.len(), |feature, out| {
        multiply(&x[feature * rows..(feature + 1) * rows], factors, out);
    });
}

/// Stores `s ⊙ ∂y` as the gradient of x and adds `Σ_f x ⊙ ∂y` to that of the factors.
///
/// # Panics
/// If a length does not fit.
pub fn scale_backward(
    x: &[f32],
    factors: &[f32],
    grad_out: &[f32],
    grad_x: Option<(&mut [f32], Store)>,
    grad_factors: Option<&mut [f32]>,
) {
    assert_eq!(x.len(), grad_out.len(), "rows: lengths");
    let rows = factors.len();
    if let Some((grad_x, store)) = grad_x {
        assert_eq!(grad_x.len(), grad_out.len(), "rows: length of the gradient");
        parallel::for_each_row(grad_x, rows, x.len(), |feature, grad_x| {
            store_product(&grad_out[feature * rows..(feature + 1) * rows], factors, grad_x, store);
        });
    }
    if let (Some(grad_factors), true) = (grad_factors, rows > 0) {
        for (x, grad_out) in x.chunks(rows).zip(grad_out.chunks(rows)) {
            add_product(x, grad_out, grad_factors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, slopes, values, wide};

    #[test]
    fn scaling_and_its_gradients_match_the_formula() {
        for (features, rows) in [(1, 1), (3, 17), (2, 0)] {
            let (x, s, k) = (values(1, features * rows), values(2, rows), values(3, features * rows));
            let mut y = vec![f32::NAN; x.len()];
            scale(&x, &s, &mut y);
            let exact = |x: &[f64], s: &[f64]| -> Vec<f64> { (0..x.len()).map(|i| x[i] * s[i % rows]).collect() };
            assert_close("y", &y, &exact(&wide(&x), &wide(&s)), 1e-6, 0.0);
            let (mut gx, mut gs) = (vec![f32::NAN; x.len()], vec![0.0; rows]);
            scale_backward(&x, &s, &k, Some((&mut gx, Store::Write)), Some(&mut gs));
            let weigh = |y: Vec<f64>| y.iter().zip(&k).map(|(y, k)| y * f64::from(*k)).sum::<f64>();
            assert_close("∂x", &gx, &slopes(&x, |x| weigh(exact(x, &wide(&s)))), 1e-6, 1e-6);
            assert_close("∂s", &gs, &slopes(&s, |s| weigh(exact(&wide(&x), s))), 1e-6, 1e-6);
        }
    }
}
