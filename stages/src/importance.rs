//! Causal importances over data, as the stages behind a decomposition see them.

use spdflow_engine::kind::{InputArtifact, StageError};

use crate::matrix::Matrix;

/// Computes how important components are on the data their target was trained for.
///
/// The program's source is the decomposition itself, loaded from its artifact; tests bring made-up numbers. So the
/// kinds that read importances ([`KMeans`](crate::cluster::KMeans), [`Geometry`](crate::compare::Geometry)) need no
/// model to be tested.
pub trait ImportanceSource: Send + Sync + 'static {
    /// Returns for each site its name and the lower-leaky importances [rows, C] on `rows` inputs drawn with `seed`.
    ///
    /// # Errors
    /// Any [`StageError`]: an artifact that cannot be read, or a target that has no data of its own.
    fn on_data(artifact: &InputArtifact, rows: usize, seed: u64) -> Result<Vec<(String, Matrix)>, StageError>;
}
