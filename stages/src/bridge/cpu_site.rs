//! A masked site's views as the slices that its kernel reads and writes.

use dfdx::prelude::Cpu;
use spdflow_kernels::masked_site::{Gradients, Inputs, Mask, Source};

use super::backend::Gradient;
use super::site_views::{MaskView, SiteGradients, SiteViews, SourceView};

/// Returns the gradients as slices.
pub(super) fn site_gradients<'a>(grads: SiteGradients<'a, Cpu>) -> Gradients<'a> {
    Gradients {
        activations: grads.activations.map(Gradient::parts),
        mask: grads.mask.map(Gradient::parts),
        importance: grads.importance.map(Gradient::parts),
        source: grads.source.map(Gradient::parts),
        u: grads.u.map(Gradient::parts),
        frozen: grads.frozen.map(Gradient::parts),
        delta_mask: grads.delta_mask.map(Gradient::sum),
    }
}

/// Returns the inputs as slices.
pub(super) fn site(inputs: &SiteViews<Cpu>) -> Inputs<'_> {
    Inputs {
        rows: inputs.rows,
        activations: &inputs.activations,
        mask: match &inputs.mask {
            MaskView::Ones => Mask::Ones,
            MaskView::PerComponent(mask) => Mask::PerComponent(mask),
            MaskView::Full(mask) => Mask::Full(mask),
            MaskView::Between { importance, source } => Mask::Between {
                importance,
                source: match source {
                    SourceView::Given(source) => Source::Given(source),
                    SourceView::Shared(source) => Source::Shared(source),
                    SourceView::Drawn { stream, rows } => Source::Drawn { stream: *stream, rows },
                },
            },
        },
        u: &inputs.u,
        frozen: inputs.frozen.as_ref().map(|v| &v[..]),
        delta_mask: inputs.delta_mask.as_ref().map(|v| &v[..]),
        routing: inputs.routing.as_ref().map(|v| &v[..]),
        bias: inputs.bias.as_ref().map(|v| &v[..]),
    }
}
