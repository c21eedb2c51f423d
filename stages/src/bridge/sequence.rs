//! The kernels that models of token sequences need on top of [`Kernels`](super::Kernels).
//!
//! Shapes and conventions are those of `backend.rs`. Rows are the positions of one sequence after the other.

use spdflow_kernels::attention;

use super::backend::{Array, Buffers, Gradient, GradientBuffer};
use super::graph::DeviceResult;

/// Operations on sequences of tokens.
#[allow(clippy::too_many_arguments)]
pub trait SequenceKernels: Buffers {
    /// Rows of `table` `(vocab, features)` for `tokens` `(1, rows)`.
    fn embed(&self, table: &Self::View, tokens: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradient of [`SequenceKernels::embed`].
    fn embed_backward(
        &self,
        tokens: &Self::View,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_table: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `constant` `(features, length)` added to every sequence; its gradient is that of a sum.
    fn add_to_positions(
        &self,
        x: &Self::View,
        constant: &Self::View,
        length: usize,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;

    /// Causal attention.
    fn attention(
        &self,
        qkv: [&Self::View; 3],
        layout: attention::Shape,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`SequenceKernels::attention`].
    fn attention_backward(
        &self,
        qkv: [&Self::View; 3],
        layout: attention::Shape,
        grad_out: &GradientBuffer<Self>,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self>;
    /// Causal attention of the last position of each sequence, with their queries `(features, sequences)` alone.
    fn attention_last(
        &self,
        qkv: [&Self::View; 3],
        layout: attention::Shape,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`SequenceKernels::attention_last`].
    fn attention_last_backward(
        &self,
        qkv: [&Self::View; 3],
        layout: attention::Shape,
        grad_out: &GradientBuffer<Self>,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self>;
    /// How much every position attends to every other, `[sequences, heads, length, length]`; for looking at.
    fn attention_weights(
        &self,
        q: &Self::View,
        k: &Self::View,
        layout: attention::Shape,
    ) -> DeviceResult<Vec<f32>, Self>;

    /// Layer norm with `scale` and `shift` `(features, 1)`.
    fn layer_norm(
        &self,
        x: &Self::View,
        scale: &Self::View,
        shift: &Self::View,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`SequenceKernels::layer_norm`], of input, scale and shift.
    fn layer_norm_backward(
        &self,
        x: &Self::View,
        scale: &Self::View,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self>;

    /// The last position of each sequence; `shape` is that of `x`.
    fn last_positions(&self, x: &Self::View, length: usize, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradient of [`SequenceKernels::last_positions`].
    fn last_positions_backward(
        &self,
        length: usize,
        rows: usize,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `Σ KL(softmax(target) ‖ softmax(prediction))` as `(1, 1)`, and what its backward pass needs.
    fn kl_divergence(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        rows: usize,
    ) -> DeviceResult<(Array<Self>, Self::View), Self>;
    /// Gradient of [`SequenceKernels::kl_divergence`].
    fn kl_divergence_backward(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        normalisers: &Self::View,
        rows: usize,
        grad_out: &GradientBuffer<Self>,
        grad_prediction: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `Σ (ln Σ e^logits − logits[label])` over the rows of `labels` `(1, rows)` that are not negative, as `(1, 1)`, and
    /// what its backward pass needs.
    fn cross_entropy(&self, logits: &Self::View, labels: &Self::View) -> DeviceResult<(Array<Self>, Self::View), Self>;
    /// Gradient of [`SequenceKernels::cross_entropy`].
    fn cross_entropy_backward(
        &self,
        logits: &Self::View,
        labels: &Self::View,
        normalisers: &Self::View,
        grad_out: &GradientBuffer<Self>,
        grad_logits: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;
}
