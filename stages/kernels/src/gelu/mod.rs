//! The exact (erf) GELU, without erf.
//!
//! `gelu(x) = x Φ(x)`, `Φ` the normal distribution function. With `Q(a) = 1 − Φ(a)` for `a = |x|` and
//! `t = 1/(1 + 0.3a)`, `Q = e^{−a²/2} · t · (1/2 + u R(u))`, `u = t − 1`, where the polynomial `R` is our own minimax fit.
//! The exponential gives the density `φ` for the derivative `Φ + xφ` for free. Error over [−12, 12]: 2·10⁻⁷ of |x|.
//! Plain arithmetic only, so that loops over it vectorise; Estrin's scheme keeps the dependency chains short.
//!
//! With AVX-512 `Φ` is looked up in tables instead (`avx512.rs`), also by the fused networks of [`crate::ci_mlp`]: three
//! times as fast and as exact.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(feature = "cuda")]
pub mod cuda;
mod table;

use crate::simd::{Level, dispatch, level, multiply_add};
use crate::{Store, lanes, parallel};

/// Elements of a thread's piece of work.
const PIECE: usize = 1 << 14;

/// Vector operations per element, roughly; decides whether threads pay.
const OPERATIONS_PER_ELEMENT: usize = 2;

/// `1/√(2π)`.
pub(crate) const INV_SQRT_2PI: f32 = 0.398_942_3;

const MILLS: [f32; 7] =
    [0.829_807_34, 0.618_208_47, 0.082_254_28, -0.130_253_42, 0.014_190_18, 0.094_170_39, 0.036_250_647];
const EXP2: [f32; 6] = [1.0, 0.693_146_97, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472];

/// Returns `(Φ(x), e^{−x²/2})`.
#[inline(always)]
pub(crate) fn normal<const FUSED: bool>(x: f32) -> (f32, f32) {
    // Beyond 13.1 the exponential would underflow into the exponent arithmetic below; Φ is 0 or 1 there anyway.
    let magnitude = x.abs();
    let a = if magnitude < 13.1 { magnitude } else { 13.1 };

    // e^{−a²/2} = 2^y = 2^n · 2^f, n the nearest integer: adding 1.5·2²³ rounds, and leaves n in the low bits.
    const MINUS_HALF_LOG2_E: f32 = -0.721_347_5;
    const ROUND: f32 = 12_582_912.0;
    let square = a * a;
    let rounded = multiply_add::<FUSED>(square, MINUS_HALF_LOG2_E, ROUND);
    let n = rounded - ROUND;
    let f = multiply_add::<FUSED>(square, MINUS_HALF_LOG2_E, -n);
    let f2 = f * f;
    let p01 = multiply_add::<FUSED>(EXP2[1], f, EXP2[0]);
    let p23 = multiply_add::<FUSED>(EXP2[3], f, EXP2[2]);
    let p45 = multiply_add::<FUSED>(EXP2[5], f, EXP2[4]);
    let p = multiply_add::<FUSED>(multiply_add::<FUSED>(p45, f2, p23), f2, p01);
    let e = f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23));

    let t = 1.0 / multiply_add::<FUSED>(0.3, a, 1.0);
    let u = -(a * 0.3) * t;
    let (u2, u4) = (u * u, (u * u) * (u * u));
    let q01 = multiply_add::<FUSED>(MILLS[0], u, 0.5);
    let q23 = multiply_add::<FUSED>(MILLS[2], u, MILLS[1]);
    let q45 = multiply_add::<FUSED>(MILLS[4], u, MILLS[3]);
    let q67 = multiply_add::<FUSED>(MILLS[6], u, MILLS[5]);
    let q03 = multiply_add::<FUSED>(q23, u2, q01);
    let q47 = multiply_add::<FUSED>(q67, u2, q45);
    let q = (e * t) * multiply_add::<FUSED>(q47, u4, q03);
    (if x > 0.0 { 1.0 - q } else { q }, e)
}

/// Writes `gelu(x)` element by element.
///
/// # Panics
/// If the lengths differ.
pub fn forward(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: lengths of input and output");
    parallel::for_each_row(out, PIECE, x.len() * OPERATIONS_PER_ELEMENT, |index, out| {
        forward_piece(&x[index * PIECE..][..out.len()], out);
    });
}

