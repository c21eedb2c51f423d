//! The kind as a whole, on artifacts made here.

use std::collections::BTreeMap;
use std::path::Path;

use spdflow_engine::kind::{InputArtifact, Kind};

use super::{Plot, PlotParams};
use crate::artifact::ci_table::{CiTable, SiteCi};
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tables::{self, Column};
use crate::artifact::tensors::{self, Tensor};
use crate::matrix::Matrix;
use crate::testing::{artifact_in, run_kind};

fn noise(i: usize) -> f32 {
    (i as f32 * 0.618_034).fract() - 0.5
}

fn artifact(folder: &Path, instance: &str, kind: &str, seed: Option<u64>) -> InputArtifact {
    let axes = seed.map(|seed| ("seed".to_owned(), seed.to_string())).into_iter().collect();
    InputArtifact { axes, ..artifact_in(folder, instance, kind) }
}

/// Writes a decomposition of the pentagon into 20 components, of which five matter, one per feature.
fn decomposition(folder: &Path, seed: u64) -> InputArtifact {
    std::fs::create_dir_all(folder).unwrap();
    let w = crate::figure::tests::pentagon();
    let home = |j: usize| (j * 3 + 2 + seed as usize) % 20;
    let v = Matrix::from_fn(5, 20, |j, c| if c == home(j) { 1.0 } else { 0.002 * noise(j * 20 + c) });
    let u = Matrix::from_fn(20, 2, |c, i| (0..5).find(|&j| home(j) == c).map_or(0.01 * noise(c + i), |j| w.at(i, j)));
    let ci = |site: &str| {
        let lower = Matrix::from_fn(5, 20, |j, c| if c == home(j) { 1.0 } else { (0.06 * noise(j + 7 * c)).max(0.0) });
        let upper = Matrix::from_fn(5, 20, |j, c| lower.at(j, c) * 1.004);
        SiteCi { site: site.to_owned(), pre_sigmoid: upper.clone(), lower, upper }
    };
    let named: Vec<(&str, Tensor)> = vec![
        ("target_model.linear1.weight", w.clone().into()),
        ("target_model.linear2.weight", w.transposed().into()),
        ("_components.linear1.V", v.clone().into()),
        ("_components.linear1.U", u.clone().into()),
        ("_components.linear2.V", u.transposed().into()),
        ("_components.linear2.U", v.transposed().into()),
    ];
    tensors::write(&folder.join("components.safetensors"), named.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    CiTable { sites: vec![ci("linear1"), ci("linear2")] }.write(&folder.join("ci.parquet")).unwrap();
    let mut log = MetricLog::new();
    let names = ["total", "ImportanceMinimalityLoss", "StochasticReconLoss", "StochasticReconLayerwiseLoss"];
    for step in (0..=10_000).step_by(100) {
        for (i, name) in names.iter().enumerate() {
            let decay =
                (-(step as f64) / 2500.0).exp() + 0.003 * (1.2 + f64::from(noise(step / 100 + i + seed as usize)));
            log.push(step as u64, format!("train/loss/{name}"), decay * 0.5_f64.powi(i as i32));
        }
        for site in ["linear1", "linear2"] {
            let l0 = 0.25 + 0.5 * (-(step as f64) / 1500.0).exp();
            log.push(step as u64, format!("eval/l0/0.1_{site}"), l0 + 0.02 * f64::from(noise(step / 100)));
        }
    }
    log.write(&folder.join("metrics.parquet")).unwrap();
    let text = r#"{"sites": [{"name": "linear1", "d_in": 5, "d_out": 2, "C": 20},
        {"name": "linear2", "d_in": 2, "d_out": 5, "C": 20}], "params": {}}"#;
    std::fs::write(folder.join("decomposition.json"), text).unwrap();
    artifact(folder, &format!("decompose[seed={seed}]"), "decompose.spd", Some(seed))
}

