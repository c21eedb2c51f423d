//! What the figures need of the input artifacts.

use serde::Deserialize;
use spdflow_engine::kind::{InputArtifact, StageError};

use crate::artifact::ci_table::CiTable;
use crate::artifact::metric_log::MetricLog;
use crate::artifact::{json, tables, tensors};
use crate::matrix::Matrix;

/// A decomposition.
pub(super) struct Decomposition {
    /// What tells it apart from the others: `seed = 0`, or the name of its stage.
    pub title: String,
    /// In the order of the decomposition.
    pub sites: Vec<Site>,
    pub metrics: MetricLog,
    /// The one-hot probe; token models have none.
    pub ci: Option<CiTable>,
}

/// A decomposed matrix.
pub(super) struct Site {
    pub name: String,
    /// The target's weight [d_out, d_in], where it is stored that way.
    pub target: Option<Matrix>,
    /// [d_in, C].
    pub v: Matrix,
    /// [C, d_out].
    pub u: Matrix,
}

/// The parts of `decomposition.json` that are read here.
#[derive(Deserialize)]
struct Description {
    sites: Vec<SiteDescription>,
}

#[derive(Deserialize)]
struct SiteDescription {
    name: String,
}

impl Decomposition {
    pub(super) fn read(artifact: &InputArtifact) -> Result<Self, StageError> {
        let description: Description = json::read(artifact.path("decomposition.json")?)?;
        let components = tensors::read(artifact.path("components.safetensors")?)?;
        let sites = description
            .sites
            .into_iter()
            .map(|SiteDescription { name }| {
                // State-dict keys cannot hold the dots of a module path.
                let key = name.replace('.', "-");
                let weight = format!("target_model.{name}.weight");
                Ok(Site {
                    target: if components.contains(&weight) { Some(components.matrix(&weight)?) } else { None },
                    v: components.matrix(&format!("_components.{key}.V"))?,
                    u: components.matrix(&format!("_components.{key}.U"))?,
                    name,
                })
            })
            .collect::<Result<_, StageError>>()?;
        let ci = match artifact.files.get("ci.parquet") {
            Some(path) => Some(CiTable::read(path)?),
            None => None,
        };
        let metrics = MetricLog::read(artifact.path("metrics.parquet")?)?;
        Ok(Self { title: title(artifact), sites, metrics, ci })
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
    pub(super) fn read(artifact: &InputArtifact) -> Result<Self, StageError> {
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
        Ok(Self { title: title(artifact), members })
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

fn title(artifact: &InputArtifact) -> String {
    if artifact.axes.is_empty() {
        return artifact.instance.clone();
    }
    artifact.axes.iter().map(|(axis, value)| format!("{axis} = {value}")).collect::<Vec<_>>().join(", ")
}
