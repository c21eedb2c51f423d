//! What a device must offer: memory ([`Buffers`]) and the kernels ([`Kernels`]).
//!
//! Shapes follow `spdflow-kernels`: activations are feature-major `[features, rows]`. Kernels with gradients add to the
//! [`Gradient`]s they are given, or write those that are fresh; `None` means nobody needs that gradient.

use spdflow_engine::ranks::{RankError, World};
use spdflow_kernels::adamw::Update;
use spdflow_kernels::importance_minimality::Constants;
use spdflow_kernels::philox::Stream;
use spdflow_kernels::sigmoid::Sigmoid;

use super::graph::DeviceResult;
use super::link::Link;
use super::sequence::SequenceKernels;
use super::site_views::{SiteGradients, SiteViews};

/// A matrix on a device, row-major. Scalars are `(1, 1)`, vectors over the batch `(1, R)`. Cloning shares the data.
pub struct Array<D: Buffers> {
    /// The data.
    pub data: D::View,
    /// `(features, rows)`.
    pub shape: (usize, usize),
}

impl<D: Buffers> Clone for Array<D> {
    fn clone(&self) -> Self {
        Self { data: self.data.clone(), shape: self.shape }
    }
}

/// The memory behind a gradient.
pub type GradientBuffer<D> = <D as Buffers>::Gradient;

/// A gradient that an operation contributes to.
///
/// The first contribution may overwrite: there is no memory before it, and nobody clears what is written anyway.
pub struct Gradient<D: Buffers> {
    /// What has flowed into it so far.
    pub(super) memory: Option<GradientBuffer<D>>,
    /// Whose memory it is.
    pub(super) device: D,
    /// How many elements it has.
    pub(super) length: usize,
}

impl<D: Buffers> Gradient<D> {
    /// Returns a gradient to add to.
    pub fn of(device: &D, memory: GradientBuffer<D>) -> Self {
        Self { length: D::length(&memory), memory: Some(memory), device: device.clone() }
    }

    /// Returns its memory, zeros if nothing has flowed into it.
    ///
    /// # Errors
    /// The device's.
    pub fn into_memory(self) -> DeviceResult<GradientBuffer<D>, D> {
        self.memory.map_or_else(|| self.device.zeros(self.length), Ok)
    }
}

