//! The matrices V and U of every site, components in the order of their upper-leaky heat map (reference `UVPlots`).

use super::PlotParams;
use super::causal_importance::order;
use super::inputs::Decomposition;
use crate::figure::{Figure, weight_maps};
use crate::matrix::Matrix;

/// Returns the figure, or `None` if no decomposition has a probe that orders its components.
pub(super) fn figure(decompositions: &[Decomposition], params: &PlotParams) -> Option<Figure> {
    let mut sites: Vec<(String, Matrix, Matrix)> = Vec::new();
    for decomposition in decompositions {
        for ci in decomposition.ci.iter().flat_map(|table| &table.sites) {
            let Some(site) = decomposition.sites.iter().find(|site| site.name == ci.site) else { continue };
            let order = order(&site.name, &ci.upper, params);
            if site.v.cols() == order.len() {
                let (v, u) = (site.v.with_columns(&order), site.u.transposed().with_columns(&order));
                sites.push((format!("{}, {}", site.name, decomposition.title), v, u));
            }
        }
    }
    weight_maps(sites)
}