fn clusters(folder: &Path, seed: u64) -> InputArtifact {
    std::fs::create_dir_all(folder).unwrap();
    let (mut site, mut component, mut cluster) = (Vec::new(), Vec::new(), Vec::new());
    for name in ["linear1", "linear2"] {
        for c in 0..20 {
            site.push(name.to_owned());
            component.push(c);
            let feature = (0..5).find(|j| (j * 3 + 2 + seed as i32) % 20 == c);
            cluster.push(feature);
        }
    }
    let alive = cluster.iter().map(Option::is_some).collect();
    let table = [
        ("site", Column::Text(site)),
        ("component", Column::Int32(component)),
        ("cluster", Column::OptionalInt32(cluster)),
        ("alive", Column::Bool(alive)),
    ];
    tables::write(&folder.join("clusters.parquet"), &table).unwrap();
    artifact(folder, &format!("clusters[seed={seed}]"), "cluster.kmeans", Some(seed))
}

fn comparison(folder: &Path) -> InputArtifact {
    std::fs::create_dir_all(folder).unwrap();
    let site = [vec!["linear1".to_owned(); 5], vec!["linear2".to_owned(); 5]].concat();
    let values = vec![0.999, 0.998, 0.9995, 0.99, 0.997, 0.98, 0.999, 0.6, 0.995, 0.999];
    let table = [("site", Column::Text(site)), ("max_abs_cosine_sim", Column::Float64(values))];
    tables::write(&folder.join("similarity.parquet"), &table).unwrap();
    artifact(folder, "compare", "compare.geometry", None)
}

fn target(folder: &Path) -> InputArtifact {
    std::fs::create_dir_all(folder).unwrap();
    let mut log = MetricLog::new();
    for step in (0..=5000).step_by(50) {
        log.push(step, "train/loss/total", 0.05 * (-(step as f64) / 600.0).exp() + 0.0018);
    }
    log.write(&folder.join("metrics.parquet")).unwrap();
    artifact(folder, "target", "train.tms", None)
}

fn run(inputs: &BTreeMap<String, Vec<InputArtifact>>, out: &Path) -> spdflow_engine::kind::Summary {
    std::fs::create_dir_all(out).unwrap();
    run_kind::<Plot>(&PlotParams::default(), inputs, out, 1).unwrap()
}

#[test]
fn all_figures_are_drawn_twice_with_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let inputs = BTreeMap::from([
        ("decompositions".to_owned(), vec![decomposition(&at("d0"), 0), decomposition(&at("d1"), 1)]),
        ("clusters".to_owned(), vec![clusters(&at("c0"), 0), clusters(&at("c1"), 1)]),
        ("comparison".to_owned(), vec![comparison(&at("compare"))]),
        ("target".to_owned(), vec![target(&at("target"))]),
    ]);
    let summary = run(&inputs, &at("out"));
    let names: Vec<&str> = summary.files.iter().map(|file| file.path.as_str()).collect();
    let expected = [
        "causal_importances.svg",
        "causal_importances.png",
        "causal_importances_upper_leaky.svg",
        "causal_importances_upper_leaky.png",
        "vectors.svg",
        "vectors.png",
        "weights.svg",
        "weights.png",
        "losses.svg",
        "losses.png",
        "metrics.svg",
        "metrics.png",
        "target_training.svg",
        "target_training.png",
        "clusters.svg",
        "clusters.png",
        "comparison.svg",
        "comparison.png",
        "summary.json",
    ];
    assert_eq!(names, expected);
    run(&inputs, &at("again"));
    for name in names {
        let (first, second) =
            (std::fs::read(at("out").join(name)).unwrap(), std::fs::read(at("again").join(name)).unwrap());
        assert!(first == second, "`{name}` differs");
        if let Some(show) = std::env::var_os("SPDFLOW_SHOW_FIGURES") {
            std::fs::write(Path::new(&show).join(name), first).unwrap();
        }
    }
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(at("out").join("summary.json")).unwrap()).unwrap();
    let vectors = &report["decompositions"][0]["vectors"];
    assert_eq!(vectors["significant_components"].as_array().unwrap().len(), 5);
    assert_eq!(report["decompositions"][1]["component_order"][0][1][0], 3, "feature 0 lives in component 2 + seed");
}

