//! Fixture `04_targets`: the induction-head transformer's logits, attention and activations.

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_stages::bridge::Graph;
use spdflow_stages::models::{InductionHead, TargetConfig, TargetModel};

use crate::spd::{features, state, target_config, tokens};
use crate::support::{Case, assert_close, cases, tolerance};

#[test]
fn reference_induction_heads() {
    let mut compared = 0;
    for case in cases("04_targets") {
        for recorded in case.json["cases"].as_array().expect("cases") {
            if let Some(TargetConfig::InductionHead(config)) = target_config(recorded) {
                check(&case, recorded, InductionHeadCase { config });
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "no induction-head transformer in the fixtures");
}

struct InductionHeadCase {
    config: spdflow_stages::models::InductionHeadConfig,
}

fn check(case: &Case, recorded: &Value, InductionHeadCase { config }: InductionHeadCase) {
    let id = recorded["id"].as_str().expect("an id");
    let device = Cpu::default();
    let graph = Graph::detached(&device);
    let state = state(case, &format!("{id}/state/"));
    let keys: Vec<String> = config.tensors().into_iter().map(|tensor| tensor.name).collect();
    let recorded_keys: Vec<&String> = recorded["state_shapes"].as_object().expect("shapes").keys().collect();
    for key in &recorded_keys {
        assert!(keys.contains(key), "{id}: `{key}` is not in our state dict");
    }
    assert_eq!(keys.len(), recorded_keys.len(), "{id}: keys of the state dict");
    for (name, tensor) in config.position_tensors() {
        assert_close(&format!("{id} {name}"), &tensor.data, &state.get(&name).expect("recorded").data, 1e-6);
    }
    let model = InductionHead::load(config.clone(), &device, &state).expect("the recorded target loads");
    let (input, _, rows) = tokens(case, &format!("{id}/input"));
    let input = graph.upload(input, (1, rows)).expect("enough memory");
    let compare = |key: &str, ours: &[f32], theirs: &[f32]| {
        assert_close(&format!("{id} {key}"), ours, theirs, tolerance(recorded, key));
    };
    let by_feature = |key: &str| features(case, &format!("{id}/{key}")).0;
    let output = model
        .forward(&graph, &input, &mut |module, x| {
            let module = &model.modules()[module];
            if module.name != "token_embed" {
                let key = format!("module_in/{}", module.name);
                compare(&key, &x.to_vec(), &by_feature(&key));
            }
            let y = module.layer.finish(&graph, &module.layer.product(&graph, x)?)?;
            let key = format!("module_out/{}", module.name);
            compare(&key, &y.to_vec(), &by_feature(&key));
            Ok(y)
        })
        .expect("enough memory");
    compare("output", &output.to_vec(), &by_feature("output"));

    // Recorded as [sequences, blocks, heads, queries, keys].
    let blocks = model.attention_weights(&graph, &input).expect("enough memory");
    let sequences = rows / config.seq_len;
    let one = blocks[0].len() / sequences;
    let ours: Vec<f32> = (0..sequences)
        .flat_map(|s| blocks.iter().flat_map(move |block| &block[s * one..(s + 1) * one]))
        .copied()
        .collect();
    compare("attention_weights", &ours, case.floats(&format!("{id}/attention_weights")));

    // Training looks at the last position alone.
    let last = model.last_logits(&graph, &input).expect("enough memory").to_vec();
    let all = output.to_vec();
    let picked: Vec<f32> =
        all.chunks(rows).flat_map(|row| row.iter().skip(config.seq_len - 1).step_by(config.seq_len)).copied().collect();
    assert_close(&format!("{id} last logits"), &last, &picked, 1e-6);
}
