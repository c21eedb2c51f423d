//! Metrics over training: one panel per metric, one line per decomposition.

use super::PlotParams;
use super::inputs::{Decomposition, Target};
use crate::artifact::metric_log::MetricLog;
use crate::figure::{
    Axis, Dash, FULL_WIDTH, Figure, LegendEntry, Mark, ONE_COLUMN, Panel, Row, Scale, Symbol, category,
};
use crate::pattern;

/// Returns the losses on logarithmic axes.
pub(super) fn losses(decompositions: &[Decomposition], params: &PlotParams) -> Option<Figure> {
    grid(decompositions, &params.loss_patterns, "Losses during decomposition", Scale::fit_log)
}

/// Returns other metrics on linear axes.
pub(super) fn metrics(decompositions: &[Decomposition], params: &PlotParams) -> Option<Figure> {
    grid(decompositions, &params.metric_patterns, "Metrics during decomposition", |values| {
        let (_, max) = Scale::fit_linear(values).range();
        Scale::Linear { min: 0.0, max: if max > 0.0 { max } else { 1.0 } }
    })
}

/// Returns the loss of the target's training, if it was recorded.
pub(super) fn target_training(target: &Target) -> Option<Figure> {
    let name = target.metrics.names().into_iter().find(|name| name.contains("loss"))?.to_owned();
    let mut panel = panel(&name, &[&target.metrics], Scale::fit_log)?;
    panel.title = String::new();
    panel.y.label = "training loss".to_owned();
    panel.x.label = "step".to_owned();
    Some(Figure::single("Training of the target", ONE_COLUMN, 120.0, panel))
}

fn grid(
    decompositions: &[Decomposition],
    patterns: &[String],
    title: &str,
    scale: fn(Vec<f64>) -> Scale,
) -> Option<Figure> {
    let logs: Vec<&MetricLog> = decompositions.iter().map(|decomposition| &decomposition.metrics).collect();
    let mut names: Vec<&str> = Vec::new();
    for name in logs.iter().flat_map(|log| log.names()) {
        if !names.contains(&name) && patterns.iter().any(|text| pattern::matches(text, name)) {
            names.push(name);
        }
    }
    // The sum before its terms.
    names.sort_by_key(|name| !name.ends_with("loss/total"));
    let mut panels: Vec<Panel> = names.iter().filter_map(|name| panel(name, &logs, scale)).collect();
    if panels.is_empty() {
        return None;
    }
    let count = panels.len();
    // Four panels make a square, not a row of three and an orphan.
    let per_row = if count == 4 { 2 } else { count.min(3) };
    for (i, panel) in panels.iter_mut().enumerate() {
        // The axis is named where nothing stands below.
        if i + per_row >= count {
            panel.x.label = "step".to_owned();
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for panel in panels {
        match rows.last_mut() {
            Some(row) if row.panels.len() < per_row => row.panels.push(Some(panel)),
            _ => rows.push(Row { height: 82.0, panels: vec![Some(panel)] }),
        }
    }
    let width = if count == 1 { ONE_COLUMN } else { FULL_WIDTH };
    let mut figure = Figure::new(title, width, rows);
    figure.legend = decompositions
        .iter()
        .enumerate()
        .map(|(i, decomposition)| LegendEntry {
            label: decomposition.title.clone(),
            color: category(i),
            symbol: Symbol::Line(Dash::Solid),
        })
        .collect();
    Some(figure)
}

/// Returns a panel of one metric, or `None` if nobody measured it twice.
fn panel(name: &str, logs: &[&MetricLog], scale: fn(Vec<f64>) -> Scale) -> Option<Panel> {
    let series: Vec<Vec<(f64, f64)>> = logs
        .iter()
        .map(|log| log.series(name).into_iter().map(|(step, value)| (step as f64, value)).collect())
        .collect();
    let points = || series.iter().flatten();
    let last = points().map(|point| point.0).fold(0.0, f64::max);
    if !series.iter().any(|line| line.len() > 1) || last == 0.0 {
        return None;
    }
    let x = Axis::new("", Scale::Linear { min: 0.0, max: last });
    let y = Axis::new("", scale(points().map(|point| point.1).collect()));
    let mut panel = Panel::new(readable(name), x, y);
    for (i, points) in series.into_iter().enumerate() {
        panel.marks.push(Mark::Line { points, color: category(i), width: 0.9, dash: Dash::Solid });
    }
    Some(panel)
}

/// Returns what a reader calls a metric: `Stochastic recon` for `train/loss/StochasticReconLoss`, `L0 of linear1
/// (importance > 0.1)` for `eval/l0/0.1_linear1`.
fn readable(name: &str) -> String {
    let short = name.strip_prefix("train/").or_else(|| name.strip_prefix("eval/")).unwrap_or(name);
    if let Some((threshold, site)) = short.strip_prefix("l0/").and_then(|rest| rest.split_once('_')) {
        return format!("L0 of {site} (importance > {threshold})");
    }
    if let Some(site) = short.strip_prefix("target_solution_error/") {
        return match site {
            "total" => "Wrong importances, all sites".to_owned(),
            "total_0p2" => "Wrong importances, all sites (tolerance 0.2)".to_owned(),
            _ => format!("Wrong importances of {site}"),
        };
    }
    match short.strip_prefix("loss/") {
        Some("total") => "Total loss".to_owned(),
        Some(class) => words(class.strip_suffix("Loss").unwrap_or(class)),
        None => short.to_owned(),
    }
}

/// Returns `CI masked recon` for `CIMaskedRecon`.
fn words(class: &str) -> String {
    let letters: Vec<char> = class.chars().collect();
    let is_upper = |i: usize| letters.get(i).is_some_and(|c| c.is_uppercase());
    let is_lower = |i: usize| letters.get(i).is_some_and(|c| c.is_lowercase());
    let mut text = String::new();
    for (i, c) in letters.iter().enumerate() {
        // A word begins at a capital that follows or precedes a small letter; capitals in a row are an abbreviation.
        let begins_word = i > 0 && is_upper(i) && (is_lower(i - 1) || is_lower(i + 1));
        if begins_word {
            text.push(' ');
        }
        if begins_word && is_lower(i + 1) { text.extend(c.to_lowercase()) } else { text.push(*c) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn metrics_have_readable_names() {
        let cases = [
            ("train/loss/total", "Total loss"),
            ("train/loss/StochasticReconLayerwiseLoss", "Stochastic recon layerwise"),
            ("train/loss/CIMaskedReconLoss", "CI masked recon"),
            ("eval/loss/PGDReconLoss", "PGD recon"),
            ("eval/l0/0.1_layers.0.mlp_in", "L0 of layers.0.mlp_in (importance > 0.1)"),
            ("eval/target_solution_error/linear1", "Wrong importances of linear1"),
            ("train/grad_norms/summary/total", "grad_norms/summary/total"),
        ];
        for (name, expected) in cases {
            assert_eq!(readable(name), expected);
        }
    }
}
