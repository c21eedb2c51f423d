//! The kernels for token sequences on the processor: every operation is a call on slices.

use std::sync::Arc;

use dfdx::prelude::Cpu;
use spdflow_kernels::{attention, divergence, embedding, layer_norm, sequence};

use super::backend::{Array, Buffers, Gradient, GradientBuffer};
use super::cpu_memory::written;
use super::graph::DeviceResult;
use super::pool::Pooled;
use super::sequence::SequenceKernels;

type Grad = GradientBuffer<Cpu>;

impl SequenceKernels for Cpu {
    fn embed(&self, table: &Self::View, tokens: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        let mut y = vec![0.0; shape.0 * shape.1];
        embedding::forward(table, tokens, &mut y, shape.0);
        self.upload(y, shape)
    }

    fn embed_backward(
        &self,
        tokens: &Self::View,
        shape: (usize, usize),
        grad_out: &Grad,
        grad_table: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        embedding::backward(tokens, grad_out, grad_table.sum(), shape.0);
        Ok(())
    }

    fn add_to_positions(
        &self,
        x: &Self::View,
        constant: &Self::View,
        length: usize,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        let mut y = vec![0.0; x.len()];
        sequence::add_to_positions(x, constant, &mut y, shape.1, length);
        self.upload(y, shape)
    }

    fn attention(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        let mut y = vec![0.0; q.len()];
        attention::forward(q, k, v, &mut y, layout);
        self.upload(y, shape)
    }

    fn attention_backward(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        grad_out: &Grad,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self> {
        let [grad_q, grad_k, grad_v] = grads.map(|grad| grad.map(Gradient::sum));
        attention::backward(q, k, v, grad_out, attention::Gradients { q: grad_q, k: grad_k, v: grad_v }, layout);
        Ok(())
    }

    fn attention_last(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| attention::forward_last(q, k, v, y, layout))
    }

    fn attention_last_backward(
        &self,
        [q, k, v]: [&Self::View; 3],
        layout: attention::Shape,
        grad_out: &Grad,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self> {
        let [q_to, k_to, v_to] = grads.map(|grad| grad.map(Gradient::sum));
        attention::backward_last(q, k, v, grad_out, attention::Gradients { q: q_to, k: k_to, v: v_to }, layout);
        Ok(())
    }

    fn attention_weights(
        &self,
        q: &Self::View,
        k: &Self::View,
        layout: attention::Shape,
    ) -> DeviceResult<Vec<f32>, Self> {
        Ok(attention::weights(q, k, layout))
    }

    fn layer_norm(
        &self,
        x: &Self::View,
        scale: &Self::View,
        shift: &Self::View,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        let mut y = vec![0.0; x.len()];
        layer_norm::forward(x, scale, shift, &mut y, shape.1);
        self.upload(y, shape)
    }

    fn layer_norm_backward(
        &self,
        x: &Self::View,
        scale: &Self::View,
        shape: (usize, usize),
        grad_out: &Grad,
        grads: [Option<&mut Gradient<Self>>; 3],
    ) -> DeviceResult<(), Self> {
        let [grad_x, grad_scale, grad_shift] = grads.map(|grad| grad.map(Gradient::sum));
        let grads = layer_norm::Gradients { x: grad_x, scale: grad_scale, shift: grad_shift };
        layer_norm::backward(x, scale, grad_out, grads, shape.1);
        Ok(())
    }

    fn last_positions(
        &self,
        x: &Self::View,
        length: usize,
        (features, rows): (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        self.upload(sequence::last(x, rows, length), (features, rows / length))
    }

    fn last_positions_backward(
        &self,
        length: usize,
        rows: usize,
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        sequence::last_backward(grad_out, grad_x.sum(), rows, length);
        Ok(())
    }

    fn kl_divergence(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        rows: usize,
    ) -> DeviceResult<(Array<Self>, Self::View), Self> {
        let (value, normalisers) = divergence::kl_forward(prediction, target, rows);
        Ok((self.upload(vec![value as f32], (1, 1))?, Arc::new(Pooled::from(normalisers))))
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
        divergence::kl_backward(prediction, target, normalisers, grad_out[0], grad_prediction.sum(), rows);
        Ok(())
    }

    fn cross_entropy(&self, logits: &Self::View, labels: &Self::View) -> DeviceResult<(Array<Self>, Self::View), Self> {
        let (value, normalisers) = divergence::cross_entropy_forward(logits, labels);
        Ok((self.upload(vec![value as f32], (1, 1))?, Arc::new(Pooled::from(normalisers))))
    }

    fn cross_entropy_backward(
        &self,
        logits: &Self::View,
        labels: &Self::View,
        normalisers: &Self::View,
        grad_out: &Grad,
        grad_logits: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        divergence::cross_entropy_backward(logits, labels, normalisers, grad_out[0], grad_logits.sum());
        Ok(())
    }
}
