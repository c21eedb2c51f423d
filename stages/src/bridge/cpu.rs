//! The kernels on the processor: every operation is a call on slices. Its memory is in `cpu_memory.rs`, the way into
//! a masked site in `cpu_site.rs`.

use std::ops::Range;
use std::sync::Arc;

use dfdx::prelude::Cpu;
use spdflow_kernels::adamw::{self, Update};
use spdflow_kernels::importance_minimality::{self, Constants};
use spdflow_kernels::masked_site;
use spdflow_kernels::philox::{self, Stream};
use spdflow_kernels::sigmoid::{self, Sigmoid};
use spdflow_kernels::{
    Store, ascent, bf16, ci_mlp, faithfulness, gelu, linear, relu, rows, squared_error, sum, transpose,
};

use super::backend::{Array, Backend, Buffers, Gradient, GradientBuffer, GroupedShape, Kernels};
use super::cpu_memory::written;
use super::cpu_site::{site, site_gradients};
use super::graph::DeviceResult;
use super::pool::Pooled;
use super::site_views::{SiteGradients, SiteViews};

type Grad = GradientBuffer<Cpu>;

impl Kernels for Cpu {
    fn uniform(&self, stream: Stream, features: usize, rows: &[u32]) -> DeviceResult<Array<Self>, Self> {
        written((features, rows.len()), |out| philox::uniform(stream, features, rows, out))
    }

    fn product(
        &self,
        w: &Self::View,
        x: &Self::View,
        transposed: bool,
        n: usize,
        (m, rows): (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        let multiply = if transposed { linear::apply_transposed } else { linear::apply };
        written((m, rows), |y| multiply(w, x, y, [m, n, rows], Store::Write))
    }

    fn product_backward(
        &self,
        w: &Self::View,
        x: &Self::View,
        transposed: bool,
        n: usize,
        (m, rows): (usize, usize),
        grad_out: &Grad,
        grad_w: Option<&mut Gradient<Self>>,
        grad_x: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self> {
        if let Some((grad_w, store)) = grad_w.map(Gradient::parts) {
            if transposed {
                linear::outer(x, grad_out, grad_w, [n, m, rows], store);
            } else {
                linear::outer(grad_out, x, grad_w, [m, n, rows], store);
            }
        }
        if let Some((grad_x, store)) = grad_x.map(Gradient::parts) {
            let multiply = if transposed { linear::apply } else { linear::apply_transposed };
            multiply(w, grad_out, grad_x, [n, m, rows], store);
        }
        Ok(())
    }

    fn product_of_rows(
        &self,
        a: &Self::View,
        b: &Self::View,
        d: usize,
        (m, n): (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written((m, n), |out| linear::outer(a, b, out, [m, n, d], Store::Write))
    }

    fn product_of_rows_backward(
        &self,
        a: &Self::View,
        b: &Self::View,
        d: usize,
        (m, n): (usize, usize),
        grad_out: &Grad,
        grad_a: Option<&mut Gradient<Self>>,
        grad_b: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self> {
        if let Some((grad_a, store)) = grad_a.map(Gradient::parts) {
            linear::apply(grad_out, b, grad_a, [m, n, d], store);
        }
        if let Some((grad_b, store)) = grad_b.map(Gradient::parts) {
            linear::apply_transposed(grad_out, a, grad_b, [n, m, d], store);
        }
        Ok(())
    }

    fn transpose(&self, x: &Self::View, (n, m): (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written((n, m), |out| transpose::transpose(x, m, n, out, Store::Write))
    }

    fn transpose_backward(
        &self,
        (n, m): (usize, usize),
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.parts();
        transpose::transpose(grad_out, n, m, grad_x, store);
        Ok(())
    }

    fn scale_rows(
        &self,
        x: &Self::View,
        factors: &Self::View,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| rows::scale(x, factors, out))
    }

    fn scale_rows_backward(
        &self,
        x: &Self::View,
        factors: &Self::View,
        _: (usize, usize),
        grad_out: &Grad,
        grad_x: Option<&mut Gradient<Self>>,
        grad_factors: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self> {
        rows::scale_backward(x, factors, grad_out, grad_x.map(Gradient::parts), grad_factors.map(Gradient::sum));
        Ok(())
    }

    fn add_bias(&self, x: &Self::View, bias: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| sum::add_bias(x, bias, y))
    }

    fn add_bias_backward(
        &self,
        _: (usize, usize),
        grad_out: &Grad,
        grad_x: Option<&mut Gradient<Self>>,
        grad_bias: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self> {
        if let Some(grad_x) = grad_x {
            accumulate(grad_x, grad_out, 1.0);
        }
        if let Some(grad_bias) = grad_bias {
            sum::over_rows(grad_out, grad_bias.sum());
        }
        Ok(())
    }

    fn add(&self, a: &Self::View, b: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| sum::add(a, b, y))
    }

    fn add_backward(&self, grad_out: &Grad, grad: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        accumulate(grad, grad_out, 1.0);
        Ok(())
    }

    fn relu(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| relu::forward(x, y))
    }

    fn relu_backward(&self, x: &Self::View, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.parts();
        relu::backward(x, grad_out, grad_x, store);
        Ok(())
    }

    fn round_bf16(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| bf16::forward(x, y))
    }

    fn round_bf16_backward(&self, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        bf16::backward(grad_out, grad_x.sum());
        Ok(())
    }

    fn gelu(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| gelu::forward(x, y))
    }

    fn gelu_backward(&self, x: &Self::View, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.parts();
        gelu::backward(x, grad_out, grad_x, store);
        Ok(())
    }

    fn sigmoid(&self, function: Sigmoid, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |y| sigmoid::forward(function, x, y))
    }

