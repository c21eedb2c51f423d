//! Heat maps of the one-hot probe: which component answers for which feature (reference `PermutedCIPlots`).
//!
//! A good decomposition shows a clean diagonal where each feature has its own component, and a few full columns where
//! components act together.

use super::PlotParams;
use super::inputs::Decomposition;
use crate::artifact::ci_table::SiteCi;
use crate::figure::{ColorMap, Figure, importance_maps};
use crate::matrix::Matrix;
use crate::pattern;
use crate::solution::shown_order;

/// Returns the heat maps of the importances that masks are made of.
pub(super) fn lower(decompositions: &[Decomposition], params: &PlotParams) -> Option<Figure> {
    let title = "Causal importances for one-hot inputs of 0.75";
    figure(decompositions, params, title, ColorMap::Blues, |ci| &ci.lower)
}

/// Returns the heat maps of the importances that importance minimality sees; each has its own order.
pub(super) fn upper(decompositions: &[Decomposition], params: &PlotParams) -> Option<Figure> {
    let title = "Upper-leaky causal importances for one-hot inputs of 0.75";
    figure(decompositions, params, title, ColorMap::Reds, |ci| &ci.upper)
}

/// Returns the order of components in the heat maps of [`lower`], by site.
pub(super) fn orders(decomposition: &Decomposition, params: &PlotParams) -> Vec<(String, Vec<usize>)> {
    let sites = decomposition.ci.iter().flat_map(|table| &table.sites);
    sites.map(|ci| (ci.site.clone(), order(&ci.site, &ci.lower, params))).collect()
}

/// Returns the order of components that shows `ci` [inputs, C] of `site` best.
pub(super) fn order(site: &str, ci: &Matrix, params: &PlotParams) -> Vec<usize> {
    shown_order(ci, params.dense_patterns.iter().any(|text| pattern::matches(text, site)))
}

fn figure(
    decompositions: &[Decomposition],
    params: &PlotParams,
    title: &str,
    map: ColorMap,
    importances: fn(&SiteCi) -> &Matrix,
) -> Option<Figure> {
    let tables: Vec<(&str, &[SiteCi])> = decompositions
        .iter()
        .filter_map(|decomposition| Some((decomposition.title.as_str(), decomposition.ci.as_ref()?.sites.as_slice())))
        .filter(|(_, sites)| !sites.is_empty())
        .collect();
    let row = |(name, sites): &(&str, &[SiteCi])| {
        let ordered = |ci: &SiteCi| {
            let matrix = importances(ci);
            Some((format!("{}, {name}", ci.site), matrix.with_columns(&order(&ci.site, matrix, params))))
        };
        sites.iter().map(ordered).collect()
    };
    importance_maps(title, tables.iter().map(row).collect(), map)
}
