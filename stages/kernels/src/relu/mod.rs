//! `relu(x) = max(x, 0)`; the slope at zero is zero, as in the reference.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::Store;
use crate::simd::dispatch;

/// Writes `max(x, 0)`.
///
/// # Panics
/// If the lengths differ.
pub fn forward(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "relu: lengths of input and output");
    forward_at_level(x, out);
}

dispatch! { fn forward_at_level(x: &[f32], out: &mut [f32]) = forward_body }

#[inline(always)]
fn forward_body<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = if *x > 0.0 { *x } else { 0.0 };
    }
}

/// Stores `grad_out` where the input is positive.
///
/// # Panics
/// If the lengths differ.
pub fn backward(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    assert_eq!((x.len(), x.len()), (grad_out.len(), grad_x.len()), "relu: lengths of input and gradients");
    backward_at_level(x, grad_out, grad_x, store);
}

dispatch! { fn backward_at_level(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) = backward_body }

#[inline(always)]
fn backward_body<const FUSED: bool>(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    for ((x, grad_out), grad_x) in x.iter().zip(grad_out).zip(grad_x) {
        // Chosen by a mask of bits: a branch on data would be guessed wrong half of the time.
        let passed = f32::from_bits(grad_out.to_bits() & u32::from(*x > 0.0).wrapping_neg());
        *grad_x = store.merge(*grad_x, passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relu_passes_gradient_only_above_zero() {
        let x = [-1.0, 0.0, 2.0];
        let (mut y, mut g) = ([9.0; 3], [1.0; 3]);
        forward(&x, &mut y);
        backward(&x, &[3.0; 3], &mut g, Store::Add);
        assert_eq!((y, g), ([0.0, 0.0, 2.0], [1.0, 1.0, 4.0]));
        backward(&x, &[3.0; 3], &mut g, Store::Write);
        assert_eq!(g, [0.0, 0.0, 3.0]);
    }
}
