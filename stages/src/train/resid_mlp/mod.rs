//! The stage kind `train.resid_mlp`: a residual MLP that computes a function of each feature (spec section 1.2).
//!
//! With more features than neurons this is *compressed computation*: every neuron serves several features.

mod network;
mod params;
#[cfg(test)]
mod tests;

use spdflow_engine::kind::{Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::run::{self, Trained};
use crate::artifact::tensors::Tensors;
use crate::artifact::{json, tensors};
use crate::bridge::Backend;
use crate::data::InputDistribution;
use crate::figure::resid_mlp::{FEATURES_SHOWN, neuron_contributions};
use crate::models::{DESCRIPTION_FILE, EMBEDDING, TargetConfig, TargetDescription, UNEMBEDDING, WEIGHTS_FILE};
use crate::solution::target_contributions;
use crate::threads::{OnDevice, on_device};
use network::Network;
use params::TrainResidMlpParams;

/// `train.resid_mlp`.
pub struct TrainResidMlp;

/// The label coefficients of an artifact, as the reference saves them.
const COEFFICIENTS_FILE: &str = "label_coeffs.json";

impl Kind for TrainResidMlp {
    type Params = TrainResidMlpParams;

    const INFO: KindInfo = KindInfo {
        name: "train.resid_mlp",
        version: 2,
        summary: "trains a residual MLP: a function of each sparse feature, computed by fewer neurons than features",
        inputs: &[],
    };

    fn validate(params: &TrainResidMlpParams) -> Vec<ParamIssue> {
        params.issues()
    }

    fn run(params: &TrainResidMlpParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        on_device::<Self>(params, context)
    }
}

impl OnDevice for TrainResidMlp {
    fn run_on<D: Backend>(
        device: &D,
        params: &TrainResidMlpParams,
        context: &StageContext<'_>,
    ) -> Result<Summary, StageError> {
        train(device, params, context)
    }
}

fn train<D: Backend>(
    device: &D,
    params: &TrainResidMlpParams,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let (network, parameters) =
        Network::new(device, params).map_err(|error| StageError::failed(format!("{error:?}")))?;
    let Trained { state, metrics, final_loss } =
        run::train_alone(device, parameters, &network, params.recipe(), params.seed, context)?;
    let (state, out) = (network.state(state), context.out_dir);
    let mut summary = Summary::default();
    summary.metric("loss", final_loss);
    let coefficients = params.labels().coefficients;
    let description = TargetDescription {
        kind: TrainResidMlp::INFO.name.to_owned(),
        model: TargetConfig::ResidMlp(params.model()),
        data: InputDistribution::SparseFeatures(params.data()),
        result: serde_json::json!({
            "loss": final_loss,
            "embedding": params.embedding,
            "label": params.label,
            "label_coeffs": coefficients,
        }),
    };
    tensors::write(&out.join(WEIGHTS_FILE), state.iter().map(|(name, tensor)| (&name[..], tensor)))?;
    summary.file(WEIGHTS_FILE, "safetensors", "the trained weights under their PyTorch names");
    json::write(&out.join(DESCRIPTION_FILE), &description)?;
    summary.file(DESCRIPTION_FILE, "json", "the model, its inputs and its labels");
    json::write(&out.join(COEFFICIENTS_FILE), &coefficients)?;
    summary.file(COEFFICIENTS_FILE, "json", "what multiplies each feature in its label");
    metrics.write(&out.join("metrics.parquet"))?;
    summary.file("metrics.parquet", "parquet", "training loss by step");
    let state: Tensors = state.into_iter().collect();
    let (w_e, w_u) = (state.matrix(EMBEDDING)?, state.matrix(UNEMBEDDING)?);
    let mut layers = Vec::new();
    for layer in 0..params.n_layers {
        let matrix = |name: &str| state.matrix(&format!("layers.{layer}.{name}.weight"));
        layers.push((layer, target_contributions(&w_e, &w_u, &matrix("mlp_in")?, &matrix("mlp_out")?)));
    }
    let title = format!("Neuron contributions to the first {} features", params.n_features.min(FEATURES_SHOWN));
    neuron_contributions(&title, &[("target", &layers)]).write(out, "neuron_contributions", &mut summary)?;
    Ok(summary)
}
