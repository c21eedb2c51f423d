//! A trained target as an artifact: `target.json` says what it is, `target.safetensors` holds its weights.

use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{InputArtifact, StageError};

use super::TargetConfig;
use crate::artifact::json;
use crate::artifact::tensors::{self, Tensors};
use crate::data::InputDistribution;

/// The weights of a target artifact.
pub const WEIGHTS_FILE: &str = "target.safetensors";
/// The description of a target artifact.
pub const DESCRIPTION_FILE: &str = "target.json";

/// What `target.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetDescription {
    /// The stage kind that made the target: `train.tms`.
    pub kind: String,
    /// The model.
    pub model: TargetConfig,
    /// The distribution of its inputs; decompositions draw from it unless told otherwise.
    pub data: InputDistribution,
    /// How training went: final loss, which restart won, and so on.
    pub result: serde_json::Value,
}

/// A target artifact, read.
pub struct LoadedTarget {
    /// Its description.
    pub description: TargetDescription,
    /// Its state dict.
    pub state: Tensors,
}

impl LoadedTarget {
    /// Reads a target artifact.
    ///
    /// # Errors
    /// [`StageError`] if a file is missing, unreadable or damaged.
    pub fn read(artifact: &InputArtifact) -> Result<Self, StageError> {
        Ok(Self {
            description: json::read(artifact.path(DESCRIPTION_FILE)?)?,
            state: tensors::read(artifact.path(WEIGHTS_FILE)?)?,
        })
    }
}
