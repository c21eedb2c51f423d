//! The stage kind `train.induction_head`: a transformer that completes `… S M … S` with M (spec section 1.3).

mod network;
mod params;
#[cfg(test)]
mod tests;

use spdflow_engine::kind::{Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::run::{self, Trained};
use crate::artifact::tensors::{Tensor, Tensors};
use crate::artifact::{json, tensors};
use crate::bridge::{Backend, DeviceResult, Graph};
use crate::data::InputDistribution;
use crate::figure::induction_head::{AttentionMaps, attention, loss_curve};
use crate::models::{DESCRIPTION_FILE, InductionHead, TargetConfig, TargetDescription, WEIGHTS_FILE};
use crate::purpose::Purpose;
use crate::threads::{OnDevice, on_device};
use network::Network;
use params::TrainInductionHeadParams;

/// `train.induction_head`.
pub struct TrainInductionHead;

impl Kind for TrainInductionHead {
    type Params = TrainInductionHeadParams;

    const INFO: KindInfo = KindInfo {
        name: "train.induction_head",
        version: 2,
        summary: "trains a small transformer to find a token that followed the last one before",
        inputs: &[],
    };

    fn validate(params: &TrainInductionHeadParams) -> Vec<ParamIssue> {
        params.issues()
    }

    fn run(params: &TrainInductionHeadParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        on_device::<Self>(params, context)
    }
}

impl OnDevice for TrainInductionHead {
    fn run_on<D: Backend>(
        device: &D,
        params: &TrainInductionHeadParams,
        context: &StageContext<'_>,
    ) -> Result<Summary, StageError> {
        train(device, params, context)
    }
}

fn train<D: Backend>(
    device: &D,
    params: &TrainInductionHeadParams,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let failed = |error: D::Err| StageError::failed(format!("{error:?}"));
    let (network, parameters) = Network::new(device, params).map_err(failed)?;
    let Trained { state, metrics, final_loss } =
        run::train_alone(device, parameters, &network, params.recipe(), params.seed, context)?;
    let (state, out): (Vec<(String, Tensor)>, _) = (network.state(state), context.out_dir);
    let by_name: Tensors = state.iter().cloned().collect();
    let model = InductionHead::load(params.model(), device, &by_name)?;
    let accuracy = accuracy(device, &model, params).map_err(failed)?;
    let mut summary = Summary::default();
    summary.metric("loss", final_loss);
    summary.metric("accuracy", accuracy);
    let description = TargetDescription {
        kind: TrainInductionHead::INFO.name.to_owned(),
        model: TargetConfig::InductionHead(params.model()),
        data: InputDistribution::InductionSequences(params.data()),
        result: serde_json::json!({ "loss": final_loss, "accuracy": accuracy }),
    };
    tensors::write(&out.join(WEIGHTS_FILE), state.iter().map(|(name, tensor)| (&name[..], tensor)))?;
    summary.file(WEIGHTS_FILE, "safetensors", "the trained weights under their PyTorch names");
    json::write(&out.join(DESCRIPTION_FILE), &description)?;
    summary.file(DESCRIPTION_FILE, "json", "the model and its inputs");
    metrics.write(&out.join("metrics.parquet"))?;
    summary.file("metrics.parquet", "parquet", "training loss by step");
    if let Some(figure) = loss_curve(&metrics.series("train/loss"), (params.vocab_size as f64).ln()) {
        figure.write(out, "train_loss_curve", &mut summary)?;
    }
    for (layer, heads) in attention_maps(device, &model, params).map_err(failed)?.iter().enumerate() {
        for (head, maps) in heads.iter().enumerate() {
            attention(layer, head, maps).write(out, &format!("attention_layer{layer}_head{head}"), &mut summary)?;
        }
    }
    Ok(summary)
}

/// Returns the stream of the batch of that number among those that trained weights are looked at with.
fn evaluation_stream(params: &TrainInductionHeadParams, batch: u32) -> spdflow_kernels::philox::Stream {
    Purpose::TargetEvaluation.stream(params.seed, batch, 0)
}

/// Returns the share of sequences whose memorised token has the largest logit.
fn accuracy<D: Backend>(
    device: &D,
    model: &InductionHead<D>,
    params: &TrainInductionHeadParams,
) -> DeviceResult<f64, D> {
    let mut right = 0;
    for batch in 0..params.final_batches {
        let sequences = params.data().sequences(evaluation_stream(params, batch), params.batch_size);
        let graph = Graph::detached(device);
        let tokens = graph.upload(sequences.batch.input, (1, sequences.batch.positions))?;
        let logits = model.last_logits(&graph, &tokens)?;
        let (tokens, rows) = logits.shape();
        let logits = logits.to_vec();
        right += (0..rows)
            .filter(|row| {
                let logit = |token: &usize| logits[token * rows + row];
                let best = (0..tokens).max_by(|a, b| logit(a).total_cmp(&logit(b)));
                best.is_some_and(|best| best as f32 == sequences.memorised[*row])
            })
            .count();
    }
    Ok(right as f64 / (f64::from(params.final_batches) * params.batch_size as f64))
}

/// Returns for each layer and head the mean and the largest attention over sequences.
fn attention_maps<D: Backend>(
    device: &D,
    model: &InductionHead<D>,
    params: &TrainInductionHeadParams,
) -> DeviceResult<Vec<Vec<AttentionMaps>>, D> {
    let one = AttentionMaps::new(params.seq_len);
    let mut maps = vec![vec![one; params.n_heads]; params.n_layers];
    for batch in 0..params.attention_maps_batches {
        let sequences = params.data().sequences(evaluation_stream(params, batch), params.batch_size);
        let graph = Graph::detached(device);
        let tokens = graph.upload(sequences.batch.input, (1, sequences.batch.positions))?;
        for (heads, weights) in maps.iter_mut().zip(model.attention_weights(&graph, &tokens)?) {
            for (index, map) in weights.chunks(params.seq_len * params.seq_len).enumerate() {
                heads[index % params.n_heads].add(map);
            }
        }
    }
    Ok(maps)
}
