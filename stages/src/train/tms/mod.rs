//! The stage kind `train.tms`: a toy model of superposition (spec section 1.1).
//!
//! Training is sensitive to the seed: many runs end with features missing. With `restarts = N` it runs N times from
//! seeds derived from `seed` and keeps the run with the lowest loss on batches that all runs share.

mod network;
mod params;

use std::sync::atomic::AtomicU64;

use rayon::prelude::*;
use spdflow_engine::kind::{Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::run::{self, Place, Trained};
use crate::artifact::tensors::Tensors;
use crate::artifact::{json, tensors};
use crate::bridge::{Backend, Graph};
use crate::data::InputDistribution;
use crate::figure::tms::{cosine_similarity_distribution, feature_representation, polygon};
use crate::matrix::Matrix;
use crate::models::{DESCRIPTION_FILE, TargetConfig, TargetDescription, Tms, WEIGHTS_FILE, run_plain};
use crate::threads::{OnDevice, on_device};
use network::Network;
use params::TrainTmsParams;

/// `train.tms`.
pub struct TrainTms;

impl Kind for TrainTms {
    type Params = TrainTmsParams;

    const INFO: KindInfo = KindInfo {
        name: "train.tms",
        version: 2,
        summary: "trains a toy model of superposition: sparse features squeezed through a few dimensions",
        inputs: &[],
    };

    fn validate(params: &TrainTmsParams) -> Vec<ParamIssue> {
        params.issues()
    }

    fn run(params: &TrainTmsParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        on_device::<Self>(params, context)
    }
}

impl OnDevice for TrainTms {
    fn run_on<D: Backend>(
        device: &D,
        params: &TrainTmsParams,
        context: &StageContext<'_>,
    ) -> Result<Summary, StageError> {
        train(device, params, context)
    }
}

fn train<D: Backend + Sync>(
    device: &D,
    params: &TrainTmsParams,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let done = AtomicU64::new(0);
    let runs: Vec<Trained> = (0..params.restarts)
        .into_par_iter()
        .map(|k| train_once(device, params, k, context, &done))
        .collect::<Result<_, _>>()?;
    // NaN never wins; ties go to the earlier run.
    let winner = (0..runs.len())
        .min_by(|a, b| runs[*a].final_loss.total_cmp(&runs[*b].final_loss))
        .expect("at least one restart");
    for (k, run) in runs.iter().enumerate() {
        let mark = if k == winner { " (kept)" } else { "" };
        context.progress.log(&format!(
            "restart {k}, seed {}: final loss {:.6}{mark}",
            params.restart_seed(k as u32),
            run.final_loss
        ));
    }
    write(device, params, &runs, winner, context)
}

fn write<D: Backend>(
    device: &D,
    params: &TrainTmsParams,
    runs: &[Trained],
    winner: usize,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let (best, out) = (&runs[winner], context.out_dir);
    if !best.final_loss.is_finite() {
        return Err(StageError::failed_with_hint(
            "every restart ended with a loss that is not a number",
            "a smaller learning rate (`lr.start`) usually helps",
        ));
    }
    let state: Tensors = best.state.iter().cloned().collect();
    let weight = state.matrix("linear1.weight")?;
    let mut summary = Summary::default();
    summary.metric("loss", best.final_loss);
    summary.metric("restart", winner as f64);
    for (name, value) in geometry(&weight) {
        summary.metric(name, value);
    }
    let description = TargetDescription {
        kind: TrainTms::INFO.name.to_owned(),
        model: TargetConfig::Tms(params.model()),
        data: InputDistribution::SparseFeatures(params.data()),
        result: serde_json::json!({
            "loss": best.final_loss,
            "restart": winner,
            "restart_seed": params.restart_seed(winner as u32),
            "restart_losses": runs.iter().map(|run| run.final_loss).collect::<Vec<_>>(),
        }),
    };
    tensors::write(&out.join(WEIGHTS_FILE), best.state.iter().map(|(name, tensor)| (&name[..], tensor)))?;
    summary.file(WEIGHTS_FILE, "safetensors", "the trained weights under their PyTorch names");
    json::write(&out.join(DESCRIPTION_FILE), &description)?;
    summary.file(DESCRIPTION_FILE, "json", "the model, its inputs, and which restart was kept");
    best.metrics.write(&out.join("metrics.parquet"))?;
    summary.file("metrics.parquet", "parquet", "training loss of the kept run by step");
    if params.n_hidden == 2 {
        polygon(&weight).write(out, "polygon", &mut summary)?;
    }
    let responses = one_hot_responses(device, params, &state)?;
    feature_representation(&responses).write(out, "feature_representation_analysis", &mut summary)?;
    if params.n_features > 1 {
        cosine_similarity_distribution(&weight).write(out, "cosine_similarity_distribution", &mut summary)?;
    }
    Ok(summary)
}

/// Returns how evenly the features share the hidden space: the smallest length of a feature's vector and, in two
/// dimensions, the largest deviation of the angle between neighbours from the even one, in degrees.
fn geometry(weight: &Matrix) -> Vec<(String, f64)> {
    let lengths =
        (0..weight.cols()).map(|j| weight.column(j).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt());
    let mut numbers = vec![("min_feature_norm".to_owned(), lengths.fold(f64::INFINITY, f64::min))];
    if weight.rows() == 2 && weight.cols() > 2 {
        let mut angles: Vec<f64> = (0..weight.cols())
            .map(|j| f64::from(weight.at(1, j)).atan2(f64::from(weight.at(0, j))).to_degrees())
            .collect();
        angles.sort_by(f64::total_cmp);
        let even = 360.0 / angles.len() as f64;
        let last_gap = angles[0] + 360.0 - angles[angles.len() - 1];
        let gaps = angles.windows(2).map(|pair| pair[1] - pair[0]).chain([last_gap]);
        numbers.push(("angle_deviation".to_owned(), gaps.map(|gap| (gap - even).abs()).fold(0.0, f64::max)));
    }
    numbers
}

/// Returns the model's outputs `[n_features, n_features]`, one row for each feature active alone at 0.75.
fn one_hot_responses<D: Backend>(device: &D, params: &TrainTmsParams, state: &Tensors) -> Result<Matrix, StageError> {
    let n = params.n_features;
    let model = Tms::load(params.model(), device, state)?;
    let mut input = vec![0.0; n * n];
    input.iter_mut().step_by(n + 1).for_each(|x| *x = 0.75);
    let graph = Graph::detached(device);
    let output = graph.upload(input, (n, n)).and_then(|input| run_plain(&model, &graph, &input));
    let output = output.map_err(|error: D::Err| StageError::failed(format!("{error:?}")))?;
    Ok(Matrix::new(n, n, output.to_vec()).transposed())
}

fn train_once<D: Backend>(
    device: &D,
    params: &TrainTmsParams,
    k: u32,
    context: &StageContext<'_>,
    done: &AtomicU64,
) -> Result<Trained, StageError> {
    let seed = params.restart_seed(k);
    let (network, parameters) =
        Network::new(device, params, seed).map_err(|error| StageError::failed(format!("{error:?}")))?;
    let place = Place {
        name: &format!("restart{k}"),
        seed,
        // All runs are compared on the same batches.
        evaluation_seed: params.seed,
        progress: (done, params.steps * u64::from(params.restarts)),
    };
    let mut trained = run::train(device, parameters, &network, params.recipe(), &place, context)?;
    trained.state.extend(network.frozen());
    Ok(trained)
}
