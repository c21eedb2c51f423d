//! Stage kind `plot`: the figures of one or several decompositions of a target.
//!
//! Reads the files of its input artifacts only, so it knows nothing of how they were made. Each figure is one file of
//! this folder: a function from what was read to a [`Figure`], or to nothing if the artifacts
//! do not hold what it shows.

mod causal_importance;
mod clusters;
mod comparison;
mod curves;
mod inputs;
mod neuron_contributions;
#[cfg(test)]
mod tests;
mod vectors;
mod weights;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{InputArtifact, InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use crate::artifact::json;
use crate::figure::Figure;
use inputs::{Clusters, Comparison, Decomposition, Target};

/// A metric that a figure shows under a name of its own.
#[derive(Debug)]
pub(crate) struct QuotedMetric {
    /// The figure's title.
    pub(crate) title: &'static str,
    /// What it calls the metric.
    pub(crate) shown: &'static str,
    /// The metric.
    pub(crate) metric: &'static str,
}

/// Which figures show a metric of the decompositions as a number under another name.
pub(crate) const QUOTED_METRICS: [QuotedMetric; 1] = [QuotedMetric {
    title: neuron_contributions::SCATTER_TITLE,
    shown: "r",
    metric: "neuron_contribution_correlation",
}];

/// Draws the figures.
#[derive(Debug)]
pub struct Plot;

/// Parameters of `plot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlotParams {
    /// Sites (shell patterns) whose components should act together; their heat maps are ordered by column sum. All
    /// other sites are ordered to show one component per feature.
    pub dense_patterns: Vec<String>,
    /// A component of a toy model counts as significant when the lengths of the vectors it gives the features add up
    /// to more than this.
    pub subnet_threshold: f64,
    /// At most this many components of a toy model are drawn as vectors, the largest first.
    pub max_subnets: usize,
    /// Metrics (shell patterns) drawn as curves on a logarithmic axis.
    pub loss_patterns: Vec<String>,
    /// Metrics (shell patterns) drawn as curves on a linear axis.
    pub metric_patterns: Vec<String>,
    /// What `decompositions` and `clusters` are called in the figures, a text for each in their order; by default the
    /// values of their axes.
    pub labels: BTreeMap<String, Vec<String>>,
}

impl PlotParams {
    /// Returns what the artifact `index` of a slot is called.
    fn label(&self, slot: &str, index: usize) -> String {
        let given = self.labels.get(slot).and_then(|labels| labels.get(index)).filter(|label| !label.is_empty());
        // Without axes nothing tells it apart, unless there are several.
        given.cloned().unwrap_or_else(|| match index {
            0 => "decomposition".to_owned(),
            index => format!("decomposition {}", index + 1),
        })
    }
}

impl Default for PlotParams {
    fn default() -> Self {
        Self {
            dense_patterns: vec!["hidden_layers.*".to_owned(), "layers.*.mlp_out".to_owned()],
            subnet_threshold: 0.017,
            max_subnets: 8,
            loss_patterns: vec!["train/loss/*".to_owned()],
            metric_patterns: vec!["eval/l0/*".to_owned(), "eval/target_solution_error/*".to_owned()],
            labels: BTreeMap::new(),
        }
    }
}

/// What `summary.json` says: the numbers behind the figures.
#[derive(Debug, Serialize)]
struct Report {
    figures: Vec<String>,
    decompositions: Vec<DecompositionReport>,
}

#[derive(Debug, Serialize)]
struct DecompositionReport {
    title: String,
    /// The order of components in the heat maps, by site.
    component_order: Vec<(String, Vec<usize>)>,
    vectors: Option<vectors::VectorReport>,
    neuron_contributions: Option<neuron_contributions::ContributionReport>,
}

impl Kind for Plot {
    type Params = PlotParams;

    const INFO: KindInfo = KindInfo {
        name: "plot",
        version: 3,
        summary: "figures of decompositions, clusters and comparisons, as SVG and PNG",
        inputs: &[
            InputSlot {
                name: "decompositions",
                accepts: &["decompose.*"],
                many: true,
                required: true,
                summary: "decompositions of one target, for example at several seeds",
            },
            InputSlot {
                name: "clusters",
                accepts: &["cluster.*"],
                many: true,
                required: false,
                summary: "clusterings of their components",
            },
            InputSlot {
                name: "comparison",
                accepts: &["compare.*"],
                many: false,
                required: false,
                summary: "geometric similarity of two of them",
            },
            InputSlot {
                name: "target",
                accepts: &["train.*"],
                many: false,
                required: false,
                summary: "the target, for its training curve",
            },
        ],
    };

