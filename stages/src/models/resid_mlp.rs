//! The residual MLP (spec section 1.2): features in a residual stream that a few small MLPs read and write.
//!
//! `r = W_Eᵀ x`; `r += out(act(in(r)))` for each layer; `y = W_Uᵀ r`. The MLPs' matrices can be decomposed, the
//! embedding `W_E` and the unembedding `W_U` cannot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::{Linear, Module, RunModule, TargetModel, constants};
use crate::artifact::tensors::Tensors;
use crate::bridge::{Backend, DeviceResult, Graph, Var};

/// The nonlinearity of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// The exact GELU.
    Gelu,
}

impl Activation {
    /// Returns the activation of every entry.
    ///
    /// # Errors
    /// The device's.
    pub fn apply<D: Backend>(self, graph: &Graph<D>, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        match self {
            Self::Relu => graph.relu(x),
            Self::Gelu => graph.gelu(x),
        }
    }

    /// Returns the activation of every number.
    #[must_use]
    pub fn values(self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        match self {
            Self::Relu => spdflow_kernels::relu::forward(x, &mut out),
            Self::Gelu => spdflow_kernels::gelu::forward(x, &mut out),
        }
        out
    }
}

/// The shape of a residual MLP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResidMlpConfig {
    /// How many features go in and out.
    pub n_features: usize,
    /// The width of the residual stream.
    pub d_embed: usize,
    /// Neurons of one layer.
    pub d_mlp: usize,
    /// How many layers.
    pub n_layers: usize,
    /// The neurons' nonlinearity.
    pub act_fn: Activation,
    /// Whether the matrices into the neurons have a bias.
    pub in_bias: bool,
    /// Whether the matrices out of the neurons have one.
    pub out_bias: bool,
}

/// The name of the embedding `[n_features, d_embed]` in a state dict.
pub const EMBEDDING: &str = "W_E";
/// The name of the unembedding `[d_embed, n_features]`.
pub const UNEMBEDDING: &str = "W_U";

impl ResidMlpConfig {
    /// Returns the names and shapes of the state dict in its order: `W_E`, `W_U`, then each layer's matrices, a bias
    /// after its weight.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![
            (EMBEDDING.to_owned(), vec![self.n_features, self.d_embed]),
            (UNEMBEDDING.to_owned(), vec![self.d_embed, self.n_features]),
        ];
        for layer in 0..self.n_layers {
            let matrices = [
                ("mlp_in", self.d_mlp, self.d_embed, self.in_bias),
                ("mlp_out", self.d_embed, self.d_mlp, self.out_bias),
            ];
            for (matrix, d_out, d_in, bias) in matrices {
                tensors.push((format!("layers.{layer}.{matrix}.weight"), vec![d_out, d_in]));
                if bias {
                    tensors.push((format!("layers.{layer}.{matrix}.bias"), vec![d_out]));
                }
            }
        }
        tensors
    }
}

/// The model with weights on a device.
pub struct ResidMlp<D: Backend> {
    config: ResidMlpConfig,
    embedding: Var<D>,
    unembedding: Var<D>,
    modules: Vec<Module<D>>,
}

impl<D: Backend> ResidMlp<D> {
    /// Returns the model made of values already on the device, in the order of [`ResidMlpConfig::tensors`].
    ///
    /// # Panics
    /// If the number of values is not that of the configuration.
    #[must_use]
    pub fn new(config: ResidMlpConfig, values: Vec<Var<D>>) -> Self {
        let names = config.tensors();
        assert_eq!(values.len(), names.len(), "tensors of a residual MLP");
        let mut values = names.into_iter().zip(values).map(|((name, _), value)| (name, value)).peekable();
        let mut next = || values.next().expect("the count was checked").1;
        let (embedding, unembedding) = (next(), next());
        let mut modules = Vec::new();
        while let Some((name, weight)) = values.next() {
            let name = name.trim_end_matches(".weight").to_owned();
            let bias = values.next_if(|(name, _)| name.ends_with(".bias")).map(|(_, bias)| bias);
            modules.push(Module { name, layer: Linear::new(weight, bias).into() });
        }
        Self { config, embedding, unembedding, modules }
    }

    /// Returns the model with the weights of a state dict, as constants.
    ///
    /// # Errors
    /// [`StageError::Failed`] if a tensor is missing or has the wrong shape.
    pub fn load(config: ResidMlpConfig, device: &D, state: &Tensors) -> Result<Self, StageError> {
        let values = constants(device, state, config.tensors())?;
        let model = Self::new(config, values).factored(&Graph::detached(device));
        model.map_err(|error| StageError::failed(format!("{error:?}")))
    }

    /// Returns the model with what its neurons write left as products, where no bias is in the way.
    ///
    /// # Errors
    /// The device's.
    pub fn factored(mut self, graph: &Graph<D>) -> DeviceResult<Self, D> {
        if !self.config.out_bias {
            for module in self.modules.iter_mut().skip(1).step_by(2) {
                let weight = module.layer.matrix(graph)?;
                module.layer = Linear::factored(graph, weight)?.into();
            }
        }
        Ok(self)
    }

    /// Returns `W_E` `(n_features, d_embed)`.
    #[must_use]
    pub fn embedding(&self) -> &Var<D> {
        &self.embedding
    }

