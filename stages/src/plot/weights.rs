//! The matrices V and U of every site, components in the order of their upper-leaky heat map (reference `UVPlots`).

use super::PlotParams;
use super::causal_importance::order;
use super::inputs::Decomposition;
use crate::figure::{ColorBar, ColorMap, FULL_WIDTH, Figure, Panel, Row};
use crate::matrix::Matrix;

/// Above this many numbers in one matrix a heat map shows nothing any more.
const MOST_ENTRIES: usize = 400_000;

/// Returns the figure, or `None` if no decomposition has a probe that orders its components.
pub(super) fn figure(decompositions: &[Decomposition], params: &PlotParams) -> Option<Figure> {
    let mut pairs: Vec<(String, Matrix, Matrix)> = Vec::new();
    for decomposition in decompositions {
        for ci in decomposition.ci.iter().flat_map(|table| &table.sites) {
            let Some(site) = decomposition.sites.iter().find(|site| site.name == ci.site) else { continue };
            let order = order(&site.name, &ci.upper, params);
            if site.v.cols() == order.len() && site.v.data().len().max(site.u.data().len()) <= MOST_ENTRIES {
                let (v, u) = (site.v.with_columns(&order), site.u.transposed().with_columns(&order));
                pairs.push((format!("{}, {}", site.name, decomposition.title), v, u));
            }
        }
    }
    // One scale for everything, the same in both directions.
    let entries = pairs.iter().flat_map(|(_, v, u)| v.data().iter().chain(u.data()));
    let largest = f64::from(entries.fold(0.0_f32, |largest, value| largest.max(value.abs())));
    if largest == 0.0 {
        return None;
    }
    let range = (-largest, largest);
    let count = pairs.len();
    let rows = pairs
        .into_iter()
        .enumerate()
        .map(|(i, (name, v, u))| {
            let height = (v.rows().max(u.rows()) as f64 * 8.0).clamp(36.0, 120.0);
            let panel = |title: String, matrix: Matrix, label: &str| {
                let mut panel = Panel::heat_map(title, matrix, ColorMap::Diverging, range);
                panel.y.label = label.to_owned();
                if i + 1 == count {
                    panel.x.label = "subcomponent (reordered)".to_owned();
                }
                Some(panel)
            };
            let panels = vec![panel(format!("V of {name}"), v, "input"), panel(format!("U of {name}"), u, "output")];
            Row { height, panels }
        })
        .collect();
    let mut figure = Figure::new("Input and output vectors of subcomponents", FULL_WIDTH, rows);
    figure.color_bar = Some(ColorBar { map: ColorMap::Diverging, range, label: "weight".to_owned() });
    Some(figure)
}
