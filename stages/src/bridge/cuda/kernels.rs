//! The kernels on a GPU: every operation is a launch. Its memory is in `memory.rs`, the way into a masked site in
//! `site.rs`.

use std::ops::Range;
use std::sync::Arc;

use spdflow_kernels::adamw::{self, Update};
use spdflow_kernels::cuda::{Memory, clear, copy_span, memory, upload_numbers};
use spdflow_kernels::importance_minimality::{self, Constants};
use spdflow_kernels::linear::cuda::{Operand, Product, Runs};
use spdflow_kernels::philox::{self, Stream};
use spdflow_kernels::sigmoid::{self, Sigmoid};
use spdflow_kernels::{
    Store, ascent, bf16, ci_mlp, faithfulness, gelu, linear, masked_site, relu, rows, squared_error, sum, transpose,
};

use super::super::backend::{Array, Gradient, GradientBuffer, GroupedShape, Kernels};
use super::super::graph::DeviceResult;
use super::super::site_views::{SiteGradients, SiteViews};
use super::Gpu;
use super::memory::written;
use super::site::{site_gradients, with_site};

type Grad = GradientBuffer<Gpu>;

impl Kernels for Gpu {
    fn uniform(&self, stream: Stream, features: usize, rows: &[u32]) -> DeviceResult<Array<Self>, Self> {
        let device = &self.handle;
        let numbers = upload_numbers(device, rows)?;
        written(device, (features, rows.len()), |out| philox::cuda::uniform(stream, features, &numbers, out))
    }

    fn product(
        &self,
        w: &Self::View,
        x: &Self::View,
        transposed: bool,
        n: usize,
        (m, rows): (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        let multiply = if transposed { linear::cuda::apply_transposed } else { linear::cuda::apply };
        written(&w.device(), (m, rows), |y| multiply(w, x, y, [m, n, rows], Store::Write))
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
        if let Some((grad_w, store)) = grad_w.map(Gradient::on_gpu).transpose()? {
            if transposed {
                linear::cuda::outer(x, grad_out, grad_w, [n, m, rows], store)?;
            } else {
                linear::cuda::outer(grad_out, x, grad_w, [m, n, rows], store)?;
            }
        }
        if let Some((grad_x, store)) = grad_x.map(Gradient::on_gpu).transpose()? {
            let multiply = if transposed { linear::cuda::apply } else { linear::cuda::apply_transposed };
            multiply(w, grad_out, grad_x, [n, m, rows], store)?;
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
        written(&a.device(), (m, n), |out| linear::cuda::outer(a, b, out, [m, n, d], Store::Write))
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
        if let Some((grad_a, store)) = grad_a.map(Gradient::on_gpu).transpose()? {
            linear::cuda::apply(grad_out, b, grad_a, [m, n, d], store)?;
        }
        if let Some((grad_b, store)) = grad_b.map(Gradient::on_gpu).transpose()? {
            linear::cuda::apply_transposed(grad_out, a, grad_b, [n, m, d], store)?;
        }
        Ok(())
    }

    fn transpose(&self, x: &Self::View, (n, m): (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), (n, m), |out| transpose::cuda::transpose(x, m, n, out, Store::Write))
    }

    fn transpose_backward(
        &self,
        (n, m): (usize, usize),
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.on_gpu()?;
        transpose::cuda::transpose(grad_out, n, m, grad_x, store)
    }

    fn scale_rows(
        &self,
        x: &Self::View,
        factors: &Self::View,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |out| rows::cuda::scale(x, factors, out, Store::Write))
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
        if let Some((grad_x, store)) = grad_x.map(Gradient::on_gpu).transpose()? {
            rows::cuda::scale(grad_out, factors, grad_x, store)?;
        }
        if let Some(grad_factors) = grad_factors {
            rows::cuda::add_products(x, grad_out, grad_factors.summed_on_gpu()?)?;
        }
        Ok(())
    }

