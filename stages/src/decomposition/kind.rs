//! The stage kind `decompose.spd`: Stochastic Parameter Decomposition of a trained target.

use dfdx::prelude::Cpu;
use spdflow_engine::kind::{Device, InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::config::{DataOverride, DecomposeParams};
use super::export::{DecompositionDescription, SiteDescription, matrices, write};
use super::model::ComponentModel;
use super::run::{Finished, run};
use crate::artifact::metric_log::MetricLog;
use crate::bridge::Backend;
use crate::data::{InductionSequences, InputDistribution, SparseFeatures};
use crate::models::{LoadedTarget, TargetConfig};
use crate::optimizer::parameters::Parameters;
use crate::solution::{significant_subnets, subnet_sizes, tms_geometry};
use crate::threads::with_threads;

/// `decompose.spd`.
pub struct DecomposeSpd;

impl Kind for DecomposeSpd {
    type Params = DecomposeParams;

    const INFO: KindInfo = KindInfo {
        name: "decompose.spd",
        version: 1,
        summary: "splits a target's matrices into rank-one components and learns which ones matter for each input",
        inputs: &[InputSlot {
            name: "target",
            accepts: &["train.*"],
            many: false,
            required: true,
            summary: "the network to take apart",
        }],
    };

    fn validate(params: &DecomposeParams) -> Vec<ParamIssue> {
        params.issues()
    }

    fn run(params: &DecomposeParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        match context.device {
            Device::Cpu => with_threads(context.threads, || decompose(&Cpu::default(), params, context))?,
            Device::Cuda(_) => Err(StageError::failed_with_hint(
                "this build of spdflow has no CUDA support",
                "leave out `--device`, or use `--device cpu`",
            )),
        }
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
    let Finished { trainer, metrics } = run(device, model_config, &target.state, &data, params, context)?;
    let (model, parameters) = (&trainer.model, &trainer.parameters);
    let mut summary = Summary::default();
    for (name, value) in headline(model_config, model, parameters, params, &metrics) {
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
    write(device, (model, parameters), &target.state, &description, &metrics, context, &mut summary)?;
    Ok(summary)
}

/// Returns the input distribution: the target's, with what the parameters override.
fn inputs(target: &InputDistribution, params: &DecomposeParams) -> Result<InputDistribution, StageError> {
    let DataOverride { feature_probability, generation, prefix_window } = params.data;
    let unfit = |field: &str, expected: &str, found: &str| {
        Err(StageError::failed_with_hint(
            format!("`data.{field}`: expected a target that reads {expected}, found one that reads {found}"),
            format!("leave out `data.{field}`"),
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
        Some((field, message)) => Err(StageError::failed(format!("`data.{field}`: {message}"))),
    }
}

/// Returns the few numbers that describe the result.
fn headline<D: Backend>(
    target: &TargetConfig,
    model: &ComponentModel<D>,
    parameters: &Parameters<D>,
    params: &DecomposeParams,
    metrics: &MetricLog,
) -> Vec<(String, f64)> {
    let mut numbers = vec![("loss".to_owned(), metrics.last("train/loss/total").unwrap_or(f64::NAN))];
    let mut copy = |to: &str, from: &str| {
        if let Some(value) = metrics.last(from) {
            numbers.push((to.to_owned(), value));
        }
    };
    copy("identity_ci_error", "eval/target_solution_error/total");
    copy("identity_ci_error_0p2", "eval/target_solution_error/total_0p2");
    let matrices = matrices(model, parameters);
    for (site, (v, u)) in model.sites().iter().zip(&matrices) {
        let sizes = subnet_sizes(v, u);
        let significant = significant_subnets(&sizes, params.evaluation.significance_threshold).len();
        numbers.push((format!("significant/{}", site.plan.name), significant as f64));
    }
    if let TargetConfig::Tms(_) = target
        && let Some((s, site)) = model.sites().iter().enumerate().find(|(_, site)| site.plan.name == "linear1")
    {
        let (d_out, d_in) = site.shape();
        let weight = crate::matrix::Matrix::new(d_out, d_in, site.weight.to_vec());
        let geometry = tms_geometry(&weight, &matrices[s].0, &matrices[s].1);
        numbers.push(("mmcs".to_owned(), geometry.mean_max_cosine_similarity));
        numbers.push(("ml2r".to_owned(), geometry.mean_l2_ratio));
    }
    let mut copy = |to: &str, from: &str| {
        if let Some(value) = metrics.last(from) {
            numbers.push((to.to_owned(), value));
        }
    };
    for class in ["StochasticReconLoss", "FaithfulnessLoss"] {
        copy(class, &format!("eval/loss/{class}"));
    }
    for site in model.sites() {
        let key = format!("l0/{:?}_{}", params.evaluation.alive_threshold, site.plan.name);
        copy(&key, &format!("eval/{key}"));
    }
    numbers
}
