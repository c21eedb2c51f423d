//! Fixtures `07a_*`: metrics on hand-made causal importances; `07c_*`: the one-hot probe of models; `07e_*`: whole
//! evaluations and attacks on many batches; `10_*`: activation densities of models.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_stages::artifact::ci_table::SiteCi;
use spdflow_stages::bridge::{DeviceResult, Graph, MaskSource, Var};
use spdflow_stages::data::{Batch, Generation, InputDistribution, SparseFeatures};
use spdflow_stages::decomposition::draws::{DrawKey, Draws, Sampling};
use spdflow_stages::decomposition::evaluation::activity::{ComponentMeans, SiteImportances};
use spdflow_stages::decomposition::evaluation::{
    AttackSource, CiL0, ComponentActivationDensity, EvaluationSource, Findings, IdentityCiError, MetricConfig,
    MultiBatchAttack, Scene, measure,
};
use spdflow_stages::decomposition::loss::{LossConfig, PgdInit};
use spdflow_stages::decomposition::model::ComponentModel;
use spdflow_stages::decomposition::probe::probe;
use spdflow_stages::decomposition::routing::{Routing, StaticProbability};
use spdflow_stages::decomposition::step::{OutputLoss, StepSettings};
use spdflow_stages::optimizer::parameters::Parameters;
use spdflow_stages::solution::{DensePattern, IdentityPattern};

use crate::spd::{Recipe, Recorded, features, loss, output_loss, sampling, state};
use crate::support::{Case, assert_close, assert_close_scalar, cases, number, tolerance};
use crate::target_ci::check_solution;

