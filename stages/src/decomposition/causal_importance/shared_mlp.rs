//! `shared_mlp`: an ordinary network from the site's input vector to all of its components.

use super::{HIDDEN_GAIN, NetworkTensor, OUTPUT_GAIN};
use crate::bridge::{Backend, DeviceResult, Graph, Var};

pub(super) fn tensors(hidden: &[usize], d_in: usize, components: usize) -> Vec<NetworkTensor> {
    let mut tensors = Vec::new();
    let mut inputs = d_in;
    for (position, outputs) in hidden.iter().copied().chain([components]).enumerate() {
        let gain = if position < hidden.len() { HIDDEN_GAIN } else { OUTPUT_GAIN };
        tensors.push(NetworkTensor {
            key: format!("layers.{}.W", 2 * position),
            shape: vec![inputs, outputs],
            matrix: (inputs, outputs),
            init_std: gain / (inputs as f64).sqrt(),
        });
        tensors.push(NetworkTensor {
            key: format!("layers.{}.b", 2 * position),
            shape: vec![outputs],
            matrix: (outputs, 1),
            init_std: 0.0,
        });
        inputs = outputs;
    }
    tensors
}

pub(super) fn logits<D: Backend>(graph: &Graph<D>, input: &Var<D>, weights: &[Var<D>]) -> DeviceResult<Var<D>, D> {
    let layers: Vec<&[Var<D>]> = weights.chunks(2).collect();
    let mut x = input.clone();
    for (position, layer) in layers.iter().enumerate() {
        x = graph.add_bias(&graph.apply_transposed(&layer[0], &x)?, &layer[1])?;
        if position + 1 < layers.len() {
            x = graph.gelu(&x)?;
        }
    }
    Ok(x)
}
