//! Target models: the networks that are taken apart.
//!
//! A model lists its modules (the matrices that may be decomposed) and runs forward through a callback that stands in
//! for each module, so that the same forward serves the plain target, training, and any set of masked components.
//! Adding a model is a file here and a line in [`TargetConfig`].

mod artifact;
mod induction_head;
mod layer;
mod resid_mlp;
mod tms;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use crate::artifact::tensors::Tensors;
use crate::bridge::{Backend, DeviceResult, Graph, Var};

pub use artifact::{DESCRIPTION_FILE, LoadedTarget, TargetDescription, WEIGHTS_FILE};
pub use induction_head::{InductionHead, InductionHeadConfig, StateTensor, TensorRole};
pub use layer::{Embedding, Layer, LayerKind};
pub use resid_mlp::{Activation, EMBEDDING, ResidMlp, ResidMlpConfig, UNEMBEDDING};
pub use tms::{Tms, TmsConfig};

/// The configuration of a target model, as `target.json` records it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "config", rename_all = "snake_case")]
pub enum TargetConfig {
    /// A toy model of superposition.
    Tms(TmsConfig),
    /// A transformer with induction heads.
    InductionHead(InductionHeadConfig),
    /// A residual MLP.
    ResidMlp(ResidMlpConfig),
}

impl TargetConfig {
    /// Returns how many features a position of the input has; a token is one.
    #[must_use]
    pub fn n_features(&self) -> usize {
        match self {
            Self::Tms(config) => config.n_features,
            Self::InductionHead(_) => 1,
            Self::ResidMlp(config) => config.n_features,
        }
    }

    /// Returns the names and shapes of its state dict.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Tms(config) => config.tensors(),
            Self::InductionHead(config) => {
                config.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
            }
            Self::ResidMlp(config) => config.tensors(),
        }
    }

    /// Returns the model with the weights in `state`, as constants on `device`.
    ///
    /// # Errors
    /// [`StageError::Failed`] if a tensor is missing or has the wrong shape.
    pub fn load<D: Backend>(&self, device: &D, state: &Tensors) -> Result<Box<dyn TargetModel<D>>, StageError> {
        match self {
            Self::Tms(config) => Ok(Box::new(Tms::load(config.clone(), device, state)?)),
            Self::InductionHead(config) => Ok(Box::new(InductionHead::load(config.clone(), device, state)?)),
            Self::ResidMlp(config) => Ok(Box::new(ResidMlp::load(config.clone(), device, state)?)),
        }
    }
}

/// Returns the named tensors of a state dict as constants on `device`: matrices as they are, vectors as one column.
///
/// # Errors
/// [`StageError::Failed`] if a tensor is missing or has the wrong shape.
pub(crate) fn constants<D: Backend>(
    device: &D,
    state: &Tensors,
    tensors: Vec<(String, Vec<usize>)>,
) -> Result<Vec<Var<D>>, StageError> {
    let graph = Graph::detached(device);
    let load = |(name, shape): (String, Vec<usize>)| {
        let tensor = state.get(&name)?;
        if tensor.shape != shape {
            return Err(StageError::failed(format!(
                "tensor `{name}` has shape {:?}, the model needs {shape:?}",
                tensor.shape
            )));
        }
        graph.upload(tensor.data.clone(), as_matrix(&shape)).map_err(|error| StageError::failed(format!("{error:?}")))
    };
    tensors.into_iter().map(load).collect()
}

/// Returns the shape on the device of a state dict's tensor: vectors become one column.
pub(crate) fn as_matrix(shape: &[usize]) -> (usize, usize) {
    (shape[0], shape.get(1).copied().unwrap_or(1))
}

/// `y = W x + b`.
pub struct Linear<D: Backend> {
    /// `(d_out, d_in)`, PyTorch's layout.
    pub weight: Var<D>,
    /// `(d_out, 1)`.
    pub bias: Option<Var<D>>,
    /// The weight's transpose, where products are not multiplied out.
    transposed: Option<Var<D>>,
}

impl<D: Backend> Linear<D> {
    /// Returns the layer with these weights.
    #[must_use]
    pub fn new(weight: Var<D>, bias: Option<Var<D>>) -> Self {
        Self { weight, bias, transposed: None }
    }

    /// Returns the layer whose products stay factored ([`Graph::factored`]).
    ///
    /// # Errors
    /// The device's.
    pub fn factored(graph: &Graph<D>, weight: Var<D>) -> DeviceResult<Self, D> {
        let transposed = graph.transpose(&weight)?;
        Ok(Self { weight, bias: None, transposed: Some(transposed) })
    }

    /// Returns `(d_out, d_in)`.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        self.weight.shape()
    }

    /// Returns `W x`, without the bias.
    ///
    /// # Errors
    /// The device's.
    pub fn product(&self, graph: &Graph<D>, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        match &self.transposed {
            None => graph.apply(&self.weight, x),
            Some(transposed) => graph.factored(transposed, x),
        }
    }

    /// Returns `product + b`.
    ///
    /// # Errors
    /// The device's.
    pub fn finish(&self, graph: &Graph<D>, product: &Var<D>) -> DeviceResult<Var<D>, D> {
        self.bias.as_ref().map_or_else(|| Ok(product.clone()), |bias| graph.add_bias(product, bias))
    }
}

/// A named matrix of a model.
pub struct Module<D: Backend> {
    /// Its dotted path: `layers.0.mlp_in`.
    pub name: String,
    /// The layer.
    pub layer: Layer<D>,
}

/// Stands in for the modules while a model runs: called with a module's index and its input.
pub type RunModule<'a, D> = dyn FnMut(usize, &Var<D>) -> DeviceResult<Var<D>, D> + 'a;

/// A network whose modules can be replaced.
pub trait TargetModel<D: Backend>: Send + Sync {
    /// Returns the modules in the order in which they run.
    fn modules(&self) -> &[Module<D>];

    /// Returns all module names in registration order, containers too, as patterns are matched against them.
    fn names(&self) -> Vec<String>;

    /// Returns the output for `input` `(features, R)`, or `(1, R)` of tokens, asking `run` for each module's output.
    ///
    /// # Errors
    /// Those of `run` and of the device.
    fn forward(&self, graph: &Graph<D>, input: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D>;

    /// Returns whether an all-zero input row reaches every module as zeros, whatever components are masked there.
    ///
    /// If so, such a row's output does not depend on any mask, and only importance minimality sees it.
    fn zero_rows_are_inert(&self) -> bool;

    /// Returns the pairs of modules whose weights are each other's transpose in shared storage.
    fn tied_modules(&self) -> Vec<(usize, usize)>;
}

/// Runs the model as it is.
///
/// # Errors
/// The device's.
pub fn run_plain<D: Backend>(model: &dyn TargetModel<D>, graph: &Graph<D>, input: &Var<D>) -> DeviceResult<Var<D>, D> {
    model.forward(graph, input, &mut |module, x| run_module(model, graph, module, x))
}

/// Runs one module as it is.
///
/// # Errors
/// The device's.
pub fn run_module<D: Backend>(
    model: &dyn TargetModel<D>,
    graph: &Graph<D>,
    module: usize,
    x: &Var<D>,
) -> DeviceResult<Var<D>, D> {
    let layer = &model.modules()[module].layer;
    layer.finish(graph, &layer.product(graph, x)?)
}