    /// Returns the residual stream after the last layer, `(d_embed, R)`, as a sum of products where it can stay one.
    ///
    /// Everything that reads the stream is linear, so its many dimensions are never written out.
    ///
    /// # Errors
    /// Those of `run` and of the device.
    pub fn residual(&self, graph: &Graph<D>, input: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D> {
        let mut residual = graph.factored(&self.embedding, input)?;
        for layer in 0..self.config.n_layers {
            let hidden = self.config.act_fn.apply(graph, &run(2 * layer, &residual)?)?;
            let written = run(2 * layer + 1, &hidden)?;
            residual = graph.add(&residual, &written)?;
        }
        Ok(residual)
    }

    /// Returns the output that a residual stream is read as, `(n_features, R)`.
    ///
    /// # Errors
    /// The device's.
    pub fn read_off(&self, graph: &Graph<D>, residual: &Var<D>) -> DeviceResult<Var<D>, D> {
        graph.apply_transposed(&self.unembedding, residual)
    }
}

impl<D: Backend> TargetModel<D> for ResidMlp<D> {
    fn modules(&self) -> &[Module<D>] {
        &self.modules
    }

    fn names(&self) -> Vec<String> {
        let layer =
            |i: usize| [format!("layers.{i}"), format!("layers.{i}.mlp_in"), format!("layers.{i}.mlp_out")].into_iter();
        std::iter::once("layers".to_owned()).chain((0..self.config.n_layers).flat_map(layer)).collect()
    }

    fn forward(&self, graph: &Graph<D>, input: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D> {
        let residual = self.residual(graph, input, run)?;
        self.read_off(graph, &residual)
    }

    fn zero_rows_are_inert(&self) -> bool {
        // Both nonlinearities are zero at zero, so only a bias can make something out of nothing. What the last layer
        // adds reaches no other module.
        !self.config.in_bias && (!self.config.out_bias || self.config.n_layers == 1)
    }

    fn tied_modules(&self) -> Vec<(usize, usize)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Cpu;

    use super::*;
    use crate::artifact::tensors::Tensor;
    use crate::models::{run_module, run_plain};

    fn config(n_layers: usize, in_bias: bool, out_bias: bool) -> ResidMlpConfig {
        ResidMlpConfig { n_features: 2, d_embed: 3, d_mlp: 1, n_layers, act_fn: Activation::Relu, in_bias, out_bias }
    }

    fn model(config: &ResidMlpConfig, value: impl Fn(&str, usize) -> f32) -> ResidMlp<Cpu> {
        let state: Tensors = config
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let data = (0..shape.iter().product()).map(|i| value(&name, i)).collect();
                (name, Tensor::new(shape, data))
            })
            .collect();
        ResidMlp::load(config.clone(), &Cpu::default(), &state).expect("every tensor is there")
    }

    #[test]
    fn a_layer_adds_what_its_neuron_writes_to_the_stream() {
        let config = config(1, true, true);
        let model = model(&config, |name, i| match name {
            "W_E" => [1.0, 0.0, 0.0, 0.0, 1.0, 0.0][i],
            "W_U" => [1.0, 0.0, 0.0, 1.0, 5.0, 0.0][i],
            "layers.0.mlp_in.weight" => [2.0, 0.0, 0.0][i],
            "layers.0.mlp_in.bias" => -1.0,
            "layers.0.mlp_out.weight" => [0.0, 0.0, 1.0][i],
            _ => 0.5,
        });
        let graph = Graph::detached(&Cpu::default());
        let input = graph.upload(vec![3.0, 0.0, 0.0, 7.0], (2, 2)).expect("enough memory");
        let output = run_plain(&model, &graph, &input).expect("enough memory");
        // Row (3, 0): stream (3, 0, 0), neuron 2 * 3 - 1 = 5, plus (0.5, 0.5, 5.5): (3.5, 0.5, 5.5), read as
        // (3.5 + 5 * 5.5, 0.5). Row (0, 7): the neuron is off: (0.5, 7.5, 0.5), read as (0.5 + 2.5, 7.5).
        assert_eq!(output.to_vec(), [31.0, 3.0, 0.5, 7.5]);
    }

    #[test]
    fn names_are_in_registration_order_with_containers() {
        let model = model(&config(2, true, false), |_, _| 0.0);
        let names = ["layers", "layers.0", "layers.0.mlp_in", "layers.0.mlp_out", "layers.1", "layers.1.mlp_in"];
        assert_eq!(model.names()[..6], names);
        let modules: Vec<&str> = model.modules().iter().map(|module| &module.name[..]).collect();
        assert_eq!(modules, ["layers.0.mlp_in", "layers.0.mlp_out", "layers.1.mlp_in", "layers.1.mlp_out"]);
    }

    #[test]
    fn zero_rows_are_inert_exactly_when_every_module_reads_zeros_there() {
        for (n_layers, in_bias, out_bias) in [
            (1, false, false),
            (1, false, true),
            (1, true, false),
            (2, false, false),
            (2, false, true),
            (2, true, false),
        ] {
            let model = model(&config(n_layers, in_bias, out_bias), |_, _| 1.0);
            let graph = Graph::detached(&Cpu::default());
            let input = graph.upload(vec![0.0; 2], (2, 1)).expect("enough memory");
            let mut only_zeros = true;
            model
                .forward(&graph, &input, &mut |module, x| {
                    only_zeros &= x.to_vec().iter().all(|x| *x == 0.0);
                    run_module(&model, &graph, module, x)
                })
                .expect("enough memory");
            assert_eq!(model.zero_rows_are_inert(), only_zeros, "{n_layers} {in_bias} {out_bias}");
        }
    }
}
