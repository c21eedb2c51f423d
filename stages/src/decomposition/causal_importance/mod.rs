//! Causal-importance functions: how important is each component for this input? (spec section 3)
//!
//! Every site has its own network. It reads what the *unmasked* target feeds the site, and its output, squashed in two
//! ways, gives the lower importance (masks, L0, pictures) and the upper one (importance minimality only).
//! Adding a function is a file here and a line in [`CausalImportance`].

mod mlp;
mod shared_mlp;
mod vector_mlp;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_kernels::sigmoid::Sigmoid;

use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::models::LayerKind;

/// Which network computes the causal importances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "kind")]
pub enum CausalImportance {
    /// One small private network per component, reading the component's own activation.
    Mlp(HiddenLayers),
    /// One network per component, all reading the site's input vector.
    VectorMlp(HiddenLayers),
    /// One network for the whole site, from its input vector to all components.
    SharedMlp(HiddenLayers),
}

/// The sizes of a network's hidden layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HiddenLayers {
    /// Units in each hidden layer, first to last.
    pub hidden: Vec<usize>,
}

/// What a site's network reads.
pub struct NetworkInput<'a, D: Backend> {
    /// The site's input, `(d_in, R)`.
    pub input: &'a Var<D>,
    /// The component activations `Vᵀx`, `(C, R)`.
    pub activations: &'a Var<D>,
}

/// A tensor of a network: its place in the state dict, its shapes, and how it starts.
pub struct NetworkTensor {
    /// Its key below `_ci_fns.SITE`: `layers.0.W`.
    pub key: String,
    /// Its shape in the state dict.
    pub shape: Vec<usize>,
    /// Its shape on the device.
    pub matrix: (usize, usize),
    /// The standard deviation of its initial entries; biases start at zero.
    pub init_std: f64,
}

/// Gain of a layer that a GELU follows, and of the last layer (spec section 3.1).
const HIDDEN_GAIN: f64 = std::f64::consts::SQRT_2;
const OUTPUT_GAIN: f64 = 1.0;

impl CausalImportance {
    /// Returns the sizes of the hidden layers.
    #[must_use]
    pub fn hidden(&self) -> &[usize] {
        match self {
            Self::Mlp(layers) | Self::VectorMlp(layers) | Self::SharedMlp(layers) => &layers.hidden,
        }
    }

    /// Returns what is wrong with the configuration, if anything.
    #[must_use]
    pub fn mistake(&self) -> Option<String> {
        if let Some(position) = self.hidden().iter().position(|units| *units == 0) {
            return Some(format!("hidden layer {position} has no units, expected at least 1"));
        }
        let needs_hidden = !matches!(self, Self::SharedMlp(_));
        (needs_hidden && self.hidden().is_empty()).then(|| "needs at least one hidden layer, found none".to_owned())
    }

    /// Returns why the networks cannot read what these sites read, if so: an embedding reads tokens, not vectors.
    pub fn unfit<'a>(&self, mut sites: impl Iterator<Item = (&'a str, LayerKind)>) -> Option<String> {
        let found = match self {
            Self::Mlp(_) => return None,
            Self::VectorMlp(_) => "vector_mlp",
            Self::SharedMlp(_) => "shared_mlp",
        };
        let (site, _) = sites.find(|(_, kind)| *kind == LayerKind::Embedding)?;
        Some(format!("site `{site}` is an embedding, which reads tokens: expected `mlp`, found `{found}`"))
    }

    /// Returns the tensors of the network of a site, in the order of the state dict.
    #[must_use]
    pub fn tensors(&self, d_in: usize, components: usize) -> Vec<NetworkTensor> {
        match self {
            Self::Mlp(layers) => mlp::tensors(&layers.hidden, components),
            Self::VectorMlp(layers) => vector_mlp::tensors(&layers.hidden, d_in, components),
            Self::SharedMlp(layers) => shared_mlp::tensors(&layers.hidden, d_in, components),
        }
    }

    /// Returns the network's outputs before any squashing, `(C, R)`.
    ///
    /// # Errors
    /// The device's.
    pub fn logits<D: Backend>(
        &self,
        graph: &Graph<D>,
        input: &NetworkInput<'_, D>,
        weights: &[Var<D>],
    ) -> DeviceResult<Var<D>, D> {
        match self {
            Self::Mlp(_) => mlp::logits(graph, input.activations, weights),
            Self::VectorMlp(_) => vector_mlp::logits(graph, input.input, weights),
            Self::SharedMlp(_) => shared_mlp::logits(graph, input.input, weights),
        }
    }
}