fn texts(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn groups(value: &Value) -> BTreeMap<String, Vec<String>> {
    let groups = value.as_object().into_iter().flatten();
    groups.map(|(name, patterns)| (name.clone(), texts(patterns))).collect()
}

#[test]
fn reference_l0_density_and_mean_of_hand_made_importances() {
    for case in cases("07a_") {
        let sites: Vec<String> = case.json["modules"].as_object().expect("modules").keys().cloned().collect();
        let batches = case.json["n_batches"].as_u64().expect("a count") as usize;
        for recorded in case.json["cases"].as_array().expect("cases") {
            assert_eq!(recorded["metric"], "CI_L0", "{}", case.name);
            check_l0(&case, recorded, &sites, batches);
        }
        for threshold in case.json["thresholds"].as_array().expect("thresholds") {
            for site in &sites {
                let key = format!("density/threshold{threshold}/{site}");
                check_means(&case, site, batches, &key, |site| site.alive(number(threshold) as f32));
            }
        }
        for site in &sites {
            check_means(&case, site, batches, &format!("mean_ci/{site}"), |site| site.sums(f64::from));
        }
    }
}

fn check_l0(case: &Case, recorded: &Value, sites: &[String], batches: usize) {
    let set = recorded["groups"].as_str().expect("the name of a set of groups");
    let metric = CiL0 { groups: groups(&case.json["groups"][set]), bar_chart: true };
    let threshold = number(&recorded["threshold"]);
    let what = format!("{} groups `{set}` at {threshold:?}", case.name);
    let mut totals = vec![0.0; sites.len()];
    for batch in 0..batches {
        let mut l0 = Vec::new();
        for site in sites {
            let (values, components, positions) = features(case, &format!("ci/batch{batch}/{site}"));
            let importances = SiteImportances { values: &values, components, row_counts: None };
            l0.push(importances.alive(threshold as f32).iter().sum::<f64>() / positions as f64);
        }
        for (name, value) in metric.with_groups(sites, &l0) {
            let expected = number(&recorded["per_batch"][&name][batch]);
            assert_close_scalar(&format!("{what} batch {batch} `{name}`"), value, expected, 1e-5 * expected.max(1.0));
        }
        totals.iter_mut().zip(&l0).for_each(|(total, l0)| *total += l0 / batches as f64);
    }
    let ours = metric.with_groups(sites, &totals);
    let expected = recorded["result"].as_object().expect("numbers by name");
    assert_eq!(ours.len(), expected.len(), "{what}: {ours:?}");
    for (name, value) in ours {
        let key = format!("{threshold:?}_{name}");
        let theirs = number(expected.get(&key).unwrap_or_else(|| panic!("{what}: unexpected `{key}`")));
        assert_close_scalar(&format!("{what} `{key}`"), value, theirs, 1e-5 * theirs.max(1.0));
    }
}

fn check_means(case: &Case, site: &str, batches: usize, key: &str, sums: impl Fn(SiteImportances<'_>) -> Vec<f64>) {
    let mut means = ComponentMeans::default();
    for batch in 0..batches {
        let (values, components, positions) = features(case, &format!("ci/batch{batch}/{site}"));
        means.add(&sums(SiteImportances { values: &values, components, row_counts: None }), positions);
    }
    let ours: Vec<f32> = means.means().iter().map(|mean| *mean as f32).collect();
    // Means of numbers in [0, 1].
    assert_close(&format!("{} {key}", case.name), &ours, case.floats(key), 1e-6);
}

/// Reads the recipe of a model that a case describes without a list of module paths.
fn recipe(recorded: &Value, ci_fn_type: &str) -> Option<Recipe> {
    let mut json = recorded.clone();
    json["target_module_paths"] = recorded["module_to_c"].as_object().expect("modules").keys().cloned().collect();
    let mut settings = recorded.clone();
    for (key, default) in [("ci_fn_type", ci_fn_type), ("sigmoid_type", "leaky_hard")] {
        if settings[key].is_null() {
            settings[key] = default.into();
        }
    }
    Recipe::read(&json, &settings)
}

/// Returns the kind of network whose first weights these are: `[C, inputs, outputs]`, or `[inputs, outputs]` if shared.
fn network(case: &Case, first_weight: &str) -> &'static str {
    match case.shape(first_weight) {
        [_, _] => "shared_mlp",
        [_, 1, _] => "mlp",
        _ => "vector_mlp",
    }
}

#[test]
fn reference_one_hot_probe_of_models() {
    for case in cases("07c_") {
        for recorded in case.json["cases"].as_array().expect("cases") {
            let id = recorded["id"].as_str().expect("an id");
            let first = case.names(&format!("{id}/model/_ci_fns."));
            let kind =
                first.iter().find(|name| name.ends_with(".layers.0.W")).map_or("mlp", |name| network(&case, name));
            let Some(recipe) = recipe(recorded, kind) else { continue };
            let names = case.names(&format!("{id}/lower_leaky/"));
            if names.iter().any(|name| case.shape(name).len() != 2) {
                // Inputs with positions, which our models of vectors do not have.
                continue;
            }
            let (model, mut parameters) = recipe.build(&state(&case, &format!("{id}/model/target_model.")), false);
            parameters.load(&state(&case, &format!("{id}/model/"))).expect("recorded parameters");
            let device = Cpu::default();
            let graph = Graph::detached(&device);
            let noise: Option<Vec<Var<Cpu>>> = (sampling(&recorded["sampling"]) == Sampling::Binomial).then(|| {
                let sites = model.sites().iter();
                sites
                    .map(|site| {
                        let (data, cols, rows) = features(&case, &format!("{id}/draw/ci_noise/{}", site.plan.name));
                        graph.upload(data, (cols, rows)).expect("enough memory")
                    })
                    .collect()
            });
            let n_features = recipe.target.n_features();
            let probed = |noise| probe(&device, &model, &parameters, n_features, noise).expect("enough memory");
            // The metric follows the case's sampling, the recorded importances are always continuous.
            let measured: Vec<SiteCi> = probed(noise.as_deref());
            let sites: Vec<_> = measured.iter().map(|site| (site.site.as_str(), site.lower.clone())).collect();
            check_solution(&format!("{} {id}", case.name), &sites, recorded);
            for site in probed(None) {
                for (key, matrix) in [("lower_leaky", &site.lower), ("upper_leaky", &site.upper)] {
                    let key = format!("{key}/{}", site.site);
                    let theirs = case.floats(&format!("{id}/{key}"));
                    assert_close(
                        &format!("{} {id} {key}", case.name),
                        matrix.data(),
                        theirs,
                        tolerance(recorded, &key),
                    );
                }
            }
        }
    }
}

/// Recorded batches called `PREFIXn` with what was drawn on them.
struct RecordedBatches<'a> {
    case: &'a Case,
    batches: String,
    sites: Vec<String>,
}

