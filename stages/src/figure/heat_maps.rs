//! Heat maps of causal importances and of V and U, as the evaluation of a run and the stage `plot` draw them.

use super::grid::label_edges;
use super::{ColorBar, ColorMap, FULL_WIDTH, Figure, ONE_COLUMN, Panel, Row};
use crate::matrix::Matrix;

const SUBCOMPONENT: &str = "subcomponent (reordered)";

/// Above this many numbers in one matrix a heat map shows nothing any more.
const MOST_ENTRIES: usize = 400_000;

/// Returns heat maps of causal importances `[inputs, C]` in a grid, all in one scale from 0 to at least 1; `None` if
/// there are none.
pub fn importance_maps(title: &str, rows: Vec<Vec<Option<(String, Matrix)>>>, map: ColorMap) -> Option<Figure> {
    let all = || rows.iter().flatten().flatten().map(|(_, matrix)| matrix);
    // Upper-leaky values exceed 1 a little.
    let highest = all().flat_map(|ci| ci.data()).fold(1.0_f32, |highest, value| highest.max(*value));
    let range = (0.0, f64::from(highest));
    let most_rows = all().map(Matrix::rows).max()?;
    let height = (most_rows as f64 * 9.0).clamp(54.0, 150.0);
    let panel = |(name, matrix): (String, Matrix)| Panel::heat_map(name, matrix, map, range);
    let mut panels: Vec<Vec<Option<Panel>>> =
        rows.into_iter().map(|row| row.into_iter().map(|entry| entry.map(panel)).collect()).collect();
    label_edges(&mut panels, SUBCOMPONENT, "input feature");
    let columns = panels.iter().map(Vec::len).max().unwrap_or(0);
    let has_letters = panels.iter().map(Vec::len).sum::<usize>() <= 26;
    let rows = panels.into_iter().map(|panels| Row { height, panels }).collect();
    let mut figure = Figure::new(title, if columns > 1 { FULL_WIDTH } else { ONE_COLUMN }, rows);
    figure.has_letters = has_letters;
    figure.color_bar = Some(ColorBar { map, range, label: "causal importance".to_owned() });
    Some(figure)
}

/// Returns heat maps of V `[d_in, C]` and Uᵀ `[d_out, C]`, site by site, all in one scale; `None` if there is nothing
/// but zeros. Matrices with more entries than a heat map can show are left out.
pub fn weight_maps(sites: Vec<(String, Matrix, Matrix)>) -> Option<Figure> {
    let is_small = |(_, v, u): &(String, Matrix, Matrix)| v.data().len().max(u.data().len()) <= MOST_ENTRIES;
    let sites: Vec<_> = sites.into_iter().filter(is_small).collect();
    let entries = sites.iter().flat_map(|(_, v, u)| v.data().iter().chain(u.data()));
    let largest = f64::from(entries.fold(0.0_f32, |largest, value| largest.max(value.abs())));
    if largest == 0.0 {
        return None;
    }
    // The same in both directions.
    let range = (-largest, largest);
    let count = sites.len();
    let rows = sites
        .into_iter()
        .enumerate()
        .map(|(i, (name, v, u))| {
            let height = (v.rows().max(u.rows()) as f64 * 8.0).clamp(36.0, 120.0);
            let panel = |title: String, matrix: Matrix, label: &str| {
                let mut panel = Panel::heat_map(title, matrix, ColorMap::Diverging, range);
                panel.y.label = label.to_owned();
                if i + 1 == count {
                    panel.x.label = SUBCOMPONENT.to_owned();
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
