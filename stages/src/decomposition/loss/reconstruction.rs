//! What all reconstruction losses share: masked passes and the error of their outputs.

use super::super::draws::{DrawKey, Draws};
use super::super::model::{ComponentMask, SiteMask};
use super::super::routing::Routing;
use super::super::step::{OutputLoss, Step};
use crate::bridge::{Backend, DeviceResult, Var};

/// How every site is masked in one pass; `None` leaves a site to the target.
pub(in crate::decomposition) type Masks<D> = Vec<Option<SiteMask<D>>>;

/// Returns the summed output error of a pass with these masks.
pub(in crate::decomposition) fn output_error<D: Backend>(
    step: &Step<'_, D>,
    masks: &Masks<D>,
) -> DeviceResult<Var<D>, D> {
    let pass = step.model.masked_pass(step.graph, step.leaves, &step.clean, masks)?;
    match step.settings.output_loss {
        OutputLoss::Mse => step.graph.squared_error(&pass.output, &step.clean.output),
        OutputLoss::Kl => step.graph.kl_divergence(&pass.output, &step.clean.output),
    }
}

/// Returns the mean of the passes whose summed errors are given: over all output elements for squared errors, over
/// positions for divergences (spec section 5.0).
pub(super) fn mean_output_error<D: Backend>(step: &Step<'_, D>, errors: Vec<Var<D>>) -> DeviceResult<Var<D>, D> {
    mean(step, errors, output_elements(step))
}

/// Returns how many elements the error of one pass is a sum over.
pub(in crate::decomposition) fn output_elements<D: Backend>(step: &Step<'_, D>) -> usize {
    match step.settings.output_loss {
        OutputLoss::Mse => step.positions * step.clean.output.shape().0,
        OutputLoss::Kl => step.positions,
    }
}

/// Returns the sum of `errors` over `elements` elements each.
pub(super) fn mean<D: Backend>(step: &Step<'_, D>, errors: Vec<Var<D>>, elements: usize) -> DeviceResult<Var<D>, D> {
    let coefficient = 1.0 / (elements * errors.len()) as f64;
    step.graph.combine(&errors.into_iter().map(|error| (coefficient, error)).collect::<Vec<_>>())
}

/// Returns only the mask of site `s`.
pub(super) fn only<D: Backend>(masks: &Masks<D>, s: usize) -> Masks<D> {
    masks.iter().enumerate().map(|(at, mask)| if at == s { mask.clone() } else { None }).collect()
}

/// Returns `masks` with the positions that `routing` sends to the target marked.
pub(super) fn routed<D: Backend>(
    step: &Step<'_, D>,
    key: DrawKey<'_>,
    routing: Routing,
    draws: &mut dyn Draws<D>,
    mut masks: Masks<D>,
) -> DeviceResult<Masks<D>, D> {
    let routes = draws.routing(step.graph, key, routing, masks.len())?;
    for (mask, route) in masks.iter_mut().zip(routes) {
        if let Some(mask) = mask {
            mask.routing = route;
        }
    }
    Ok(masks)
}

/// Returns masks equal to the lower causal importances, without delta component.
pub(super) fn importance_masks<D: Backend>(step: &Step<'_, D>) -> Masks<D> {
    step.importances
        .iter()
        .map(|importance| {
            Some(SiteMask { mask: ComponentMask::Full(importance.lower.clone()), delta: None, routing: None })
        })
        .collect()
}

/// Returns one draw of stochastic masks `g + (1 − g) r` for every site (spec section 4), with the delta component if
/// the step uses it.
pub(in crate::decomposition) fn stochastic_masks<D: Backend>(
    step: &Step<'_, D>,
    key: DrawKey<'_>,
    draws: &mut dyn Draws<D>,
) -> DeviceResult<Masks<D>, D> {
    stochastic_masks_with(step, key, step.settings.use_delta_component, draws)
}

/// As [`stochastic_masks`], with the delta component or without.
pub(in crate::decomposition) fn stochastic_masks_with<D: Backend>(
    step: &Step<'_, D>,
    key: DrawKey<'_>,
    use_delta_component: bool,
    draws: &mut dyn Draws<D>,
) -> DeviceResult<Masks<D>, D> {
    let mut masks = Vec::new();
    for (s, importance) in step.importances.iter().enumerate() {
        let components = importance.lower.shape().0;
        let source = draws.source(step.graph, key, s, components, step.settings.sampling)?;
        let mask = ComponentMask::Between(importance.lower.clone(), source);
        let delta = if use_delta_component { Some(draws.delta(step.graph, key, s)?) } else { None };
        masks.push(Some(SiteMask { mask, delta, routing: None }));
    }
    Ok(masks)
}
