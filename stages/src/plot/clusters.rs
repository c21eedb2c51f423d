//! Which component belongs to which cluster: one row per cluster, one column per live component.

use super::inputs::Clusters;
use crate::figure::{Axis, FULL_WIDTH, Figure, Frame, Mark, Panel, Row, Scale, Ticks};

/// Above this many columns single components are no longer named.
const MOST_NAMES: usize = 50;

/// Returns the figure, or `None` if no component is in a cluster.
pub(super) fn figure(clusterings: &[Clusters]) -> Option<Figure> {
    let shown: Vec<&Clusters> = clusterings.iter().filter(|clusters| !clusters.members.is_empty()).collect();
    let most = shown.iter().map(|clusters| count(clusters)).max()?;
    let height = (most as f64 * 9.0).clamp(40.0, 150.0);
    let last = shown.len() - 1;
    let rows = shown
        .iter()
        .enumerate()
        .map(|(i, clusters)| Row { height, panels: vec![Some(panel(clusters, i == last))] })
        .collect();
    let mut figure = Figure::new("Clusters of components that act together", FULL_WIDTH, rows);
    figure.has_letters = shown.len() > 1;
    Some(figure)
}

fn count(clusters: &Clusters) -> usize {
    clusters.members.iter().map(|member| member.cluster + 1).max().unwrap_or(0)
}

fn panel(clusters: &Clusters, is_last: bool) -> Panel {
    let rows = count(clusters);
    let mut members: Vec<_> = clusters.members.iter().collect();
    members.sort_by_key(|member| member.cluster);
    let cols = members.len();
    let mut categories = vec![None; rows * cols];
    for (c, member) in members.iter().enumerate() {
        categories[member.cluster * cols + c] = Some(member.cluster);
    }
    let names = if cols <= MOST_NAMES {
        Ticks::At(
            members
                .iter()
                .enumerate()
                .map(|(c, member)| (c as f64 + 0.5, format!("{} · {}", member.site, member.component)))
                .collect(),
        )
    } else {
        Ticks::Cells(cols)
    };
    let x = Axis::new(if is_last { "live component" } else { "" }, Scale::Linear { min: 0.0, max: cols as f64 })
        .with_ticks(names);
    let y = Axis::new("cluster", Scale::Linear { min: rows as f64, max: 0.0 }).with_ticks(Ticks::Cells(rows));
    let mut panel = Panel::new(clusters.title.clone(), x, y).with(Mark::Categories { rows, cols, categories });
    if cols <= MOST_NAMES {
        panel.marks.extend((1..cols).map(|c| Mark::VerticalRule(c as f64)));
    }
    panel.marks.extend((1..rows).map(|r| Mark::HorizontalRule(r as f64)));
    panel.frame = Frame::Box;
    panel
}
