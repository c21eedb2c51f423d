//! The metrics of token models, every number recomputed from its definition (spec sections 5.7 and 5.8): masks from the
//! numbers that the streams hold, cross entropies and divergences from logits, in f64 with plain loops.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use dfdx::prelude::Cpu;
use serde_json::json;
use spdflow_kernels::philox::{Stream, uniform};

use super::super::causal_importance::SigmoidType;
use super::super::draws::{Draws, StreamDraws};
use super::super::model::{ComponentMask, ComponentModel, Leaves, SiteMask};
use super::super::step::{Step, StepSettings};
use super::super::tests::{SETTINGS, build, build_sites, random_state, targets};
use super::{EvaluationSource, Findings, MetricConfig, Scene, measure};
use crate::bridge::{Graph, Var};
use crate::data::{Batch, InductionSequences, InputDistribution};
use crate::models::TargetConfig;
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;

const SEED: u64 = 9;
/// Draws of metrics are named from here on.
const FIRST_METRIC: usize = 128;
/// Logits of size ten, after a dozen f32 operations that each round by 6e-8 of them; their errors average out.
const CLOSE: f64 = 1e-5;
/// What another definition must change to be told from the right one.
const FAR: f64 = 100.0 * CLOSE;

fn target() -> TargetConfig {
    targets().into_iter().find(|target| matches!(target, TargetConfig::InductionHead(_))).expect("a model of tokens")
}

fn data() -> InductionSequences {
    InductionSequences { vocab_size: 4, seq_len: 6, prefix_window: 3 }
}

/// Two batches of different size.
fn batches() -> Vec<Batch> {
    let sequences = |step, n| data().sequences(Purpose::EvaluationData.stream(SEED, step, 0), n).batch;
    vec![sequences(0, 7), sequences(1, 2)]
}

struct Given(Vec<Batch>);

impl EvaluationSource<Cpu> for Given {
    fn batch(&self, batch: usize) -> Batch {
        self.0[batch].clone()
    }

    fn draws<'a>(&'a self, batch: usize, rows: &'a [u32]) -> Box<dyn Draws<Cpu> + 'a> {
        Box::new(StreamDraws { seed: SEED, step: batch as u32, evaluation: true, rows })
    }
}

fn measured(
    (model, parameters): &(ComponentModel<Cpu>, Parameters<Cpu>),
    settings: StepSettings,
    metrics: &[MetricConfig],
) -> Findings {
    let scene = Scene {
        device: &Cpu::default(),
        model,
        parameters,
        data: &InputDistribution::InductionSequences(data()),
        settings,
        identity: &[],
        dense: &[],
        alive_threshold: 0.1,
        batch_size: 7,
        compact: false,
        seed: SEED,
        number: 0,
        is_slow: true,
        probed: OnceCell::new(),
    };
    measure(&scene, &[], metrics, 2, &Given(batches())).expect("the metrics fit the model")
}

/// The masks of one site: of its components `[C, R]`, and of the delta component `[R]`.
type Plain = (Vec<f32>, Option<Vec<f32>>);

/// One batch, and what the definitions need of it.
struct Seen<'s> {
    step: &'s Step<'s, Cpu>,
    batch: usize,
    tokens: Vec<f32>,
    rows: Vec<u32>,
}

