//! The toy model of superposition (spec section 1.1): features squeezed through a few hidden dimensions.
//!
//! `h = W₁ x`; `h = Hᵢ h` for each hidden layer, without nonlinearity; `y = relu(W₂ h + b)`. With tied weights `W₂ = W₁ᵀ`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::{Linear, Module, RunModule, TargetModel, constants};
use crate::artifact::tensors::Tensors;
use crate::bridge::{Backend, DeviceResult, Graph, Var};

/// The shape of a toy model of superposition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TmsConfig {
    /// How many features go in and out.
    pub n_features: usize,
    /// How many dimensions they share.
    pub n_hidden: usize,
    /// How many matrices lie between the two.
    pub n_hidden_layers: usize,
    /// Whether the second matrix is the first one's transpose.
    pub tied_weights: bool,
}

/// The model with weights on a device.
pub struct Tms<D: Backend> {
    config: TmsConfig,
    modules: Vec<Module<D>>,
}

impl TmsConfig {
    /// Returns the names and shapes of the state dict's matrices in the order in which their modules run, and last the
    /// bias.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (features, hidden) = (self.n_features, self.n_hidden);
        let mut tensors = vec![("linear1.weight".to_owned(), vec![hidden, features])];
        tensors.extend((0..self.n_hidden_layers).map(|i| (format!("hidden_layers.{i}.weight"), vec![hidden, hidden])));
        tensors.push(("linear2.weight".to_owned(), vec![features, hidden]));
        tensors.push(("linear2.bias".to_owned(), vec![features]));
        tensors
    }
}

impl<D: Backend> Tms<D> {
    /// Returns the model made of values already on the device, in the order of [`TmsConfig::tensors`].
    ///
    /// # Panics
    /// If the number of values is not that of the configuration.
    #[must_use]
    pub fn new(config: TmsConfig, mut values: Vec<Var<D>>) -> Self {
        let names = config.tensors();
        assert_eq!(values.len(), names.len(), "tensors of a toy model");
        let mut bias = values.pop();
        let last = values.len() - 1;
        let modules = values
            .into_iter()
            .zip(&names)
            .enumerate()
            .map(|(index, (weight, (name, _)))| Module {
                name: name.trim_end_matches(".weight").to_owned(),
                layer: Linear::new(weight, if index == last { bias.take() } else { None }).into(),
            })
            .collect();
        Self { config, modules }
    }

    /// Returns the model with the weights of a state dict, as constants.
    ///
    /// # Errors
    /// [`StageError::Failed`] if a tensor is missing or has the wrong shape.
    pub fn load(config: TmsConfig, device: &D, state: &Tensors) -> Result<Self, StageError> {
        let values = constants(device, state, config.tensors())?;
        Ok(Self::new(config, values))
    }
}

impl<D: Backend> TargetModel<D> for Tms<D> {
    fn modules(&self) -> &[Module<D>] {
        &self.modules
    }

    fn names(&self) -> Vec<String> {
        let mut names = vec!["linear1".to_owned(), "linear2".to_owned()];
        if self.config.n_hidden_layers > 0 {
            names.push("hidden_layers".to_owned());
            names.extend((0..self.config.n_hidden_layers).map(|i| format!("hidden_layers.{i}")));
        }
        names
    }

    fn forward(&self, graph: &Graph<D>, input: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D> {
        let mut h = input.clone();
        for module in 0..self.modules.len() {
            h = run(module, &h)?;
        }
        graph.relu(&h)
    }

    fn zero_rows_are_inert(&self) -> bool {
        // Only the last matrix has a bias, and nothing decomposed follows it.
        true
    }

    fn tied_modules(&self) -> Vec<(usize, usize)> {
        if self.config.tied_weights { vec![(0, self.modules.len() - 1)] } else { Vec::new() }
    }
}
