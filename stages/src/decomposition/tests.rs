//! What every loss and every target model must satisfy, whatever its formula.

use std::collections::BTreeMap;

use dfdx::prelude::Cpu;
use spdflow_kernels::philox::{Stream, normal};

use super::causal_importance::{CausalImportance, HiddenLayers, SigmoidType};
use super::draws::{Sampling, StreamDraws, training_draws};
use super::loss::{Extent, LossConfig};
use super::model::{ComponentMask, ComponentModel, Leaves, SiteMask, component_key};
use super::shard::ShardWork;
use super::site::{SitePattern, plan};
use super::step::{OutputLoss, Step, StepSettings};
use crate::artifact::tensors::{Tensor, Tensors};
use crate::bridge::{Backend, Buffers, Graph, Precision};
use crate::collective::ALONE;
use crate::data::{Batch, Generation, InductionSequences, SparseFeatures};
use crate::models::{Activation, InductionHeadConfig, LayerKind, ResidMlpConfig, TargetConfig, TmsConfig};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;

/// Small versions of every target model.
pub(super) fn targets() -> Vec<TargetConfig> {
    let tms = |n_hidden_layers| {
        TargetConfig::Tms(TmsConfig { n_features: 6, n_hidden: 3, n_hidden_layers, tied_weights: false })
    };
    let resid_mlp = ResidMlpConfig {
        n_features: 6,
        d_embed: 5,
        d_mlp: 3,
        n_layers: 2,
        act_fn: Activation::Gelu,
        in_bias: false,
        out_bias: false,
    };
    let induction_head = InductionHeadConfig {
        vocab_size: 4,
        seq_len: 6,
        d_model: 4,
        n_heads: 2,
        n_layers: 2,
        ff_fanout: 2,
        use_ff: true,
        use_pos_encoding: true,
        use_layer_norm: true,
    };
    vec![tms(0), tms(1), TargetConfig::ResidMlp(resid_mlp), TargetConfig::InductionHead(induction_head)]
}