impl Seen<'_> {
    /// Calls `see` with each batch.
    fn each<T>(
        (model, parameters): &(ComponentModel<Cpu>, Parameters<Cpu>),
        settings: StepSettings,
        mut see: impl FnMut(&Seen<'_>) -> T,
    ) -> Vec<T> {
        let look = |(number, batch): (usize, Batch)| {
            let graph = Graph::detached(&Cpu::default());
            let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
            let mut draws = StreamDraws { seed: SEED, step: number as u32, evaluation: true, rows: &batch.rows };
            let step = Step::new(&graph, model, &leaves, &batch, settings, &mut draws).expect("enough memory");
            see(&Seen { step: &step, batch: number, tokens: batch.input.clone(), rows: batch.rows.clone() })
        };
        batches().into_iter().enumerate().map(look).collect()
    }

    /// Returns the lower causal importances of each site.
    fn importances(&self) -> Vec<Vec<f32>> {
        self.step.importances.iter().map(|importance| importance.lower.to_vec()).collect()
    }

    /// Returns the numbers in [0, 1) that evaluation draws here, `features` for each row.
    fn drawn(&self, purpose: Purpose, (metric, sample, site): (usize, usize, usize), features: usize) -> Vec<f32> {
        let index = (metric << 24 | sample << 16 | site) as u32;
        let stream = purpose.stream(SEED, self.batch as u32, index);
        let mut out = vec![0.0; features * self.rows.len()];
        uniform(Stream { purpose: stream.purpose + 100, ..stream }, features, &self.rows, &mut out);
        out
    }

    /// Returns masks `g + (1 − g) u` for every site, with the delta component or without.
    fn stochastic(&self, metric: usize, sample: usize, with_delta: bool) -> Vec<Plain> {
        let masks = self.importances().into_iter().enumerate().map(|(s, g)| {
            let u = self.drawn(Purpose::Source, (metric, sample, s), g.len() / self.rows.len());
            let between = |(g, u): (&f32, &f32)| (f64::from(*g) + (1.0 - f64::from(*g)) * f64::from(*u)) as f32;
            let delta = with_delta.then(|| self.drawn(Purpose::DeltaMask, (metric, sample, s), 1));
            (g.iter().zip(&u).map(between).collect(), delta)
        });
        masks.collect()
    }

    /// Returns masks without delta component, each entry made from its causal importance.
    fn masks(&self, mask: impl Fn(f32) -> f32) -> Vec<Plain> {
        self.importances().into_iter().map(|g| (g.into_iter().map(&mask).collect(), None)).collect()
    }

    /// Returns what is predicted with these sites masked like this and the others left to the target.
    fn predicted(&self, masks: &[Plain], is_masked: impl Fn(&str) -> bool) -> Predicted {
        let Step { graph, model, leaves, clean, .. } = self.step;
        let rows = self.rows.len();
        let masks: Vec<_> = model
            .sites()
            .iter()
            .zip(masks)
            .map(|(site, (mask, delta))| {
                let upload = |values: &Vec<f32>| {
                    graph.upload(values.clone(), (values.len() / rows, rows)).expect("enough memory")
                };
                let delta = delta.as_ref().map(upload);
                is_masked(&site.plan.name).then(|| SiteMask {
                    mask: ComponentMask::Full(upload(mask)),
                    delta,
                    routing: None,
                })
            })
            .collect();
        self.read(&model.masked_pass(graph, leaves, clean, &masks).expect("enough memory").output)
    }

    /// Returns what the target predicts.
    fn of_target(&self) -> Predicted {
        self.read(&self.step.clean.output)
    }

    fn read(&self, logits: &Var<Cpu>) -> Predicted {
        let ((n_tokens, rows), values) = (logits.shape(), logits.to_vec());
        let row = |row: usize| {
            let logits: Vec<f64> = (0..n_tokens).map(|token| f64::from(values[token * rows + row])).collect();
            let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            logits.into_iter().map(|logit| logit - log_sum).collect()
        };
        Predicted((0..rows).map(row).collect())
    }
}

/// The logarithms of the probabilities of every token, position by position.
struct Predicted(Vec<Vec<f64>>);

impl Predicted {
    /// Returns the mean over positions of `KL(target ‖ self)`.
    fn divergence(&self, target: &Self) -> f64 {
        let mut sum = 0.0;
        for (log_q, log_p) in self.0.iter().zip(&target.0) {
            sum += log_p.iter().zip(log_q).map(|(log_p, log_q)| log_p.exp() * (log_p - log_q)).sum::<f64>();
        }
        sum / self.0.len() as f64
    }

    /// Returns the mean cross entropy of the token after each position, but for those that begin a sequence if they are
    /// not `counted`.
    fn cross_entropy(&self, tokens: &[f32], counted: bool) -> f64 {
        let (mut sum, mut n) = (0.0, 0.0);
        for (next, token) in tokens.iter().enumerate().skip(1) {
            if counted || next % data().seq_len != 0 {
                sum -= self.0[next - 1][*token as usize];
                n += 1.0;
            }
        }
        sum / n
    }
}

fn config(metric: serde_json::Value) -> MetricConfig {
    serde_json::from_value(metric).expect("a metric")
}

