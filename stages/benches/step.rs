//! Decomposition steps per second on the processor: `cargo bench -p spdflow-stages --bench step -- tms_5-2 --threads 2`.
//!
//! Parameters are random and nothing is kept: this measures speed only. Prints one line per round, so that a script can
//! take medians and set them beside another program timed in the same minute.

use std::time::Instant;

use dfdx::prelude::Cpu;
use spdflow_kernels::philox::{Stream, normal};
use spdflow_kernels::transpose::transposed;
use spdflow_stages::artifact::tensors::{Tensor, Tensors};
use spdflow_stages::data::{Generation, InputDistribution, SparseFeatures};
use spdflow_stages::decomposition::config::DecomposeParams;
use spdflow_stages::decomposition::draws::training_draws;
use spdflow_stages::decomposition::run::build;
use spdflow_stages::decomposition::step::{OutputLoss, StepSettings};
use spdflow_stages::decomposition::trainer::{ClipNorms, Trainer, unobserved};
use spdflow_stages::models::{Activation, EMBEDDING, ResidMlpConfig, TargetConfig, TmsConfig, UNEMBEDDING};
use spdflow_stages::purpose::Purpose;

/// An experiment of the method's paper.
struct Experiment {
    name: &'static str,
    target: TargetConfig,
    data: InputDistribution,
    params: serde_json::Value,
}

fn tms(
    name: &'static str,
    n_features: usize,
    n_hidden: usize,
    components: usize,
    importance: (f64, f64),
) -> Experiment {
    Experiment {
        name,
        target: TargetConfig::Tms(TmsConfig { n_features, n_hidden, n_hidden_layers: 0, tied_weights: false }),
        data: InputDistribution::SparseFeatures(SparseFeatures {
            n_features,
            feature_probability: 0.05,
            generation: Generation::AtLeastZeroActive,
            value_range: (0.0, 1.0),
            synced_inputs: Vec::new(),
        }),
        params: serde_json::json!({
            "steps": 1_000_000, "batch_size": 4096, "lr": { "start": 1e-3 },
            "sites": [{ "pattern": "linear1", "C": components }, { "pattern": "linear2", "C": components }],
            "causal_importance": { "mlp": { "hidden": [16] } },
            "losses": [
                { "importance_minimality": { "coeff": importance.0, "p": importance.1 } },
                { "stochastic_recon": { "coeff": 1.0 } },
                { "stochastic_recon_layerwise": { "coeff": 1.0 } },
            ],
        }),
    }
}

fn resid_mlp(
    name: &'static str,
    (d_mlp, n_layers): (usize, usize),
    components: usize,
    causal_importance: &serde_json::Value,
    losses: &serde_json::Value,
) -> Experiment {
    Experiment {
        name,
        target: TargetConfig::ResidMlp(ResidMlpConfig {
            n_features: 100,
            d_embed: 1000,
            d_mlp,
            n_layers,
            act_fn: Activation::Relu,
            in_bias: false,
            out_bias: false,
        }),
        data: InputDistribution::SparseFeatures(SparseFeatures {
            n_features: 100,
            feature_probability: 0.01,
            generation: Generation::AtLeastZeroActive,
            value_range: (-1.0, 1.0),
            synced_inputs: Vec::new(),
        }),
        params: serde_json::json!({
            "steps": 1_000_000, "batch_size": 2048, "lr": { "start": 1e-3 },
            "sites": [{ "pattern": "layers.*.mlp_in", "C": components }, { "pattern": "layers.*.mlp_out", "C": components }],
            "causal_importance": causal_importance,
            "losses": losses,
        }),
    }
}

