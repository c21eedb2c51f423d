//! A decomposed matrix with its components masked.

use super::super::backend::{Backend, SiteGradients, SiteViews};
use super::super::graph::{DeviceResult, Graph, Var};

/// The masks of a site's components.
pub enum MaskInput<'a, D: Backend> {
    /// All on.
    Ones,
    /// One mask for all rows, `(C, 1)`.
    PerComponent(&'a Var<D>),
    /// A mask for each component and row, `(C, R)`.
    Full(&'a Var<D>),
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
        let rows = inputs.activations.shape().1;
        let shape = (inputs.u.shape().1, rows);
        let (mask, broadcast) = match inputs.mask {
            MaskInput::Ones => (None, false),
            MaskInput::PerComponent(mask) => (Some(mask), true),
            MaskInput::Full(mask) => (Some(mask), false),
        };
        let view = |value: Option<&Var<D>>| value.map(|value| value.view().clone());
        let views = SiteViews::<D> {
            rows,
            activations: inputs.activations.view().clone(),
            mask: mask.map(|mask| (mask.view().clone(), broadcast)),
            u: inputs.u.view().clone(),
            frozen: view(inputs.frozen),
            delta_mask: view(inputs.delta_mask),
            routing: view(inputs.routing),
            bias: view(inputs.bias),
        };
        let out = self.device().masked_site(&views, shape)?;
        let mut order = vec![inputs.activations, inputs.u];
        let [mask_at, frozen_at, delta_at] = [mask, inputs.frozen, inputs.delta_mask].map(|value| {
            order.extend(value);
            value.map(|_| order.len() - 1)
        });
        self.push(out, &order, move |device, grad_out, grads| {
            let mut grads: Vec<_> = grads.iter_mut().map(Option::as_mut).collect();
            let mut at = |position: Option<usize>| position.and_then(|position| grads[position].take());
            let wanted = SiteGradients {
                activations: at(Some(0)),
                u: at(Some(1)),
                mask: at(mask_at),
                frozen: at(frozen_at),
                delta_mask: at(delta_at),
            };
            device.masked_site_backward(&views, grad_out, wanted)
        })
    }
}