/// Writes a decomposition of a residual MLP of two layers in which each feature has a component of its own: 12 features,
/// 20 dimensions, 5 neurons a layer.
fn resid_decomposition(folder: &Path, seed: u64) -> InputArtifact {
    std::fs::create_dir_all(folder).unwrap();
    let w_e = Matrix::from_fn(12, 20, |i, d| f32::from(i == d));
    let mut named: Vec<(String, Tensor)> = vec![
        ("target_model.W_E".to_owned(), w_e.clone().into()),
        ("target_model.W_U".to_owned(), w_e.transposed().into()),
    ];
    let mut ci = Vec::new();
    for layer in 0..2 {
        let weight = |n: usize, d: usize| {
            let (near, spread) = (d % 5 == n && d / 6 == layer, noise(d * 5 + n + 31 * layer));
            if near { 0.6 + 0.3 * spread } else { 0.25 * spread.max(0.0) }
        };
        let w_in = Matrix::from_fn(5, 20, weight);
        let off = |d: usize, n: usize| 1.0 + 0.04 * noise(d + 7 * n + seed as usize);
        // The component of feature c reads its dimension and writes that column of W_in.
        let v = Matrix::from_fn(20, 12, |d, c| f32::from(d == c));
        let u = Matrix::from_fn(12, 5, |c, n| w_in.at(n, c) * off(c, n));
        let site = format!("layers.{layer}.mlp_in");
        named.push((format!("target_model.{site}.weight"), w_in.clone().into()));
        named.push((format!("target_model.layers.{layer}.mlp_out.weight"), w_in.transposed().into()));
        named.push((format!("_components.layers-{layer}-mlp_in.V"), v.into()));
        named.push((format!("_components.layers-{layer}-mlp_in.U"), u.into()));
        let lower = Matrix::from_fn(12, 12, |i, c| f32::from(i == c && i / 6 == layer));
        ci.push(SiteCi { site, pre_sigmoid: lower.clone(), upper: lower.clone(), lower });
    }
    tensors::write(&folder.join("components.safetensors"), named.iter().map(|(name, tensor)| (&name[..], tensor)))
        .unwrap();
    CiTable { sites: ci }.write(&folder.join("ci.parquet")).unwrap();
    let mut log = MetricLog::new();
    log.push(0, "train/loss/total", 1.0);
    log.push(1, "train/loss/total", 0.5);
    log.write(&folder.join("metrics.parquet")).unwrap();
    let text = r#"{"sites": [{"name": "layers.0.mlp_in"}, {"name": "layers.1.mlp_in"}]}"#;
    std::fs::write(folder.join("decomposition.json"), text).unwrap();
    artifact(folder, &format!("decompose[seed={seed}]"), "decompose.spd", Some(seed))
}

#[test]
fn a_residual_mlp_is_drawn_with_the_contributions_of_its_neurons_and_without_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let decompositions = (0..2).map(|seed| resid_decomposition(&folder.path().join(format!("d{seed}")), seed));
    let inputs = BTreeMap::from([("decompositions".to_owned(), decompositions.collect())]);
    let out = folder.path().join("out");
    let summary = run(&inputs, &out);
    let names: Vec<&str> = summary.files.iter().map(|f| f.path.as_str()).filter(|p| p.ends_with(".svg")).collect();
    let expected = [
        "causal_importances.svg",
        "causal_importances_upper_leaky.svg",
        "neuron_contributions.svg",
        "neuron_contribution_scatter.svg",
        "weights.svg",
        "losses.svg",
    ];
    assert_eq!(names, expected);
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
    let contributions = &report["decompositions"][0]["neuron_contributions"];
    let correlation = contributions["correlation"].as_f64().unwrap();
    assert!(correlation > 0.999 && correlation < 1.0, "{correlation}");
    assert_eq!(contributions["components"][1][3], 3, "feature 3 lives in component 3");
    if let Some(show) = std::env::var_os("SPDFLOW_SHOW_FIGURES") {
        for name in ["neuron_contributions", "neuron_contribution_scatter"] {
            let file = format!("{name}.png");
            std::fs::copy(out.join(&file), Path::new(&show).join(&file)).unwrap();
        }
    }
}