/// Memory: how kernels read tensors and how parameters live outside the tape.
pub trait Buffers: Clone + Send + Sync + 'static {
    /// What goes wrong on the device.
    type Err: std::fmt::Debug + Send;

    /// The memory behind a gradient.
    type Gradient: Send + Sync;

    /// Shared read access to a matrix's data; the backward pass keeps what it needs.
    type View: Clone + Send + Sync + 'static;

    /// Memory that the optimiser updates in place: parameters and their moments.
    type Buffer: Send + Sync + 'static;

    /// Whether a step computes its batch in parts, several at once on threads of the host.
    const COMPUTES_IN_PARTS: bool;

    /// Returns a matrix with the given data, row-major.
    fn upload(&self, data: Vec<f32>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;

    /// Returns the data, row-major.
    fn download(view: &Self::View) -> Vec<f32>;

    /// Returns a buffer with the given data.
    fn buffer(&self, data: Vec<f32>) -> DeviceResult<Self::Buffer, Self>;

    /// Returns the buffer's data.
    fn read_buffer(&self, buffer: &Self::Buffer) -> Vec<f32>;

    /// Returns a matrix with a copy of the buffer's data.
    fn array_of_buffer(&self, buffer: &Self::Buffer, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;

    /// Returns a gradient's data.
    fn read_gradient(gradient: &GradientBuffer<Self>) -> Vec<f32>;

    /// Returns how many elements a gradient has.
    fn length(gradient: &Self::Gradient) -> usize;

    /// Returns a gradient of zeros.
    fn zeros(&self, length: usize) -> DeviceResult<Self::Gradient, Self>;

    /// Returns a gradient with the given data.
    fn gradient(&self, data: Vec<f32>) -> DeviceResult<Self::Gradient, Self>;

    /// Takes back a gradient that nobody needs any more.
    fn recycle_gradient(gradient: GradientBuffer<Self>);
}

/// The operations. Shapes are `(features, rows)` of the result unless said otherwise.
#[allow(clippy::too_many_arguments)]
pub trait Kernels: Buffers {
    /// Uniform draws in [0, 1); element `(f, r)` depends on the stream, `f` and `rows[r]` only.
    fn uniform(&self, stream: Stream, features: usize, rows: &[u32]) -> DeviceResult<Array<Self>, Self>;

    /// `W x`, or `Wᵀ x` if `transposed`; `n` input features, result `(m, rows)`.
    fn product(
        &self,
        w: &Self::View,
        x: &Self::View,
        transposed: bool,
        n: usize,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::product`].
    fn product_backward(
        &self,
        w: &Self::View,
        x: &Self::View,
        transposed: bool,
        n: usize,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_w: Option<&mut Gradient<Self>>,
        grad_x: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self>;

    /// `A Bᵀ` of `a` `(m, d)` and `b` `(n, d)`.
    fn product_of_rows(
        &self,
        a: &Self::View,
        b: &Self::View,
        d: usize,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::product_of_rows`].
    fn product_of_rows_backward(
        &self,
        a: &Self::View,
        b: &Self::View,
        d: usize,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_a: Option<&mut Gradient<Self>>,
        grad_b: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self>;

    /// The transpose of a matrix; `shape` is that of the result.
    fn transpose(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradient of [`Kernels::transpose`].
    fn transpose_backward(
        &self,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `x ⊙ s` with a factor for each row.
    fn scale_rows(
        &self,
        x: &Self::View,
        factors: &Self::View,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::scale_rows`].
    fn scale_rows_backward(
        &self,
        x: &Self::View,
        factors: &Self::View,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_x: Option<&mut Gradient<Self>>,
        grad_factors: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self>;

    /// Adds `bias [m]` to every row.
    fn add_bias(&self, x: &Self::View, bias: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::add_bias`].
    fn add_bias_backward(
        &self,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_x: Option<&mut Gradient<Self>>,
        grad_bias: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self>;

    /// `a + b`.
    fn add(&self, a: &Self::View, b: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::add`].
    fn add_backward(&self, grad_out: &GradientBuffer<Self>, grad: &mut Gradient<Self>) -> DeviceResult<(), Self>;

    /// `max(x, 0)`.
    fn relu(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::relu`].
    fn relu_backward(
        &self,
        x: &Self::View,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// Every number rounded to bfloat16.
    fn round_bf16(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::round_bf16`]: straight through, rounded.
    fn round_bf16_backward(
        &self,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// The exact GELU.
    fn gelu(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::gelu`].
    fn gelu_backward(
        &self,
        x: &Self::View,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// A squashing function of the method.
    fn sigmoid(&self, function: Sigmoid, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::sigmoid`].
    fn sigmoid_backward(
        &self,
        function: Sigmoid,
        x: &Self::View,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `scale · x + y_scale · y`, elementwise; the gradient goes to x only.
    fn blend(
        &self,
        x: &Self::View,
        scale: f32,
        y: &Self::View,
        y_scale: f32,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::blend`].
    fn blend_backward(
        &self,
        scale: f32,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// The elements `span` as a matrix of `shape`.
    fn slice(
        &self,
        x: &Self::View,
        span: std::ops::Range<usize>,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradient of [`Kernels::slice`].
    fn slice_backward(
        &self,
        span: std::ops::Range<usize>,
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `x` `(features, 1)` repeated for every row.
    fn repeat_rows(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradient of [`Kernels::repeat_rows`]: sums over rows.
    fn repeat_rows_backward(
        &self,
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// The private networks of `spdflow_kernels::ci_mlp`; weights are `[w1, b1, w2, b2]`, result `(C, R)`.
    fn ci_mlp(
        &self,
        x: &Self::View,
        weights: &[Self::View; 4],
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::ci_mlp`].
    fn ci_mlp_backward(
        &self,
        x: &Self::View,
        weights: &[Self::View; 4],
        shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_x: Option<&mut Gradient<Self>>,
        grad_weights: [&mut Gradient<Self>; 4],
    ) -> DeviceResult<(), Self>;

    /// `y[c] = W[c]ᵀ x[c] + b[c]` for `groups` components side by side; `x` is shared by all if `shared`.
    fn grouped_linear(
        &self,
        x: &Self::View,
        w: &Self::View,
        b: &Self::View,
        layout: GroupedShape,
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::grouped_linear`].
    fn grouped_linear_backward(
        &self,
        x: &Self::View,
        w: &Self::View,
        layout: GroupedShape,
        grad_out: &GradientBuffer<Self>,
        grad_x: Option<&mut Gradient<Self>>,
        grad_w: &mut Gradient<Self>,
        grad_b: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// A site's output with its components masked.
    fn masked_site(&self, inputs: &SiteViews<Self>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::masked_site`].
    fn masked_site_backward(
        &self,
        inputs: &SiteViews<Self>,
        grad_out: &GradientBuffer<Self>,
        grads: SiteGradients<'_, Self>,
    ) -> DeviceResult<(), Self>;

    /// What [`Kernels::masked_site`] multiplies by U, `a ⊙ (m − d)`, zero in rows routed to the target; U, `Wx` and the
    /// bias are not read.
    fn masked_activations(&self, inputs: &SiteViews<Self>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::masked_activations`].
    fn masked_activations_backward(
        &self,
        inputs: &SiteViews<Self>,
        grad_out: &GradientBuffer<Self>,
        grads: SiteGradients<'_, Self>,
    ) -> DeviceResult<(), Self>;

    /// `Σ (prediction − target)²` as `(1, 1)`.
    fn squared_error(&self, prediction: &Self::View, target: &Self::View) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::squared_error`].
    fn squared_error_backward(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        grad_out: &GradientBuffer<Self>,
        grad_prediction: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// The importance minimality loss of one site as `(1, 1)`, and the sums S `[C]` its backward pass needs.
    fn importance_minimality(
        &self,
        u: &Self::View,
        weights: Option<&Self::View>,
        constants: Constants,
        positions: f64,
        shape: (usize, usize),
    ) -> DeviceResult<(Array<Self>, Self::View), Self>;
    /// Gradients of [`Kernels::importance_minimality`].
    fn importance_minimality_backward(
        &self,
        u: &Self::View,
        weights: Option<&Self::View>,
        constants: Constants,
        sums: &Self::View,
        positions: f64,
        rows: usize,
        grad_out: &GradientBuffer<Self>,
        grad_u: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `Σ (W − (VU)ᵀ)²` as `(1, 1)`; `w` is `(d_out, d_in)`.
    fn faithfulness(
        &self,
        w: &Self::View,
        v: &Self::View,
        u: &Self::View,
        w_shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::faithfulness`].
    fn faithfulness_backward(
        &self,
        w: &Self::View,
        v: &Self::View,
        u: &Self::View,
        w_shape: (usize, usize),
        grad_out: &GradientBuffer<Self>,
        grad_v: &mut Gradient<Self>,
        grad_u: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// `Σ_i coefficient_i · scalar_i` as `(1, 1)`.
    fn combine(&self, scalars: &[Self::View], coefficients: &[f64]) -> DeviceResult<Array<Self>, Self>;
    /// Gradients of [`Kernels::combine`].
    fn combine_backward(
        &self,
        coefficient: f64,
        grad_out: &GradientBuffer<Self>,
        grad: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self>;

    /// One AdamW update in place.
    fn adamw(
        &self,
        parameter: &mut Self::Buffer,
        gradient: &GradientBuffer<Self>,
        mean: &mut Self::Buffer,
        variance: &mut Self::Buffer,
        update: Update,
    ) -> DeviceResult<(), Self>;

    /// Overwrites `to` `[cols, rows]` with the transpose of `from` `[rows, cols]`.
    fn transpose_into(
        &self,
        from: &Self::Buffer,
        rows: usize,
        cols: usize,
        to: &mut Self::Buffer,
    ) -> DeviceResult<(), Self>;

    /// `Σ g²`.
    fn squared_norm(&self, gradient: &GradientBuffer<Self>) -> DeviceResult<f64, Self>;

    /// `s ← clamp(s + step · sign(g), 0, 1)`, an adversary's step.
    fn sign_ascent(
        &self,
        source: &Self::View,
        gradient: &GradientBuffer<Self>,
        step: f32,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self>;
}

/// The shape of [`Kernels::grouped_linear`].
#[derive(Debug, Clone, Copy)]
pub struct GroupedShape {
    /// How many components.
    pub groups: usize,
    /// Input features of one component.
    pub inputs: usize,
    /// Output features of one component.
    pub outputs: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Whether all components read the same `[inputs, rows]`.
    pub shared: bool,
}

/// A device the method can run on.
pub trait Backend: Kernels + SequenceKernels {
    /// Returns the device linked with those of the other ranks, if they can sum among themselves; else it as it is.
    /// `tell` is told what will sum, if that is not always the same.
    ///
    /// # Errors
    /// [`RankError`] if a rank is missing, or cannot be reached by devices that should be able to.
    fn linked(&self, world: &dyn World, tell: &dyn Fn(&str)) -> Result<Self, RankError> {
        let _ = (world, tell);
        Ok(self.clone())
    }

    /// Returns the connection with the devices of the other ranks, if there is one.
    fn link(&self) -> Option<&dyn Link<Self>> {
        None
    }
}