/// Returns the mean of each number over the batches, which count as `weights` say.
fn averaged(batches: &[BTreeMap<String, f64>], weights: [f64; 2]) -> BTreeMap<String, f64> {
    let mean = |name: &String| {
        let sum: f64 = batches.iter().zip(weights).map(|(numbers, weight)| weight * numbers[name]).sum();
        sum / weights.iter().sum::<f64>()
    };
    batches[0].keys().map(|name| (name.clone(), mean(name))).collect()
}

#[track_caller]
fn assert_found(findings: &Findings, expected: &BTreeMap<String, f64>) {
    let found: BTreeMap<String, f64> = findings.numbers.iter().cloned().collect();
    assert_eq!(found.len(), findings.numbers.len(), "no number has two values");
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, value) in expected {
        // Quotients by a difference of at least a tenth of a nat, asserted below.
        let allowed = CLOSE * value.abs().max(1.0) * if name.contains("unrec") { 20.0 } else { 1.0 };
        let error = (found[name] - value).abs();
        assert!(error <= allowed, "`{name}`: found {}, by definition {value}", found[name]);
    }
}

#[test]
fn ce_and_kl_is_what_its_definition_says() {
    let model = build(&target(), SigmoidType::LeakyHard);
    // The delta component takes part in the stochastic mask all the same.
    let settings = StepSettings { use_delta_component: false, ..SETTINGS };
    // An importance that occurs: the rounded mask is on above it, not at it.
    let threshold = Seen::each(&model, settings, |seen| {
        let all = seen.importances().concat();
        all.into_iter().find(|g| (0.2..0.8).contains(g)).expect("an importance between off and on")
    })[0];
    let numbers = |rounded: fn(f32, f32) -> bool, across_sequences: bool| {
        Seen::each(&model, settings, |seen| {
            let (target, everywhere) = (seen.of_target(), |_: &str| true);
            let random: Vec<Plain> = seen
                .importances()
                .iter()
                .enumerate()
                .map(|(s, g)| (seen.drawn(Purpose::Source, (FIRST_METRIC, 1, s), g.len() / seen.rows.len()), None))
                .collect();
            let ce = |predicted: &Predicted| predicted.cross_entropy(&seen.tokens, across_sequences);
            let nothing = seen.predicted(&seen.masks(|_| 0.0), everywhere);
            let lost = ce(&nothing) - ce(&target);
            assert!(lost.abs() > 0.1, "without components the model predicts differently: {lost}");
            let mut numbers = BTreeMap::from([("ce_kl/kl_zero_masked".to_owned(), nothing.divergence(&target))]);
            for (name, masks) in [
                ("ci_masked", seen.masks(|g| g)),
                ("unmasked", seen.masks(|_| 1.0)),
                ("stoch_masked", seen.stochastic(FIRST_METRIC, 0, true)),
                ("random_masked", random),
                ("rounded_masked", seen.masks(|g| f32::from(u8::from(rounded(g, threshold))))),
            ] {
                let predicted = seen.predicted(&masks, everywhere);
                let difference = ce(&predicted) - ce(&target);
                numbers.insert(format!("ce_kl/kl_{name}"), predicted.divergence(&target));
                numbers.insert(format!("ce_kl/ce_difference_{name}"), difference);
                numbers.insert(format!("ce_kl/ce_unrecovered_{name}"), difference / lost);
            }
            numbers
        })
    };
    let positions = batches().iter().map(|batch| batch.positions as f64).collect::<Vec<_>>();
    let by_batch = numbers(|g, threshold| g > threshold, false);
    let expected = averaged(&by_batch, [positions[0], positions[1]]);
    let metric = config(json!({ "ce_and_kl": { "rounding_threshold": f64::from(threshold) } }));
    assert_found(&measured(&model, settings, &[metric]), &expected);

    // Other definitions would have been noticed.
    let differs = |other: &BTreeMap<String, f64>, name: &str| (other[name] - expected[name]).abs() > FAR;
    assert!(differs(&averaged(&by_batch, [1.0, 1.0]), "ce_kl/kl_ci_masked"));
    let inclusive = averaged(&numbers(|g, threshold| g >= threshold, false), [positions[0], positions[1]]);
    assert!(differs(&inclusive, "ce_kl/kl_rounded_masked"));
    let across = averaged(&numbers(|g, threshold| g > threshold, true), [positions[0], positions[1]]);
    assert!(differs(&across, "ce_kl/ce_difference_unmasked"));
}

/// Whether a site belongs to a subset.
type IsMember = fn(&str) -> bool;

