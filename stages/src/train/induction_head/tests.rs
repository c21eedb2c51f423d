//! A small induction-head transformer: initial weights, gradients, and a training that learns.

use std::collections::BTreeMap;

use dfdx::prelude::Cpu;
use serde_json::json;
use spdflow_engine::kind::Kind;
use spdflow_kernels::philox::{Stream, normal};

use super::TrainInductionHead;
use super::network::Network;
use super::params::TrainInductionHeadParams;
use crate::artifact::json;
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::{self, Tensors};
use crate::bridge::{Buffers, Graph};
use crate::models::TargetDescription;
use crate::purpose::Purpose;
use crate::testing::run_kind;
use crate::train::run::Objective;

fn params(more: serde_json::Value) -> TrainInductionHeadParams {
    let mut params = json!({ "vocab_size": 6, "seq_len": 8, "d_model": 8, "n_heads": 2, "batch_size": 16 });
    for (key, value) in more.as_object().expect("a table") {
        params[key] = value.clone();
    }
    serde_json::from_value(params).expect("parameters")
}

fn everything() -> TrainInductionHeadParams {
    params(json!({ "use_ff": true, "use_layer_norm": true }))
}

#[test]
fn norms_start_as_the_identity_and_linear_layers_within_their_bound() {
    let params = everything();
    let (network, parameters) = Network::new(&Cpu::default(), &params).expect("enough memory");
    for (name, tensor) in network.state(parameters.state()) {
        let within = |bound: f32| tensor.data.iter().all(|x| x.abs() <= bound) && tensor.data.iter().any(|x| *x != 0.0);
        match &name[..] {
            name if name.contains(".ln") || name.starts_with("ln_f") => {
                let expected = if name.ends_with("weight") { 1.0 } else { 0.0 };
                assert!(tensor.data.iter().all(|x| *x == expected), "{name}");
            }
            name if name.contains("fc2") => assert!(within(32.0_f32.sqrt().recip()), "{name}"),
            name if name.ends_with(".pe") || name == "token_embed.weight" => assert!(within(4.5), "{name}"),
            name => assert!(within(8.0_f32.sqrt().recip()), "{name}"),
        }
    }
}

#[test]
fn the_gradient_predicts_how_the_loss_changes() {
    let params = everything();
    let (network, mut parameters) = Network::new(&Cpu::default(), &params).expect("enough memory");
    let stream = Purpose::TargetData.stream(3, 0, 0);
    let start = parameters.state();
    let graph = Graph::recording(&Cpu::default());
    let leaves = parameters.leaves(&graph).expect("enough memory");
    let loss = network.loss(&graph, &leaves, stream, 0..params.batch_size).expect("enough memory");
    let gradients = graph.gradients(&loss, &leaves).expect("enough memory");
    for (index, gradient) in gradients.iter().map(Cpu::read_gradient).enumerate() {
        let mut along = vec![0.0; gradient.len()];
        normal(Stream { seed: 11, purpose: 0, step: 0, index: index as u32 }, &mut along);
        let mut moved = |by: f32| {
            let mut state = start.clone();
            state[index].1.data.iter_mut().zip(&along).for_each(|(x, d)| *x += by * d);
            parameters.load(&state.into_iter().collect::<Tensors>()).expect("the same shapes");
            let graph = Graph::detached(&Cpu::default());
            let leaves = parameters.leaves(&graph).expect("enough memory");
            network.loss(&graph, &leaves, stream, 0..params.batch_size).expect("enough memory").scalar()
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        let terms = gradient.iter().zip(&along).map(|(g, d)| f64::from(*g) * f64::from(*d));
        let (predicted, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        // Rounding of the loss, 2 · 6e-8 · 2 / 2e-3, and curvature.
        let error = (slope - predicted).abs();
        let name = &start[index].0;
        assert!(error <= 1e-2 * size + 3e-4, "{name}: slope {slope}, gradient says {predicted}, terms {size}");
        assert!(size > 1e-4, "{name}: the gradient is not trivially zero");
    }
}

#[test]
fn impossible_models_are_explained() {
    let issues = |more| -> Vec<(String, String)> {
        TrainInductionHead::validate(&params(more)).into_iter().map(|issue| (issue.path, issue.message)).collect()
    };
    let one = |path: &str, message: &str| vec![(path.to_owned(), message.to_owned())];
    assert_eq!(issues(json!({})), []);
    assert_eq!(issues(json!({ "n_heads": 3 })), one("n_heads", "must divide d_model = 8, found 3"));
    assert_eq!(
        issues(json!({ "d_model": 7, "n_heads": 1 })),
        one("d_model", "must be even to hold sines and cosines, found 7")
    );
    assert_eq!(issues(json!({ "n_layers": 0 })), one("n_layers", "must be at least 1, found 0"));
    assert_eq!(
        issues(json!({ "prefix_window": 6 })),
        one("prefix_window", "must be from 2 to seq_len - 3 = 5, found 6")
    );
    assert_eq!(issues(json!({ "seq_len": 2 })), one("seq_len", "must be at least 5, found 2"));
    assert_eq!(
        issues(json!({ "attention_maps_batches": 0 })),
        one("attention_maps_batches", "must be at least 1, found 0")
    );
}

#[test]
fn training_learns_and_writes_what_a_decomposition_needs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let params = params(json!({ "steps": 150, "batch_size": 64, "lr": { "start": 1e-2 }, "log_every": 10,
        "final_batches": 2, "attention_maps_batches": 1 }));
    let summary = run_kind::<TrainInductionHead>(&params, &BTreeMap::new(), folder.path(), 2).expect("a training");
    let metrics = MetricLog::read(&folder.path().join("metrics.parquet")).expect("metrics");
    let losses = metrics.series("train/loss");
    let (first, last) = (losses[0].1, metrics.last("eval/loss").expect("the final loss"));
    // Without looking back, the best guess is one of six tokens: ln 6 = 1.79.
    assert!(first > 1.7 && last < 1.3, "{first} {last}");
    let description: TargetDescription = json::read(&folder.path().join("target.json")).expect("a description");
    assert_eq!(description.data.sequence_length(), 8);
    let state = tensors::read(&folder.path().join("target.safetensors")).expect("weights");
    assert_eq!(state.get("blocks.1.attn.pos_enc.pe").expect("positions").shape, [1, 8, 8]);
    let files: Vec<&str> = summary.files.iter().map(|file| &file.path[..]).collect();
    for name in ["train_loss_curve.svg", "attention_layer0_head0.png", "attention_layer1_head1.svg"] {
        assert!(files.contains(&name), "{files:?}");
    }
}
