//! `vector_mlp`: a network per component on the site's input vector, which all of them share.

use super::{NetworkTensor, grouped_logits, grouped_network};
use crate::bridge::{Backend, DeviceResult, Graph, Var};

pub(super) fn tensors(hidden: &[usize], d_in: usize, components: usize) -> Vec<NetworkTensor> {
    grouped_network(hidden, d_in, components)
}

pub(super) fn logits<D: Backend>(graph: &Graph<D>, input: &Var<D>, weights: &[Var<D>]) -> DeviceResult<Var<D>, D> {
    grouped_logits(graph, input, weights, true)
}
