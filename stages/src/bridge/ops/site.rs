//! A decomposed matrix with its components masked.

use std::sync::Arc;

use spdflow_kernels::philox::Stream;

use super::super::backend::Backend;
use super::super::graph::{DeviceResult, Graph, Var};
use super::super::site_views::{MaskView, SiteGradients, SiteViews, SourceView};

/// The masks of a site's components.
pub enum MaskInput<'a, D: Backend> {
    /// All on.
    Ones,
    /// One mask for all rows, `(C, 1)`.
    PerComponent(&'a Var<D>),
    /// A mask for each component and row, `(C, R)`.
    Full(&'a Var<D>),
    /// `g + (1 − g) r` (spec section 4).
    Between {
        /// The lower causal importance `g`, `(C, R)`.
        importance: &'a Var<D>,
        /// `r`.
        source: &'a MaskSource<D>,
    },
}

/// How far masks go from the causal importances towards one.
pub enum MaskSource<D: Backend> {
    /// `(C, R)`, or `(C, 1)` for all rows.
    Given(Var<D>),
    /// Uniform draws, made where they are needed and never stored.
    Drawn {
        /// Which ones.
        stream: Stream,
        /// The number of each row in the whole batch.
        rows: Arc<[u32]>,
    },
}

impl<D: Backend> Clone for MaskSource<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Given(source) => Self::Given(source.clone()),
            Self::Drawn { stream, rows } => Self::Drawn { stream: *stream, rows: Arc::clone(rows) },
        }
    }
}

/// How far a masked site is computed.
#[derive(Clone, Copy)]
enum Part {
    Output,
    Activations,
}

/// What [`Graph::masked_site`] is computed from; see `spdflow_kernels::masked_site` for the formula.
pub struct SiteInputs<'a, D: Backend> {
    /// `Vᵀx`, `(C, R)`.
    pub activations: &'a Var<D>,
    /// The components' masks.
    pub mask: MaskInput<'a, D>,
    /// `(C, d_out)`.
    pub u: &'a Var<D>,
    /// `Wx`, `(d_out, R)`.
    pub frozen: Option<&'a Var<D>>,
    /// `(1, R)`.
    pub delta_mask: Option<&'a Var<D>>,
    /// `(1, R)`, zeros and ones, a constant.
    pub routing: Option<&'a Var<D>>,
    /// `(d_out, 1)`, a constant.
    pub bias: Option<&'a Var<D>>,
}

impl<D: Backend> Graph<D> {
    /// Returns the site's output `(d_out, R)`.
    pub fn masked_site(&self, inputs: &SiteInputs<'_, D>) -> DeviceResult<Var<D>, D> {
        self.masked(inputs, Part::Output)
    }

    /// Returns what U is applied to, `(C, R)`: `route ⊙ a ⊙ (m − d)`. U, `Wx` and the bias are not read.
    pub fn masked_activations(&self, inputs: &SiteInputs<'_, D>) -> DeviceResult<Var<D>, D> {
        self.masked(inputs, Part::Activations)
    }

    fn masked(&self, inputs: &SiteInputs<'_, D>, part: Part) -> DeviceResult<Var<D>, D> {
        let rows = inputs.activations.shape().1;
        let (mut mask, mut importance, mut source) = (None, None, None);
        let mask_view = match inputs.mask {
            MaskInput::Ones => MaskView::Ones,
            MaskInput::PerComponent(given) => {
                mask = Some(given);
                MaskView::PerComponent(given.view().clone())
            }
            MaskInput::Full(given) => {
                mask = Some(given);
                MaskView::Full(given.view().clone())
            }
            MaskInput::Between { importance: lower, source: from } => {
                importance = Some(lower);
                let from = match from {
                    MaskSource::Given(given) => {
                        source = Some(given);
                        let view = given.view().clone();
                        if given.shape().1 == rows { SourceView::Given(view) } else { SourceView::Shared(view) }
                    }
                    MaskSource::Drawn { stream, rows } => SourceView::Drawn { stream: *stream, rows: Arc::clone(rows) },
                };
                MaskView::Between { importance: lower.view().clone(), source: from }
            }
        };
        let view = |value: Option<&Var<D>>| value.map(|value| value.view().clone());
        let views = SiteViews::<D> {
            rows,
            activations: inputs.activations.view().clone(),
            mask: mask_view,
            u: inputs.u.view().clone(),
            frozen: view(inputs.frozen),
            delta_mask: view(inputs.delta_mask),
            routing: view(inputs.routing),
            bias: view(inputs.bias),
        };
        let out = match part {
            Part::Output => self.device().masked_site(&views, (inputs.u.shape().1, rows))?,
            Part::Activations => self.device().masked_activations(&views, inputs.activations.shape())?,
        };
        let mut order = vec![inputs.activations];
        let (u, frozen) = match part {
            Part::Output => (Some(inputs.u), inputs.frozen),
            Part::Activations => (None, None),
        };
        let optional = [u, mask, importance, source, frozen, inputs.delta_mask];
        let [u_at, mask_at, importance_at, source_at, frozen_at, delta_at] = optional.map(|value| {
            order.extend(value);
            value.map(|_| order.len() - 1)
        });
        self.push(out, &order, move |device, grad_out, grads| {
            let mut grads: Vec<_> = grads.iter_mut().map(Option::as_mut).collect();
            let mut at = |position: Option<usize>| position.and_then(|position| grads[position].take());
            let wanted = SiteGradients {
                activations: at(Some(0)),
                u: at(u_at),
                mask: at(mask_at),
                importance: at(importance_at),
                source: at(source_at),
                frozen: at(frozen_at),
                delta_mask: at(delta_at),
            };
            match part {
                Part::Output => device.masked_site_backward(&views, grad_out, wanted),
                Part::Activations => device.masked_activations_backward(&views, grad_out, wanted),
            }
        })
    }
}
