//! The kernels for token sequences on a GPU: every operation is a launch.

use std::sync::Arc;

use spdflow_kernels::cuda::{Memory, clear, download, memory};
use spdflow_kernels::{attention, divergence, embedding, layer_norm, sequence};

use super::super::backend::{Array, Gradient, GradientBuffer};
use super::super::graph::DeviceResult;
use super::super::sequence::SequenceKernels;
use super::Gpu;
use super::memory::{summed, written};

type Grad = GradientBuffer<Gpu>;

impl SequenceKernels for Gpu {
    fn embed(&self, table: &Self::View, tokens: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&table.device(), shape, |y| embedding::cuda::forward(table, tokens, y, shape.0))
    }

    fn embed_backward(
        &self,
        tokens: &Self::View,
        shape: (usize, usize),
        grad_out: &Grad,
        grad_table: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        embedding::cuda::backward(tokens, grad_out, grad_table.summed_on_gpu()?, shape.0)
    }

    fn add_to_positions(
        &self,
        x: &Self::View,
        constant: &Self::View,
        length: usize,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| sequence::cuda::add_to_positions(x, constant, y, shape.1, length))
    }

    fn attention(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        summed(&q.device(), shape, |y| attention::cuda::forward(q, k, v, y, layout))
    }

    fn attention_backward(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        grad_out: &Grad,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self> {
        let [q_to, k_to, v_to] = sums(grads)?;
        let grads = attention::cuda::Gradients { q: q_to, k: k_to, v: v_to };
        attention::cuda::backward(q, k, v, grad_out, grads, layout)
    }

    fn attention_last(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&q.device(), shape, |y| attention::cuda::forward_last(q, k, v, y, layout))
    }

    fn attention_last_backward(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        grad_out: &Grad,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self> {
        let [q_to, k_to, v_to] = sums(grads)?;
        let grads = attention::cuda::Gradients { q: q_to, k: k_to, v: v_to };
        attention::cuda::backward_last(q, k, v, grad_out, grads, layout)
    }

    fn attention_weights(
        &self,
        q: &Self::View,
        k: &Self::View,
        layout: attention::Shape,
    ) -> DeviceResult<Vec<f32>, Self> {
        let mut out = memory(&q.device(), layout.sequences * layout.heads * layout.length * layout.length)?;
        clear(&mut out)?;
        attention::cuda::weights(q, k, &mut out, layout)?;
        download(&out)
    }

    fn layer_norm(
        &self,
        x: &Self::View,
        scale: &Self::View,
        shift: &Self::View,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| layer_norm::cuda::forward(x, scale, shift, y, shape.1))
    }

    fn layer_norm_backward(
        &self,
        x: &Self::View,
        scale: &Self::View,
        shape: (usize, usize),
        grad_out: &Grad,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self> {
        let [grad_x, grad_scale, grad_shift] = sums(grads)?;
        let grads = layer_norm::cuda::Gradients { x: grad_x, scale: grad_scale, shift: grad_shift };
        layer_norm::cuda::backward(x, scale, grad_out, grads, shape.1)
    }

    fn last_positions(
        &self,
        x: &Self::View,
        length: usize,
        (features, rows): (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), (features, rows / length), |y| sequence::cuda::last(x, y, rows, length))
    }

    fn last_positions_backward(
        &self,
        length: usize,
        rows: usize,
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        sequence::cuda::last_backward(grad_out, grad_x.summed_on_gpu()?, rows, length)
    }

    fn kl_divergence(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        rows: usize,
    ) -> DeviceResult<(Array<Self>, Self::View), Self> {
        let device = prediction.device();
        let mut normalisers = memory(&device, 2 * rows)?;
        let value = written(&device, (1, 1), |out| {
            divergence::cuda::kl_forward(prediction, target, out, &mut normalisers, rows)
        })?;
        Ok((value, Arc::new(normalisers)))
    }

    fn kl_divergence_backward(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        normalisers: &Self::View,
        rows: usize,
        grad_out: &Grad,
        grad_prediction: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let grad = grad_prediction.summed_on_gpu()?;
        divergence::cuda::kl_backward(prediction, target, normalisers, grad_out, grad, rows)
    }

    fn cross_entropy(&self, logits: &Self::View, labels: &Self::View) -> DeviceResult<(Array<Self>, Self::View), Self> {
        let device = logits.device();
        let mut normalisers = memory(&device, cudarc::driver::DeviceSlice::len(&**labels))?;
        let value = written(&device, (1, 1), |out| {
            divergence::cuda::cross_entropy_forward(logits, labels, out, &mut normalisers)
        })?;
        Ok((value, Arc::new(normalisers)))
    }

    fn cross_entropy_backward(
        &self,
        logits: &Self::View,
        labels: &Self::View,
        normalisers: &Self::View,
        grad_out: &Grad,
        grad_logits: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let grad = grad_logits.summed_on_gpu()?;
        divergence::cuda::cross_entropy_backward(logits, labels, normalisers, grad_out, grad)
    }
}

/// Returns the gradients that are wanted as memory to add to.
fn sums<const N: usize>(grads: [Option<&mut Gradient<Gpu>>; N]) -> DeviceResult<[Option<&mut Memory>; N], Gpu> {
    let mut sums = [const { None }; N];
    for (sum, grad) in sums.iter_mut().zip(grads) {
        *sum = grad.map(Gradient::summed_on_gpu).transpose()?;
    }
    Ok(sums)
}