/// Takes the tables of [`avx512`] where there are such registers, else the general formula.
fn forward_piece(x: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { avx512::forward(x, out) };
    }
    general_forward(x, out);
}

dispatch! { fn general_forward(x: &[f32], out: &mut [f32]) = forward_body }

#[inline(always)]
fn forward_body<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = x * normal::<FUSED>(*x).0;
    }
}

/// Stores `grad_out · (Φ(x) + x φ(x))`.
///
/// # Panics
/// If the lengths differ.
pub fn backward(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    assert_eq!((x.len(), x.len()), (grad_out.len(), grad_x.len()), "gelu: lengths of input and gradients");
    parallel::for_each_row(grad_x, PIECE, x.len() * OPERATIONS_PER_ELEMENT, |index, grad_x| {
        let span = index * PIECE..index * PIECE + grad_x.len();
        backward_piece(&x[span.clone()], &grad_out[span], grad_x, store);
    });
}

fn backward_piece(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { avx512::backward(x, grad_out, grad_x, store) };
    }
    general_backward(x, grad_out, grad_x, store);
}

dispatch! {
    fn general_backward(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) = backward_body
}

#[inline(always)]
fn backward_body<const FUSED: bool>(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    for ((x, grad_out), grad_x) in x.iter().zip(grad_out).zip(grad_x) {
        let (cdf, e) = normal::<FUSED>(*x);
        let slope = multiply_add::<FUSED>(x * INV_SQRT_2PI, e, cdf);
        *grad_x = store.merge(*grad_x, grad_out * slope);
    }
}

/// Keeps the lane width in one place for kernels that tile over the batch.
pub(crate) const TILE: usize = 4 * lanes::LANES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{erf_gelu, erf_gelu_slope};

    #[test]
    fn gelu_is_exact_to_two_parts_in_ten_million_of_the_input() {
        let x: Vec<f32> = (-120_000..=120_000).map(|i| i as f32 * 1e-4).collect();
        let mut y = vec![0.0; x.len()];
        forward(&x, &mut y);
        let mut slope = vec![0.0; x.len()];
        backward(&x, &vec![1.0; x.len()], &mut slope, Store::Write);
        for i in 0..x.len() {
            let exact = erf_gelu(f64::from(x[i]));
            // Measured bound 1.96e-7 |x| of the fit, plus the rounding of the product.
            let bound = 2.6e-7 * f64::from(x[i].abs()) + 1e-12;
            assert!((f64::from(y[i]) - exact).abs() <= bound, "gelu({}) = {}, exactly {exact}", x[i], y[i]);
            let exact = erf_gelu_slope(f64::from(x[i]));
            assert!((f64::from(slope[i]) - exact).abs() <= 1e-6, "gelu'({}) = {}, exactly {exact}", x[i], slope[i]);
        }
    }

    #[test]
    fn gelu_of_huge_inputs_is_the_input_or_zero() {
        let mut y = [0.0; 4];
        forward(&[1e30, -1e30, 20.0, -20.0], &mut y);
        assert_eq!(y[0], 1e30);
        assert_eq!(y[2], 20.0);
        // The tables end with Φ = 1 − 3e-8, the general formula goes on.
        assert!(y[1].abs() <= 6e-8 * 1e30 && y[3].abs() <= 6e-8 * 20.0, "{y:?}");
    }

    #[test]
    fn tables_and_the_general_formula_agree_written_or_added() {
        for n in [0, 1, 16, 17, PIECE + 5] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37) % 16.0 - 8.0).collect();
            let upstream: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11) % 2.0 - 1.0).collect();
            let (mut y, mut general) = (vec![f32::NAN; n], vec![f32::NAN; n]);
            forward(&x, &mut y);
            general_forward(&x, &mut general);
            // The sum of both bounds, 2e-7 of inputs up to 8.
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 4e-6);
            assert!(close(&y, &general));
            let (mut g, mut general) = (vec![f32::NAN; n], vec![f32::NAN; n]);
            for store in [Store::Write, Store::Add] {
                backward(&x, &upstream, &mut g, store);
                general_backward(&x, &upstream, &mut general, store);
                assert!(close(&g, &general));
            }
        }
    }
}
