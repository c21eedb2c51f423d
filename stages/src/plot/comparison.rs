//! How similar the components of two decompositions are: the mean of each site as a bar, every component as a dot.

use super::inputs::Comparison;
use crate::figure::{Axis, Figure, Mark, ONE_COLUMN, Panel, Rgb, Scale, Ticks};

/// Returns the figure, or `None` if no component was compared.
pub(super) fn figure(comparison: &Comparison) -> Option<Figure> {
    let sites = &comparison.sites;
    if sites.is_empty() {
        return None;
    }
    let x = Axis::new("", Scale::Linear { min: 0.0, max: sites.len() as f64 })
        .with_ticks(Ticks::At(sites.iter().enumerate().map(|(i, (name, _))| (i as f64 + 0.5, name.clone())).collect()));
    let y = Axis::new("best |cosine| in the reference", Scale::Linear { min: 0.0, max: 1.05 });
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let bars = sites.iter().enumerate().map(|(i, (_, values))| (i as f64 + 0.5, mean(values), Rgb(0xb5, 0xd3, 0xea)));
    let dots = sites.iter().enumerate().flat_map(|(i, (_, values))| {
        // Side by side in the order of the components, so that equal values stay visible.
        let step = 0.5 / values.len() as f64;
        values.iter().enumerate().map(move |(c, value)| (i as f64 + 0.25 + (c as f64 + 0.5) * step, *value))
    });
    let panel = Panel::new("", x, y)
        .with(Mark::HorizontalRule(1.0))
        .with(Mark::Bars { bars: bars.collect(), width: 0.6, base: 0.0 })
        .with(Mark::Points { points: dots.collect(), color: Rgb::BLUE, radius: 1.8, opacity: 0.9 });
    let width = (60.0 + 70.0 * sites.len() as f64).clamp(ONE_COLUMN * 0.75, 2.0 * ONE_COLUMN);
    Some(Figure::single("Geometric similarity of two decompositions", width, 120.0, panel))
}
