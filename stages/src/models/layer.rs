//! The layers that can be decomposed: linear maps and embeddings (spec section 2.1).
//!
//! Both are one matrix from inputs to outputs, `W [d_out, d_in]`: an embedding's input is the token as a one-hot vector
//! of the vocabulary, so that V is `[vocab, C]`, the product looks up a row, and everything else is as for a linear map.
//! A Conv1D of the Hugging Face models is a linear map that is stored transposed.

use super::Linear;
use crate::bridge::{Backend, DeviceResult, Graph, Var};

/// What kind of layer a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A linear map.
    Linear,
    /// A table of token vectors.
    Embedding,
}

/// A layer that can be decomposed.
pub enum Layer<D: Backend> {
    /// `y = W x + b`.
    Linear(Linear<D>),
    /// `y = table[x]`.
    Embedding(Embedding<D>),
}

/// `y = table[x]`.
pub struct Embedding<D: Backend> {
    /// `(vocab, d)`, PyTorch's layout.
    pub table: Var<D>,
}

impl<D: Backend> From<Linear<D>> for Layer<D> {
    fn from(linear: Linear<D>) -> Self {
        Self::Linear(linear)
    }
}

impl<D: Backend> Linear<D> {
    /// Returns the layer `y = x W + b` of a Conv1D, whose weight is stored as `(d_in, d_out)`.
    ///
    /// # Errors
    /// The device's.
    pub fn from_conv1d(graph: &Graph<D>, weight: &Var<D>, bias: Option<Var<D>>) -> DeviceResult<Self, D> {
        Ok(Self::new(graph.transpose(weight)?, bias))
    }
}

impl<D: Backend> Layer<D> {
    /// Returns what kind of layer it is.
    #[must_use]
    pub fn kind(&self) -> LayerKind {
        match self {
            Self::Linear(_) => LayerKind::Linear,
            Self::Embedding(_) => LayerKind::Embedding,
        }
    }

    /// Returns `(d_out, d_in)`; an embedding's inputs are the tokens of its vocabulary.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Linear(linear) => linear.shape(),
            Self::Embedding(embedding) => (embedding.table.shape().1, embedding.table.shape().0),
        }
    }

    /// Returns the matrix `(d_out, d_in)`.
    ///
    /// # Errors
    /// The device's.
    pub fn matrix(&self, graph: &Graph<D>) -> DeviceResult<Var<D>, D> {
        match self {
            Self::Linear(linear) => Ok(linear.weight.clone()),
            Self::Embedding(embedding) => graph.transpose(&embedding.table),
        }
    }

    /// Returns the bias `(d_out, 1)`.
    #[must_use]
    pub fn bias(&self) -> Option<&Var<D>> {
        match self {
            Self::Linear(linear) => linear.bias.as_ref(),
            Self::Embedding(_) => None,
        }
    }

    /// Returns whether its products stay factored: all who read them are linear, and so may its components' be.
    #[must_use]
    pub fn is_factored(&self) -> bool {
        matches!(self, Self::Linear(linear) if linear.transposed.is_some())
    }

    /// Returns `W x`, without the bias.
    ///
    /// # Errors
    /// The device's.
    pub fn product(&self, graph: &Graph<D>, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        match self {
            Self::Linear(linear) => linear.product(graph, x),
            Self::Embedding(embedding) => graph.embed(&embedding.table, x),
        }
    }

    /// Returns `product + b`.
    ///
    /// # Errors
    /// The device's.
    pub fn finish(&self, graph: &Graph<D>, product: &Var<D>) -> DeviceResult<Var<D>, D> {
        match self {
            Self::Linear(linear) => linear.finish(graph, product),
            Self::Embedding(_) => Ok(product.clone()),
        }
    }
}

impl LayerKind {
    /// Returns what `V [d_in, C]` makes of the layer's input: the component activations `Vᵀx`, or `V[x]` of a token.
    ///
    /// # Errors
    /// The device's.
    pub fn activations<D: Backend>(self, graph: &Graph<D>, v: &Var<D>, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        match self {
            Self::Linear => graph.apply_transposed(v, x),
            Self::Embedding => graph.embed(v, x),
        }
    }
}
