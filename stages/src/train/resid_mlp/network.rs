//! A residual MLP in training: its initial weights and its loss.

use std::ops::Range;

use spdflow_kernels::philox::Stream;

use super::params::{Embedding, Readoff, TrainResidMlpParams, TrainingLoss};
use crate::artifact::tensors::{Tensor, Tensors};
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::data::{Batch, Labels};
use crate::models::{EMBEDDING, ResidMlp, UNEMBEDDING, as_matrix, run_module};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;
use crate::train::initial;
use crate::train::run::Objective;

/// The model and what it learns.
pub(super) struct Network<'a, D: Backend> {
    params: &'a TrainResidMlpParams,
    labels: Labels,
    /// Each tensor of the state dict in its order: trained (an index among the parameters) or not.
    tensors: Vec<Source<D>>,
    /// The square roots of the features' weights as a diagonal matrix, if they differ.
    weights: Option<Var<D>>,
}

/// Where a tensor is.
enum Source<D: Backend> {
    Trained(usize),
    Fixed(Var<D>),
}

impl<'a, D: Backend> Network<'a, D> {
    /// Returns the network, and its parameters.
    pub(super) fn new(device: &D, params: &'a TrainResidMlpParams) -> DeviceResult<(Self, Parameters<D>), D> {
        let mut parameters = Parameters::new(device);
        let mut tensors = Vec::new();
        let graph = Graph::detached(device);
        for (index, (name, shape)) in params.model().tensors().into_iter().enumerate() {
            let matrix = as_matrix(&shape);
            let data = initial_data(params, &name, matrix, index as u32);
            tensors.push(if is_trained(params, &name) {
                Source::Trained(parameters.push(name, shape, matrix, data)?)
            } else {
                Source::Fixed(graph.upload(data, matrix)?)
            });
        }
        let weights = match params.loss {
            TrainingLoss::Readoff(Readoff { importance_val }) if importance_val != 1.0 => {
                let n = params.n_features;
                let mut diagonal = vec![0.0; n * n];
                for (i, weight) in diagonal.iter_mut().step_by(n + 1).enumerate() {
                    *weight = importance_val.powf(i as f64).sqrt() as f32;
                }
                Some(graph.upload(diagonal, (n, n))?)
            }
            _ => None,
        };
        Ok((Self { params, labels: params.labels(), tensors, weights }, parameters))
    }

    fn model(&self, graph: &Graph<D>, leaves: &[Var<D>]) -> DeviceResult<ResidMlp<D>, D> {
        let value = |source: &Source<D>| match source {
            Source::Trained(index) => leaves[*index].clone(),
            Source::Fixed(value) => value.clone(),
        };
        ResidMlp::new(self.params.model(), self.tensors.iter().map(value).collect()).factored(graph)
    }

    /// Returns the state dict in its order, with the trained tensors in `trained`.
    pub(super) fn state(&self, trained: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        let trained: Tensors = trained.into_iter().collect();
        let names = self.params.model().tensors();
        let tensor = |(name, shape): (String, Vec<usize>), source: &Source<D>| {
            let tensor = match source {
                Source::Trained(_) => trained.get(&name).expect("every trained tensor is there").clone(),
                Source::Fixed(value) => Tensor::new(shape, value.to_vec()),
            };
            (name, tensor)
        };
        names.into_iter().zip(&self.tensors).map(|(name, source)| tensor(name, source)).collect()
    }

    /// Returns the batch that belongs to `stream`, its all-zero rows counted where nothing comes of them.
    fn batch(&self, stream: Stream) -> Batch {
        let (data, positions) = (self.params.data(), self.params.batch_size);
        // Without biases such a row has output and label zero, so no loss and no gradient.
        match self.params.in_bias || self.params.out_bias {
            false => data.compact_batch(stream, positions),
            true => data.batch(stream, positions),
        }
    }
}

impl<D: Backend> Objective<D> for Network<'_, D> {
    /// The whole batch: a step's work is with products of matrices, which every part would repeat.
    fn parts(&self) -> Vec<Range<usize>> {
        vec![0..self.params.batch_size]
    }

    fn loss(&self, graph: &Graph<D>, leaves: &[Var<D>], stream: Stream, _: Range<usize>) -> DeviceResult<Var<D>, D> {
        let batch = self.batch(stream);
        let (features, rows, positions) = (batch.features, batch.rows.len(), batch.positions as f64);
        let labels = self.labels.of(&batch.input);
        let input = graph.upload(batch.input, (features, rows))?;
        let model = self.model(graph, leaves)?;
        let residual = model.residual(graph, &input, &mut |module, x| run_module(&model, graph, module, x))?;
        let (error, entries) = match (self.params.loss, &self.weights) {
            (TrainingLoss::Readoff(_), None) => {
                let labels = graph.upload(labels, (features, rows))?;
                (graph.squared_error(&model.read_off(graph, &residual)?, &labels)?, features)
            }
            (TrainingLoss::Readoff(_), Some(weights)) => {
                let labels = graph.apply(weights, &graph.upload(labels, (features, rows))?)?;
                let output = graph.apply(weights, &model.read_off(graph, &residual)?)?;
                (graph.squared_error(&output, &labels)?, features)
            }
            (TrainingLoss::Resid, _) => {
                // A trained embedding gets its gradient from both sides of the difference.
                let negative = graph.upload(labels.iter().map(|label| -label).collect(), (features, rows))?;
                let difference = graph.add(&residual, &graph.apply_transposed(model.embedding(), &negative)?)?;
                let zeros = graph.upload(vec![0.0; self.params.d_embed * rows], (self.params.d_embed, rows))?;
                (graph.squared_error(&difference, &zeros)?, self.params.d_embed)
            }
        };
        graph.combine(&[(1.0 / (entries as f64 * positions), error)])
    }
}

/// Returns whether a tensor is trained.
fn is_trained(params: &TrainResidMlpParams, name: &str) -> bool {
    match name {
        EMBEDDING => params.embedding == Embedding::Trained,
        // The loss on the residual stream never reads the unembedding; PyTorch's optimiser leaves such a tensor alone.
        UNEMBEDDING => params.embedding == Embedding::Trained && params.loss != TrainingLoss::Resid,
        _ => true,
    }
}

/// Returns the initial entries of a tensor; `index` is its place in the state dict.
fn initial_data(params: &TrainResidMlpParams, name: &str, matrix: (usize, usize), index: u32) -> Vec<f32> {
    let stream = |index| Purpose::TargetInit.stream(params.seed, 0, index);
    let (n, d) = (params.n_features, params.d_embed);
    match (name, params.embedding) {
        (EMBEDDING | UNEMBEDDING, Embedding::FixedIdentity) => initial::identity(n),
        (EMBEDDING, Embedding::FixedRandom) => initial::unit_rows(stream(0), n, d),
        (UNEMBEDDING, Embedding::FixedRandom) => {
            spdflow_kernels::transpose::transposed(&initial::unit_rows(stream(0), n, d), n, d)
        }
        // Kaiming's normal distribution with gain 1; the fan of [d_in, d_out] is d_in.
        (EMBEDDING | UNEMBEDDING, Embedding::Trained) => {
            initial::gaussian(stream(index), (matrix.0 as f64).sqrt().recip(), matrix.0 * matrix.1)
        }
        _ => {
            let fan_in = if name.contains("mlp_in") { d } else { params.d_mlp };
            initial::linear(stream(index), fan_in, matrix.0 * matrix.1)
        }
    }
}
