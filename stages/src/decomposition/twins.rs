//! The whole step on a GPU beside the whole step on the processor.

use dfdx::prelude::Cpu;
use serde_json::json;
use spdflow_engine::kind::StopFlag;
use spdflow_engine::ranks::Alone;

use super::causal_importance::SigmoidType;
use super::draws::training_draws;
use super::tests::{SETTINGS, batch, build_on, differentiate_on, losses, random_state, targets, with_each_output_loss};
use super::together::tests::{Watch, nothing, params, plain, rank_on};
use super::trainer::{ClipNorms, Trainer, unobserved};
use crate::artifact::metric_log::MetricLog;
use crate::bridge::{Backend, on_gpu};
use crate::data::Batch;
use crate::models::TargetConfig;
use crate::optimizer::schedule::{Schedule, Shape};

/// Both draw the same masks; sums of a few hundred products are rounded differently, 6e-8 each, and pass through up to
/// thirty operations, layer norms among them. NaN fails.
fn assert_alike(what: &str, cpu: &[f32], gpu: &[f32], tolerance: f32) {
    assert_eq!(cpu.len(), gpu.len(), "{what}: lengths");
    let scale = cpu.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let error = cpu.iter().zip(gpu).map(|(a, b)| (a - b).abs()).fold(0.0_f32, |max, e| if e <= max { max } else { e });
    assert!(error <= tolerance * scale + 1e-8, "{what}: differ by {error} of {scale}");
}

#[test]
fn every_loss_and_its_gradients_are_alike_on_a_gpu() {
    let check = |gpu: &_| {
        for target in targets() {
            let batch = batch(&target, 0.3, 70);
            for (loss, output_loss) in with_each_output_loss(losses(2)) {
                // The slope of uᵖ at an importance of almost nothing is almost anything: not with a leaky-hard sigmoid.
                let is_steep = loss.class() == "ImportanceMinimalityLoss";
                let sigmoid = if is_steep { SigmoidType::Normal } else { SigmoidType::LeakyHard };
                let on_cpu = build_on(&Cpu::default(), &target, random_state(&target), |_| true, sigmoid);
                let on_gpu = build_on(gpu, &target, random_state(&target), |_| true, sigmoid);
                let what = format!("{} of {target:?}, {output_loss:?}", loss.class());
                let (a, from_cpu) =
                    differentiate_on(&Cpu::default(), (&on_cpu.0, &on_cpu.1), &batch, &loss, output_loss);
                let (b, from_gpu) = differentiate_on(gpu, (&on_gpu.0, &on_gpu.1), &batch, &loss, output_loss);
                assert!((a - b).abs() <= 1e-5 * a.abs() + 1e-9, "{what}: {a} and {b}");
                for (from_cpu, from_gpu) in from_cpu.iter().zip(&from_gpu) {
                    // An attack's steps go by the signs of gradients and widen what is different.
                    let tolerance = if loss.class().starts_with("PGD") { 2e-3 } else { 2e-4 };
                    assert_alike(&what, from_cpu, from_gpu, tolerance);
                }
            }
        }
    };
    on_gpu(0, check).expect("tests with the feature `cuda` need a GPU that works");
}