#[test]
fn a_decomposition_without_probe_and_without_plane_still_has_its_curves() {
    let folder = tempfile::tempdir().unwrap();
    let mut decomposition = decomposition(&folder.path().join("d"), 0);
    decomposition.files.remove("ci.parquet");
    let inputs = BTreeMap::from([("decompositions".to_owned(), vec![decomposition])]);
    let summary = run(&inputs, &folder.path().join("out"));
    let svgs: Vec<&str> = summary.files.iter().map(|f| f.path.as_str()).filter(|p| p.ends_with(".svg")).collect();
    assert_eq!(svgs, ["vectors.svg", "losses.svg", "metrics.svg"]);
}

#[test]
fn a_diverged_decomposition_is_still_drawn() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("nan", f32::NAN), ("infinity", f32::INFINITY)] {
        let path = folder.path().join(name);
        let artifact = decomposition(&path, 0);
        let weights = crate::artifact::components::read(&artifact).unwrap();
        let mut named = Vec::new();
        for site in weights {
            let broken = |matrix: &Matrix| Tensor::from(Matrix::from_fn(matrix.rows(), matrix.cols(), |_, _| value));
            named.push((format!("target_model.{}.weight", site.name), Tensor::from(site.target.unwrap())));
            named.push((format!("_components.{}.V", site.name), broken(&site.v)));
            named.push((format!("_components.{}.U", site.name), broken(&site.u)));
        }
        tensors::write(&path.join("components.safetensors"), named.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        let mut ci = CiTable::read(&path.join("ci.parquet")).unwrap();
        ci.sites[0].lower.data_mut().fill(value);
        ci.sites[0].upper.data_mut()[3] = value;
        ci.write(&path.join("ci.parquet")).unwrap();
        let mut log = MetricLog::new();
        log.push(0, "train/loss/total", 1.0);
        log.push(1, "train/loss/total", f64::from(value));
        log.write(&path.join("metrics.parquet")).unwrap();
        let inputs = BTreeMap::from([("decompositions".to_owned(), vec![artifact])]);
        let summary = run(&inputs, &folder.path().join(format!("out-{name}")));
        assert!(summary.files.iter().any(|file| file.path == "causal_importances.png"));
    }
}

#[test]
fn contributions_that_are_not_numbers_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let artifact = resid_decomposition(&path, 0);
    let mut state: Vec<(String, Tensor)> = tensors::read(&path.join("components.safetensors"))
        .unwrap()
        .iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
        .collect();
    for (_, tensor) in state.iter_mut().filter(|(name, _)| name.ends_with(".U")) {
        tensor.data.fill(f32::NAN);
    }
    tensors::write(&path.join("components.safetensors"), state.iter().map(|(n, t)| (&n[..], t))).unwrap();
    let inputs = BTreeMap::from([("decompositions".to_owned(), vec![artifact])]);
    let summary = run(&inputs, &folder.path().join("out"));
    assert!(summary.files.iter().any(|file| file.path == "neuron_contribution_scatter.png"));
}

#[test]
fn parameters_out_of_range_are_named() {
    let params = PlotParams { subnet_threshold: f64::NAN, max_subnets: 0, ..PlotParams::default() };
    let issues: Vec<String> =
        Plot::validate(&params).into_iter().map(|i| format!("{}: {}", i.path, i.message)).collect();
    assert_eq!(
        issues,
        ["subnet_threshold: must be at least 0, found NaN", "max_subnets: must be from 1 to 24, found 0"]
    );
}
