//! Heat maps of the one-hot probe: which component answers for which feature (reference `PermutedCIPlots`).
//!
//! A good decomposition shows a clean diagonal where each feature has its own component, and a few full columns where
//! components act together.

use super::PlotParams;
use super::inputs::Decomposition;
use crate::artifact::ci_table::SiteCi;
use crate::figure::{ColorBar, ColorMap, FULL_WIDTH, Figure, Panel, Row};
use crate::matrix::Matrix;
use crate::pattern;
use crate::solution::{Assignment, dense_permutation, identity_permutation};

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
    if !ci.data().iter().all(|value| value.is_finite()) {
        // A diverged decomposition is still worth a look, in its own order.
        return (0..ci.cols()).collect();
    }
    if params.dense_patterns.iter().any(|text| pattern::matches(text, site)) {
        dense_permutation(ci)
    } else {
        identity_permutation(ci, Assignment::Auto)
    }
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
    let all = || tables.iter().flat_map(|(_, sites)| sites.iter()).map(importances);
    // One colour scale for everything, from 0 to at least 1: upper-leaky values exceed 1 a little.
    let highest = all().flat_map(|ci| ci.data()).fold(1.0_f32, |highest, value| highest.max(*value));
    let range = (0.0, f64::from(highest));
    let most_rows = all().map(Matrix::rows).max()?;
    let height = (most_rows as f64 * 9.0).clamp(54.0, 150.0);
    let rows = tables
        .iter()
        .enumerate()
        .map(|(i, (name, sites))| {
            let panel = |(c, ci): (usize, &SiteCi)| {
                let ordered = importances(ci).with_columns(&order(&ci.site, importances(ci), params));
                let mut panel = Panel::heat_map(format!("{}, {name}", ci.site), ordered, map, range);
                if c == 0 {
                    panel.y.label = "input feature".to_owned();
                }
                if i + 1 == tables.len() {
                    panel.x.label = "subcomponent (reordered)".to_owned();
                }
                Some(panel)
            };
            Row { height, panels: sites.iter().enumerate().map(panel).collect() }
        })
        .collect();
    let mut figure = Figure::new(title, FULL_WIDTH, rows);
    figure.has_letters = true;
    figure.color_bar = Some(ColorBar { map, range, label: "causal importance".to_owned() });
    Some(figure)
}
