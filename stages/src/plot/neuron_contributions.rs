//! What the neurons of a residual MLP do for each feature, in the target and in its components (SPD paper, Figures 6
//! and 7).

use serde::Serialize;

use super::inputs::Decomposition;
use crate::figure::resid_mlp::{FEATURES_SHOWN, Layers, contribution_scatter, neuron_contributions, scatter_figure};
use crate::figure::{Figure, Panel};
use crate::matrix::Matrix;
use crate::solution::NeuronContributions;

/// The title of the scatter figure.
pub(super) const SCATTER_TITLE: &str = "Neuron contributions in components and target";

/// What the figures show, in numbers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ContributionReport {
    /// Pearson's correlation between target and components, over all layers, features and neurons.
    correlation: f64,
    /// For each layer and feature the component that serves it best.
    components: Vec<Vec<usize>>,
}

/// Returns the contributions to the first features: the target's, then those of each decomposition's components.
pub(super) fn figure(decompositions: &[Decomposition]) -> Option<Figure> {
    // All decompositions have the same target.
    let (_, first) = contributions(decompositions).next()?;
    let features = first.target.first().map_or(0, Matrix::rows).min(FEATURES_SHOWN);
    let target = layers(first, &first.target);
    let rows: Vec<(String, Vec<(usize, Matrix)>)> = contributions(decompositions)
        .map(|(title, found)| (format!("components, {title}"), layers(found, &found.components)))
        .collect();
    let mut all: Vec<(&str, &Layers)> = vec![("target", &target)];
    all.extend(rows.iter().map(|(title, layers)| (&title[..], &layers[..])));
    Some(neuron_contributions(&format!("Neuron contributions to the first {features} features"), &all))
}

/// Returns the components' contributions against the target's, a panel for each decomposition.
pub(super) fn scatter(decompositions: &[Decomposition]) -> Option<Figure> {
    let panel = |(title, found): (&str, &NeuronContributions)| {
        let (target, components) = (layers(found, &found.target), layers(found, &found.components));
        contribution_scatter(title, &target, &components, found.correlation)
    };
    let panels: Vec<Panel> = contributions(decompositions).map(panel).collect();
    if panels.is_empty() {
        return None;
    }
    let known = contributions(decompositions).flat_map(|(_, found)| found.layers.iter().copied());
    Some(scatter_figure(SCATTER_TITLE, panels, known))
}

/// Returns the numbers of a decomposition.
pub(super) fn report(decomposition: &Decomposition) -> Option<ContributionReport> {
    let found = decomposition.contributions.as_ref()?;
    Some(ContributionReport { correlation: found.correlation, components: found.chosen.clone() })
}

fn contributions(decompositions: &[Decomposition]) -> impl Iterator<Item = (&str, &NeuronContributions)> {
    decompositions
        .iter()
        .filter_map(|decomposition| Some((decomposition.title.as_str(), decomposition.contributions.as_ref()?)))
}

fn layers(found: &NeuronContributions, matrices: &[Matrix]) -> Vec<(usize, Matrix)> {
    found.layers.iter().copied().zip(matrices.iter().cloned()).collect()
}