impl EvaluationSource<Cpu> for RecordedBatches<'_> {
    fn batch(&self, batch: usize) -> Batch {
        let (input, features, positions) = features(self.case, &format!("{}{batch}", self.batches));
        Batch::dense(input, features, positions)
    }

    fn draws<'a>(&'a self, batch: usize, _: &'a [u32]) -> Box<dyn Draws<Cpu> + 'a> {
        let prefix = format!("draw/eval_batch{batch}/");
        Box::new(Recorded { case: self.case, prefix, sites: self.sites.clone() })
    }
}

fn identity_patterns(value: &Value) -> Vec<IdentityPattern> {
    let entries = value.as_array().into_iter().flatten();
    entries
        .map(|entry| IdentityPattern {
            pattern: entry["layer_pattern"].as_str().expect("a pattern").to_owned(),
            n_features: entry["n_features"].as_u64().expect("a count") as usize,
        })
        .collect()
}

fn dense_patterns(value: &Value) -> Vec<DensePattern> {
    let entries = value.as_array().into_iter().flatten();
    entries
        .map(|entry| DensePattern {
            pattern: entry["layer_pattern"].as_str().expect("a pattern").to_owned(),
            k: entry["k"].as_u64().expect("a count") as usize,
        })
        .collect()
}

/// Splits the reference's list into our losses and metrics.
fn losses_and_metrics(configs: &Value) -> (Vec<LossConfig>, Vec<MetricConfig>) {
    let (mut losses, mut metrics) = (Vec::new(), Vec::new());
    for config in configs.as_array().expect("configs") {
        match config["classname"].as_str().expect("a class") {
            "CI_L0" => {
                metrics.push(MetricConfig::CiL0(CiL0 { groups: groups(&config["groups"]), bar_chart: true }));
            }
            "IdentityCIError" => metrics.push(MetricConfig::IdentityCiError(IdentityCiError {
                identity: identity_patterns(&config["identity_ci"]),
                dense: dense_patterns(&config["dense_ci"]),
            })),
            _ => losses.push(loss(config)),
        }
    }
    (losses, metrics)
}

/// Returns a scene for a recorded model.
fn scene<'a>(
    device: &'a Cpu,
    model: &'a ComponentModel<Cpu>,
    parameters: &'a Parameters<Cpu>,
    data: &'a InputDistribution,
    settings: StepSettings,
    alive_threshold: f64,
) -> Scene<'a, Cpu> {
    Scene {
        device,
        model,
        parameters,
        data,
        settings,
        identity: &[],
        dense: &[],
        alive_threshold,
        batch_size: 0,
        compact: false,
        seed: 0,
        number: 0,
        is_slow: true,
        probed: OnceCell::new(),
    }
}

fn any_data(n_features: usize) -> InputDistribution {
    InputDistribution::SparseFeatures(SparseFeatures {
        n_features,
        feature_probability: 0.5,
        generation: Generation::AtLeastZeroActive,
        value_range: (0.0, 1.0),
        synced_inputs: Vec::new(),
    })
}

#[test]
fn reference_full_evaluations() {
    for case in cases("07e_") {
        let config = &case.json["config"];
        let mut json = case.json.clone();
        for key in ["ci_fn_type", "ci_fn_hidden_dims", "sigmoid_type"] {
            json[key] = config[key].clone();
        }
        let Some(recipe) = recipe(&json, "mlp") else {
            println!("skipped: {}: no target model `{}` yet", case.name, case.json["target"]["class_"]);
            continue;
        };
        let (model, mut parameters) = recipe.build(&state(&case, "model/target_model."), false);
        parameters.load(&state(&case, "model/")).expect("recorded parameters");
        let settings = StepSettings {
            sampling: sampling(&config["sampling"]),
            use_delta_component: config["use_delta_component"].as_bool().expect("a flag"),
            mask_samples: config["n_mask_samples"].as_u64().expect("a count") as usize,
            output_loss: output_loss(&config["output_loss_type"]),
            progress: number(&case.json["current_frac_of_training"]),
        };
        let (device, data) = (Cpu::default(), any_data(recipe.target.n_features()));
        let threshold = number(&config["ci_alive_threshold"]);
        let scene = scene(&device, &model, &parameters, &data, settings, threshold);
        let batches = case.json["n_eval_steps"].as_u64().expect("a count") as usize;
        let (losses, metrics) = losses_and_metrics(&case.json["eval_metric_configs"]);
        let source = RecordedBatches { case: &case, batches: "batch".to_owned(), sites: scene.site_names() };
        let found = measure(&scene, &losses, &metrics, batches, &source).expect("the evaluation succeeds");
        check_values(&case, &found);
        check_attacks(&case, &scene, batches);
    }
}

