//! The few numbers that describe a finished decomposition: what every model has, and what its own kind is judged by.

use super::config::DecomposeParams;
use super::export::matrices;
use super::model::ComponentModel;
use super::probe::probe;
use crate::artifact::ci_table::SiteCi;
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::Tensors;
use crate::bridge::{Backend, DeviceResult};
use crate::matrix::Matrix;
use crate::models::TargetConfig;
use crate::optimizer::parameters::Parameters;
use crate::solution::{
    active_components, features_with_own_component, frobenius_norms, model_contributions, significant_subnets,
    subnet_sizes, tms_geometry,
};

/// The size of a subnet above which the paper counts a component of a toy model of superposition (spec section 5.11).
const TMS_THRESHOLD: f64 = 0.017;

/// The Frobenius norm above which it counts one of a hidden layer.
const TMS_HIDDEN_THRESHOLD: f64 = 0.009;

/// Returns the numbers by name.
///
/// # Errors
/// The device's.
pub(super) fn headline<D: Backend>(
    device: &D,
    target: &TargetConfig,
    target_state: &Tensors,
    (model, parameters): (&ComponentModel<D>, &Parameters<D>),
    params: &DecomposeParams,
    metrics: &MetricLog,
) -> DeviceResult<Vec<(String, f64)>, D> {
    let copy = |to: &str, from: &str| metrics.last(from).map(|value| (to.to_owned(), value));
    let mut numbers = vec![("loss".to_owned(), metrics.last("train/loss/total").unwrap_or(f64::NAN))];
    numbers.extend(copy("identity_ci_error", "eval/target_solution_error/total"));
    numbers.extend(copy("identity_ci_error_0p2", "eval/target_solution_error/total_0p2"));
    let matrices = matrices(model, parameters);
    let components: Vec<(&str, &Components)> =
        model.sites().iter().map(|site| &site.plan.name[..]).zip(&matrices).collect();
    for (name, (v, u)) in &components {
        let chosen = params.evaluation.significance_threshold;
        let (sizes, threshold) = match target {
            TargetConfig::Tms(_) if name.starts_with("hidden_layers.") => {
                let chosen = params.evaluation.hidden_significance_threshold;
                (frobenius_norms(v, u), chosen.or(Some(TMS_HIDDEN_THRESHOLD)))
            }
            TargetConfig::Tms(_) => (subnet_sizes(v, u), chosen.or(Some(TMS_THRESHOLD))),
            TargetConfig::ResidMlp(_) | TargetConfig::InductionHead(_) => (frobenius_norms(v, u), chosen),
        };
        // No threshold is known for the others: what a norm means depends on the width of what a matrix reads and writes.
        if let Some(threshold) = threshold {
            let significant = significant_subnets(&sizes, threshold).len();
            numbers.push((format!("significant/{name}"), significant as f64));
        }
    }
    match target {
        TargetConfig::InductionHead(_) => {}
        TargetConfig::Tms(_) => numbers.extend(of_tms(&components, target_state)),
        TargetConfig::ResidMlp(config) => {
            let probes = probe(device, model, parameters, config.n_features, None)?;
            numbers.extend(of_resid_mlp(&components, target_state, &probes, params.evaluation.alive_threshold));
        }
    }
    for class in ["StochasticReconLoss", "FaithfulnessLoss"] {
        numbers.extend(copy(class, &format!("eval/loss/{class}")));
    }
    for (name, _) in components {
        let key = format!("l0/{:?}_{name}", params.evaluation.alive_threshold);
        numbers.extend(copy(&key, &format!("eval/{key}")));
    }
    Ok(numbers)
}

/// A site's V and U.
type Components = (Matrix, Matrix);

/// How well the components of `linear1` recover the features' vectors.
fn of_tms(components: &[(&str, &Components)], target_state: &Tensors) -> Vec<(String, f64)> {
    let Some((_, (v, u))) = components.iter().find(|(name, _)| *name == "linear1") else { return Vec::new() };
    let weight = target_state.matrix("linear1.weight").expect("the model was loaded from this state");
    let geometry = tms_geometry(&weight, v, u);
    vec![("mmcs".to_owned(), geometry.mean_max_cosine_similarity), ("ml2r".to_owned(), geometry.mean_l2_ratio)]
}

/// Whether each feature has a component of its own in the layers' first matrices, how many components act in the
/// second ones, and whether the neurons do in the components what they do in the target.
fn of_resid_mlp(
    components: &[(&str, &Components)],
    target_state: &Tensors,
    probes: &[SiteCi],
    alive_threshold: f64,
) -> Vec<(String, f64)> {
    let mut numbers = Vec::new();
    let of = |matrix: &'static str| probes.iter().filter(move |probe| probe.site.ends_with(matrix));
    let first: Vec<&Matrix> = of(".mlp_in").map(|probe| &probe.lower).collect();
    if !first.is_empty() {
        numbers.push(("features_with_own_component".to_owned(), features_with_own_component(&first) as f64));
    }
    if first.len() > 1 {
        // A feature may have one in every layer, and then it has none of its own in all of them together.
        numbers.extend(of(".mlp_in").map(|probe| {
            let name = format!("features_with_own_component/{}", probe.site);
            (name, features_with_own_component(&[&probe.lower]) as f64)
        }));
    }
    let second: Vec<(&str, usize)> =
        of(".mlp_out").map(|probe| (&probe.site[..], active_components(&probe.lower, alive_threshold))).collect();
    if !second.is_empty() {
        numbers.push(("active_mlp_out".to_owned(), second.iter().map(|(_, count)| *count as f64).sum()));
    }
    if second.len() > 1 {
        numbers.extend(second.iter().map(|(site, count)| (format!("active_mlp_out/{site}"), *count as f64)));
    }
    let site = |name: &str| components.iter().find(|(other, _)| *other == name).map(|(_, parts)| (*parts).clone());
    if let Some(found) = model_contributions(|name| target_state.matrix(name).ok(), site) {
        numbers.push(("neuron_contribution_correlation".to_owned(), found.correlation));
    }
    numbers
}
