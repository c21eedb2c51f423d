//! Sums: `a + b`, weighted ones, a bias for every feature; and what flows back through them.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::lanes::LANES;
use crate::simd::{dispatch, multiply_add};
use crate::{Store, parallel};

/// Elements of a thread's piece of work.
const PIECE: usize = 1 << 14;

/// Writes `x_scale x + y_scale y`.
///
/// # Panics
/// If the lengths differ.
pub fn blend(x: &[f32], x_scale: f32, y: &[f32], y_scale: f32, out: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (out.len(), out.len()), "sum: lengths");
    parallel::for_each_row(out, PIECE, x.len(), |index, out| {
        let span = index * PIECE..index * PIECE + out.len();
        blend_at_level(&x[span.clone()], x_scale, &y[span], y_scale, out);
    });
}

dispatch! {
    fn blend_at_level(x: &[f32], x_scale: f32, y: &[f32], y_scale: f32, out: &mut [f32]) = blend_body
}

#[inline(always)]
fn blend_body<const FUSED: bool>(x: &[f32], x_scale: f32, y: &[f32], y_scale: f32, out: &mut [f32]) {
    for ((x, y), out) in x.iter().zip(y).zip(out) {
        *out = multiply_add::<FUSED>(x_scale, *x, y_scale * y);
    }
}

/// Writes `a + b`.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    blend(a, 1.0, b, 1.0, out);
}

/// Stores `scale ∂y` as the gradient of x, of `y = scale x + …`.
///
/// # Panics
/// If the lengths differ.
pub fn backward(scale: f32, grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    assert_eq!(grad_out.len(), grad_x.len(), "sum: lengths of the gradients");
    parallel::for_each_row(grad_x, PIECE, grad_out.len(), |index, grad_x| {
        backward_at_level(scale, &grad_out[index * PIECE..][..grad_x.len()], grad_x, store);
    });
}

dispatch! {
    fn backward_at_level(scale: f32, grad_out: &[f32], grad_x: &mut [f32], store: Store) = backward_body
}

#[inline(always)]
fn backward_body<const FUSED: bool>(scale: f32, grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    for (grad_out, grad_x) in grad_out.iter().zip(grad_x) {
        *grad_x = store.merge(*grad_x, scale * grad_out);
    }
}

/// Writes `x + b`: `x`, `out` `[features, rows]`, `bias` `[features]`.
///
/// # Panics
/// If a length does not fit.
pub fn add_bias(x: &[f32], bias: &[f32], out: &mut [f32]) {
    let rows = x.len().checked_div(bias.len()).unwrap_or(0);
    assert_eq!((x.len(), out.len()), (bias.len() * rows, x.len()), "bias: lengths");
    parallel::for_each_row(out, rows, x.len(), |feature, out| {
        out.iter_mut().zip(&x[feature * rows..]).for_each(|(out, x)| *out = x + bias[feature]);
    });
}

/// As [`add_bias`], in place.
///
/// # Panics
/// If a length does not fit.
pub fn add_bias_here(bias: &[f32], out: &mut [f32]) {
    let rows = out.len().checked_div(bias.len()).unwrap_or(0);
    assert_eq!(out.len(), bias.len() * rows, "bias: lengths");
    parallel::for_each_row(out, rows, bias.len() * rows, |feature, out| {
        out.iter_mut().for_each(|out| *out += bias[feature]);
    });
}

/// Adds the sum over the rows of each feature: `x` `[features, rows]`, `out` `[features]`. Summed in f64.
///
/// # Panics
/// If a length does not fit.
pub fn over_rows(x: &[f32], out: &mut [f32]) {
    let rows = x.len().checked_div(out.len()).unwrap_or(0);
    assert_eq!(x.len(), out.len() * rows, "sum over rows: lengths");
    parallel::for_each_row(out, 1, x.len(), |feature, out| {
        out[0] += row_sum(&x[feature * rows..(feature + 1) * rows]);
    });
}

dispatch! { fn row_sum(x: &[f32]) -> f32 = row_sum_body }

#[inline(always)]
fn row_sum_body<const FUSED: bool>(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f64; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for lane in 0..LANES {
            lanes[lane] += f64::from(x[lane]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*x);
    }
    lanes.iter().sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, values, wide};

    #[test]
    fn sums_and_their_gradients_match_the_formula() {
        for n in [0, 1, 17, PIECE + 1, 13 * PIECE + 5] {
            let (x, y) = (values(1, n), values(2, n));
            let mut out = vec![f32::NAN; n];
            blend(&x, 0.75, &y, -0.5, &mut out);
            let exact: Vec<f64> = wide(&x).iter().zip(wide(&y)).map(|(x, y)| 0.75 * x - 0.5 * y).collect();
            // Two roundings of numbers up to 3.
            assert_close("blend", &out, &exact, 1e-6, 1e-6);
            add(&x, &y, &mut out);
            assert!(out.iter().zip(x.iter().zip(&y)).all(|(out, (x, y))| *out == x + y));

            let mut grad = vec![f32::NAN; n];
            backward(2.0, &x, &mut grad, Store::Write);
            backward(0.5, &x, &mut grad, Store::Add);
            assert_close("gradient", &grad, &wide(&x).iter().map(|x| 2.5 * x).collect::<Vec<_>>(), 1e-6, 0.0);
        }
    }

    #[test]
    fn a_bias_is_added_to_every_row_and_gets_the_sum_over_them() {
        for (features, rows) in [(0, 3), (2, 0), (1, 1), (3, 37), (40, 6001)] {
            let (x, bias) = (values(1, features * rows), values(2, features));
            let mut out = vec![f32::NAN; x.len()];
            add_bias(&x, &bias, &mut out);
            assert!((0..x.len()).all(|i| out[i] == x[i] + bias[i / rows]));
            let mut here = x.clone();
            add_bias_here(&bias, &mut here);
            assert!(here == out);
            let mut sums = bias.clone();
            over_rows(&x, &mut sums);
            let exact: Vec<f64> = (0..features)
                .map(|f| f64::from(bias[f]) + wide(&x[f * rows..(f + 1) * rows]).iter().sum::<f64>())
                .collect();
            // Summed in f64 and rounded twice.
            assert_close("sums", &sums, &exact, 2e-7, 1e-6);
        }
    }
}