fn check_values(case: &Case, found: &Findings) {
    let values = case.json["values"].as_object().expect("values");
    let expected: BTreeMap<&str, &Value> =
        values.iter().filter_map(|(key, value)| Some((key.strip_prefix("evaluate/")?, value))).collect();
    let ours: BTreeMap<&str, f64> = found.numbers.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert!(ours.keys().eq(expected.keys()), "{}: {:?} against {:?}", case.name, ours.keys(), expected.keys());
    for (key, value) in ours {
        let theirs = expected[key];
        assert_close_scalar(
            &format!("{} {key}", case.name),
            value,
            number(&theirs["value"]),
            number(&theirs["tol_abs"]),
        );
    }
}

fn check_attacks(case: &Case, scene: &Scene<'_, Cpu>, batches: usize) {
    for (j, config) in case.json["multipgd"].as_array().into_iter().flatten().enumerate() {
        let router = config["router"].as_str().expect("a router");
        let count = |key: &str| config[key].as_u64().expect("a count") as usize;
        let attack = MultiBatchAttack {
            init: serde_json::from_value::<PgdInit>(config["init"].clone()).expect("a start"),
            step_size: number(&config["step_size"]),
            n_steps: count("n_steps"),
            // The reference goes on with what there is when its data end early.
            batches: count("gradient_accumulation_steps").min(batches),
            routing: match router.split_once(" p=") {
                Some((_, p)) => {
                    Some(Routing::StaticProbability(StaticProbability { p: p.parse().expect("a probability") }))
                }
                None if router == "uniform_k_subset" => Some(Routing::UniformKSubset),
                None => None,
            },
        };
        let source = RecordedAttack { case, prefix: format!("draw/multipgd{j}/"), sites: scene.site_names() };
        let value = &case.json["values"][format!("multipgd{j}")];
        let ours = attack.error(scene, "", &source).expect("enough memory");
        let what = format!("{} multipgd{j}", case.name);
        assert_close_scalar(&what, ours, number(&value["value"]), number(&value["tol_abs"]));
    }
}

/// A recorded attack on many batches.
struct RecordedAttack<'a> {
    case: &'a Case,
    prefix: String,
    sites: Vec<String>,
}

impl AttackSource<Cpu> for RecordedAttack<'_> {
    fn batch(&self, batch: usize) -> Batch {
        let (input, features, positions) = features(self.case, &format!("batch{batch}"));
        Batch::dense(input, features, positions)
    }

    fn draws<'a>(&'a self, pass: usize, batch: usize, _: &'a [u32]) -> Box<dyn Draws<Cpu> + 'a> {
        let recorded = |prefix: String| Recorded { case: self.case, prefix, sites: self.sites.clone() };
        let batch = recorded(format!("{}pgdstep{pass}/microbatch{batch}/", self.prefix));
        Box::new(AttackDraws { start: recorded(self.prefix.clone()), batch })
    }
}

/// What was drawn at the start of an attack and in one of its passes over a batch.
struct AttackDraws<'a> {
    start: Recorded<'a>,
    batch: Recorded<'a>,
}