/// Returns the losses of a few updates and the parameters after them.
fn trained<D: Backend>(device: &D, target: &TargetConfig, batch: &Batch) -> (Vec<f32>, Vec<Vec<f32>>) {
    let model = build_on(device, target, random_state(target), |_| true, SigmoidType::LeakyHard);
    let of_step = [
        r#"{ "importance_minimality": { "coeff": 0.003, "p": 1.0 } }"#,
        r#"{ "stochastic_recon": { "coeff": 1.0 } }"#,
        r#"{ "stochastic_recon_layerwise": { "coeff": 1.0 } }"#,
        r#"{ "faithfulness": { "coeff": 1.0 } }"#,
    ];
    let losses = of_step.map(|text| serde_json::from_str(text).expect("a loss")).to_vec();
    let schedule = Schedule { start: 0.001, schedule: Shape::Constant, warmup_fraction: 0.0, final_fraction: 1.0 };
    let clip = ClipNorms { components: Some(0.5), networks: None };
    let mut trainer = Trainer::new(device, model, losses, schedule, 5, clip, SETTINGS);
    let totals = (0..5).map(|step| {
        let parts = trainer.split(batch.clone());
        let draws = training_draws(7, step);
        let report = trainer.step(u64::from(step), &parts, &draws, Some(0.1), &mut unobserved::<D>);
        report.expect("enough memory").total as f32
    });
    let totals = totals.collect();
    let state = trainer.parameters.state().into_iter().map(|(_, tensor)| tensor.data).collect();
    (totals, state)
}

#[test]
fn a_few_updates_are_alike_on_a_gpu_and_the_same_each_time() {
    let check = |gpu: &_| {
        for target in targets() {
            let batch = batch(&target, 0.3, 70);
            let (totals, state) = trained(&Cpu::default(), &target, &batch);
            let (on_gpu, gpu_state) = trained(gpu, &target, &batch);
            assert_alike("losses", &totals, &on_gpu, 2e-4);
            for (from_cpu, from_gpu) in state.iter().zip(&gpu_state) {
                // Five updates of at most 0.001 each; where a gradient is almost nothing its sign decides.
                let error: f32 = from_cpu.iter().zip(from_gpu).map(|(a, b)| (a - b).abs()).sum();
                let mean = error / from_cpu.len() as f32;
                assert!(mean <= 1e-3, "parameters of {target:?} differ by {mean} on average");
            }
            assert!(trained(gpu, &target, &batch) == (on_gpu, gpu_state), "{target:?}: not the same bits");
        }
    };
    on_gpu(0, check).expect("tests with the feature `cuda` need a GPU that works");
}

/// Runs a whole, short decomposition with evaluations.
fn decomposed<D: Backend>(device: &D, target: &TargetConfig, precision: &str) -> MetricLog {
    let metrics = match target {
        TargetConfig::InductionHead(_) => json!([{ "ci_l0": {} }, { "ce_and_kl": { "rounding_threshold": 0.5 } }]),
        _ => json!([{ "ci_l0": {} }]),
    };
    let more = json!({
        "steps": 2, "batch_size": 8, "log_every": 1, "precision": precision,
        "evaluation": { "every": 2, "batches": 1, "metrics": metrics },
    });
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (params, watch) = (params(&plain(), &more), Watch::new((u64::MAX, &nothing)));
    let end = rank_on(device, &Alone, target, &params, scratch.path(), &StopFlag::new(), &watch);
    end.expect("a decomposition").1
}

#[test]
fn bfloat16_and_evaluation_are_alike_on_a_gpu() {
    let check = |gpu: &_| {
        for target in targets() {
            let (on_cpu, on_gpu) = (decomposed(&Cpu::default(), &target, "bf16"), decomposed(gpu, &target, "bf16"));
            assert_eq!(on_cpu.names(), on_gpu.names());
            assert!(on_cpu.names().iter().any(|name| name.starts_with("eval/")), "{:?}", on_cpu.names());
            for ((step, name, a), (_, _, b)) in on_cpu.rows().zip(on_gpu.rows()) {
                // An operand that is rounded the other way is off by 2^-8; of the hundreds in a sum hardly any is.
                let close = (a - b).abs() <= 1e-3 * a.abs() + 1e-6;
                // Counts of components jump where an importance crosses the threshold.
                assert!(close || name.contains("l0"), "{name} at step {step} of {target:?}: {a} and {b}");
            }
        }
        let in_f32 = decomposed(gpu, &targets()[0], "f32");
        assert!(in_f32 != decomposed(gpu, &targets()[0], "bf16"), "nothing was rounded");
    };
    on_gpu(0, check).expect("tests with the feature `cuda` need a GPU that works");
}
