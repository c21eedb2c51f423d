//! `mlp`: a small private network per component on the component's own activation (a scalar).
//!
//! The gradient flows through the activation into V. With one hidden layer, the usual case, the whole network is one
//! fused kernel; deeper ones, and those whose products read bfloat16 numbers, run layer by layer.

use super::{NetworkTensor, grouped_logits, grouped_network};
use crate::bridge::{Backend, DeviceResult, Graph, Precision, Var};

pub(super) fn tensors(hidden: &[usize], components: usize) -> Vec<NetworkTensor> {
    grouped_network(hidden, 1, components)
}

pub(super) fn logits<D: Backend>(
    graph: &Graph<D>,
    activations: &Var<D>,
    weights: &[Var<D>],
) -> DeviceResult<Var<D>, D> {
    match weights {
        [w1, b1, w2, b2] if graph.precision() == Precision::F32 => graph.ci_mlp(activations, [w1, b1, w2, b2]),
        _ => grouped_logits(graph, activations, weights, false),
    }
}
