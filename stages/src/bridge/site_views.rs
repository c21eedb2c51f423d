//! What the kernels of a masked site read and where its gradients go, as views of a device's memory.

use std::sync::Arc;

use spdflow_kernels::philox::Stream;

use super::backend::{Buffers, Gradient};

/// The masks of a site's components as views; see `spdflow_kernels::masked_site::Mask`.
pub enum MaskView<D: Buffers> {
    /// All on.
    Ones,
    /// One mask for all rows, `[C]`.
    PerComponent(D::View),
    /// `[C, R]`.
    Full(D::View),
    /// Between the importances and one.
    Between {
        /// The lower causal importances, `[C, R]`.
        importance: D::View,
        /// How far towards one.
        source: SourceView<D>,
    },
}

/// The sources of masks; see `spdflow_kernels::masked_site::Source`.
pub enum SourceView<D: Buffers> {
    /// `[C, R]`.
    Given(D::View),
    /// `[C]`.
    Shared(D::View),
    /// Uniform draws.
    Drawn {
        /// Which ones.
        stream: Stream,
        /// The number of each row in the whole batch, `[R]`.
        rows: Arc<[u32]>,
    },
}

/// The inputs of a masked site as views; see `spdflow_kernels::masked_site`.
pub struct SiteViews<D: Buffers> {
    /// Rows of the batch.
    pub rows: usize,
    /// `Vᵀx`.
    pub activations: D::View,
    /// The components' masks.
    pub mask: MaskView<D>,
    /// U.
    pub u: D::View,
    /// `Wx`.
    pub frozen: Option<D::View>,
    /// The delta component's mask.
    pub delta_mask: Option<D::View>,
    /// Which rows go through the components.
    pub routing: Option<D::View>,
    /// The target's bias.
    pub bias: Option<D::View>,
}

/// Where a masked site's gradients go.
pub struct SiteGradients<'a, D: Buffers> {
    /// `Vᵀx`.
    pub activations: Option<&'a mut Gradient<D>>,
    /// A mask that is given.
    pub mask: Option<&'a mut Gradient<D>>,
    /// The causal importances.
    pub importance: Option<&'a mut Gradient<D>>,
    /// Sources that are given.
    pub source: Option<&'a mut Gradient<D>>,
    /// U.
    pub u: Option<&'a mut Gradient<D>>,
    /// `Wx`.
    pub frozen: Option<&'a mut Gradient<D>>,
    /// The delta component's mask.
    pub delta_mask: Option<&'a mut Gradient<D>>,
}
