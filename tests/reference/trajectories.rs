//! Fixtures `06_*`: whole short trainings with recorded initial values, batches and draws.

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_stages::artifact::tensors::Tensor;
use spdflow_stages::bridge::Buffers;
use spdflow_stages::data::Batch;
use spdflow_stages::decomposition::draws::Draws;
use spdflow_stages::decomposition::loss::LossConfig;
use spdflow_stages::decomposition::step::StepSettings;
use spdflow_stages::decomposition::trainer::{ClipNorms, Trainer};
use spdflow_stages::optimizer::parameters::Parameters;
use spdflow_stages::optimizer::schedule::{Schedule, Shape};

use crate::spd::{Recipe, Recorded, features, loss, output_loss, sampling, state};
use crate::support::{Case, assert_close, assert_close_scalar, cases, number, tolerance};

#[test]
fn reference_trajectories_step_by_step() {
    let mut compared = 0;
    for case in cases("06_") {
        let Some(recipe) = Recipe::read(&case.json, &case.json["config"]) else {
            println!("skipped: {}: no target model `{}` yet", case.name, case.json["target"]["class_"]);
            continue;
        };
        check_trajectory(&case, &recipe);
        compared += 1;
    }
    assert!(compared > 0, "no fixture `06_*` of a target we have");
}

pub fn schedule(config: &Value) -> Schedule {
    Schedule {
        start: number(&config["start_val"]),
        schedule: match config["fn_type"].as_str().expect("a shape") {
            "constant" => Shape::Constant,
            "cosine" => Shape::Cosine,
            "linear" => Shape::Linear,
            other => panic!("unknown schedule `{other}`"),
        },
        warmup_fraction: number(&config["warmup_pct"]),
        final_fraction: number(&config["final_val_frac"]),
    }
}

