//! Short trainings of every kind on a GPU beside those on the processor.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spdflow_engine::kind::{Device, Kind};

use super::{TrainInductionHead, TrainResidMlp, TrainTms};
use crate::artifact::metric_log::MetricLog;
use crate::testing::run_kind_on;

fn trained<K: Kind>(device: Device, params: &Value) -> MetricLog {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let params = serde_json::from_value(params.clone()).expect("parameters");
    run_kind_on::<K>(device, &params, &BTreeMap::new(), folder.path(), 1).expect("a training");
    MetricLog::read(&folder.path().join("metrics.parquet")).expect("metrics")
}

fn assert_alike<K: Kind>(params: &Value) {
    let [here, there] = [Device::Cpu, Device::Cuda(0)].map(|device| trained::<K>(device, params));
    assert_eq!(here.names(), there.names());
    assert!(here.rows().count() > 2, "{:?}", here.names());
    for ((step, name, a), (_, _, b)) in here.rows().zip(there.rows()) {
        // The same draws; some hundred roundings of 6e-8 in a step, and Adam's root where gradients are almost nothing.
        assert!((a - b).abs() <= 1e-3 * a.abs() + 1e-6, "{name} at step {step}: {a} and {b}");
    }
}

#[test]
fn trainings_are_alike_on_a_gpu() {
    assert_alike::<TrainTms>(&json!({
        "n_features": 5, "n_hidden": 2, "feature_probability": 0.05, "steps": 6, "restarts": 1, "seed": 0,
        "batch_size": 64, "log_every": 1,
    }));
    assert_alike::<TrainResidMlp>(&json!({
        "n_features": 5, "d_embed": 6, "d_mlp": 4, "n_layers": 2, "feature_probability": 0.2, "steps": 6,
        "batch_size": 32, "log_every": 1,
    }));
    // So many positions that the embedding's gradient is summed in parts.
    assert_alike::<TrainInductionHead>(&json!({
        "vocab_size": 6, "seq_len": 8, "d_model": 8, "n_heads": 2, "use_ff": true, "use_layer_norm": true, "steps": 2,
        "batch_size": 260, "log_every": 1, "final_batches": 1, "attention_maps_batches": 1,
    }));
}
