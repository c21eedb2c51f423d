//! Elementwise functions: activations, sigmoids, and draws.

use spdflow_kernels::philox::Stream;
use spdflow_kernels::sigmoid::Sigmoid;

use super::super::backend::Backend;
use super::super::factored::Made;
use super::super::graph::{DeviceResult, Graph, Precision, Var};

impl<D: Backend> Graph<D> {
    /// Returns uniform draws `(features, rows.len())`; see `spdflow_kernels::philox`.
    pub fn uniform(&self, stream: Stream, features: usize, rows: &[u32]) -> DeviceResult<Var<D>, D> {
        Ok(self.constant(self.device().uniform(stream, features, rows)?))
    }

    /// Returns `max(x, 0)`.
    pub fn relu(&self, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        self.remembered(Made::Relu, x, x, || {
            let out = self.device().relu(x.view(), x.shape())?;
            let view = x.view().clone();
            self.push(out, &[x], move |device, grad_out, grads| {
                grads[0].as_mut().map_or(Ok(()), |grad| device.relu_backward(&view, grad_out, grad))
            })
        })
    }

    /// Returns `x` as products and errors read it: itself, or rounded to bfloat16 if the graph computes with that.
    pub fn operand(&self, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        match self.precision() {
            Precision::F32 => Ok(x.clone()),
            Precision::Bf16 => self.round_bf16(&self.dense(x)?),
        }
    }

    /// Returns `x` rounded to bfloat16; the gradient goes straight through, rounded too.
    pub fn round_bf16(&self, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        let out = self.device().round_bf16(x.view(), x.shape())?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.round_bf16_backward(grad_out, grad))
        })
    }

    /// Returns the exact GELU.
    pub fn gelu(&self, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        self.remembered(Made::Gelu, x, x, || {
            let out = self.device().gelu(x.view(), x.shape())?;
            let view = x.view().clone();
            self.push(out, &[x], move |device, grad_out, grads| {
                grads[0].as_mut().map_or(Ok(()), |grad| device.gelu_backward(&view, grad_out, grad))
            })
        })
    }

    /// Returns `function(x)`, with the gradient that the method defines for it.
    pub fn sigmoid(&self, function: Sigmoid, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        let out = self.device().sigmoid(function, x.view(), x.shape())?;
        let view = x.view().clone();
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.sigmoid_backward(function, &view, grad_out, grad))
        })
    }

    /// Returns `scale x + noise_scale noise`, the noise a constant.
    pub fn blend(&self, x: &Var<D>, scale: f32, noise: &Var<D>, noise_scale: f32) -> DeviceResult<Var<D>, D> {
        assert_eq!(x.shape(), noise.shape(), "blend");
        let out = self.device().blend(x.view(), scale, noise.view(), noise_scale, x.shape())?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.blend_backward(scale, grad_out, grad))
        })
    }

    /// Returns `count` features of `x` from `start` on.
    pub fn slice_features(&self, x: &Var<D>, start: usize, count: usize) -> DeviceResult<Var<D>, D> {
        let (features, rows) = x.shape();
        assert!(start + count <= features, "features {start}..{} of {features}", start + count);
        let span = start * rows..(start + count) * rows;
        let out = self.device().slice(x.view(), span.clone(), (count, rows))?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.slice_backward(span, grad_out, grad))
        })
    }

    /// Returns `x` `(features, 1)` for each of `rows` rows.
    pub fn repeat_rows(&self, x: &Var<D>, rows: usize) -> DeviceResult<Var<D>, D> {
        assert_eq!(x.shape().1, 1, "one column to repeat");
        let shape = (x.shape().0, rows);
        let out = self.device().repeat_rows(x.view(), shape)?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.repeat_rows_backward(shape, grad_out, grad))
        })
    }
}
