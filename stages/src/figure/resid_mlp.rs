//! Figures of residual MLPs, for `train.resid_mlp` and `plot`: which neurons serve which features.

use super::{
    Anchor, Axis, FULL_WIDTH, Figure, LegendEntry, Mark, ONE_COLUMN, Panel, Row, Scale, Symbol, Ticks, category,
};
use crate::matrix::Matrix;

/// How many features the figures show.
pub const FEATURES_SHOWN: usize = 10;

/// Neurons that contribute more than this carry their number.
const LABEL_ABOVE: f64 = 0.1;
/// The height of a panel, in points.
const HEIGHT: f64 = 105.0;

/// The contributions [n_features, d_mlp] of layers, each with its number.
pub type Layers = [(usize, Matrix)];

/// Returns a panel for each of `rows`: the contribution of each neuron to each of the first features.
///
/// All panels have the same scale, and a colour for each layer; neurons that contribute more than 0.1 carry their
/// number.
#[must_use]
pub fn neuron_contributions(title: &str, rows: &[(&str, &Layers)]) -> Figure {
    let shown = |matrix: &Matrix| matrix.rows().min(FEATURES_SHOWN);
    let all = || rows.iter().flat_map(|(_, layers)| layers.iter());
    let values = all().flat_map(|(_, matrix)| (0..shown(matrix)).flat_map(|i| matrix.row(i))).map(|x| f64::from(*x));
    let y_range = match Scale::fit_linear(values.filter(|x| x.is_finite())) {
        Scale::Linear { min, max } => (min, max + 0.06 * (max - min)),
        other => other.range(),
    };
    let features = all().map(|(_, matrix)| shown(matrix)).max().unwrap_or(0);
    let panels = rows.iter().enumerate().map(|(r, (name, layers))| {
        let ticks = (0..features).map(|i| (i as f64, i.to_string())).collect();
        let x = Scale::Linear { min: -0.5, max: features as f64 - 0.5 };
        let label = if r + 1 == rows.len() { "input feature" } else { "" };
        let title = if rows.len() > 1 { *name } else { "" };
        let y = Axis::new("neuron contribution", Scale::Linear { min: y_range.0, max: y_range.1 });
        let mut panel = Panel::new(title, Axis::new(label, x).with_ticks(Ticks::At(ticks)), y);
        panel.marks.push(Mark::HorizontalRule(0.0));
        for (layer, matrix) in layers.iter() {
            let points = (0..shown(matrix)).flat_map(|i| matrix.row(i).iter().map(move |x| (i as f64, f64::from(*x))));
            panel.marks.push(Mark::Points {
                points: points.collect(),
                color: category(*layer),
                radius: 1.7,
                opacity: 0.75,
            });
        }
        for feature in 0..features {
            panel.marks.extend(labels(layers, feature, y_range.1 - y_range.0));
        }
        Row { height: HEIGHT, panels: vec![Some(panel)] }
    });
    let mut figure = Figure::new(title, FULL_WIDTH, panels.collect());
    figure.has_letters = rows.len() > 1;
    figure.legend = layer_legend(rows.iter().flat_map(|(_, layers)| layers.iter().map(|(layer, _)| *layer)));
    figure
}

/// Returns the numbers of the neurons that serve a feature, right of their points and clear of one another.
fn labels(layers: &Layers, feature: usize, y_span: f64) -> Vec<Mark> {
    let mut large: Vec<(f64, usize, usize)> = layers
        .iter()
        .filter(|(_, matrix)| feature < matrix.rows())
        .flat_map(|(layer, matrix)| {
            matrix.row(feature).iter().enumerate().map(move |(n, x)| (f64::from(*x), *layer, n))
        })
        .filter(|(value, ..)| *value > LABEL_ABOVE)
        .collect();
    large.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Seven points of text, in units of the axis.
    let line = 7.0 / HEIGHT * y_span;
    let mut free = f64::INFINITY;
    let mut marks = Vec::new();
    for (value, layer, neuron) in large {
        let y = value.min(free - line);
        // A number that would stand far from its point is left out.
        if value - y > line {
            continue;
        }
        free = y;
        marks.push(Mark::Note {
            at: (feature as f64 + 0.09, y - 0.32 * line),
            text: neuron.to_string(),
            anchor: Anchor::Start,
            color: category(layer),
        });
    }
    marks
}

/// Returns each neuron's contribution in the components against that in the target, for every feature; on the diagonal
/// both agree.
///
/// * `pairs`: the two sets of contributions, layer by layer;
/// * `correlation`: Pearson's, for the corner.
#[must_use]
pub fn contribution_scatter(title: &str, target: &Layers, components: &Layers, correlation: f64) -> Panel {
    let values = target.iter().chain(components).flat_map(|(_, matrix)| matrix.data()).map(|x| f64::from(*x));
    let scale = Scale::fit_linear(values.filter(|x| x.is_finite()));
    let (low, high) = scale.range();
    let mut panel =
        Panel::new(title, Axis::new("contribution in the target", scale), Axis::new("in the components", scale));
    panel.marks.push(Mark::Line {
        points: vec![(low, low), (high, high)],
        color: super::Rgb::MUTED,
        width: 0.6,
        dash: super::Dash::Solid,
    });
    for ((layer, target), (_, components)) in target.iter().zip(components) {
        let points = target.data().iter().zip(components.data()).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        panel.marks.push(Mark::Points { points: points.collect(), color: category(*layer), radius: 1.3, opacity: 0.5 });
    }
    panel.marks.push(Mark::Note {
        at: (low + 0.04 * (high - low), high - 0.08 * (high - low)),
        text: format!("r = {correlation:.4}"),
        anchor: Anchor::Start,
        color: super::Rgb::INK,
    });
    panel
}

/// Returns a figure of scatter panels side by side, three in a row.
#[must_use]
pub fn scatter_figure(title: &str, panels: Vec<Panel>, layers: impl Iterator<Item = usize>) -> Figure {
    let count = panels.len();
    let per_row = count.clamp(1, 3);
    let mut panels = panels.into_iter().map(Some);
    let mut rows = Vec::new();
    for _ in 0..count.div_ceil(per_row) {
        let mut row: Vec<Option<Panel>> = panels.by_ref().take(per_row).collect();
        row.resize_with(per_row, || None);
        rows.push(Row { height: 150.0, panels: row });
    }
    let width = if per_row == 1 { ONE_COLUMN } else { FULL_WIDTH };
    let mut figure = Figure::new(title, width, rows);
    figure.has_letters = count > 1;
    figure.legend = layer_legend(layers);
    figure
}

/// Returns what the colours mean, if there is more than one.
fn layer_legend(layers: impl Iterator<Item = usize>) -> Vec<LegendEntry> {
    let mut known: Vec<usize> = layers.collect();
    known.sort_unstable();
    known.dedup();
    if known.len() < 2 {
        return Vec::new();
    }
    let entry =
        |layer: usize| LegendEntry { label: format!("layer {layer}"), color: category(layer), symbol: Symbol::Dot };
    known.into_iter().map(entry).collect()
}
