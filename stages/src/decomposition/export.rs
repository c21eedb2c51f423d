//! A finished decomposition as files, and back.

use dfdx::prelude::Cpu;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{InputArtifact, StageContext, StageError, Summary};

use super::config::DecomposeParams;
use super::evaluation::EvaluationRecords;
use super::model::{ComponentModel, Leaves, component_key};
use super::probe::{by_row, probe};
use super::run::{build, evaluated_steps, saved_steps};
use crate::artifact::ci_table::CiTable;
use crate::artifact::json;
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::{self, Tensor, Tensors};
use crate::bridge::{Backend, Graph};
use crate::data::InputDistribution;
use crate::importance::ImportanceSource;
use crate::matrix::Matrix;
use crate::models::TargetConfig;
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;

/// Target, components and networks, under the reference's state-dict names.
pub const COMPONENTS_FILE: &str = "components.safetensors";
/// What was decomposed, how, and what came out.
pub const DESCRIPTION_FILE: &str = "decomposition.json";
/// Everything recorded on the way.
pub const METRICS_FILE: &str = "metrics.parquet";
/// Causal importances on one feature at a time; models that read tokens have none.
pub const CI_FILE: &str = "ci.parquet";

/// What `decomposition.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecompositionDescription {
    /// The stage kind: `decompose.spd`.
    pub kind: String,
    /// The target model.
    pub target: TargetConfig,
    /// The distribution of inputs the decomposition was trained on.
    pub data: InputDistribution,
    /// The decomposed matrices in canonical order.
    pub sites: Vec<SiteDescription>,
    /// The whole configuration, defaults filled in.
    #[serde(with = "crate::artifact::pipeline_style")]
    pub params: DecomposeParams,
    /// The final numbers, by name.
    pub result: serde_json::Map<String, serde_json::Value>,
}

/// One decomposed matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteDescription {
    /// The site's name.
    pub name: String,
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Components.
    #[serde(rename = "C")]
    pub components: usize,
}

/// Returns V `[d_in, C]` and U `[C, d_out]` of every site.
pub fn matrices<D: Backend>(model: &ComponentModel<D>, parameters: &Parameters<D>) -> Vec<(Matrix, Matrix)> {
    let state: Tensors = parameters.state().into_iter().collect();
    let matrix = |site: &str, which: &str| {
        state.matrix(&format!("{}.{which}", component_key(site))).expect("every site has V and U")
    };
    model.sites().iter().map(|site| (matrix(&site.plan.name, "V"), matrix(&site.plan.name, "U"))).collect()
}

/// Writes all files of a decomposition's artifact.
///
/// # Errors
/// [`StageError`] if a file cannot be written.
pub fn write<D: Backend>(
    device: &D,
    (model, parameters): (&ComponentModel<D>, &Parameters<D>),
    target_state: &Tensors,
    description: &DecompositionDescription,
    (metrics, records): (&MetricLog, &EvaluationRecords),
    context: &StageContext<'_>,
    summary: &mut Summary,
) -> Result<(), StageError> {
    let out = context.out_dir;
    tensors::write(
        &out.join(COMPONENTS_FILE),
        state(model, parameters, target_state).iter().map(|(name, tensor)| (&name[..], tensor)),
    )?;
    summary.file(COMPONENTS_FILE, "safetensors", "target model, components and causal-importance networks");
    json::write(&out.join(DESCRIPTION_FILE), description)?;
    summary.file(DESCRIPTION_FILE, "json", "what was decomposed, the whole configuration, and the final numbers");
    metrics.write(&out.join(METRICS_FILE))?;
    summary.file(METRICS_FILE, "parquet", "losses, L0, gradient norms and evaluations by step");
    records.export(out, evaluated_steps(&description.params), saved_steps(&description.params), summary)?;
    if let Some(n_features) = description.data.n_features() {
        let probes = probe(device, model, parameters, n_features, None)
            .map_err(|error| StageError::failed(format!("{error:?}")))?;
        CiTable { sites: probes }.write(&out.join(CI_FILE))?;
        summary.file(CI_FILE, "parquet", "causal importances with one feature active at 0.75, for each feature");
    }
    Ok(())
}