fn check_trajectory(case: &Case, recipe: &Recipe) {
    let config = &case.json["config"];
    let steps = config["steps"].as_u64().expect("steps");
    let tied = case.json["tied_weights"].as_array().is_some_and(|pairs| !pairs.is_empty());
    let (model, mut parameters) = recipe.build(&state(case, "target/"), tied);
    parameters.load(&state(case, "init/")).expect("recorded initial values");
    if tied {
        // The recorded initial values are from before the tying; ours were tied when the model was built.
        parameters.load(&state(case, "after_tying/")).expect("recorded tied values");
    }
    check_parameters(case, &parameters, "after_tying", "after_tying");
    let sites: Vec<String> = model.sites().iter().map(|site| site.plan.name.clone()).collect();
    let losses: Vec<LossConfig> = config["loss_metric_configs"].as_array().expect("losses").iter().map(loss).collect();
    let settings = StepSettings {
        sampling: sampling(&config["sampling"]),
        use_delta_component: config["use_delta_component"].as_bool().expect("a flag"),
        mask_samples: config["n_mask_samples"].as_u64().expect("a count") as usize,
        output_loss: output_loss(&config["output_loss_type"]),
        progress: 0.0,
    };
    let clip = ClipNorms {
        components: config["grad_clip_norm_components"].as_f64(),
        networks: config["grad_clip_norm_ci_fns"].as_f64(),
    };
    let mut trainer = Trainer::new(
        &Cpu::default(),
        (model, parameters),
        losses,
        schedule(&config["lr_schedule"]),
        steps,
        clip,
        settings,
    );

    for (update, expected) in case.json["warmup_losses"].as_array().into_iter().flatten().enumerate() {
        let rate = number(&config["faithfulness_warmup_lr"]);
        let ours =
            trainer.warmup_step(rate, number(&config["faithfulness_warmup_weight_decay"])).expect("enough memory");
        assert_close_scalar(
            &format!("{} warm-up loss {update}", case.name),
            ours,
            number(expected),
            1e-5 * number(expected).abs(),
        );
        let after = format!("warmup/after{}", update + 1);
        if !case.names(&format!("{after}/")).is_empty() {
            check_components(case, &trainer.parameters, &after);
        }
    }
    trainer.parameters.reset_optimizer().expect("enough memory");

    for (step, recorded) in case.json["steps"].as_array().expect("steps").iter().enumerate() {
        let prefix = format!("step{step:02}/");
        let (input, n, rows) = features(case, &format!("{prefix}batch"));
        let names: Vec<String> = trainer.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        let what = format!("{} step {step}", case.name);
        let draws = |_: &Batch| -> Box<dyn Draws<Cpu>> {
            Box::new(Recorded { case, prefix: prefix.clone(), sites: sites.clone() })
        };
        let report = trainer
            .step(step as u64, &[Batch::dense(input, n, rows)], &draws, Some(0.0), &mut |gradients| {
                for (name, gradient) in names.iter().zip(gradients) {
                    let key = format!("{prefix}grad_preclip/{name}");
                    if case.has(&key) {
                        let ours = Cpu::read_gradient(gradient);
                        assert_close(
                            &format!("{} {key}", case.name),
                            &ours,
                            case.floats(&key),
                            tolerance(&case.json, &key),
                        );
                    }
                }
            })
            .expect("enough memory");
        assert_close_scalar(
            &format!("{what} total"),
            report.total,
            number(&recorded["total"]),
            number(&recorded["total_tol_abs"]).max(2e-9),
        );
        assert_close_scalar(&format!("{what} lr"), report.learning_rate, number(&recorded["lr"]), 1e-12);
        let norms = report.details.expect("details were asked for").gradient_norms;
        let (components, networks) = trainer.model.parameter_groups(&trainer.parameters);
        for (group, key) in [(components, "grad_norm_components"), (networks, "grad_norm_ci_fns")] {
            let ours = norms[group].iter().map(|norm| norm * norm).sum::<f64>().sqrt();
            if recorded[key].is_null() {
                // The reference logs no norm after the last update.
                continue;
            }
            let expected = number(&recorded[key]);
            assert_close_scalar(&format!("{what} {key}"), ours, expected, 1e-4 * expected);
        }
        let after = format!("after{:02}", step + 1);
        if !case.names(&format!("{after}/param/")).is_empty() {
            check_parameters(case, &trainer.parameters, &format!("{after}/param"), &after);
            check_moments(case, &trainer.parameters, &after);
        }
    }
    check_parameters(case, &trainer.parameters, "final/param", "final");
}

fn check_parameters(case: &Case, parameters: &Parameters<Cpu>, folder: &str, what: &str) {
    let mut compared = 0;
    for (name, Tensor { data, .. }) in parameters.state() {
        let key = format!("{folder}/{name}");
        if case.has(&key) {
            assert_close(
                &format!("{} {what} {name}", case.name),
                &data,
                case.floats(&key),
                tolerance(&case.json, &key),
            );
            compared += 1;
        }
    }
    assert_eq!(compared, parameters.len(), "{} {what}: every parameter is recorded", case.name);
}

fn check_components(case: &Case, parameters: &Parameters<Cpu>, folder: &str) {
    for (name, Tensor { data, .. }) in
        parameters.state().into_iter().filter(|(name, _)| name.starts_with("_components."))
    {
        let key = format!("{folder}/{name}");
        assert_close(&format!("{} {key}", case.name), &data, case.floats(&key), tolerance(&case.json, &key));
    }
}

fn check_moments(case: &Case, parameters: &Parameters<Cpu>, after: &str) {
    for (index, parameter) in parameters.iter().enumerate() {
        let (mean, variance) = parameters.moments(index);
        for (what, ours) in [("exp_avg", mean), ("exp_avg_sq", variance)] {
            let key = format!("{after}/{what}/{}", parameter.name);
            if case.has(&key) {
                assert_close(&format!("{} {key}", case.name), &ours, case.floats(&key), tolerance(&case.json, &key));
            }
        }
    }
}
