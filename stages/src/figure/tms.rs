//! Figures of toy models of superposition: the target's own, written by `train.tms`, and the parts `plot` reuses.

use super::{Anchor, Axis, Figure, Frame, LegendEntry, Mark, ONE_COLUMN, Panel, Rgb, Scale, Symbol, Ticks, category};
use crate::matrix::Matrix;

/// Returns the columns of `weight` [2, features] as arrows in the plane: how the model packs its features.
///
/// # Panics
/// If `weight` does not have two rows.
#[must_use]
pub fn polygon(weight: &Matrix) -> Figure {
    let vectors = columns(weight);
    let mut panel = vector_panel("", &vectors, radius_of(&[&vectors]), Labels::Shown);
    // The same numbers on both axes.
    let ticks: Vec<(f64, String)> =
        panel.x.scale.ticks(5).into_iter().filter_map(|tick| Some((tick.value, tick.label?))).collect();
    panel.x = Axis::new("hidden unit 0", panel.x.scale).with_ticks(Ticks::At(ticks.clone()));
    panel.y = Axis::new("hidden unit 1", panel.y.scale).with_ticks(Ticks::At(ticks));
    panel.frame = Frame::Box;
    Figure::single("Feature vectors in the hidden space", 200.0, 160.0, panel)
}

/// Whether arrows carry the number of their feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// At their tips.
    Shown,
    /// Not at all.
    Hidden,
}

/// Returns the columns of a matrix of two rows as points in the plane.
///
/// # Panics
/// If `weight` does not have two rows.
#[must_use]
pub fn columns(weight: &Matrix) -> Vec<(f64, f64)> {
    assert_eq!(weight.rows(), 2, "a plane has two dimensions");
    (0..weight.cols()).map(|j| (f64::from(weight.at(0, j)), f64::from(weight.at(1, j)))).collect()
}

/// Returns a radius that shows all these vectors.
#[must_use]
pub fn radius_of(vectors: &[&[(f64, f64)]]) -> f64 {
    let longest = vectors.iter().flat_map(|set| set.iter()).map(|(x, y)| x.hypot(*y)).fold(0.0, f64::max);
    if longest > 0.0 { longest } else { 1.0 }
}

/// Returns a panel of vectors from the origin, feature by feature in the colours of the categories, in a plane that
/// shows everything up to `radius`.
#[must_use]
pub fn vector_panel(title: &str, vectors: &[(f64, f64)], radius: f64, labels: Labels) -> Panel {
    let side = if labels == Labels::Shown { 1.22 * radius } else { 1.08 * radius };
    let mut panel = Panel::new(title, Axis::bare(-side, side), Axis::bare(-side, side));
    panel.equal_aspect = true;
    panel.frame = Frame::Hidden;
    let circle = (0..=120).map(|i| f64::from(i) * std::f64::consts::TAU / 120.0);
    panel.marks.push(Mark::HorizontalRule(0.0));
    panel.marks.push(Mark::VerticalRule(0.0));
    panel.marks.push(Mark::Line {
        points: circle.map(|angle| (radius * angle.cos(), radius * angle.sin())).collect(),
        color: Rgb::GRID,
        width: 0.6,
        dash: super::Dash::Solid,
    });
    for (j, &to) in vectors.iter().enumerate() {
        panel.marks.push(Mark::Arrow { from: (0.0, 0.0), to, color: category(j), width: 1.3 });
        let length = to.0.hypot(to.1);
        if labels == Labels::Shown && length > 0.15 * radius {
            let out = (length + 0.11 * radius) / length;
            panel.marks.push(Mark::Note {
                at: (to.0 * out, to.1 * out),
                text: j.to_string(),
                anchor: Anchor::Middle,
                color: category(j),
            });
        }
    }
    panel
}

/// Returns a bar per feature: the output at that feature for a one-hot input of 0.75.
///
/// `outputs` [features, features] holds the model's output for input `0.75 e_i` in row i. A bar is green when its
/// output is within 0.1 of the input, orange within 0.3, red otherwise.
///
/// # Panics
/// If `outputs` is not square.
#[must_use]
pub fn feature_representation(outputs: &Matrix) -> Figure {
    const INPUT: f64 = 0.75;
    assert_eq!(outputs.rows(), outputs.cols(), "one output per feature");
    let features = outputs.rows();
    let mut counts = [0_usize; 3];
    let bars: Vec<(f64, f64, Rgb)> = (0..features)
        .map(|i| {
            let output = f64::from(outputs.at(i, i));
            let off = (output - INPUT).abs();
            let grade = if off < 0.1 {
                0
            } else if off < 0.3 {
                1
            } else {
                2
            };
            counts[grade] += 1;
            (i as f64 + 0.5, output, [Rgb::GREEN, Rgb::ORANGE, Rgb::RED][grade])
        })
        .collect();
    let highest = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
    let x = Axis::new("feature", Scale::Linear { min: -0.1, max: features as f64 + 0.1 })
        .with_ticks(Ticks::Cells(features));
    let y = Axis::new("output at the feature", Scale::Linear { min: 0.0, max: 1.05 * highest });
    let panel =
        Panel::new("", x, y).with(Mark::Bars { bars, width: 0.75, base: 0.0 }).with(Mark::HorizontalRule(INPUT));
    let mut figure = Figure::single("Output at each feature for a one-hot input of 0.75", ONE_COLUMN, 110.0, panel);
    let grades = [("off by < 0.1", Rgb::GREEN), ("< 0.3", Rgb::ORANGE), ("more", Rgb::RED)];
    figure.legend = grades
        .iter()
        .zip(counts)
        .map(|((text, color), count)| LegendEntry {
            label: format!("{text}: {count}"),
            color: *color,
            symbol: Symbol::Square,
        })
        .collect();
    figure
}

/// Returns the cosines between all pairs of feature vectors (columns of `weight` [hidden, features]) on a line; a
/// little vertical spread keeps equal ones apart.
#[must_use]
pub fn cosine_similarity_distribution(weight: &Matrix) -> Figure {
    let vectors: Vec<Vec<f64>> =
        (0..weight.cols()).map(|j| weight.column(j).into_iter().map(f64::from).collect()).collect();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut points = Vec::new();
    for (i, a) in vectors.iter().enumerate() {
        for b in &vectors[..i] {
            let lengths = norm(a) * norm(b);
            let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            let cosine = if lengths > 0.0 { dot / lengths } else { 0.0 };
            // The fractional parts of multiples of the golden ratio: even, and the same every time.
            let spread = (points.len() as f64 * 0.618_033_988_75).fract();
            points.push((cosine, spread));
        }
    }
    let x = Axis::new("cosine similarity of two feature vectors", Scale::Linear { min: -1.0, max: 1.0 });
    let mut panel = Panel::new("", x, Axis::bare(-0.25, 1.25)).with(Mark::VerticalRule(0.0)).with(Mark::Points {
        points,
        color: category(0),
        radius: 2.0,
        opacity: 0.6,
    });
    panel.y.ticks = Ticks::Hidden;
    Figure::single("Cosine similarities of pairs of feature vectors", ONE_COLUMN, 55.0, panel)
}