/// Which squashing functions turn a network's output into importances (spec section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SigmoidType {
    /// The lower and the upper leaky-hard sigmoid.
    #[default]
    LeakyHard,
    /// The logistic function for both.
    Normal,
    /// A clamp for both.
    Hard,
    /// The upper leaky-hard sigmoid for both.
    UpperLeakyHard,
    /// A smooth hard sigmoid for both.
    SwishHard,
}

/// The leak of the leaky-hard sigmoids.
const LEAK: f32 = 0.01;

impl SigmoidType {
    /// Returns the functions for the lower and for the upper importance.
    #[must_use]
    pub fn functions(self) -> (Sigmoid, Sigmoid) {
        let both = |function| (function, function);
        match self {
            Self::LeakyHard => (Sigmoid::LowerLeakyHard { alpha: LEAK }, Sigmoid::UpperLeakyHard { alpha: LEAK }),
            Self::Normal => both(Sigmoid::Normal),
            Self::Hard => both(Sigmoid::Hard),
            Self::UpperLeakyHard => both(Sigmoid::UpperLeakyHard { alpha: LEAK }),
            Self::SwishHard => both(Sigmoid::SWISH_HARD),
        }
    }
}

/// The causal importances of one site, each `(C, R)`.
pub struct Importance<D: Backend> {
    /// The network's output.
    pub pre_sigmoid: Var<D>,
    /// In [0, 1] (leaky-hard): for masks, L0 and pictures.
    pub lower: Var<D>,
    /// For importance minimality only.
    pub upper: Var<D>,
}

/// Weight of the logit, and of the noise taken off it, under binomial sampling (spec section 3.3).
const BINOMIAL_LOGIT: f32 = 1.05;
const BINOMIAL_NOISE: f32 = -0.05;

impl<D: Backend> Importance<D> {
    /// Squashes a network's output; `noise` `(C, R)` is given under binomial sampling and enters the lower one only.
    ///
    /// # Errors
    /// The device's.
    pub fn new(
        graph: &Graph<D>,
        sigmoid: SigmoidType,
        pre_sigmoid: Var<D>,
        noise: Option<&Var<D>>,
    ) -> DeviceResult<Self, D> {
        let (lower, upper) = sigmoid.functions();
        let lower = match noise {
            None => graph.sigmoid(lower, &pre_sigmoid)?,
            Some(noise) => graph.sigmoid(lower, &graph.blend(&pre_sigmoid, BINOMIAL_LOGIT, noise, BINOMIAL_NOISE)?)?,
        };
        let upper = graph.sigmoid(upper, &pre_sigmoid)?;
        Ok(Self { pre_sigmoid, lower, upper })
    }
}

/// Returns the weight and bias tensors of `C` layers side by side, `inputs` to `outputs`.
fn grouped_layer(position: usize, components: usize, inputs: usize, outputs: usize, gain: f64) -> [NetworkTensor; 2] {
    [
        NetworkTensor {
            key: format!("layers.{}.W", 2 * position),
            shape: vec![components, inputs, outputs],
            matrix: (components, inputs * outputs),
            init_std: gain / (inputs as f64).sqrt(),
        },
        NetworkTensor {
            key: format!("layers.{}.b", 2 * position),
            shape: vec![components, outputs],
            matrix: (components, outputs),
            init_std: 0.0,
        },
    ]
}

/// Returns the tensors of grouped layers from `inputs` over `hidden` to one output per component.
fn grouped_network(hidden: &[usize], inputs: usize, components: usize) -> Vec<NetworkTensor> {
    let mut tensors = Vec::new();
    let mut width = inputs;
    for (position, units) in hidden.iter().enumerate() {
        tensors.extend(grouped_layer(position, components, width, *units, HIDDEN_GAIN));
        width = *units;
    }
    tensors.extend(grouped_layer(hidden.len(), components, width, 1, OUTPUT_GAIN));
    tensors
}

/// Runs grouped layers with a GELU between them; the first reads `input` shared by all components if `shared`.
fn grouped_logits<D: Backend>(
    graph: &Graph<D>,
    input: &Var<D>,
    weights: &[Var<D>],
    shared: bool,
) -> DeviceResult<Var<D>, D> {
    let layers: Vec<&[Var<D>]> = weights.chunks(2).collect();
    let mut x = input.clone();
    for (position, layer) in layers.iter().enumerate() {
        x = graph.grouped_linear(&x, &layer[0], &layer[1], shared && position == 0)?;
        if position + 1 < layers.len() {
            x = graph.gelu(&x)?;
        }
    }
    Ok(x)
}