    const LABELLED: &'static [&'static str] = &["decompositions", "clusters"];

    fn validate(params: &Self::Params) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        for slot in params.labels.keys().filter(|slot| !Self::LABELLED.contains(&slot.as_str())) {
            let message = format!("expected `decompositions` or `clusters`, found `{slot}`");
            issues.push(ParamIssue::new("labels", message));
        }
        if !(params.subnet_threshold.is_finite() && params.subnet_threshold >= 0.0) {
            let message = format!("must be at least 0, found {}", params.subnet_threshold);
            issues.push(ParamIssue::new("subnet_threshold", message));
        }
        if !(1..=24).contains(&params.max_subnets) {
            let message = format!("must be from 1 to 24, found {}", params.max_subnets);
            issues.push(ParamIssue::new("max_subnets", message));
        }
        issues
    }

    fn run(params: &Self::Params, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let decompositions: Vec<Decomposition> = all(context, "decompositions", |artifact, index| {
            Decomposition::read(artifact, params.label("decompositions", index))
        })?;
        let clusters: Vec<Clusters> =
            all(context, "clusters", |artifact, index| Clusters::read(artifact, params.label("clusters", index)))?;
        let comparison = context.inputs("comparison").first().map(Comparison::read).transpose()?;
        let target = context.inputs("target").first().map(Target::read).transpose()?;

        let (vectors, vector_reports) = vectors::figure(&decompositions, params);
        let figures: Vec<(&str, Option<Figure>)> = vec![
            ("causal_importances", causal_importance::lower(&decompositions, params)),
            ("causal_importances_upper_leaky", causal_importance::upper(&decompositions, params)),
            ("vectors", vectors),
            ("neuron_contributions", neuron_contributions::figure(&decompositions)),
            ("neuron_contribution_scatter", neuron_contributions::scatter(&decompositions)),
            ("weights", weights::figure(&decompositions, params)),
            ("losses", curves::losses(&decompositions, params)),
            ("metrics", curves::metrics(&decompositions, params)),
            ("target_training", target.as_ref().and_then(curves::target_training)),
            ("clusters", clusters::figure(&clusters)),
            ("comparison", comparison.as_ref().and_then(comparison::figure)),
        ];
        let mut summary = Summary::default();
        let mut drawn = Vec::new();
        for (done, (name, figure)) in figures.iter().enumerate() {
            if context.should_stop() {
                // Drawing takes seconds: nothing is worth saving.
                return Err(StageError::Interrupted);
            }
            match figure {
                Some(figure) => {
                    figure.write(context.out_dir, name, &mut summary)?;
                    drawn.push((*name).to_owned());
                }
                None => context.progress.log(&format!("no figure `{name}`: the inputs do not hold what it shows")),
            }
            context.progress.step(done as u64 + 1, figures.len() as u64, None);
        }
        summary.metric("figures", drawn.len() as f64);
        let report = Report {
            figures: drawn,
            decompositions: decompositions
                .iter()
                .zip(vector_reports)
                .map(|(decomposition, vectors)| DecompositionReport {
                    title: decomposition.title.clone(),
                    component_order: causal_importance::orders(decomposition, params),
                    vectors,
                    neuron_contributions: neuron_contributions::report(decomposition),
                })
                .collect(),
        };
        json::write(&context.out_dir.join("summary.json"), &report)?;
        summary.file("summary.json", "json", "the numbers behind the figures");
        Ok(summary)
    }
}

/// Reads every artifact of a slot.
fn all<T>(
    context: &StageContext<'_>,
    slot: &str,
    read: impl Fn(&InputArtifact, usize) -> Result<T, StageError>,
) -> Result<Vec<T>, StageError> {
    context.inputs(slot).iter().enumerate().map(|(index, artifact)| read(artifact, index)).collect()
}
