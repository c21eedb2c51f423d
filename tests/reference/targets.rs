//! Fixtures `04_targets*`: plain forward passes of target models, with what goes in and out of every module.

use std::collections::BTreeMap;

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_stages::bridge::{Graph, Var};
use spdflow_stages::models::{InductionHead, InductionHeadConfig, LayerKind, ResidMlp, TargetConfig, run_module};

use crate::spd::{features, state, target_config, tokens};
use crate::support::{Case, assert_close, cases, tolerance};

#[test]
fn reference_target_forward_passes() {
    let mut compared = 0;
    for case in cases("04_targets") {
        for recorded in case.json["cases"].as_array().expect("cases") {
            match target_config(recorded) {
                Some(config) => {
                    check(&case, recorded, &config);
                    compared += 1;
                }
                None => println!("skipped: {}: no target model `{}` yet", recorded["id"], recorded["class_"]),
            }
        }
    }
    assert!(compared > 0, "no case of a target we have in the fixtures");
}

fn check(case: &Case, recorded: &Value, config: &TargetConfig) {
    let id = recorded["id"].as_str().expect("an id");
    let device = Cpu::default();
    let graph = Graph::detached(&device);
    let state = state(case, &format!("{id}/state/"));
    let names: Vec<&str> = recorded["state_shapes"].as_object().expect("shapes").keys().map(String::as_str).collect();
    let mut ours: Vec<String> = config.tensors().into_iter().map(|(name, _)| name).collect();
    ours.sort();
    let mut theirs = names.clone();
    theirs.sort_unstable();
    assert_eq!(ours, theirs, "{id}: the state dict's names");

    let model = config.load(&device, &state).expect("the recorded target loads");
    let reads_tokens = matches!(config, TargetConfig::InductionHead(_));
    let read = if reads_tokens { tokens } else { features };
    let (input, n, rows) = read(case, &format!("{id}/input"));
    let input = graph.upload(input, (n, rows)).expect("enough memory");
    let mut seen: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let output = model
        .forward(&graph, &input, &mut |module, x| {
            let name = &model.modules()[module].name;
            let y = run_module(&*model, &graph, module, x)?;
            // Tokens are the input itself and not recorded again.
            if model.modules()[module].layer.kind() != LayerKind::Embedding {
                seen.insert(format!("module_in/{name}"), x.to_vec());
            }
            seen.insert(format!("module_out/{name}"), y.to_vec());
            Ok(y)
        })
        .expect("enough memory");
    seen.insert("output".to_owned(), output.to_vec());
    if let TargetConfig::ResidMlp(config) = config {
        let model = ResidMlp::load(config.clone(), &device, &state).expect("the recorded target loads");
        let residual = model.residual(&graph, &input, &mut |module, x| run_module(&model, &graph, module, x));
        seen.insert("residual".to_owned(), residual.expect("enough memory").to_vec());
    }
    if let TargetConfig::InductionHead(config) = config {
        let model = InductionHead::load(config.clone(), &device, &state).expect("the recorded target loads");
        seen.insert("attention_weights".to_owned(), attention(&model, config, &graph, &input));
        for (name, tensor) in config.position_tensors() {
            assert_close(&format!("{id} {name}"), &tensor.data, &state.get(&name).expect("recorded").data, 1e-6);
        }
        // Training looks at the last positions alone.
        let last = model.last_logits(&graph, &input).expect("enough memory").to_vec();
        let all = seen["output"].iter().skip(config.seq_len - 1).step_by(config.seq_len);
        assert_close(&format!("{id} last logits"), &last, &all.copied().collect::<Vec<_>>(), 1e-6);
    }
    let recorded_keys: Vec<&str> =
        recorded["tol"].as_object().expect("tolerances").keys().map(String::as_str).collect();
    for key in &recorded_keys {
        let ours = seen.get(*key).unwrap_or_else(|| panic!("{id}: nothing of ours is called `{key}`"));
        let name = format!("{id}/{key}");
        let theirs = if *key == "attention_weights" { case.floats(&name).to_vec() } else { features(case, &name).0 };
        assert_close(&format!("{id} {key}"), ours, &theirs, tolerance(recorded, key));
    }
    assert_eq!(recorded_keys.len(), seen.len(), "{id}: everything of ours is recorded");
}

/// Returns how much positions attend to one another as it is recorded: `[sequences, blocks, heads, queries, keys]`.
fn attention(
    model: &InductionHead<Cpu>,
    config: &InductionHeadConfig,
    graph: &Graph<Cpu>,
    input: &Var<Cpu>,
) -> Vec<f32> {
    let blocks = model.attention_weights(graph, input).expect("enough memory");
    let one = config.n_heads * config.seq_len * config.seq_len;
    let sequences = input.shape().1 / config.seq_len;
    let of = |sequence: usize| blocks.iter().flat_map(move |block| &block[sequence * one..(sequence + 1) * one]);
    (0..sequences).flat_map(of).copied().collect()
}