    fn add_bias(&self, x: &Self::View, bias: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| sum::cuda::add_bias(x, bias, y))
    }

    fn add_bias_backward(
        &self,
        _: (usize, usize),
        grad_out: &Grad,
        grad_x: Option<&mut Gradient<Self>>,
        grad_bias: Option<&mut Gradient<Self>>,
    ) -> DeviceResult<(), Self> {
        if let Some(grad_x) = grad_x {
            accumulate(grad_x, grad_out, 1.0)?;
        }
        if let Some(grad_bias) = grad_bias {
            sum::cuda::over_rows(grad_out, grad_bias.summed_on_gpu()?)?;
        }
        Ok(())
    }

    fn add(&self, a: &Self::View, b: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&a.device(), shape, |y| sum::cuda::blend(a, 1.0, b, 1.0, y))
    }

    fn add_backward(&self, grad_out: &Grad, grad: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        accumulate(grad, grad_out, 1.0)
    }

    fn relu(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| relu::cuda::forward(x, y))
    }

    fn relu_backward(&self, x: &Self::View, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.on_gpu()?;
        relu::cuda::backward(x, grad_out, grad_x, store)
    }

    fn round_bf16(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| bf16::cuda::round(x, y, Store::Write))
    }

    fn round_bf16_backward(&self, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.on_gpu()?;
        bf16::cuda::round(grad_out, grad_x, store)
    }

    fn gelu(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| gelu::cuda::forward(x, y))
    }

    fn gelu_backward(&self, x: &Self::View, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.on_gpu()?;
        gelu::cuda::backward(x, grad_out, grad_x, store)
    }

    fn sigmoid(&self, function: Sigmoid, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |y| sigmoid::cuda::forward(function, x, y))
    }

    fn sigmoid_backward(
        &self,
        function: Sigmoid,
        x: &Self::View,
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let (grad_x, store) = grad_x.on_gpu()?;
        sigmoid::cuda::backward(function, x, grad_out, grad_x, store)
    }

    fn blend(
        &self,
        x: &Self::View,
        scale: f32,
        y: &Self::View,
        y_scale: f32,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |out| sum::cuda::blend(x, scale, y, y_scale, out))
    }

    fn blend_backward(&self, scale: f32, grad_out: &Grad, grad_x: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        accumulate(grad_x, grad_out, scale)
    }

    fn slice(&self, x: &Self::View, span: Range<usize>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |out| copy_span(x, span, out))
    }

    fn slice_backward(
        &self,
        span: Range<usize>,
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        sum::cuda::add_span(grad_out, grad_x.summed_on_gpu()?, span.start)
    }

    fn repeat_rows(&self, x: &Self::View, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |out| rows::cuda::repeat(x, out))
    }

    fn repeat_rows_backward(
        &self,
        _: (usize, usize),
        grad_out: &Grad,
        grad_x: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        sum::cuda::over_rows(grad_out, grad_x.summed_on_gpu()?)
    }

    fn ci_mlp(
        &self,
        x: &Self::View,
        weights: &[Self::View; 4],
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&x.device(), shape, |out| ci_mlp::cuda::forward(x, network(weights), out, shape.1))
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
        let [w1, b1, w2, b2] = grads;
        let grads = [w1.summed_on_gpu()?, b1.summed_on_gpu()?, w2.summed_on_gpu()?, b2.summed_on_gpu()?];
        let grad_x = grad_x.map(Gradient::on_gpu).transpose()?;
        ci_mlp::cuda::backward(x, network(weights), grad_out, grad_x, grads, shape.1)
    }

    fn grouped_linear(
        &self,
        x: &Self::View,
        w: &Self::View,
        b: &Self::View,
        layout: GroupedShape,
    ) -> DeviceResult<Array<Self>, Self> {
        let GroupedShape { groups, inputs, outputs, rows, .. } = layout;
        written(&x.device(), (groups * outputs, rows), |y| {
            let product = Product {
                a: Operand { array: w, runs: Runs::Along, pitch: outputs, stride: inputs * outputs, start: 0 },
                b: group_input(x, layout, Runs::Along),
                bias: Some(b),
                scale: None,
                alpha: 1.0,
                shape: [outputs, rows, inputs],
                groups,
            };
            product.launch(y, Store::Write)
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
        let product = |a, b, shape, groups| Product { a, b, bias: None, scale: None, alpha: 1.0, shape, groups };
        let upstream = |runs| Operand { array: grad_out, runs, pitch: rows, stride: outputs * rows, start: 0 };
        let (grad_w, store) = grad_w.on_gpu()?;
        product(group_input(x, layout, Runs::Deep), upstream(Runs::Deep), [inputs, outputs, rows], groups)
            .launch(grad_w, store)?;
        if let Some((grad_x, mut store)) = grad_x.map(Gradient::on_gpu).transpose()? {
            let weights = Operand { array: w, runs: Runs::Deep, pitch: outputs, stride: inputs * outputs, start: 0 };
            if shared {
                // One group after the other adds to the same gradient.
                for c in 0..groups {
                    let (weights, upstream) = (weights.of_group(c), upstream(Runs::Along).of_group(c));
                    product(weights, upstream, [inputs, rows, outputs], 1).launch(grad_x, store)?;
                    store = Store::Add;
                }
                if (groups, store) == (0, Store::Write) {
                    clear(grad_x)?;
                }
            } else {
                product(weights, upstream(Runs::Along), [inputs, rows, outputs], groups).launch(grad_x, store)?;
            }
        }
        sum::cuda::over_rows(grad_out, grad_b.summed_on_gpu()?)
    }

    fn masked_site(&self, inputs: &SiteViews<Self>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        let device = inputs.activations.device();
        with_site(inputs, |site| written(&device, shape, |out| masked_site::cuda::forward(site, out)))
    }

    fn masked_site_backward(
        &self,
        inputs: &SiteViews<Self>,
        grad_out: &Grad,
        grads: SiteGradients<'_, Self>,
    ) -> DeviceResult<(), Self> {
        let grads = site_gradients(grads)?;
        with_site(inputs, |site| masked_site::cuda::backward(site, grad_out, grads))
    }

    fn masked_activations(&self, inputs: &SiteViews<Self>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        let device = inputs.activations.device();
        with_site(inputs, |site| written(&device, shape, |out| masked_site::cuda::masked_activations(site, out)))
    }

    fn masked_activations_backward(
        &self,
        inputs: &SiteViews<Self>,
        grad_out: &Grad,
        grads: SiteGradients<'_, Self>,
    ) -> DeviceResult<(), Self> {
        let grads = site_gradients(grads)?;
        with_site(inputs, |site| masked_site::cuda::masked_activations_backward(site, grad_out, grads))
    }

    fn squared_error(&self, prediction: &Self::View, target: &Self::View) -> DeviceResult<Array<Self>, Self> {
        written(&prediction.device(), (1, 1), |out| squared_error::cuda::forward(prediction, target, out))
    }

    fn squared_error_backward(
        &self,
        prediction: &Self::View,
        target: &Self::View,
        grad_out: &Grad,
        grad_prediction: &mut Gradient<Self>,
    ) -> DeviceResult<(), Self> {
        let (grad_prediction, store) = grad_prediction.on_gpu()?;
        squared_error::cuda::backward(prediction, target, grad_out, grad_prediction, store)
    }

    fn importance_minimality(
        &self,
        u: &Self::View,
        weights: Option<&Self::View>,
        constants: Constants,
        positions: f64,
        (components, rows): (usize, usize),
    ) -> DeviceResult<(Array<Self>, Self::View), Self> {
        let device = u.device();
        let mut sums = memory(&device, components)?;
        importance_minimality::cuda::sums(u, weights.map(|w| &**w), constants, rows, &mut sums)?;
        let loss =
            written(&device, (1, 1), |out| importance_minimality::cuda::value(&sums, positions, constants, out))?;
        Ok((loss, Arc::new(sums)))
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
        let weights = weights.map(|w| &**w);
        let to = grad_u.on_gpu()?;
        importance_minimality::cuda::backward(u, weights, constants, sums, positions, grad_out, to, rows)
    }

    fn faithfulness(
        &self,
        w: &Self::View,
        v: &Self::View,
        u: &Self::View,
        w_shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&w.device(), (1, 1), |out| faithfulness::cuda::forward(weights_of(w, v, u, w_shape), out))
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
        let site = weights_of(w, v, u, w_shape);
        faithfulness::cuda::backward(site, grad_out, grad_v.summed_on_gpu()?, grad_u.summed_on_gpu()?)
    }

    fn combine(&self, scalars: &[Self::View], coefficients: &[f64]) -> DeviceResult<Array<Self>, Self> {
        let scalars: Vec<&Memory> = scalars.iter().map(|scalar| &**scalar).collect();
        written(&self.handle, (1, 1), |out| sum::cuda::combine(&scalars, coefficients, out))
    }

    fn combine_backward(&self, coefficient: f64, grad_out: &Grad, grad: &mut Gradient<Self>) -> DeviceResult<(), Self> {
        sum::cuda::combine_backward(coefficient, grad_out, grad.summed_on_gpu()?)
    }

    fn adamw(
        &self,
        parameter: &mut Self::Buffer,
        gradient: &Grad,
        mean: &mut Self::Buffer,
        variance: &mut Self::Buffer,
        update: Update,
    ) -> DeviceResult<(), Self> {
        adamw::cuda::step(parameter, gradient, mean, variance, update)
    }

    fn transpose_into(
        &self,
        from: &Self::Buffer,
        rows: usize,
        cols: usize,
        to: &mut Self::Buffer,
    ) -> DeviceResult<(), Self> {
        transpose::cuda::transpose(from, rows, cols, to, Store::Write)
    }

    fn squared_norm(&self, gradient: &Grad) -> DeviceResult<f64, Self> {
        adamw::cuda::squared_norm(gradient)
    }

    fn sign_ascent(
        &self,
        source: &Self::View,
        gradient: &Grad,
        step: f32,
        shape: (usize, usize),
    ) -> DeviceResult<Array<Self>, Self> {
        written(&source.device(), shape, |out| ascent::cuda::ascend(source, gradient, step, out))
    }
}

fn accumulate(grad: &mut Gradient<Gpu>, grad_out: &Grad, scale: f32) -> DeviceResult<(), Gpu> {
    let (grad, store) = grad.on_gpu()?;
    sum::cuda::backward(scale, grad_out, grad, store)
}

fn network(weights: &[Arc<Memory>; 4]) -> ci_mlp::cuda::Weights<'_> {
    weights.each_ref().map(|weight| &**weight)
}

fn weights_of<'a>(
    w: &'a Memory,
    v: &'a Memory,
    u: &'a Memory,
    (d_out, d_in): (usize, usize),
) -> faithfulness::cuda::Site<'a> {
    faithfulness::cuda::Site { w, v, u, d_in, d_out }
}

/// Returns what the components read.
fn group_input(x: &Memory, layout: GroupedShape, runs: Runs) -> Operand<'_> {
    let stride = if layout.shared { 0 } else { layout.inputs * layout.rows };
    Operand { array: x, runs, pitch: layout.rows, stride, start: 0 }
}
