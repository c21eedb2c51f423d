//! Small residual MLPs: initial weights, losses, and a training that learns.

use std::collections::BTreeMap;

use dfdx::prelude::Cpu;
use serde_json::json;
use spdflow_engine::kind::Kind;

use super::network::Network;
use super::params::TrainResidMlpParams;
use super::{COEFFICIENTS_FILE, TrainResidMlp};
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::{self, Tensors};
use crate::bridge::{Buffers, Graph};
use crate::models::{ResidMlp, run_module, run_plain};
use crate::purpose::Purpose;
use crate::testing::run_kind;
use crate::train::run::Objective;

fn params(more: serde_json::Value) -> TrainResidMlpParams {
    let mut params = json!({ "n_features": 4, "d_embed": 6, "d_mlp": 3, "n_layers": 2, "feature_probability": 0.3,
        "batch_size": 64 });
    for (key, value) in more.as_object().expect("a table") {
        params[key] = value.clone();
    }
    serde_json::from_value(params).expect("parameters")
}

fn initial_state(params: &TrainResidMlpParams) -> Tensors {
    let (network, parameters) = Network::new(&Cpu::default(), params).expect("enough memory");
    network.state(parameters.state()).into_iter().collect()
}

#[test]
fn a_fixed_random_embedding_has_unit_rows_and_is_read_off_along_them() {
    let params = params(json!({}));
    let state = initial_state(&params);
    let (w_e, w_u) = (state.matrix("W_E").expect("W_E"), state.matrix("W_U").expect("W_U"));
    for i in 0..4 {
        let length = w_e.row(i).iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-6, "row {i} has length {length}");
    }
    assert_eq!(w_u, w_e.transposed());
    let names: Vec<&str> = state.names().collect();
    assert!(names.contains(&"layers.1.mlp_out.weight") && !names.iter().any(|name| name.ends_with("bias")));
    let (_, parameters) = Network::new(&Cpu::default(), &params).expect("enough memory");
    assert!(parameters.iter().all(|parameter| parameter.name.starts_with("layers.")), "the embedding is not trained");
}

#[test]
fn a_fixed_identity_embedding_is_read_off_by_the_identity() {
    let state = initial_state(&params(json!({ "embedding": "fixed_identity", "d_embed": 4 })));
    let (w_e, w_u) = (state.matrix("W_E").expect("W_E"), state.matrix("W_U").expect("W_U"));
    let identity = crate::matrix::Matrix::from_fn(4, 4, |i, j| f32::from(i == j));
    // The reference leaves W_U at random: what is read off would have nothing to do with the features.
    assert_eq!((w_e, w_u), (identity.clone(), identity));
}

#[test]
fn a_trained_embedding_is_trained_as_far_as_the_loss_reads_it() {
    let trained = |loss: serde_json::Value| -> Vec<String> {
        let params = params(json!({ "embedding": "trained", "n_layers": 1, "loss": loss }));
        let (_, parameters) = Network::new(&Cpu::default(), &params).expect("enough memory");
        parameters.iter().map(|parameter| parameter.name.clone()).collect()
    };
    let matrices = ["layers.0.mlp_in.weight", "layers.0.mlp_out.weight"];
    assert_eq!(trained(json!({ "readoff": {} })), ["W_E", "W_U", matrices[0], matrices[1]]);
    assert_eq!(trained(json!("resid")), ["W_E", matrices[0], matrices[1]]);
}

/// Returns the loss on a batch as the network computes it, its gradient, and the loss by its definition.
fn losses(params: &TrainResidMlpParams) -> (f64, Vec<Vec<f32>>, f64) {
    let device = Cpu::default();
    let (network, parameters) = Network::new(&device, params).expect("enough memory");
    let stream = Purpose::TargetData.stream(0, 0, 0);
    let graph = Graph::recording(&device);
    let leaves = parameters.leaves(&graph).expect("enough memory");
    let loss = network.loss(&graph, &leaves, stream, 0..params.batch_size).expect("enough memory");
    let gradients = graph.gradients(&loss, &leaves).expect("enough memory").iter().map(Cpu::read_gradient).collect();

    let state: Tensors = network.state(parameters.state()).into_iter().collect();
    let model = ResidMlp::load(params.model(), &device, &state).expect("the network's own state");
    let (n, rows) = (params.n_features, params.batch_size);
    let input = params.data().batch(stream, rows).input;
    let labels = params.labels().of(&input);
    let plain = Graph::detached(&device);
    let input = plain.upload(input, (n, rows)).expect("enough memory");
    let expected = match params.loss {
        super::params::TrainingLoss::Readoff(readoff) => {
            let output = run_plain(&model, &plain, &input).expect("enough memory").to_vec();
            let errors =
                output.iter().zip(&labels).enumerate().map(|(at, (y, label))| {
                    f64::from(y - label).powi(2) * readoff.importance_val.powf((at / rows) as f64)
                });
            errors.sum::<f64>() / (n * rows) as f64
        }
        super::params::TrainingLoss::Resid => {
            let residual = model.residual(&plain, &input, &mut |module, x| run_module(&model, &plain, module, x));
            let residual = residual.expect("enough memory").to_vec();
            let w_e = state.matrix("W_E").expect("W_E");
            let mut sum = 0.0;
            for row in 0..rows {
                for dimension in 0..params.d_embed {
                    let label: f32 = (0..n).map(|i| labels[i * rows + row] * w_e.at(i, dimension)).sum();
                    sum += f64::from(residual[dimension * rows + row] - label).powi(2);
                }
            }
            sum / (params.d_embed * rows) as f64
        }
    };
    (loss.scalar(), gradients, expected)
}