/// Returns the whole state dict: `target_model.*`, `_components.*`, `_ci_fns.*` (spec section 2.7).
pub(super) fn state<D: Backend>(
    model: &ComponentModel<D>,
    parameters: &Parameters<D>,
    target_state: &Tensors,
) -> Vec<(String, Tensor)> {
    let mut state: Vec<(String, Tensor)> =
        target_state.iter().map(|(name, tensor)| (format!("target_model.{name}"), tensor.clone())).collect();
    state.extend(parameters.state());
    for site in model.sites() {
        if let Some(bias) = &site.bias {
            state.push((
                format!("{}.bias", component_key(&site.plan.name)),
                Tensor::new(vec![bias.shape().0], bias.to_vec()),
            ));
        }
    }
    state
}

/// A decomposition read from its artifact.
pub struct LoadedDecomposition {
    /// Its description.
    pub description: DecompositionDescription,
    tensors: Tensors,
}

impl LoadedDecomposition {
    /// Reads a decomposition artifact.
    ///
    /// # Errors
    /// [`StageError`] if a file is missing, unreadable or damaged.
    pub fn read(artifact: &InputArtifact) -> Result<Self, StageError> {
        Ok(Self {
            description: json::read(artifact.path(DESCRIPTION_FILE)?)?,
            tensors: tensors::read(artifact.path(COMPONENTS_FILE)?)?,
        })
    }

    /// Returns the tensors of `components.safetensors`.
    #[must_use]
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Returns V `[d_in, C]` and U `[C, d_out]` of the site called `name`.
    ///
    /// # Errors
    /// [`StageError::Failed`] if there is no such site.
    pub fn components(&self, name: &str) -> Result<(Matrix, Matrix), StageError> {
        let key = component_key(name);
        Ok((self.tensors.matrix(&format!("{key}.V"))?, self.tensors.matrix(&format!("{key}.U"))?))
    }

    /// Returns each site's lower causal importances `[rows, C]` on `rows` rows drawn from the decomposition's inputs.
    ///
    /// A row of a model that reads tokens is a position of a sequence. `batch` numbers the draws: equal seeds and
    /// numbers give equal rows.
    ///
    /// # Errors
    /// [`StageError::Failed`] if the tensors do not fit the description.
    pub fn causal_importances<D: Backend>(
        &self,
        device: &D,
        rows: usize,
        seed: u64,
        batch: u32,
    ) -> Result<Vec<(String, Matrix)>, StageError> {
        let failed = |error: D::Err| StageError::failed(format!("{error:?}"));
        let prefix = "target_model.";
        let target: Tensors = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
            .collect();
        let (model, mut parameters) = build(device, &self.description.target, &target, &self.description.params)?;
        parameters.load(&self.tensors)?;
        let data = &self.description.data;
        // Whole sequences are run, and the positions beyond `rows` are dropped below.
        let sequences = rows.div_ceil(data.sequence_length());
        let input = data.batch(Purpose::ProfileData.stream(seed, batch, 0), sequences);
        let graph = Graph::detached(device);
        let leaves = Leaves(parameters.leaves(&graph).map_err(failed)?);
        let input = graph.upload(input.input, (input.features, input.positions)).map_err(failed)?;
        let clean = model.clean_pass(&graph, &leaves, &input).map_err(failed)?;
        let importances = model.importances(&graph, &leaves, &clean, None).map_err(failed)?;
        Ok(model
            .sites()
            .iter()
            .zip(importances)
            .map(|(site, importance)| (site.plan.name.clone(), by_row(&importance.lower).first_rows(rows)))
            .collect())
    }
}

impl ImportanceSource for LoadedDecomposition {
    fn on_data(artifact: &InputArtifact, rows: usize, seed: u64) -> Result<Vec<(String, Matrix)>, StageError> {
        Self::read(artifact)?.causal_importances(&Cpu::default(), rows, seed, 0)
    }
}
