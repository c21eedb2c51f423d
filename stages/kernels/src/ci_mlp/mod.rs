//! One small private network per component: its causal importance from its own activation (spec section 3.1, `mlp`).
//!
//! `z[c, r] = b2[c] + Σ_h w2[c, h] · gelu(w1[c, h] x[c, r] + b1[c, h])`
//!
//! Shapes: `x`, `z` `[C, R]`; `w1`, `b1`, `w2` `[C, H]`; `b2` `[C]`. The hidden layer `[C, H, R]`, sixteen times larger
//! than anything else in a step, is never written to memory: the backward pass computes it again.

use crate::Store;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
mod tests;

/// The weights of all components' networks.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// First layer, `[C, H]`.
    pub w1: &'a [f32],
    /// First bias, `[C, H]`.
    pub b1: &'a [f32],
    /// Second layer, `[C, H]`.
    pub w2: &'a [f32],
    /// Second bias, `[C]`.
    pub b2: &'a [f32],
}

/// Where the gradients of the weights are accumulated.
#[derive(Debug)]
pub struct WeightGradients<'a> {
    /// As [`Weights::w1`].
    pub w1: &'a mut [f32],
    /// As [`Weights::b1`].
    pub b1: &'a mut [f32],
    /// As [`Weights::w2`].
    pub w2: &'a mut [f32],
    /// As [`Weights::b2`].
    pub b2: &'a mut [f32],
}

impl Weights<'_> {
    /// Returns `(C, H)`.
    fn shape(&self) -> (usize, usize) {
        let components = self.b2.len();
        let hidden = self.w1.len().checked_div(components).unwrap_or(0);
        assert_eq!(
            (self.w1.len(), self.b1.len(), self.w2.len()),
            (components * hidden, components * hidden, components * hidden),
            "ci_mlp: weights of {components} components"
        );
        (components, hidden)
    }
}

/// Writes the networks' outputs.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(x: &[f32], weights: Weights<'_>, out: &mut [f32], rows: usize) {
    let (components, hidden) = weights.shape();
    assert_eq!((x.len(), out.len()), (components * rows, components * rows), "ci_mlp: x and z [{components}, {rows}]");
    cpu::forward(x, weights, out, hidden, rows);
}

/// Adds the gradients of the weights and, if wanted, stores those of the activations.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(
    x: &[f32],
    weights: Weights<'_>,
    grad_out: &[f32],
    grad_x: Option<(&mut [f32], Store)>,
    grads: WeightGradients<'_>,
    rows: usize,
) {
    let (components, hidden) = weights.shape();
    let size = components * rows;
    assert_eq!((x.len(), grad_out.len()), (size, size), "ci_mlp: x and ∂z [{components}, {rows}]");
    assert_eq!(
        (grads.w1.len(), grads.b1.len(), grads.w2.len(), grads.b2.len()),
        (weights.w1.len(), weights.b1.len(), weights.w2.len(), components),
        "ci_mlp: gradients of the weights"
    );
    if let Some((grad_x, _)) = &grad_x {
        assert_eq!(grad_x.len(), size, "ci_mlp: ∂x [{components}, {rows}]");
    }
    cpu::backward(x, weights, grad_out, grad_x, grads, hidden, rows);
}