/// The subsets of the test.
const SUBSETS: [(&str, IsMember); 3] = [
    ("attention", |site| site.contains("attn")),
    ("first", |site| site.starts_with("blocks.0.")),
    ("no_ff", |site| !site.contains(".ff.")),
];

fn subset_metric() -> MetricConfig {
    config(json!({ "stochastic_recon_subset_ce_and_kl": {
        "include_patterns": { "first": ["blocks.0.*"], "attention": ["*attn.*_proj", "*attn*"] },
        "exclude_patterns": { "no_ff": ["*.ff.*"] },
    } }))
}

#[test]
fn subset_ce_and_kl_is_what_its_definition_says() {
    let model = build(&target(), SigmoidType::LeakyHard);
    for use_delta_component in [true, false] {
        let settings = StepSettings { use_delta_component, mask_samples: 3, ..SETTINGS };
        let by_batch = Seen::each(&model, settings, |seen| {
            let target = seen.of_target();
            let nothing = seen.predicted(&seen.masks(|_| 0.0), |_| true).cross_entropy(&seen.tokens, false);
            let of_target = target.cross_entropy(&seen.tokens, false);
            assert!((nothing - of_target).abs() > 0.1, "without components the model predicts differently");
            let mut numbers = BTreeMap::new();
            for (name, is_member) in SUBSETS {
                let (mut kl, mut ce) = (0.0, 0.0);
                for sample in 0..3 {
                    // The metric is the second of its list.
                    let masks = seen.stochastic(FIRST_METRIC + 1, sample, use_delta_component);
                    let predicted = seen.predicted(&masks, is_member);
                    kl += predicted.divergence(&target) / 3.0;
                    ce += predicted.cross_entropy(&seen.tokens, false) / 3.0;
                }
                numbers.insert(format!("subset_worst/{name}_kl"), kl);
                numbers.insert(format!("subset_worst/{name}_ce"), ce);
                let unrecovered = (ce - of_target) / (nothing - of_target);
                numbers.insert(format!("subset_worst/{name}_ce_unrec"), unrecovered);
            }
            numbers
        });
        // Every batch counts the same, however many positions it has.
        let mut expected = averaged(&by_batch, [1.0, 1.0]);
        let mut worst = Vec::new();
        for quantity in ["kl", "ce", "ce_unrec"] {
            let of = |name: &str| expected[&format!("subset_worst/{name}_{quantity}")];
            let (name, _) = SUBSETS.iter().max_by(|(a, _), (b, _)| of(a).total_cmp(&of(b))).expect("three subsets");
            worst.push((format!("subset_worst/{quantity}_subset"), format!("{name}_{quantity}")));
            let value = of(name);
            expected.insert(format!("subset_worst/{quantity}"), value);
        }
        let metrics = [config(json!({ "ci_l0": { "bar_chart": false } })), subset_metric()];
        let mut findings = measured(&model, settings, &metrics);
        findings.numbers.retain(|(name, _)| !name.starts_with("l0/"));
        assert_found(&findings, &expected);
        let named: Vec<_> = findings.data.iter().map(|datum| (datum.key.clone(), datum.series.clone())).collect();
        assert_eq!(named, worst);
        let by_position = averaged(&by_batch, [7.0, 2.0]);
        assert!((by_position["subset_worst/first_ce"] - expected["subset_worst/first_ce"]).abs() > FAR);
    }
}

#[test]
fn a_site_whose_loss_costs_nothing_has_nothing_to_recover() {
    // The target multiplies by zero here, so a model without the site's components is the target.
    let mut state = random_state(&target());
    let (_, weight) = state.iter_mut().find(|(name, _)| name == "blocks.1.ff.fc2.weight").expect("a matrix");
    weight.data.fill(0.0);
    let model = build_sites(&target(), state, |module| module == "blocks.1.ff.fc2", SigmoidType::LeakyHard);
    let metric = config(json!({ "stochastic_recon_subset_ce_and_kl": { "include_patterns": { "it": ["*"] } } }));
    let found: BTreeMap<String, f64> = measured(&model, SETTINGS, &[metric]).numbers.into_iter().collect();
    assert!(found["subset_worst/it_kl"] > CLOSE, "its components do something");
    assert_eq!((found["subset_worst/it_ce_unrec"], found["subset_worst/ce_unrec"]), (0.0, 0.0));
}
