//! The weights of a decomposition, as its artifact stores them (`decomposition.json`, `components.safetensors`).

use serde::Deserialize;
use spdflow_engine::kind::{InputArtifact, StageError};

use super::tensors::Tensors;
use super::{json, tensors};
use crate::matrix::Matrix;
use crate::solution::{NeuronContributions, model_contributions};

/// A decomposed matrix.
#[derive(Debug, Clone)]
pub struct SiteWeights {
    /// The site's name: `linear1`, `layers.0.mlp_in`.
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

/// Returns the weights of all sites in the order of the decomposition.
///
/// # Errors
/// As [`json::read`] and [`tensors::read`]; [`StageError::Failed`] if a tensor is missing.
pub fn read(artifact: &InputArtifact) -> Result<Vec<SiteWeights>, StageError> {
    let description: Description = json::read(artifact.path("decomposition.json")?)?;
    let components = tensors::read(artifact.path("components.safetensors")?)?;
    sites(description, &components)
}

/// Returns the weights of all sites as [`read`], and what the neurons of a decomposed residual MLP contribute.
///
/// # Errors
/// As [`read`].
pub fn read_with_contributions(
    artifact: &InputArtifact,
) -> Result<(Vec<SiteWeights>, Option<NeuronContributions>), StageError> {
    let description: Description = json::read(artifact.path("decomposition.json")?)?;
    let components = tensors::read(artifact.path("components.safetensors")?)?;
    let sites = sites(description, &components)?;
    let site = |name: &str| sites.iter().find(|site| site.name == name).map(|site| (site.v.clone(), site.u.clone()));
    let contributions = model_contributions(|name| components.matrix(&format!("target_model.{name}")).ok(), site);
    Ok((sites, contributions))
}

fn sites(description: Description, components: &Tensors) -> Result<Vec<SiteWeights>, StageError> {
    description
        .sites
        .into_iter()
        .map(|SiteDescription { name }| {
            // State-dict keys cannot hold the dots of a module path.
            let key = name.replace('.', "-");
            let weight = format!("target_model.{name}.weight");
            Ok(SiteWeights {
                target: if components.contains(&weight) { Some(components.matrix(&weight)?) } else { None },
                v: components.matrix(&format!("_components.{key}.V"))?,
                u: components.matrix(&format!("_components.{key}.U"))?,
                name,
            })
        })
        .collect()
}
