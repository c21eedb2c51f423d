//! The stage kind `decompose.spd`: Stochastic Parameter Decomposition of a trained target.

use spdflow_engine::kind::{InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::config::{DataOverride, DecomposeParams};
use super::export::{DecompositionDescription, SiteDescription, write};
use super::headline::headline;
use super::run::{Finished, run};
use crate::bridge::Backend;
use crate::data::{InductionSequences, InputDistribution, SparseFeatures};
use crate::models::LoadedTarget;
use crate::threads::{OnDevice, on_device};

/// `decompose.spd`.
pub struct DecomposeSpd;

impl Kind for DecomposeSpd {
    type Params = DecomposeParams;

    const INFO: KindInfo = KindInfo {
        name: "decompose.spd",
        version: 3,
        summary: "splits a target's matrices into rank-one components and learns which ones matter for each input",
        inputs: &[InputSlot {
            name: "target",
            accepts: &["train.*"],
            many: false,
            required: true,
            summary: "the network to take apart",
        }],
    };

    const USES_RANKS: bool = true;

    fn validate(params: &DecomposeParams) -> Vec<ParamIssue> {
        params.issues()
    }

    fn run(params: &DecomposeParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        on_device::<Self>(params, context)
    }
}

impl OnDevice for DecomposeSpd {
    fn run_on<D: Backend>(
        device: &D,
        params: &DecomposeParams,
        context: &StageContext<'_>,
    ) -> Result<Summary, StageError> {
        decompose(device, params, context)
    }
}

fn decompose<D: Backend>(
    device: &D,
    params: &DecomposeParams,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let target = LoadedTarget::read(context.input("target"))?;
    let data = inputs(&target.description.data, params)?;
    let model_config = &target.description.model;
    let Finished { trainer, metrics, records } = run(device, model_config, &target.state, &data, params, context)?;
    if context.world.rank() > 0 {
        // Rank 0 has the same parameters, and everything that was recorded.
        return Ok(Summary::default());
    }
    let (model, parameters) = (&trainer.model, &trainer.parameters);
    let mut summary = Summary::default();
    let numbers = headline(device, model_config, &target.state, (model, parameters), params, &metrics)
        .map_err(|error| StageError::failed(format!("{error:?}")))?;
    for (name, value) in numbers {
        summary.metric(name, value);
    }
    let description = DecompositionDescription {
        kind: DecomposeSpd::INFO.name.to_owned(),
        target: model_config.clone(),
        data,
        sites: model
            .sites()
            .iter()
            .map(|site| {
                let (d_out, d_in) = site.shape();
                SiteDescription { name: site.plan.name.clone(), d_in, d_out, components: site.plan.components }
            })
            .collect(),
        params: params.clone(),
        result: summary.metrics.iter().map(|(name, value)| (name.clone(), serde_json::json!(value))).collect(),
    };
    write(device, (model, parameters), &target.state, &description, (&metrics, &records), context, &mut summary)?;
    Ok(summary)
}

/// Returns the input distribution: the target's, with what the parameters override.
fn inputs(target: &InputDistribution, params: &DecomposeParams) -> Result<InputDistribution, StageError> {
    let DataOverride { feature_probability, generation, prefix_window } = params.data;
    let unfit = |field: &str, expected: &str, found: &str| {
        Err(StageError::failed_with_hint(
            format!("`data.{field}`: expected a target that reads {expected}, found one that reads {found}"),
            format!("leave out `data.{field}`; without `data` the inputs are those the target was trained on"),
        ))
    };
    let data = match target {
        InputDistribution::SparseFeatures(_) if prefix_window.is_some() => {
            return unfit("prefix_window", "induction sequences", "vectors");
        }
        InputDistribution::InductionSequences(_) if feature_probability.is_some() => {
            return unfit("feature_probability", "vectors", "sequences of tokens");
        }
        InputDistribution::InductionSequences(_) if generation.is_some() => {
            return unfit("generation", "vectors", "sequences of tokens");
        }
        InputDistribution::SparseFeatures(target) => InputDistribution::SparseFeatures(SparseFeatures {
            feature_probability: feature_probability.unwrap_or(target.feature_probability),
            generation: generation.unwrap_or(target.generation),
            ..target.clone()
        }),
        InputDistribution::InductionSequences(target) => InputDistribution::InductionSequences(InductionSequences {
            prefix_window: prefix_window.unwrap_or(target.prefix_window),
            ..target.clone()
        }),
    };
    match data.mistake() {
        None => Ok(data),
        // Only the generation can have made these unfit: they are the target's own.
        Some(("synced_inputs", _)) => Err(StageError::failed_with_hint(
            "`data.generation`: expected `at_least_zero_active`, the only choice for a target with `synced_inputs`",
            "leave out `data.generation`; without `data` the inputs are those the target was trained on",
        )),
        Some((field, message)) => Err(StageError::failed_with_hint(
            format!("`data.{field}`: {message}"),
            format!(
                "all but `data.{field}` is the target's own; without `data` the inputs are those it was trained on"
            ),
        )),
    }
}
