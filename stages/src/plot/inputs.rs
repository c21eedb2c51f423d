//! What the figures need of the input artifacts.

use spdflow_engine::kind::{InputArtifact, StageError};

use crate::artifact::ci_table::CiTable;
use crate::artifact::components::{self, SiteWeights};
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tables;
use crate::solution::NeuronContributions;

/// A decomposition.
pub(super) struct Decomposition {
    /// What tells it apart from the others: `seed = 0`.
    pub title: String,
    /// In the order of the decomposition.
    pub sites: Vec<SiteWeights>,
    pub metrics: MetricLog,
    /// The one-hot probe; token models have none.
    pub ci: Option<CiTable>,
    /// What neurons do, if it is of a residual MLP.
    pub contributions: Option<NeuronContributions>,
}

impl Decomposition {
    pub(super) fn read(artifact: &InputArtifact, title: String) -> Result<Self, StageError> {
        let (sites, contributions) = components::read_with_contributions(artifact)?;
        let ci = match artifact.files.get("ci.parquet") {
            Some(path) => Some(CiTable::read(path)?),
            None => None,
        };
        let metrics = MetricLog::read(artifact.path("metrics.parquet")?)?;
        Ok(Self { title, sites, metrics, ci, contributions })
    }
}

/// A clustering.
pub(super) struct Clusters {
    pub title: String,
    /// Components that are alive, with their cluster.
    pub members: Vec<Member>,
}

/// A component in a cluster.
pub(super) struct Member {
    pub site: String,
    pub component: i32,
    pub cluster: usize,
}

impl Clusters {
    pub(super) fn read(artifact: &InputArtifact, title: String) -> Result<Self, StageError> {
        let table = tables::read(artifact.path("clusters.parquet")?)?;
        let (site, component) = (table.text("site")?, table.int32("component")?);
        let members = table
            .optional_int32("cluster")?
            .iter()
            .enumerate()
            .filter_map(|(i, cluster)| {
                let cluster = usize::try_from((*cluster)?).ok()?;
                Some(Member { site: site[i].clone(), component: component[i], cluster })
            })
            .collect();
        Ok(Self { title, members })
    }
}

/// A geometric comparison.
pub(super) struct Comparison {
    /// By site, in the order of the table: the maximal absolute cosine of each live component.
    pub sites: Vec<(String, Vec<f64>)>,
}

impl Comparison {
    pub(super) fn read(artifact: &InputArtifact) -> Result<Self, StageError> {
        let table = tables::read(artifact.path("similarity.parquet")?)?;
        let mut sites: Vec<(String, Vec<f64>)> = Vec::new();
        for (site, value) in table.text("site")?.iter().zip(table.float64("max_abs_cosine_sim")?) {
            match sites.last_mut() {
                Some((known, values)) if known == site => values.push(*value),
                _ => sites.push((site.clone(), vec![*value])),
            }
        }
        Ok(Self { sites })
    }
}

/// A trained target.
pub(super) struct Target {
    pub metrics: MetricLog,
}

impl Target {
    pub(super) fn read(artifact: &InputArtifact) -> Result<Self, StageError> {
        Ok(Self { metrics: MetricLog::read(artifact.path("metrics.parquet")?)? })
    }
}