impl Draws<Cpu> for AttackDraws<'_> {
    fn source(
        &mut self,
        graph: &Graph<Cpu>,
        key: DrawKey<'_>,
        site: usize,
        components: usize,
        sampling: Sampling,
    ) -> DeviceResult<MaskSource<Cpu>, Cpu> {
        self.batch.source(graph, key, site, components, sampling)
    }

    fn delta(&mut self, graph: &Graph<Cpu>, key: DrawKey<'_>, site: usize) -> DeviceResult<Var<Cpu>, Cpu> {
        self.batch.delta(graph, key, site)
    }

    fn routing(
        &mut self,
        graph: &Graph<Cpu>,
        _: DrawKey<'_>,
        _: Routing,
        sites: usize,
    ) -> DeviceResult<Vec<Option<Var<Cpu>>>, Cpu> {
        // Attacks leave the loss out of the name.
        (0..sites).map(|s| Ok(Some(self.batch.load_row(graph, &format!("routing/{}", self.batch.sites[s]))?))).collect()
    }

    fn adversary(
        &mut self,
        graph: &Graph<Cpu>,
        _: DrawKey<'_>,
        site: usize,
        _: usize,
        _: bool,
    ) -> DeviceResult<Var<Cpu>, Cpu> {
        self.start.load(graph, &format!("pgd_init/{}", self.start.sites[site]))
    }

    fn importance_noise(&mut self, graph: &Graph<Cpu>, site: usize, components: usize) -> DeviceResult<Var<Cpu>, Cpu> {
        self.batch.importance_noise(graph, site, components)
    }
}

#[test]
fn reference_activation_densities_of_models() {
    for case in cases("10_") {
        for recorded in case.json["cases"].as_array().expect("cases") {
            let id = recorded["id"].as_str().expect("an id");
            let batches = case.names(&format!("{id}/batch")).len();
            if batches > 0 {
                check_densities(&case, recorded, id, batches);
            }
        }
    }
}

/// The case says nothing about its models but their tensors: a toy model of superposition with one hidden layer in its
/// networks.
fn check_densities(case: &Case, recorded: &Value, id: &str, batches: usize) {
    let current = format!("{id}/current/");
    if !case.has(&format!("{current}target_model.linear1.weight")) {
        println!("skipped: {} {id}: not a toy model of superposition", case.name);
        return;
    }
    let shape = |name: &str| case.shape(&format!("{current}{name}")).to_vec();
    let components: serde_json::Map<String, Value> = case
        .names(&format!("{current}_components."))
        .iter()
        .filter_map(|name| {
            let site = name.strip_suffix(".V")?.strip_prefix(&format!("{current}_components."))?.replace('-', ".");
            Some((site, case.shape(name)[1].into()))
        })
        .collect();
    let weights = shape("_ci_fns.linear1.layers.0.W");
    let hidden_layers = case.names(&format!("{current}target_model.hidden_layers.")).len();
    let weight = shape("target_model.linear1.weight");
    let json = serde_json::json!({
        "target": {
            "class_": "TMSModel",
            "config": { "n_features": weight[1], "n_hidden": weight[0], "n_hidden_layers": hidden_layers },
        },
        "module_to_c": components,
        "ci_fn_hidden_dims": weights.last().into_iter().collect::<Vec<_>>(),
    });
    let kind = network(case, &format!("{current}_ci_fns.linear1.layers.0.W"));
    let recipe = recipe(&json, kind).expect("a toy model");
    let (model, mut parameters) = recipe.build(&state(case, &format!("{current}target_model.")), false);
    parameters.load(&state(case, &current)).expect("recorded parameters");
    let (device, data) = (Cpu::default(), any_data(weight[1]));
    let settings = StepSettings {
        sampling: sampling(&recorded["sampling"]),
        use_delta_component: false,
        mask_samples: 1,
        output_loss: OutputLoss::Mse,
        progress: 0.0,
    };
    let threshold = number(&recorded["ci_alive_threshold"]);
    let scene = scene(&device, &model, &parameters, &data, settings, threshold);
    let source = RecordedBatches { case, batches: format!("{id}/batch"), sites: scene.site_names() };
    let metrics = [MetricConfig::ComponentActivationDensity(ComponentActivationDensity::default())];
    let found = measure(&scene, &[], &metrics, batches, &source).expect("the evaluation succeeds");
    for site in scene.site_names() {
        let ours: Vec<f32> =
            found.data.iter().filter(|datum| datum.series == site).map(|datum| datum.value as f32).collect();
        let key = format!("{id}/density/{site}");
        assert_close(&format!("{} {key}", case.name), &ours, case.floats(&key), 1e-6);
    }
}