/// One configuration of every loss, as a pipeline's JSON twin.
pub(super) fn losses(attack_steps: usize) -> Vec<LossConfig> {
    let pgd = format!(
        r#""coeff": 1.0, "init": "random", "step_size": 0.3, "n_steps": {attack_steps}, "mask_scope": "unique_per_datapoint""#
    );
    let losses = [
        r#"{ "faithfulness": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "importance_minimality": { "coeff": 1.0, "p": 0.9, "beta": 0.3 } }"#.to_owned(),
        r#"{ "unmasked_recon": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "ci_masked_recon": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "ci_masked_recon_subset": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "ci_masked_recon_layerwise": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "stochastic_recon": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "stochastic_recon_subset": { "coeff": 1.0, "routing": { "static_probability": { "p": 0.5 } } } }"#
            .to_owned(),
        r#"{ "stochastic_recon_layerwise": { "coeff": 1.0 } }"#.to_owned(),
        r#"{ "stochastic_hidden_acts_recon": { "coeff": 1.0 } }"#.to_owned(),
        format!(r#"{{ "pgd_recon": {{ {pgd} }} }}"#),
        format!(r#"{{ "pgd_recon_subset": {{ {pgd} }} }}"#),
        format!(r#"{{ "pgd_recon_layerwise": {{ {pgd} }} }}"#),
    ];
    let losses: Vec<LossConfig> = losses.iter().map(|text| serde_json::from_str(text).expect("a loss")).collect();
    let classes: Vec<&str> = losses.iter().map(LossConfig::class).collect();
    assert_eq!(classes, LossConfig::CLASSES, "every loss of the table is tested, in its order");
    losses
}

pub(super) fn random_state(target: &TargetConfig) -> Vec<(String, Tensor)> {
    let tensors = target.tensors().into_iter().enumerate();
    tensors
        .map(|(index, (name, shape))| {
            let mut data = vec![0.0; shape.iter().product()];
            normal(Stream { seed: 5, purpose: 0, step: 0, index: index as u32 }, &mut data);
            (name, Tensor::new(shape, data))
        })
        .collect()
}

pub(super) fn build(target: &TargetConfig, sigmoid: SigmoidType) -> (ComponentModel<Cpu>, Parameters<Cpu>) {
    build_sites(target, random_state(target), |_| true, sigmoid)
}

/// Returns a model of the target with this state, of whose modules those that `is_site` accepts are decomposed.
pub(super) fn build_sites(
    target: &TargetConfig,
    state: Vec<(String, Tensor)>,
    is_site: impl Fn(&str) -> bool,
    sigmoid: SigmoidType,
) -> (ComponentModel<Cpu>, Parameters<Cpu>) {
    build_on(&Cpu::default(), target, state, is_site, sigmoid)
}

/// As [`build_sites`], on any device.
pub(super) fn build_on<D: Backend>(
    device: &D,
    target: &TargetConfig,
    state: Vec<(String, Tensor)>,
    is_site: impl Fn(&str) -> bool,
    sigmoid: SigmoidType,
) -> (ComponentModel<D>, Parameters<D>) {
    let target = target.load(device, &state.into_iter().collect()).expect("a target");
    let modules: Vec<(String, LayerKind)> =
        target.modules().iter().map(|module| (module.name.clone(), module.layer.kind())).collect();
    let sites = modules.iter().filter(|(name, _)| is_site(name));
    let sites: Vec<SitePattern> = sites.map(|(name, _)| SitePattern { pattern: name.clone(), components: 7 }).collect();
    let plans = plan(&target.names(), &modules, &sites, &[]).expect("sites");
    let network = CausalImportance::Mlp(HiddenLayers { hidden: vec![4] });
    ComponentModel::new(device, target, plans, network, sigmoid, 3, false).expect("enough memory")
}

/// Returns vectors, or as many whole sequences as fit, for a target.
pub(super) fn batch(target: &TargetConfig, feature_probability: f64, positions: usize) -> Batch {
    let stream = Purpose::Data.stream(1, 0, 0);
    if let TargetConfig::InductionHead(InductionHeadConfig { vocab_size, seq_len, .. }) = *target {
        let data = InductionSequences { vocab_size, seq_len, prefix_window: seq_len - 3 };
        return data.sequences(stream, positions / seq_len).batch;
    }
    let data = SparseFeatures {
        n_features: target.n_features(),
        feature_probability,
        generation: Generation::AtLeastZeroActive,
        value_range: (0.0, 1.0),
        synced_inputs: Vec::new(),
    };
    data.batch(stream, positions)
}

pub(super) const SETTINGS: StepSettings = StepSettings {
    sampling: Sampling::Continuous,
    use_delta_component: true,
    mask_samples: 2,
    output_loss: OutputLoss::Mse,
    progress: 0.5,
};

/// Returns every loss with every way to compare outputs.
pub(super) fn with_each_output_loss(losses: Vec<LossConfig>) -> impl Iterator<Item = (LossConfig, OutputLoss)> {
    losses.into_iter().flat_map(|loss| [OutputLoss::Mse, OutputLoss::Kl].map(|output_loss| (loss.clone(), output_loss)))
}

/// Returns the loss and its gradient with respect to every parameter.
fn differentiate(
    model: &ComponentModel<Cpu>,
    parameters: &Parameters<Cpu>,
    batch: &Batch,
    loss: &LossConfig,
    output_loss: OutputLoss,
) -> (f64, Vec<Vec<f32>>) {
    differentiate_on(&Cpu::default(), (model, parameters), batch, loss, output_loss)
}

/// As [`differentiate`], on any device.
pub(super) fn differentiate_on<D: Backend>(
    device: &D,
    (model, parameters): (&ComponentModel<D>, &Parameters<D>),
    batch: &Batch,
    loss: &LossConfig,
    output_loss: OutputLoss,
) -> (f64, Vec<Vec<f32>>) {
    let graph = Graph::recording(device);
    let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
    let mut draws = StreamDraws { seed: 9, step: 4, evaluation: false, rows: &batch.rows };
    let step = Step::new(&graph, model, &leaves, batch, StepSettings { output_loss, ..SETTINGS }, &mut draws)
        .expect("enough memory");
    let (total, _) = step.total(std::slice::from_ref(loss), |_| true, &mut draws).expect("enough memory");
    let gradients = graph.gradients(&total, &leaves.0).expect("enough memory");
    (total.scalar(), gradients.iter().map(D::read_gradient).collect())
}

#[test]
fn the_gradient_of_every_loss_predicts_how_it_changes() {
    for target in targets() {
        // The logistic function is smooth; the leaky-hard sigmoids' gradients are not derivatives.
        let (model, mut parameters) = build(&target, SigmoidType::Normal);
        let batch = batch(&target, 0.5, 64);
        let start = parameters.state();
        // No attack: its steps follow signs, which jump where the loss is smooth.
        for (loss, output_loss) in with_each_output_loss(losses(0)) {
            let (_, gradients) = differentiate(&model, &parameters, &batch, &loss, output_loss);
            for direction in 0..3 {
                let directions: Vec<Vec<f32>> = start
                    .iter()
                    .enumerate()
                    .map(|(index, (_, tensor))| {
                        let mut along = vec![0.0; tensor.data.len()];
                        normal(Stream { seed: 11, purpose: direction, step: 0, index: index as u32 }, &mut along);
                        along
                    })
                    .collect();
                let mut moved = |by: f32| {
                    let state: Tensors = start
                        .iter()
                        .zip(&directions)
                        .map(|((name, tensor), along)| {
                            let data = tensor.data.iter().zip(along).map(|(x, d)| x + by * d).collect();
                            (name.clone(), Tensor::new(tensor.shape.clone(), data))
                        })
                        .collect();
                    parameters.load(&state).expect("the same shapes");
                    differentiate(&model, &parameters, &batch, &loss, output_loss).0
                };
                // A step of 1e-3 balances curvature (relative 1e-6) against f32 rounding of the loss (6e-8 / 1e-3).
                let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                let start: Tensors = start.iter().cloned().collect();
                parameters.load(&start).expect("the same shapes");
                let terms = gradients
                    .iter()
                    .flatten()
                    .zip(directions.iter().flatten())
                    .map(|(g, d)| f64::from(*g) * f64::from(*d));
                let (predicted, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                let error = (slope - predicted).abs();
                assert!(
                    error <= 1e-2 * size + 1e-4,
                    "{}: slope {slope}, gradient says {predicted}, terms {size}",
                    loss.class()
                );
                assert!(size > 1e-3, "{}: the gradient is not trivially zero", loss.class());
            }
        }
    }
}

#[test]
fn counting_zero_rows_changes_no_loss_and_no_gradient() {
    for target in targets() {
        let (model, parameters) = build(&target, SigmoidType::LeakyHard);
        if !model.target().zero_rows_are_inert() {
            continue;
        }
        let dense = batch(&target, 0.05, 400);
        let compact = dense.clone().compact();
        assert!(compact.rows.len() < 150, "most rows are zero: {}", compact.rows.len());
        for (loss, output_loss) in with_each_output_loss(losses(2)) {
            let (simple, simple_gradients) = differentiate(&model, &parameters, &dense, &loss, output_loss);
            let (fast, fast_gradients) = differentiate(&model, &parameters, &compact, &loss, output_loss);
            assert!((simple - fast).abs() <= 1e-6 * simple.abs() + 1e-9, "{}: {simple} and {fast}", loss.class());
            for (simple, fast) in simple_gradients.iter().zip(&fast_gradients) {
                // The same terms, summed in another order.
                let scale = simple.iter().fold(0.0_f32, |max, g| max.max(g.abs()));
                let error = simple.iter().zip(fast).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
                assert!(error <= 1e-5 * scale + 1e-9, "{}: gradients differ by {error} of {scale}", loss.class());
            }
        }
    }
}

#[test]
fn the_parts_of_a_batch_add_up_to_the_whole() {
    for target in targets() {
        let (model, parameters) = build(&target, SigmoidType::LeakyHard);
        let batch = batch(&target, 0.2, 400);
        let batch = if model.target().zero_rows_are_inert() { batch.compact() } else { batch };
        let parts = batch.clone().split(90);
        assert!(parts.len() > 3);
        let mut losses = losses(2);
        losses.retain(|loss| loss.extent() != Extent::Batch);
        let plain = r#"{ "importance_minimality": { "coeff": 1.0, "p": 2.0 } }"#;
        losses.push(serde_json::from_str(plain).expect("a loss"));
        for (loss, output_loss) in with_each_output_loss(losses) {
            let work = ShardWork {
                device: &Cpu::default(),
                model: &model,
                losses: std::slice::from_ref(&loss),
                settings: StepSettings { output_loss, ..SETTINGS },
                precision: Precision::F32,
                values: parameters.values().expect("enough memory"),
                alive_threshold: Some(0.3),
                ranks: &ALONE,
            };
            let draws = training_draws(9, 4);
            let whole = work.sums(std::slice::from_ref(&batch), &draws).expect("enough memory");
            let sums = work.sums(&parts, &draws).expect("enough memory");
            for (whole, sum) in [(whole.total, sums.total), (whole.losses[0], sums.losses[0])] {
                assert!((whole - sum).abs() <= 1e-6 * whole.abs() + 1e-9, "{}: {whole} and {sum}", loss.class());
            }
            for (whole, sum) in whole.l0.iter().flatten().zip(sums.l0.iter().flatten()) {
                assert!((whole - sum).abs() <= 1e-12 * whole.abs(), "{whole} and {sum} components");
            }
            for (whole, sum) in whole.gradients.iter().zip(&sums.gradients) {
                let (whole, sum) = (Cpu::read_gradient(whole), Cpu::read_gradient(sum));
                let scale = whole.iter().fold(0.0_f32, |max, g| max.max(g.abs()));
                let error = whole.iter().zip(&sum).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
                assert!(error <= 1e-5 * scale + 1e-9, "{}: gradients differ by {error} of {scale}", loss.class());
            }
        }
    }
}

#[test]
fn a_model_with_everything_on_is_the_target() {
    for target in targets() {
        let (model, parameters) = build(&target, SigmoidType::LeakyHard);
        let device = Cpu::default();
        let graph = Graph::detached(&device);
        let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
        let batch = batch(&target, 0.5, 33);
        let rows = batch.rows.len();
        let input = graph.upload(batch.input, (batch.features, rows)).expect("enough memory");
        let clean = model.clean_pass(&graph, &leaves, &input).expect("enough memory");
        let on = SiteMask {
            mask: ComponentMask::Ones,
            delta: Some(graph.upload(vec![1.0; rows], (1, rows)).expect("enough memory")),
            routing: None,
        };
        let masks = vec![Some(on); model.sites().len()];
        let pass = model.masked_pass(&graph, &leaves, &clean, &masks).expect("enough memory");
        for (ours, theirs) in pass.output.to_vec().iter().zip(clean.output.to_vec()) {
            assert!((ours - theirs).abs() <= 1e-5 * theirs.abs().max(1.0), "{ours} and {theirs}");
        }
    }
}

#[test]
fn routing_everything_to_the_target_gives_exactly_the_target() {
    for target in targets() {
        let (model, parameters) = build(&target, SigmoidType::LeakyHard);
        let device = Cpu::default();
        let graph = Graph::detached(&device);
        let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
        let batch = batch(&target, 0.5, 33);
        let rows = batch.rows.len();
        let input = graph.upload(batch.input, (batch.features, rows)).expect("enough memory");
        let clean = model.clean_pass(&graph, &leaves, &input).expect("enough memory");
        let nowhere = graph.upload(vec![0.0; rows], (1, rows)).expect("enough memory");
        let masks = vec![
            Some(SiteMask { mask: ComponentMask::Ones, delta: None, routing: Some(nowhere) });
            model.sites().len()
        ];
        let pass = model.masked_pass(&graph, &leaves, &clean, &masks).expect("enough memory");
        assert_eq!(pass.output.to_vec(), clean.output.to_vec());
    }
}

/// Makes the components of every site add up to the target: V is a reflection Q, U is Q Wᵀ, and the rest is zero.
fn make_faithful(model: &ComponentModel<Cpu>, parameters: &mut Parameters<Cpu>) {
    let mut state: BTreeMap<String, Tensor> = parameters.state().into_iter().collect();
    for site in model.sites() {
        let ((d_out, d_in), c) = (site.shape(), site.plan.components);
        let weight = site.weight.to_vec();
        let along: Vec<f64> = (0..d_in).map(|i| 1.0 + 0.7 * i as f64).collect();
        let length: f64 = along.iter().map(|x| x * x).sum();
        let q = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * along[i] * along[j] / length;
        let (mut v, mut u) = (vec![0.0; d_in * c], vec![0.0; c * d_out]);
        for j in 0..d_in {
            (0..d_in).for_each(|i| v[i * c + j] = q(i, j) as f32);
            for o in 0..d_out {
                u[j * d_out + o] = (0..d_in).map(|i| q(j, i) * f64::from(weight[o * d_in + i])).sum::<f64>() as f32;
            }
        }
        let key = component_key(&site.plan.name);
        state.insert(format!("{key}.V"), Tensor::new(vec![d_in, c], v));
        state.insert(format!("{key}.U"), Tensor::new(vec![c, d_out], u));
    }
    parameters.load(&state.into_iter().collect()).expect("the same shapes");
}

#[test]
fn bfloat16_products_leave_an_error_of_their_resolution_and_no_other() {
    let target = TargetConfig::Tms(TmsConfig { n_features: 6, n_hidden: 6, n_hidden_layers: 1, tied_weights: false });
    let (model, mut parameters) = build(&target, SigmoidType::LeakyHard);
    make_faithful(&model, &mut parameters);
    let batch = batch(&target, 0.5, 512);
    let loss: LossConfig = serde_json::from_str(r#"{ "unmasked_recon": { "coeff": 1.0 } }"#).expect("a loss");
    let relative_error = |precision: Precision| {
        let graph = Graph::recording(&Cpu::default()).with_precision(precision);
        let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
        let mut draws = StreamDraws { seed: 9, step: 4, evaluation: false, rows: &batch.rows };
        let step = Step::new(&graph, &model, &leaves, &batch, SETTINGS, &mut draws).expect("enough memory");
        let (error, _) = step.total(std::slice::from_ref(&loss), |_| true, &mut draws).expect("enough memory");
        let output = step.clean.output.to_vec();
        let size = output.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / output.len() as f64;
        error.scalar() / size
    };
    let unit_roundoff = 2.0_f64.powi(-9);
    let (f32_error, bf16_error) = (relative_error(Precision::F32), relative_error(Precision::Bf16));
    assert!(f32_error < 1e-12, "{f32_error:e}");
    // A dozen roundings on the way, each of at most one unit roundoff of its operand.
    let share = (bf16_error / unit_roundoff.powi(2)).sqrt();
    assert!(share > 0.2 && share < 5.0, "{share} unit roundoffs");
}

#[test]
fn bfloat16_changes_gradients_by_little_and_f32_reads_its_operands_as_they_are() {
    let target = targets().remove(1);
    let (model, parameters) = build(&target, SigmoidType::Normal);
    let batch = batch(&target, 0.5, 256);
    for loss in losses(0) {
        if loss.class() == "FaithfulnessLoss" || loss.class() == "StochasticHiddenActsReconLoss" {
            // The first has no products of activations, the second compares values that differ by rounding alone.
            continue;
        }
        let gradients = |precision: Precision| {
            let graph = Graph::recording(&Cpu::default()).with_precision(precision);
            let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
            assert_eq!(
                graph.operand(&leaves.0[0]).expect("enough memory").is_same(&leaves.0[0]),
                precision == Precision::F32
            );
            let mut draws = StreamDraws { seed: 9, step: 4, evaluation: false, rows: &batch.rows };
            let step = Step::new(&graph, &model, &leaves, &batch, SETTINGS, &mut draws).expect("enough memory");
            let (total, _) = step.total(std::slice::from_ref(&loss), |_| true, &mut draws).expect("enough memory");
            let gradients = graph.gradients(&total, &leaves.0).expect("enough memory");
            gradients.iter().flat_map(Cpu::read_gradient).collect::<Vec<f32>>()
        };
        let (exact, rounded) = (gradients(Precision::F32), gradients(Precision::Bf16));
        let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let size = length(&mut exact.iter().map(|x| f64::from(*x)));
        let error = length(&mut exact.iter().zip(&rounded).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        assert!(error > 0.0 && error < 0.05 * size, "{}: {error:e} of {size:e}", loss.class());
    }
}