#[test]
fn losses_are_what_they_are_defined_as() {
    for more in [
        json!({}),
        json!({ "in_bias": true, "out_bias": true, "act_fn": "gelu", "label_coefficients": "random" }),
        json!({ "loss": { "readoff": { "importance_val": 0.5 } }, "label": "abs" }),
        json!({ "loss": "resid", "embedding": "trained", "label_coefficients": "random", "label_seed": 3 }),
    ] {
        let (ours, gradients, expected) = losses(&params(more.clone()));
        // f32 sums of a few hundred squares.
        assert!((ours - expected).abs() <= 1e-5 * expected, "{more}: {ours}, expected {expected}");
        assert!(gradients.iter().flatten().any(|g| *g != 0.0), "{more}: something is learned");
    }
}

#[test]
fn the_embedding_learns_from_both_sides_of_the_residual_loss() {
    let base = params(json!({ "loss": "resid", "embedding": "trained", "n_layers": 1 }));
    let device = Cpu::default();
    let (network, mut parameters) = Network::new(&device, &base).expect("enough memory");
    let start = parameters.state();
    let (_, gradients, _) = losses(&base);
    let stream = Purpose::TargetData.stream(0, 0, 0);
    let mut moved = |by: f32| {
        let state: Tensors = start
            .iter()
            .map(|(name, tensor)| {
                let mut tensor = tensor.clone();
                if name == "W_E" {
                    tensor.data[7] += by;
                }
                (name.clone(), tensor)
            })
            .collect();
        parameters.load(&state).expect("the same shapes");
        let graph = Graph::detached(&device);
        let leaves = parameters.leaves(&graph).expect("enough memory");
        network.loss(&graph, &leaves, stream, 0..base.batch_size).expect("enough memory").scalar()
    };
    // f32 rounding of a loss near 0.1 over a step of 2e-2: 6e-7.
    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
    assert!((slope - f64::from(gradients[0][7])).abs() < 2e-3 * slope.abs().max(1e-2), "{slope} {}", gradients[0][7]);
}

#[test]
fn training_learns_and_writes_what_a_decomposition_needs() {
    let out = tempfile::tempdir().expect("a temporary folder");
    // As many neurons as features: an exact solution exists.
    let params = params(json!({ "embedding": "fixed_identity", "d_embed": 4, "d_mlp": 8, "steps": 300,
        "log_every": 100, "lr": { "start": 1e-2 }, "label_coefficients": "random" }));
    let summary = run_kind::<TrainResidMlp>(&params, &BTreeMap::new(), out.path(), 2).expect("a training");
    let log = MetricLog::read(&out.path().join("metrics.parquet")).expect("the metrics");
    let (first, last) = (log.series("train/loss")[0].1, log.last("eval/loss").expect("a final loss"));
    assert!(last < 0.1 * first, "from {first} to {last}");
    assert_eq!(summary.metrics, [("loss".to_owned(), last)]);
    let state = tensors::read(&out.path().join("target.safetensors")).expect("the weights");
    ResidMlp::load(params.model(), &Cpu::default(), &state).expect("the weights fit the model");
    let coefficients: Vec<f32> =
        serde_json::from_slice(&std::fs::read(out.path().join(COEFFICIENTS_FILE)).expect("a file")).expect("numbers");
    assert_eq!(coefficients, params.labels().coefficients);
    assert!(coefficients.iter().all(|c| (1.0..2.0).contains(c)) && coefficients[0] != coefficients[1]);
    let files: Vec<&str> = summary.files.iter().map(|file| &file.path[..]).collect();
    assert!(files.contains(&"neuron_contributions.png"), "{files:?}");
}

#[test]
fn parameters_that_make_no_sense_are_explained() {
    let messages = |more: serde_json::Value| -> Vec<(String, String)> {
        TrainResidMlp::validate(&params(more)).into_iter().map(|issue| (issue.path, issue.message)).collect()
    };
    assert_eq!(messages(json!({})), []);
    let one = |path: &str, message: &str| [(path.to_owned(), message.to_owned())];
    assert_eq!(messages(json!({ "n_layers": 0 })), one("n_layers", "must be at least 1, found 0"));
    assert_eq!(
        messages(json!({ "embedding": "fixed_identity" })),
        one(
            "embedding",
            "\"fixed_identity\" needs as many dimensions as features, found d_embed = 6 and n_features = 4"
        )
    );
    assert_eq!(
        messages(json!({ "loss": { "readoff": { "importance_val": 0.0 } } })),
        one("loss.importance_val", "must be a positive number, found 0")
    );
}
