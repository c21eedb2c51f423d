//! A toy model in training: its initial weights and its loss.

use std::ops::Range;

use spdflow_kernels::philox::Stream;

use super::params::{HiddenLayers, TrainTmsParams};
use crate::artifact::tensors::Tensor;
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::models::{Tms, as_matrix, run_plain};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;
use crate::train::initial;
use crate::train::run::{Objective, parts_of};

/// Loops over the batch take so many rows at once.
const ROWS_AT_ONCE: usize = 64;

/// The toy model and the distribution it learns.
pub(super) struct Network<'a, D: Backend> {
    params: &'a TrainTmsParams,
    /// The names of the trained tensors, in the order of the parameters.
    trained: Vec<String>,
    /// Hidden layers that are not trained, by name.
    frozen: Vec<(String, Var<D>)>,
}

impl<'a, D: Backend> Network<'a, D> {
    /// Returns the network that belongs to `seed`, and its parameters.
    pub(super) fn new(device: &D, params: &'a TrainTmsParams, seed: u64) -> DeviceResult<(Self, Parameters<D>), D> {
        let mut parameters = Parameters::new(device);
        let mut frozen = Vec::new();
        let config = params.model();
        let fan_in = |name: &str| if name == "linear1.weight" { config.n_features } else { config.n_hidden };
        for (index, (name, shape)) in config.tensors().into_iter().enumerate() {
            let stream = Purpose::TargetInit.stream(seed, 0, index as u32);
            let matrix = as_matrix(&shape);
            let entries = matrix.0 * matrix.1;
            if name.starts_with("hidden_layers") && params.hidden_layers != HiddenLayers::Trained {
                let graph = Graph::detached(device);
                frozen.push((name, graph.upload(fixed_layer(params.hidden_layers, matrix.0, stream), matrix)?));
                continue;
            }
            let zero = name == "linear2.bias" && params.init_bias_to_zero;
            let data = if zero { vec![0.0; entries] } else { initial::linear(stream, fan_in(&name), entries) };
            parameters.push(name, shape, matrix, data)?;
        }
        let trained: Vec<String> = parameters.iter().map(|parameter| parameter.name.clone()).collect();
        if params.tied_weights {
            let find = |name: &str| trained.iter().position(|other| other == name).expect("both matrices are trained");
            let (first, last) = (find("linear1.weight"), find("linear2.weight"));
            parameters.tie(first, last)?;
        }
        Ok((Self { params, trained, frozen }, parameters))
    }

    fn model(&self, leaves: &[Var<D>]) -> Tms<D> {
        let config = self.params.model();
        let find = |name: &str| {
            let trained = self.trained.iter().zip(leaves);
            let frozen = self.frozen.iter().map(|(name, value)| (name, value));
            let found = trained.chain(frozen).find(|(other, _)| *other == name);
            found.map(|(_, value)| value.clone()).expect("every tensor is trained or frozen")
        };
        let values = config.tensors().iter().map(|(name, _)| find(name)).collect();
        Tms::new(config, values)
    }

    /// Returns the tensors that are not trained.
    pub(super) fn frozen(&self) -> Vec<(String, Tensor)> {
        let frozen = self.frozen.iter().map(|(name, value)| {
            let (rows, cols) = value.shape();
            (name.clone(), Tensor::new(vec![rows, cols], value.to_vec()))
        });
        frozen.collect()
    }
}

impl<D: Backend> Objective<D> for Network<'_, D> {
    fn parts(&self) -> Vec<Range<usize>> {
        parts_of(self.params.batch_size, self.params.n_features.max(self.params.n_hidden), ROWS_AT_ONCE)
    }

    /// Returns the share of the mean over rows and features of `(|x| − y)²`.
    fn loss(&self, graph: &Graph<D>, leaves: &[Var<D>], stream: Stream, rows: Range<usize>) -> DeviceResult<Var<D>, D> {
        let batch = self.params.data().part(stream, rows);
        let shape = (batch.features, batch.rows.len());
        let label = graph.upload(batch.input.iter().map(|x| x.abs()).collect(), shape)?;
        let entries = (batch.features * self.params.batch_size) as f64;
        let input = graph.upload(batch.input, shape)?;
        let output = run_plain(&self.model(leaves), graph, &input)?;
        graph.combine(&[(1.0 / entries, graph.squared_error(&output, &label)?)])
    }
}

fn fixed_layer(kind: HiddenLayers, d: usize, stream: Stream) -> Vec<f32> {
    match kind {
        HiddenLayers::FixedRandom => initial::gaussian(stream, 1.0, d * d),
        HiddenLayers::FixedIdentity | HiddenLayers::Trained => initial::identity(d),
    }
}
