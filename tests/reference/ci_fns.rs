//! Fixture `02_ci_fns`: causal-importance networks alone, and inside component models.

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_stages::artifact::tensors::{Tensor, Tensors};
use spdflow_stages::bridge::{Buffers, Graph, Var};
use spdflow_stages::decomposition::causal_importance::{CausalImportance, HiddenLayers, NetworkInput};
use spdflow_stages::decomposition::model::Leaves;

use crate::spd::{Recipe, features, transposed};
use crate::support::{Case, assert_close, cases, tolerance};

#[test]
fn reference_causal_importance_networks() {
    for case in cases("02_ci_fns") {
        for recorded in case.json["cases"].as_array().expect("cases") {
            if recorded.get("kind").is_some() {
                check_network(&case, recorded);
            } else {
                check_model(&case, recorded);
            }
        }
    }
}

fn hidden(recorded: &Value) -> HiddenLayers {
    HiddenLayers { hidden: serde_json::from_value(recorded["hidden_dims"].clone()).expect("hidden sizes") }
}

/// `Σ values · upstream`, whose gradient with respect to the values is `upstream`.
fn weighted_sum(graph: &Graph<Cpu>, values: &Var<Cpu>, upstream: &[f32]) -> Var<Cpu> {
    // ½|x + g|² − ½|x − g|² = 2 x·g, and its gradient in x is 2g.
    let shape = values.shape();
    let side = |sign: f32| graph.upload(upstream.iter().map(|g| sign * g).collect(), shape).expect("enough memory");
    let (plus, minus) = (side(-1.0), side(1.0));
    let plus = graph.squared_error(values, &plus).expect("enough memory");
    let minus = graph.squared_error(values, &minus).expect("enough memory");
    graph.combine(&[(0.25, plus), (-0.25, minus)]).expect("enough memory")
}

fn check_network(case: &Case, recorded: &Value) {
    let id = recorded["id"].as_str().expect("an id");
    let (components, d_in) =
        (recorded["C"].as_u64().expect("C") as usize, recorded["d_in"].as_u64().expect("d_in") as usize);
    let network = match recorded["kind"].as_str().expect("a kind") {
        "mlp" => CausalImportance::Mlp(hidden(recorded)),
        "vector_mlp" => CausalImportance::VectorMlp(hidden(recorded)),
        "shared_mlp" => CausalImportance::SharedMlp(hidden(recorded)),
        other => panic!("unknown network `{other}`"),
    };
    let device = Cpu::default();
    let graph = Graph::recording(&device);
    let leaf =
        |data: Vec<f32>, shape| graph.leaf(device.upload(data, shape).expect("enough memory")).expect("enough memory");
    let tensors = network.tensors(d_in, components);
    let weights: Vec<Var<Cpu>> = tensors
        .iter()
        .map(|tensor| {
            let name = format!("{id}/param/{}", tensor.key);
            assert_eq!(case.shape(&name), tensor.shape, "{name}");
            leaf(case.floats(&name).to_vec(), tensor.matrix)
        })
        .collect();
    let (data, cols, rows) = features(case, &format!("{id}/input"));
    let input = leaf(data, (cols, rows));
    let output =
        network.logits(&graph, &NetworkInput { input: &input, activations: &input }, &weights).expect("enough memory");
    let check = |key: &str, ours: &[f32], theirs: &[f32]| {
        assert_close(&format!("{id} {key}"), ours, theirs, tolerance(recorded, key))
    };
    check("output", &output.to_vec(), &features(case, &format!("{id}/output")).0);
    let loss = weighted_sum(&graph, &output, &features(case, &format!("{id}/upstream")).0);
    let leaves: Vec<Var<Cpu>> = weights.iter().chain([&input]).cloned().collect();
    let mut gradients = graph.gradients(&loss, &leaves).expect("enough memory");
    let of_input = Cpu::read_gradient(&gradients.pop().expect("the last leaf is the input"));
    check("grad/input", &transposed(&of_input, cols, rows), case.floats(&format!("{id}/grad/input")));
    for (tensor, gradient) in tensors.iter().zip(&gradients) {
        let key = format!("grad/{}", tensor.key);
        check(&key, &Cpu::read_gradient(gradient), case.floats(&format!("{id}/{key}")));
    }
}

fn check_model(case: &Case, recorded: &Value) {
    let id = recorded["id"].as_str().expect("an id");
    let mut description = recorded.clone();
    description["target_module_paths"] =
        recorded["module_to_c"].as_object().expect("modules").keys().cloned().collect();
    let mut settings = recorded.clone();
    settings["ci_fn_hidden_dims"] = recorded["hidden_dims"].clone();
    let recipe = Recipe::read(&description, &settings).expect("a target we have");
    let state = |prefix: &str| -> Tensors {
        let prefix = format!("{id}/{prefix}");
        let names = case.names(&prefix).into_iter();
        names
            .map(|name| {
                (name[prefix.len()..].to_owned(), Tensor::new(case.shape(name).to_vec(), case.floats(name).to_vec()))
            })
            .collect()
    };
    let (model, mut parameters) = recipe.build(&state("model/target_model."), false);
    parameters.load(&state("model/")).expect("recorded parameters");
    let device = Cpu::default();
    let graph = Graph::recording(&device);
    let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
    let load = |name: &str| {
        let (data, cols, rows) = features(case, &format!("{id}/{name}"));
        graph.upload(data, (cols, rows)).expect("enough memory")
    };
    let clean = model.clean_pass(&graph, &leaves, &load("batch")).expect("enough memory");
    let names: Vec<&str> = model.sites().iter().map(|site| &site.plan.name[..]).collect();
    let noise: Option<Vec<Var<Cpu>>> = (recorded["sampling"] == "binomial")
        .then(|| names.iter().map(|name| load(&format!("draw/ci_noise/{name}"))).collect());
    // Training never cuts the networks' inputs off; a detached pass does what the reference's switch does.
    let is_cut = recorded["detach_inputs"].as_bool() == Some(true);
    let inputs = if is_cut { clean.detached(&graph) } else { clean };
    let importances = model.importances(&graph, &leaves, &inputs, noise.as_deref()).expect("enough memory");
    let check = |key: &str, ours: &[f32]| {
        assert_close(&format!("{id} {key}"), ours, &features(case, &format!("{id}/{key}")).0, tolerance(recorded, key));
    };
    check("target_out", &inputs.output.to_vec());
    let mut terms = Vec::new();
    for (name, importance) in names.iter().zip(&importances) {
        check(&format!("pre_sigmoid/{name}"), &importance.pre_sigmoid.to_vec());
        check(&format!("lower_leaky/{name}"), &importance.lower.to_vec());
        check(&format!("upper_leaky/{name}"), &importance.upper.to_vec());
        for (values, which) in [(&importance.lower, "lower"), (&importance.upper, "upper")] {
            terms.push((1.0, weighted_sum(&graph, values, &load(&format!("upstream_{which}/{name}")).to_vec())));
        }
    }
    let loss = graph.combine(&terms).expect("enough memory");
    let gradients = graph.gradients(&loss, &leaves.0).expect("enough memory");
    for (parameter, gradient) in parameters.iter().zip(&gradients) {
        let ours = Cpu::read_gradient(gradient);
        let key = format!("grad/{}", parameter.name);
        assert_close(&format!("{id} {key}"), &ours, case.floats(&format!("{id}/{key}")), tolerance(recorded, &key));
    }
}