fn experiments() -> Vec<Experiment> {
    let layerwise = serde_json::json!([
        { "importance_minimality": { "coeff": 1e-5, "p": 2.0 } },
        { "stochastic_recon_layerwise": { "coeff": 1.0 } },
        { "stochastic_recon": { "coeff": 1.0 } },
    ]);
    let subset = serde_json::json!([
        { "importance_minimality": { "coeff": 1e-4, "p": 2.0 } },
        { "stochastic_recon_subset": { "coeff": 2.0 } },
        { "pgd_recon_subset": { "coeff": 2.0, "init": "random", "step_size": 1.0, "n_steps": 1,
            "mask_scope": "shared_across_batch" } },
    ]);
    let (mlp, shared) =
        (serde_json::json!({ "mlp": { "hidden": [16] } }), serde_json::json!({ "shared_mlp": { "hidden": [256] } }));
    vec![
        tms("tms_5-2", 5, 2, 20, (3e-3, 1.0)),
        tms("tms_40-10", 40, 10, 200, (1e-4, 2.0)),
        resid_mlp("resid_mlp1", (50, 1), 100, &mlp, &layerwise),
        resid_mlp("resid_mlp2", (25, 2), 400, &shared, &subset),
    ]
}

fn main() {
    spdflow_kernels::memory::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let option = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |value| value.parse().expect("a number"))
    };
    let (threads, steps, rounds) = (option("--threads", 2), option("--steps", 0), option("--rounds", 3));
    // Measured on a thread of the pool, as in the program: from outside, every parallel loop would wake one up first.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    for experiment in experiments() {
        if arguments.first().is_some_and(|name| !name.starts_with("--") && name != experiment.name) {
            continue;
        }
        pool.install(|| measure(&experiment, threads, steps, rounds));
    }
}

fn measure(experiment: &Experiment, threads: usize, steps: usize, rounds: usize) {
    let params: DecomposeParams = serde_json::from_value(experiment.params.clone()).expect("valid parameters");
    let device = Cpu::default();
    let (model, parameters) =
        build(&device, &experiment.target, &random_state(&experiment.target), &params).expect("a model");
    let settings = StepSettings {
        sampling: params.sampling,
        use_delta_component: true,
        mask_samples: 1,
        output_loss: OutputLoss::Mse,
        progress: 0.0,
    };
    let losses = params.losses.clone();
    let mut trainer =
        Trainer::new(&device, (model, parameters), losses, params.lr, params.steps, ClipNorms::default(), settings);
    let mut step = 0_u32;
    let mut advance = |count: usize| {
        for _ in 0..count {
            let batch = experiment.data.batch_counting(Purpose::Data.stream(0, step, 0), params.batch_size, true);
            let parts = trainer.split(batch);
            trainer
                .step(u64::from(step), &parts, &training_draws(0, step), None, &mut unobserved::<Cpu>)
                .expect("enough memory");
            step += 1;
        }
    };
    advance(5);
    let began = Instant::now();
    advance(5);
    let steps = if steps > 0 { steps } else { (2.0 / (began.elapsed().as_secs_f64() / 5.0)).ceil() as usize };
    for _ in 0..rounds {
        let began = Instant::now();
        advance(steps);
        let rate = steps as f64 / began.elapsed().as_secs_f64();
        println!("{} threads={threads} steps={steps} steps_per_second={rate:.3}", experiment.name);
    }
}

/// Returns random weights for a target; a residual MLP is read off along its embedding.
fn random_state(target: &TargetConfig) -> Tensors {
    let tensors = target.tensors().into_iter().enumerate();
    tensors
        .map(|(index, (name, shape))| {
            let mut data = vec![0.0; shape.iter().product()];
            let draw = |index: u32, data: &mut [f32]| normal(Stream { seed: 1, purpose: 0, step: 0, index }, data);
            let mut scale = (shape[0] as f32).sqrt().recip();
            match &name[..] {
                EMBEDDING | UNEMBEDDING => {
                    draw(0, &mut data);
                    scale = (shape[0].max(shape[1]) as f32).sqrt().recip();
                    if name == UNEMBEDDING {
                        data = transposed(&data, shape[1], shape[0]);
                    }
                }
                _ => draw(index as u32, &mut data),
            }
            data.iter_mut().for_each(|x| *x = if name.ends_with("bias") { 0.0 } else { *x * scale });
            (name, Tensor::new(shape, data))
        })
        .collect()
}
