//! Fixtures `05_losses_*`: every loss with its gradients on recorded models and draws.

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_kernels::faithfulness::Site;
use spdflow_stages::bridge::{Buffers, Graph};
use spdflow_stages::data::Batch;
use spdflow_stages::decomposition::loss::LossConfig;
use spdflow_stages::decomposition::model::{ComponentModel, Leaves};
use spdflow_stages::decomposition::step::{Step, StepSettings};
use spdflow_stages::optimizer::parameters::Parameters;

use crate::spd::{Recipe, Recorded, features, loss, output_loss, sampling, state};
use crate::support::{Case, assert_close, assert_close_scalar, cases, number, tolerance};

#[test]
fn reference_losses_and_their_gradients() {
    let mut compared = 0;
    for case in cases("05_losses_") {
        let Some(recipe) = Recipe::read(&case.json, &case.json) else {
            println!("skipped: {}: no target model `{}` yet", case.name, case.json["target"]["class_"]);
            continue;
        };
        let (model, mut parameters) = recipe.build(&state(&case, "model/target_model."), false);
        parameters.load(&state(&case, "model/")).expect("recorded parameters");
        for recorded in case.json["losses"].as_array().expect("losses") {
            check_loss(&case, recorded, &model, &parameters);
            compared += 1;
        }
        check_forward(&case, &model, &parameters);
    }
    assert!(compared > 0, "no fixture `05_losses_*` of a target we have");
}

fn check_loss(case: &Case, recorded: &Value, model: &ComponentModel<Cpu>, parameters: &Parameters<Cpu>) {
    let id = recorded["id"].as_str().expect("an id");
    let what = format!("{} {id}", case.name);
    let losses: Vec<LossConfig> =
        recorded["loss_metric_configs"].as_array().expect("configs").iter().map(loss).collect();
    let device = Cpu::default();
    let graph = Graph::recording(&device);
    let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
    let settings = StepSettings {
        sampling: sampling(&recorded["sampling"]),
        use_delta_component: recorded["use_delta_component"].as_bool().expect("a flag"),
        mask_samples: recorded["n_mask_samples"].as_u64().expect("a count") as usize,
        output_loss: output_loss(&case.json["output_loss_type"]),
        progress: number(&recorded["current_frac_of_training"]),
    };
    let mut draws = Recorded {
        case,
        prefix: format!("loss/{id}/draw/"),
        sites: model.sites().iter().map(|site| site.plan.name.clone()).collect(),
    };
    let (input, n, rows) = features(case, "batch");
    let step =
        Step::new(&graph, model, &leaves, &Batch::dense(input, n, rows), settings, &mut draws).expect("enough memory");
    let (total, values) = step.total(&losses, |_| true, &mut draws).expect("enough memory");
    let bound = number(&recorded["total_tol_abs"]).max(2e-9);
    assert_close_scalar(&what, total.scalar(), number(&recorded["total"]), bound);
    for (loss, value) in losses.iter().zip(values) {
        let expected = number(&recorded["terms"][format!("loss/{}", loss.class())]);
        // Terms carry no tolerance of their own: the total's, relative to the term, as the README's rule gives.
        assert_close_scalar(&format!("{what} {}", loss.class()), value, expected, bound.max(1e-5 * expected.abs()));
    }
    let gradients = graph.gradients(&total, &leaves.0).expect("enough memory");
    for (parameter, gradient) in parameters.iter().zip(&gradients) {
        let ours = Cpu::read_gradient(gradient);
        let key = format!("grad/{}", parameter.name);
        assert_close(
            &format!("{what} {key}"),
            &ours,
            case.floats(&format!("loss/{id}/{key}")),
            tolerance(recorded, &key),
        );
    }
}

/// Compares the clean pass, the causal importances and the weight differences.
fn check_forward(case: &Case, model: &ComponentModel<Cpu>, parameters: &Parameters<Cpu>) {
    let device = Cpu::default();
    let graph = Graph::detached(&device);
    let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
    let (input, n, rows) = features(case, "batch");
    let input = graph.upload(input, (n, rows)).expect("enough memory");
    let clean = model.clean_pass(&graph, &leaves, &input).expect("enough memory");
    let bound = |key: &str| number(&case.json["tol_fwd"][key]["tol_abs"]);
    let check = |key: &str, ours: &[f32]| {
        assert_close(&format!("{} {key}", case.name), ours, &features(case, &format!("fwd/{key}")).0, bound(key));
    };
    check("target_out", &clean.output.to_vec());
    let importances = model.importances(&graph, &leaves, &clean, None).expect("enough memory");
    for (s, (site, importance)) in model.sites().iter().zip(importances).enumerate() {
        let name = &site.plan.name;
        check(&format!("pre_weight_acts/{name}"), &model.clean_input(&clean, s).to_vec());
        check(&format!("pre_sigmoid/{name}"), &importance.pre_sigmoid.to_vec());
        check(&format!("lower_leaky/{name}"), &importance.lower.to_vec());
        check(&format!("upper_leaky/{name}"), &importance.upper.to_vec());
        let (v, u) = model.components(&leaves, s);
        let (d_out, d_in) = site.shape();
        let delta = Site { w: &site.weight.to_vec(), v: &v.to_vec(), u: &u.to_vec(), d_in, d_out }.weight_delta();
        let key = format!("weight_delta/{name}");
        assert_close(&format!("{} {key}", case.name), &delta, case.floats(&format!("fwd/{key}")), bound(&key));
    }
}
