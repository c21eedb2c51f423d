//! Fixture `12_datasets`: sparse features and induction sequences from recorded draws, and the labels of residual MLPs.

use serde_json::Value;
use spdflow_stages::data::{
    FeatureDraws, Generation, InductionDraws, InductionSequences, LabelFunction, Labels, SparseFeatures,
};
use spdflow_stages::models::Activation;

use crate::spd::{activation, features, transposed};
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

#[test]
fn reference_labels_of_residual_mlps() {
    let mut compared = 0;
    for case in cases("12_datasets") {
        for recorded in
            case.json["cases"].as_array().expect("cases").iter().filter(|recorded| recorded["kind"] == "resid")
        {
            check(&case, recorded);
            check_labels(&case, recorded);
            compared += 1;
        }
    }
    assert!(compared > 0, "no residual-MLP case in the fixtures");
}

fn check_labels(case: &Case, recorded: &Value) {
    let (id, args) = (recorded["id"].as_str().expect("an id"), &recorded["args"]);
    let (input, n, rows) = features(case, &format!("{id}/batch"));
    let expected = features(case, &format!("{id}/labels")).0;
    if args["calc_labels"] == false {
        // Decompositions need no labels; the reference then returns the inputs.
        assert_eq!(input, expected, "{id}");
        return;
    }
    let draws = format!("{id}/draw/label_coeffs_u");
    let coefficients = if case.has(&draws) { Labels::coefficients(case.floats(&draws)) } else { vec![1.0; n] };
    assert_close(&format!("{id} coefficients"), &coefficients, case.floats(&format!("{id}/label_coeffs")), 1e-6);
    let function = match args["label_type"].as_str() {
        Some("abs") => LabelFunction::Abs,
        _ => LabelFunction::ActPlusResid,
    };
    let act_fn = if args["act_fn_name"].is_null() { Activation::Relu } else { activation(&args["act_fn_name"]) };
    let labels = Labels { function, act_fn, coefficients }.of(&input);
    assert_close(&format!("{id} labels"), &transposed(&labels, n, rows), &transposed(&expected, n, rows), 1e-6);
}

fn check(case: &Case, recorded: &Value) {
    let (id, args) = (recorded["id"].as_str().expect("an id"), &recorded["args"]);
    let range = |i: usize, default: f64| args["value_range"][i].as_f64().unwrap_or(default) as f32;
    // Residual MLPs have inputs of both signs.
    let lowest = if recorded["kind"] == "resid" { -1.0 } else { 0.0 };
    let generation = args["data_generation_type"].as_str().unwrap_or("at_least_zero_active");
    let data = SparseFeatures {
        n_features: args["n_features"].as_u64().expect("n_features") as usize,
        feature_probability: args["feature_probability"].as_f64().expect("a probability"),
        generation: serde_json::from_value::<Generation>(generation.into()).expect("a generation"),
        value_range: (range(0, lowest), range(1, 1.0)),
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