    fn sigmoid_backward(
        &self,
        function: Sigmoid,
        x: &Self::View,
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.parts();
        sigmoid::backward(function, x, grad_out, grad_x, store);
        Ok(())
    }

    fn blend(
        &self,
        x: &Self::View,
        scale: f32,
        y: &Self::View,
        y_scale: f32,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| sum::blend(x, scale, y, y_scale, out))
    }

    fn blend_backward(&self, scale: f32, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        accumulate(grad_x, grad_out, scale);
        Ok(())
    }

    fn slice(&self, x: &Self::View, span: Range<usize>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| out.copy_from_slice(&x[span]))
    }

    fn slice_backward(
        &self,
        span: Range<usize>,
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        grad_x.sum()[span].iter_mut().zip(grad_out.iter()).for_each(|(grad, grad_out)| *grad += grad_out);
        Ok(())
    }

    fn repeat_rows(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        self.upload(x.iter().flat_map(|x| std::iter::repeat_n(*x, shape.1)).collect(), shape)
    }

    fn repeat_rows_backward(
        &self,
        _: (usize, usize),
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        sum::over_rows(grad_out, grad_x.sum());
        Ok(())
    }

    fn ci_mlp(
        &self,
        x: &Self::View,
        weights: &[Self::View; 4],
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| ci_mlp::forward(x, network(weights), out, shape.1))
    }

    fn ci_mlp_backward(
        &self,
        x: &Self::View,
        weights: &[Self::View; 4],
        shape: (usize, usize),
        grad_out: &Grad,
        grad_x: Option<&mut Gradient<Self>>,
        grads: [&mut Gradient<Self>; 4],
    ) -> DeviceResult<(), Self> {
        let [w1, b1, w2, b2] = grads.map(Gradient::sum);
        let grads = ci_mlp::WeightGradients { w1, b1, w2, b2 };
        ci_mlp::backward(x, network(weights), grad_out, grad_x.map(Gradient::parts), grads, shape.1);
        Ok(())
    }

    fn grouped_linear(
        &self,
        x: &Self::View,
        w: &Self::View,
        b: &Self::View,
        layout: GroupedShape,
    ) -> DeviceResult<Array<Self>, Self> {
        let GroupedShape { groups, inputs, outputs, rows, .. } = layout;
        written((groups * outputs, rows), |y| {
            for c in 0..groups {
                let y = &mut y[c * outputs * rows..(c + 1) * outputs * rows];
                let w = &w[c * inputs * outputs..(c + 1) * inputs * outputs];
                linear::apply_transposed(w, group_input(x, layout, c), y, [outputs, inputs, rows], Store::Write);
                sum::add_bias_here(&b[c * outputs..(c + 1) * outputs], y);
            }
        })
    }

    fn grouped_linear_backward(
        &self,
        x: &Self::View,
        w: &Self::View,
        layout: GroupedShape,
        grad_out: &Grad,
        grad_x: Option<&mut Gradient<Self>>,
        grad_w: &mut Gradient<Self>,
        grad_b: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let GroupedShape { groups, inputs, outputs, rows, shared } = layout;
        let (grad_w, w_store) = grad_w.parts();
        let mut grad_x = grad_x.map(Gradient::parts);
        if let (Some((grad_x, store)), 0) = (&mut grad_x, groups) {
            store.nothing(grad_x);
        }
        for c in 0..groups {
            let weights = c * inputs * outputs..(c + 1) * inputs * outputs;
            let grad_out = &grad_out[c * outputs * rows..(c + 1) * outputs * rows];
            let shape = [inputs, outputs, rows];
            linear::outer(group_input(x, layout, c), grad_out, &mut grad_w[weights.clone()], shape, w_store);
            if let Some((grad_x, store)) = &mut grad_x {
                let start = if shared { 0 } else { c * inputs * rows };
                let store = if shared && c > 0 { Store::Add } else { *store };
                linear::apply(&w[weights], grad_out, &mut grad_x[start..start + inputs * rows], shape, store);
            }
        }
        sum::over_rows(grad_out, grad_b.sum());
        Ok(())
    }

    fn masked_site(&self, inputs: &SiteViews<Self>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| masked_site::forward(site(inputs), out))
    }

    fn masked_site_backward(
        &self,
        inputs: &SiteViews<Self>,
        grad_out: &Grad,
        grads: SiteGradients<'_, Self>,
    ) -> DeviceResult<(), Self> {
        masked_site::backward(site(inputs), grad_out, site_gradients(grads));
        Ok(())
    }

    fn masked_activations(&self, inputs: &SiteViews<Self>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| masked_site::masked_activations(site(inputs), out))
    }

    fn masked_activations_backward(
        &self,
        inputs: &SiteViews<Self>,
        grad_out: &Grad,
        grads: SiteGradients<'_, Self>,
    ) -> DeviceResult<(), Self> {
        masked_site::masked_activations_backward(site(inputs), grad_out, site_gradients(grads));
        Ok(())
    }

    fn squared_error(&self, prediction: &Self::View, target: &Self::View) -> DeviceResult<Array<Self>, Self> {
        self.upload(vec![squared_error::forward(prediction, target) as f32], (1, 1))
    }

    fn squared_error_backward(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        grad_out: &Grad,
        grad_prediction: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let (grad_prediction, store) = grad_prediction.parts();
        squared_error::backward(prediction, target, grad_out[0], grad_prediction, store);
        Ok(())
    }

    fn importance_minimality(
        &self,
        u: &Self::View,
        weights: Option<&Self::View>,
        constants: Constants,
        positions: f64,
        (components, rows): (usize, usize),
    ) -> DeviceResult<(Array<Self>, Self::View), Self> {
        let mut sums = vec![0.0; components];
        importance_minimality::sums(u, weights.map(|w| &w[..]), constants, rows, &mut sums);
        let loss = importance_minimality::value(&sums, positions, constants);
        Ok((self.upload(vec![loss as f32], (1, 1))?, Arc::new(Pooled::from(sums))))
    }

    fn importance_minimality_backward(
        &self,
        u: &Self::View,
        weights: Option<&Self::View>,
        constants: Constants,
        sums: &Self::View,
        positions: f64,
        rows: usize,
        grad_out: &Grad,
        grad_u: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        importance_minimality::backward(
            u,
            weights.map(|w| &w[..]),
            constants,
            sums,
            positions,
            grad_out[0],
            grad_u.parts(),
            rows,
        );
        Ok(())
    }

    fn faithfulness(
        &self,
        w: &Self::View,
        v: &Self::View,
        u: &Self::View,
        w_shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        self.upload(vec![faithfulness::forward(weights_of(w, v, u, w_shape)) as f32], (1, 1))
    }

    fn faithfulness_backward(
        &self,
        w: &Self::View,
        v: &Self::View,
        u: &Self::View,
        w_shape: (usize, usize),
        grad_out: &Grad,
        grad_v: &mut Gradient<Self>,
        grad_u: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        faithfulness::backward(weights_of(w, v, u, w_shape), grad_out[0], grad_v.sum(), grad_u.sum());
        Ok(())
    }

    fn combine(&self, scalars: &[Self::View], coefficients: &[f64]) -> DeviceResult<Array<Self>, Self> {
        let sum: f64 =
            scalars.iter().zip(coefficients).map(|(scalar, coefficient)| coefficient * f64::from(scalar[0])).sum();
        self.upload(vec![sum as f32], (1, 1))
    }

    fn combine_backward(&self, coefficient: f64, grad_out: &Grad, grad: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        grad.sum()[0] += (coefficient * f64::from(grad_out[0])) as f32;
        Ok(())
    }

    fn adamw(
        &self,
        parameter: &mut Self::Buffer,
        gradient: &Grad,
        mean: &mut Self::Buffer,
        variance: &mut Self::Buffer,
        update: Update,
    ) -> DeviceResult<(), Self> {
        adamw::step(parameter, gradient, mean, variance, update);
        Ok(())
    }

    fn transpose_into(
        &self,
        from: &Self::Buffer,
        rows: usize,
        cols: usize,
        to: &mut Self::Buffer,
    ) -> DeviceResult<(), Self> {
        transpose::transpose(from, rows, cols, to, Store::Write);
        Ok(())
    }

    fn squared_norm(&self, gradient: &Grad) -> DeviceResult<f64, Self> {
        Ok(adamw::squared_norm(gradient))
    }

    fn sign_ascent(
        &self,
        source: &Self::View,
        gradient: &Grad,
        step: f32,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(shape, |out| ascent::ascend(source, gradient, step, out))
    }
}

impl Backend for Cpu {}

fn accumulate(grad: &mut Gradient<Cpu>, grad_out: &Grad, scale: f32) {
    let (grad, store) = grad.parts();
    sum::backward(scale, grad_out, grad, store);
}

fn network(weights: &[Arc<Pooled>; 4]) -> ci_mlp::Weights<'_> {
    let [w1, b1, w2, b2] = weights;
    ci_mlp::Weights { w1, b1, w2, b2 }
}

fn weights_of<'a>(
    w: &'a Arc<Pooled>,
    v: &'a Arc<Pooled>,
    u: &'a Arc<Pooled>,
    (d_out, d_in): (usize, usize),
) -> faithfulness::Site<'a> {
    faithfulness::Site { w, v, u, d_in, d_out }
}

/// Returns what component `c` reads.
fn group_input(x: &[f32], layout: GroupedShape, c: usize) -> &[f32] {
    let size = layout.inputs * layout.rows;
    if layout.shared { x } else { &x[c * size..(c + 1) * size] }
}
