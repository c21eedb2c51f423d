//! The feature vectors of a toy model with two hidden units, beside those of its decomposition (SPD paper, Figure 1).

use serde::Serialize;

use super::PlotParams;
use super::inputs::Decomposition;
use crate::artifact::components::SiteWeights;
use crate::figure::tms::{Labels, columns, radius_of, vector_panel};
use crate::figure::{FULL_WIDTH, Figure, LegendEntry, Panel, Row, Symbol, category};
use crate::matrix::Matrix;
use crate::solution::{significant_subnets, subnet_sizes, tms_geometry};

/// The site that embeds the features of a toy model.
const SITE: &str = "linear1";

/// What the figure shows, in numbers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct VectorReport {
    /// Mean over features of the largest cosine of a component's vector with the target's.
    mean_max_cosine_similarity: f64,
    /// Mean over features of the ratio of their lengths.
    mean_l2_ratio: f64,
    /// The components above the threshold, largest first.
    significant_components: Vec<usize>,
    /// Their sizes.
    sizes: Vec<f64>,
}

/// Returns the figure, if a decomposition is of a toy model in the plane, and the numbers of every decomposition that
/// is of a toy model.
pub(super) fn figure(
    decompositions: &[Decomposition],
    params: &PlotParams,
) -> (Option<Figure>, Vec<Option<VectorReport>>) {
    let embeddings: Vec<Option<Embedding<'_>>> = decompositions.iter().map(Embedding::of).collect();
    let reports = embeddings.iter().map(|embedding| Some(embedding.as_ref()?.report(params))).collect();
    let planar: Vec<(&str, &Embedding<'_>)> = decompositions
        .iter()
        .zip(&embeddings)
        .filter_map(|(decomposition, embedding)| Some((decomposition.title.as_str(), embedding.as_ref()?)))
        .filter(|(_, embedding)| embedding.target.rows() == 2)
        .collect();
    (draw(&planar, params), reports)
}

/// A toy model's embedding and its components.
struct Embedding<'a> {
    /// [hidden, features].
    target: &'a Matrix,
    site: &'a SiteWeights,
}

impl<'a> Embedding<'a> {
    fn of(decomposition: &'a Decomposition) -> Option<Self> {
        let site = decomposition.sites.iter().find(|site| site.name == SITE)?;
        Some(Self { target: site.target.as_ref()?, site })
    }

    fn report(&self, params: &PlotParams) -> VectorReport {
        let geometry = tms_geometry(self.target, &self.site.v, &self.site.u);
        let sizes = subnet_sizes(&self.site.v, &self.site.u);
        let significant_components = significant_subnets(&sizes, params.subnet_threshold);
        VectorReport {
            mean_max_cosine_similarity: geometry.mean_max_cosine_similarity,
            mean_l2_ratio: geometry.mean_l2_ratio,
            sizes: significant_components.iter().map(|&c| sizes[c]).collect(),
            significant_components,
        }
    }

    /// Returns the vector that each of these components together give each feature.
    fn vectors(&self, components: impl Iterator<Item = usize> + Clone) -> Vec<(f64, f64)> {
        let (v, u) = (&self.site.v, &self.site.u);
        let coordinate = |j: usize, i: usize| -> f64 {
            components.clone().map(|c| f64::from(v.at(j, c)) * f64::from(u.at(c, i))).sum()
        };
        (0..v.rows()).map(|j| (coordinate(j, 0), coordinate(j, 1))).collect()
    }
}

fn draw(planar: &[(&str, &Embedding<'_>)], params: &PlotParams) -> Option<Figure> {
    let first = planar.first()?.1;
    let features = first.target.cols();
    let shown: Vec<Vec<usize>> = planar
        .iter()
        .map(|(_, embedding)| {
            let mut components = embedding.report(params).significant_components;
            components.truncate(params.max_subnets);
            components
        })
        .collect();
    let count = 2 + shown.iter().map(Vec::len).max().unwrap_or(0);
    let per_line = count.min(10);
    // Titles must not touch.
    let word = if per_line > 8 { "comp." } else { "component" };
    let mut rows = Vec::new();
    for ((title, embedding), components) in planar.iter().zip(&shown) {
        let target = columns(embedding.target);
        let sum = embedding.vectors(0..embedding.site.v.cols());
        let radius = radius_of(&[&target, &sum]);
        let panel = |title: String, vectors: &[(f64, f64)]| Some(vector_panel(&title, vectors, radius, Labels::Hidden));
        let mut panels: Vec<Option<Panel>> = vec![panel("target".into(), &target), panel("sum".into(), &sum)];
        panels.extend(components.iter().map(|&c| panel(format!("{word} {c}"), &embedding.vectors(std::iter::once(c)))));
        if let Some(Some(first)) = panels.first_mut() {
            first.y.label = (*title).to_owned();
        }
        while !panels.is_empty() {
            let rest = panels.split_off(panels.len().min(per_line));
            rows.push(panels);
            panels = rest;
        }
    }
    // Frames are about square.
    let height = ((FULL_WIDTH - 20.0) / per_line as f64 - 17.0).clamp(30.0, 110.0);
    let rows = rows.into_iter().map(|panels| Row { height, panels: padded(panels, per_line) }).collect();
    let mut figure = Figure::new("Feature vectors of the target and of its components", FULL_WIDTH, rows);
    if features <= 8 {
        figure.legend = (0..features)
            .map(|j| LegendEntry {
                label: format!("feature {j}"),
                color: category(j),
                symbol: Symbol::Line(crate::figure::Dash::Solid),
            })
            .collect();
    }
    Some(figure)
}

fn padded(mut panels: Vec<Option<Panel>>, length: usize) -> Vec<Option<Panel>> {
    panels.resize_with(length, || None);
    panels
}
