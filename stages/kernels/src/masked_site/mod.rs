//! One decomposed matrix with its components masked (spec section 2.2, and 2.3 for routing).
//!
//! With component activations `a = Vᵀx`, mask `m`, the frozen product `t = Wx` and the delta component's mask `d`:
//!
//! `y = Uᵀ(a ⊙ m) + d (W − (VU)ᵀ) x + b = Uᵀ(a ⊙ (m − d)) + d t + b`
//!
//! The second form needs no weight difference: the delta component's output is `t − Uᵀa`. Where a row is routed to
//! the target (`route = 0`), `y = t + b`.
//!
//! Shapes: `a` `[C, R]`; `m` `[C, R]`, or `[C]` for one mask for all rows; `u` `[C, d_out]`; `t`, `y` `[d_out, R]`; `d`,
//! `route` `[R]`; `b` `[d_out]`.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod elementwise;
#[cfg(test)]
mod tests;
#[cfg(all(test, feature = "cuda"))]
mod twins;

use crate::Store;
use crate::philox::Stream;

/// The masks of a site's components.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// All components fully on.
    Ones,
    /// One mask for every row, `[C]`.
    PerComponent(&'a [f32]),
    /// A mask for each component and row, `[C, R]`.
    Full(&'a [f32]),
    /// `m = g + (1 − g) r` (spec section 4), never written to memory.
    Between {
        /// The lower causal importance `g`, `[C, R]`.
        importance: &'a [f32],
        /// `r`.
        source: Source<'a>,
    },
}

/// The sources `r` of masks between the causal importances and one.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// One for each component and row, `[C, R]`.
    Given(&'a [f32]),
    /// One for each component, the same for every row, `[C]`.
    Shared(&'a [f32]),
    /// Uniform draws, made again whenever they are needed.
    Drawn {
        /// Which ones.
        stream: Stream,
        /// The number of each row in the whole batch, `[R]`.
        rows: &'a [u32],
    },
}

/// What a masked site is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Rows of the batch, R.
    pub rows: usize,
    /// Component activations `Vᵀx`, `[C, R]`.
    pub activations: &'a [f32],
    /// The components' masks.
    pub mask: Mask<'a>,
    /// The components' output directions, `[C, d_out]`.
    pub u: &'a [f32],
    /// The frozen product `Wx`, `[d_out, R]`; needed by a delta mask or a routing mask.
    pub frozen: Option<&'a [f32]>,
    /// The delta component's mask, `[R]`; absent when there is no delta component.
    pub delta_mask: Option<&'a [f32]>,
    /// 1 where a row goes through the components, 0 where through the target, `[R]`; absent when all go through the
    /// components.
    pub routing: Option<&'a [f32]>,
    /// The target's bias, `[d_out]`.
    pub bias: Option<&'a [f32]>,
}

/// Where gradients are accumulated; each has the shape of its input.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the activations.
    pub activations: Option<(&'a mut [f32], Store)>,
    /// Of a mask that is given.
    pub mask: Option<(&'a mut [f32], Store)>,
    /// Of the causal importances between which and one the mask lies.
    pub importance: Option<(&'a mut [f32], Store)>,
    /// Of the sources, if they are not drawn.
    pub source: Option<(&'a mut [f32], Store)>,
    /// Of U.
    pub u: Option<(&'a mut [f32], Store)>,
    /// Of the frozen product.
    pub frozen: Option<(&'a mut [f32], Store)>,
    /// Of the delta mask.
    pub delta_mask: Option<&'a mut [f32]>,
}

impl Inputs<'_> {
    /// Returns C after checking the lengths of activations and masks.
    fn components(&self) -> usize {
        let rows = self.rows;
        let components = self.activations.len().checked_div(rows).unwrap_or(0);
        assert_eq!(self.activations.len(), components * rows, "masked site: activations [C, {rows}]");
        match self.mask {
            Mask::Ones => {}
            Mask::PerComponent(mask) => {
                assert!(rows == 0 || mask.len() == components, "masked site: mask [{components}]")
            }
            Mask::Full(mask) => assert_eq!(mask.len(), components * rows, "masked site: mask [{components}, {rows}]"),
            Mask::Between { importance, source } => {
                assert_eq!(importance.len(), components * rows, "masked site: importances [{components}, {rows}]");
                match source {
                    Source::Given(source) => assert_eq!(source.len(), importance.len(), "masked site: sources"),
                    Source::Shared(source) => {
                        assert!(rows == 0 || source.len() == components, "masked site: sources [{components}]");
                    }
                    Source::Drawn { rows: numbers, .. } => assert_eq!(numbers.len(), rows, "masked site: row numbers"),
                }
            }
        }
        assert!(self.delta_mask.is_none_or(|d| d.len() == rows), "masked site: delta mask [{rows}]");
        assert!(self.routing.is_none_or(|r| r.len() == rows), "masked site: routing [{rows}]");
        components
    }

    /// Returns `(C, d_out)` after checking every length.
    fn shape(&self, out_len: usize) -> (usize, usize) {
        let (rows, components) = (self.rows, self.components());
        let d_out = out_len.checked_div(rows).unwrap_or(0);
        assert!(
            rows == 0 || self.u.len() == components * d_out,
            "masked site: U [{components}, {d_out}], found {}",
            self.u.len()
        );
        assert!(self.frozen.is_none_or(|t| t.len() == out_len), "masked site: frozen product [{d_out}, {rows}]");
        assert!(rows == 0 || self.bias.is_none_or(|b| b.len() == d_out), "masked site: bias [{d_out}]");
        assert!(
            self.frozen.is_some() || (self.delta_mask.is_none() && self.routing.is_none()),
            "masked site: a delta mask or a routing mask needs the frozen product"
        );
        (components, d_out)
    }
}

/// Writes the site's output `[d_out, R]`.
///
/// # Panics
/// If a length does not fit the shape, or the frozen product is needed and absent.
pub fn forward(inputs: Inputs<'_>, out: &mut [f32]) {
    let (components, d_out) = inputs.shape(out.len());
    cpu::forward(inputs, out, components, d_out);
}

/// Adds the gradients for the upstream gradient `grad_out` `[d_out, R]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(inputs: Inputs<'_>, grad_out: &[f32], grads: Gradients<'_>) {
    let (components, d_out) = inputs.shape(grad_out.len());
    cpu::backward(inputs, cpu::Upstream::Output(grad_out), grads, components, d_out);
}

/// Writes what U is applied to, `route ⊙ a ⊙ (m − d)` `[C, R]`. U, the frozen product and the bias are not read.
///
/// # Panics
/// If a length does not fit the shape.
pub fn masked_activations(inputs: Inputs<'_>, out: &mut [f32]) {
    let components = inputs.components();
    assert_eq!(out.len(), components * inputs.rows, "masked site: masked activations");
    cpu::masked_activations(inputs, out, components);
}

/// Adds the gradients of [`masked_activations`] for the upstream gradient `grad_out` `[C, R]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn masked_activations_backward(inputs: Inputs<'_>, grad_out: &[f32], grads: Gradients<'_>) {
    let components = inputs.components();
    assert_eq!(grad_out.len(), components * inputs.rows, "masked site: gradient of the masked activations");
    cpu::backward(inputs, cpu::Upstream::MaskedActivations(grad_out), grads, components, 0);
}
