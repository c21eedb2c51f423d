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
fn parameters_out_of_range_are_named() {
    let params = PlotParams { subnet_threshold: f64::NAN, max_subnets: 0, ..PlotParams::default() };
    let issues: Vec<String> =
        Plot::validate(&params).into_iter().map(|i| format!("{}: {}", i.path, i.message)).collect();
    assert_eq!(
        issues,
        ["subnet_threshold: must be at least 0, found NaN", "max_subnets: must be from 1 to 24, found 0"]
    );
}
