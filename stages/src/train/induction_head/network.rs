//! An induction-head transformer in training: its initial weights and its loss.

use std::ops::Range;

use spdflow_kernels::philox::Stream;

use super::params::TrainInductionHeadParams;
use crate::artifact::tensors::{Tensor, Tensors};
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::models::{InductionHead, StateTensor, TensorRole, as_matrix};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;
use crate::train::initial;
use crate::train::run::{Objective, parts_of};

/// The model and the sequences it learns.
pub(super) struct Network<'a, D: Backend> {
    params: &'a TrainInductionHeadParams,
    /// Each tensor of the state dict in its order: trained (an index among the parameters) or not.
    tensors: Vec<Source<D>>,
}

/// Where a tensor is.
enum Source<D: Backend> {
    Trained(usize),
    Fixed(Var<D>),
}

impl<'a, D: Backend> Network<'a, D> {
    /// Returns the network, and its parameters with PyTorch's default initial values.
    pub(super) fn new(device: &D, params: &'a TrainInductionHeadParams) -> DeviceResult<(Self, Parameters<D>), D> {
        let (config, graph) = (params.model(), Graph::detached(device));
        let mut parameters = Parameters::new(device);
        let mut tensors = Vec::new();
        for (index, StateTensor { name, shape, role }) in config.tensors().into_iter().enumerate() {
            let stream = Purpose::TargetInit.stream(params.seed, 0, index as u32);
            let entries = shape.iter().product();
            let data = match role {
                TensorRole::Positions => {
                    let positions = InductionHead::constant(&graph, role, &shape, &config.positions())?;
                    tensors.push(Source::Fixed(positions));
                    continue;
                }
                TensorRole::Embedding => initial::gaussian(stream, 1.0, entries),
                TensorRole::Linear(fan_in) => initial::linear(stream, fan_in, entries),
                TensorRole::NormScale => vec![1.0; entries],
                TensorRole::NormShift => vec![0.0; entries],
            };
            let matrix = as_matrix(&shape);
            tensors.push(Source::Trained(parameters.push(name, shape, matrix, data)?));
        }
        Ok((Self { params, tensors }, parameters))
    }

    fn model(&self, leaves: &[Var<D>]) -> InductionHead<D> {
        let value = |source: &Source<D>| match source {
            Source::Trained(index) => leaves[*index].clone(),
            Source::Fixed(value) => value.clone(),
        };
        InductionHead::new(self.params.model(), self.tensors.iter().map(value).collect())
    }

    /// Returns the state dict in its order, with the trained tensors in `trained`.
    pub(super) fn state(&self, trained: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        let config = self.params.model();
        let all: Tensors = trained.into_iter().chain(config.position_tensors()).collect();
        let names = config.tensors().into_iter().map(|tensor| tensor.name);
        names.map(|name| (name.clone(), all.get(&name).expect("trained or a position tensor").clone())).collect()
    }
}

impl<D: Backend> Objective<D> for Network<'_, D> {
    fn parts(&self) -> Vec<Range<usize>> {
        parts_of(self.params.batch_size, self.params.seq_len * self.params.d_model, 1)
    }

    /// Returns the share of the mean cross entropy of the last position's logits against the memorised token.
    fn loss(&self, graph: &Graph<D>, leaves: &[Var<D>], stream: Stream, rows: Range<usize>) -> DeviceResult<Var<D>, D> {
        let sequences = self.params.data().part(stream, rows);
        let count = sequences.memorised.len();
        let tokens = graph.upload(sequences.batch.input, (1, sequences.batch.positions))?;
        let labels = graph.upload(sequences.memorised, (1, count))?;
        let logits = self.model(leaves).last_logits(graph, &tokens)?;
        graph.combine(&[(1.0 / self.params.batch_size as f64, graph.cross_entropy(&logits, &labels)?)])
    }
}
