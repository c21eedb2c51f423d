//! What models of token sequences are made of, and the losses of their logits.

use spdflow_kernels::attention;

use super::super::backend::Backend;
use super::super::graph::{DeviceResult, Graph, Var};

impl<D: Backend> Graph<D> {
    /// Returns row `token` of `table` for every token: `table` `(vocab, d)`, `tokens` `(1, R)` a constant, result `(d, R)`.
    pub fn embed(&self, table: &Var<D>, tokens: &Var<D>) -> DeviceResult<Var<D>, D> {
        assert_eq!(tokens.shape().0, 1, "one token for each position");
        let shape = (table.shape().1, tokens.shape().1);
        let out = self.device().embed(table.view(), tokens.view(), shape)?;
        let tokens = tokens.view().clone();
        self.push(out, &[table], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.embed_backward(&tokens, shape, grad_out, grad))
        })
    }

    /// Returns `x` with `constant` `(features, length)` added to the positions of every sequence.
    pub fn add_to_positions(&self, x: &Var<D>, constant: &Var<D>) -> DeviceResult<Var<D>, D> {
        let (features, length) = constant.shape();
        assert_eq!(features, x.shape().0, "features of the constant");
        let out = self.device().add_to_positions(x.view(), constant.view(), length, x.shape())?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.add_backward(grad_out, grad))
        })
    }

    /// Returns causal attention with `heads` heads within sequences of `length` positions; see
    /// `spdflow_kernels::attention`.
    pub fn attention(&self, [q, k, v]: [&Var<D>; 3], heads: usize, length: usize) -> DeviceResult<Var<D>, D> {
        let shape = q.shape();
        let layout = attention_shape(shape, heads, length);
        assert_eq!((k.shape(), v.shape()), (shape, shape), "queries, keys and values");
        let (q, k, v) = (&self.operand(q)?, &self.operand(k)?, &self.operand(v)?);
        let views = [q, k, v].map(|value| value.view().clone());
        let out = self.device().attention(views.each_ref(), layout, shape)?;
        self.push(out, &[q, k, v], move |device, grad_out, grads| {
            let [q, k, v] = grads else { unreachable!("three inputs") };
            device.attention_backward(views.each_ref(), layout, grad_out, [q.as_mut(), k.as_mut(), v.as_mut()])
        })
    }

    /// Returns causal attention of the last position of every sequence: `q` `(d, sequences)` belongs to these alone, `k`
    /// and `v` `(d, R)` to all positions; the result is `(d, sequences)`.
    pub fn attention_last(&self, [q, k, v]: [&Var<D>; 3], heads: usize, length: usize) -> DeviceResult<Var<D>, D> {
        let shape = q.shape();
        let layout = attention_shape(k.shape(), heads, length);
        assert_eq!((k.shape(), shape), (v.shape(), (k.shape().0, layout.sequences)), "queries, keys and values");
        let (q, k, v) = (&self.operand(q)?, &self.operand(k)?, &self.operand(v)?);
        let views = [q, k, v].map(|value| value.view().clone());
        let out = self.device().attention_last(views.each_ref(), layout, shape)?;
        self.push(out, &[q, k, v], move |device, grad_out, grads| {
            let [q, k, v] = grads else { unreachable!("three inputs") };
            device.attention_last_backward(views.each_ref(), layout, grad_out, [q.as_mut(), k.as_mut(), v.as_mut()])
        })
    }

    /// Returns how much every position attends to every other, `[sequences, heads, length, length]`; for looking at.
    pub fn attention_weights(&self, q: &Var<D>, k: &Var<D>, heads: usize, length: usize) -> DeviceResult<Vec<f32>, D> {
        self.device().attention_weights(q.view(), k.view(), attention_shape(q.shape(), heads, length))
    }

    /// Returns layer norm with `scale` and `shift` `(features, 1)`.
    pub fn layer_norm(&self, x: &Var<D>, scale: &Var<D>, shift: &Var<D>) -> DeviceResult<Var<D>, D> {
        let shape = x.shape();
        assert_eq!((scale.shape(), shift.shape()), ((shape.0, 1), (shape.0, 1)), "scale and shift of a layer norm");
        let out = self.device().layer_norm(x.view(), scale.view(), shift.view(), shape)?;
        let (x_view, scale_view) = (x.view().clone(), scale.view().clone());
        self.push(out, &[x, scale, shift], move |device, grad_out, grads| {
            let [x, scale, shift] = grads else { unreachable!("three inputs") };
            let grads = [x.as_mut(), scale.as_mut(), shift.as_mut()];
            device.layer_norm_backward(&x_view, &scale_view, shape, grad_out, grads)
        })
    }

    /// Returns the last position of every sequence of `length`, `(features, R / length)`.
    pub fn last_positions(&self, x: &Var<D>, length: usize) -> DeviceResult<Var<D>, D> {
        let shape = x.shape();
        let out = self.device().last_positions(x.view(), length, shape)?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.last_positions_backward(length, shape.1, grad_out, grad))
        })
    }

    /// Returns `Σ KL(softmax(target) ‖ softmax(prediction))` over positions, logits `(V, R)`; the target is a constant.
    pub fn kl_divergence(&self, prediction: &Var<D>, target: &Var<D>) -> DeviceResult<Var<D>, D> {
        assert_eq!(prediction.shape(), target.shape(), "prediction and target");
        let rows = prediction.shape().1;
        let (prediction, target) = (&self.operand(prediction)?, &self.operand(target)?);
        let (out, normalisers) = self.device().kl_divergence(prediction.view(), target.view(), rows)?;
        let (p, t) = (prediction.view().clone(), target.view().clone());
        self.push(out, &[prediction], move |device, grad_out, grads| {
            grads[0]
                .as_mut()
                .map_or(Ok(()), |grad| device.kl_divergence_backward(&p, &t, &normalisers, rows, grad_out, grad))
        })
    }

    /// Returns the summed cross entropy of `logits` `(V, R)` against the labels `(1, R)`; negative ones are left out.
    pub fn cross_entropy(&self, logits: &Var<D>, labels: &Var<D>) -> DeviceResult<Var<D>, D> {
        assert_eq!(labels.shape(), (1, logits.shape().1), "one label for each position");
        let (out, normalisers) = self.device().cross_entropy(logits.view(), labels.view())?;
        let (x, labels) = (logits.view().clone(), labels.view().clone());
        self.push(out, &[logits], move |device, grad_out, grads| {
            grads[0]
                .as_mut()
                .map_or(Ok(()), |grad| device.cross_entropy_backward(&x, &labels, &normalisers, grad_out, grad))
        })
    }
}

fn attention_shape((features, rows): (usize, usize), heads: usize, length: usize) -> attention::Shape {
    assert!(features.is_multiple_of(heads), "{features} features in {heads} heads");
    assert!(rows.is_multiple_of(length), "{rows} positions in sequences of {length}");
    attention::Shape { heads, d_head: features / heads, sequences: rows / length, length }
}
