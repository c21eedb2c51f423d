//! Fixture `12_datasets`: sparse features and induction sequences from recorded draws.

use serde_json::Value;
use spdflow_stages::data::{FeatureDraws, Generation, InductionDraws, InductionSequences, SparseFeatures};

use crate::spd::{features, transposed};
use crate::support::{Case, assert_close, cases};

#[test]
fn reference_sparse_features() {
    let mut compared = 0;
    for case in cases("12_datasets") {
        for recorded in
            case.json["cases"].as_array().expect("cases").iter().filter(|recorded| recorded["kind"] == "sparse")
        {
            check(&case, recorded);
            compared += 1;
        }
    }
    assert!(compared > 0, "no sparse-feature case in the fixtures");
}

#[test]
fn reference_induction_sequences() {
    let mut compared = 0;
    for case in cases("12_datasets") {
        let recorded = case.json["cases"].as_array().expect("cases").iter();
        for recorded in recorded.filter(|recorded| recorded["kind"] == "induction") {
            check_induction(&case, recorded);
            compared += 1;
        }
    }
    assert!(compared > 0, "no induction case in the fixtures");
}

fn check_induction(case: &Case, recorded: &Value) {
    let id = recorded["id"].as_str().expect("an id");
    let count = |key: &str| recorded["args"][key].as_u64().expect("a count") as usize;
    let data = InductionSequences {
        vocab_size: count("vocab_size"),
        seq_len: count("seq_len"),
        prefix_window: count("prefix_window"),
    };
    assert_eq!(data.mistake(), None, "{id}");
    let draw = |name: &str| case.integers(&format!("{id}/draw/{name}")).iter().map(|token| *token as u32).collect();
    let draws =
        InductionDraws { memorised: draw("ind_memorised"), tokens: draw("ind_tokens"), location: draw("ind_location") };
    let sequences = data.assemble(&draws);
    let recorded =
        |name: &str| -> Vec<f32> { case.integers(&format!("{id}/{name}")).iter().map(|token| *token as f32).collect() };
    assert_eq!(sequences.batch.input, recorded("batch"), "{id}");
    assert_eq!(sequences.memorised, recorded("labels"), "{id}");
}

fn check(case: &Case, recorded: &Value) {
    let (id, args) = (recorded["id"].as_str().expect("an id"), &recorded["args"]);
    let range = |i: usize, default: f64| args["value_range"][i].as_f64().unwrap_or(default) as f32;
    let generation = args["data_generation_type"].as_str().unwrap_or("at_least_zero_active");
    let data = SparseFeatures {
        n_features: args["n_features"].as_u64().expect("n_features") as usize,
        feature_probability: args["feature_probability"].as_f64().expect("a probability"),
        generation: serde_json::from_value::<Generation>(generation.into()).expect("a generation"),
        value_range: (range(0, 0.0), range(1, 1.0)),
        synced_inputs: serde_json::from_value(args["synced_inputs"].clone()).unwrap_or_default(),
    };
    assert_eq!(data.mistake(), None, "{id}");
    let draw = |name: &str| {
        let name = format!("{id}/draw/{name}");
        if case.has(&name) { features(case, &name).0 } else { Vec::new() }
    };
    let draws = FeatureDraws {
        value: draw("batch_value_u"),
        active: draw("batch_mask_u"),
        order: draw("batch_perm_u"),
        synced: (0..data.synced_inputs.len()).map(|group| draw(&format!("batch_sync_u/{group}"))).collect(),
    };
    let rows = recorded["batch_size"].as_u64().expect("a size") as usize;
    let batch = transposed(&data.assemble(&draws, rows), data.n_features, rows);
    assert_close(id, &batch, case.floats(&format!("{id}/batch")), 1e-6);
}
