//! Worlds of threads: N ranks do what one does, draw what one draws, and end together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfdx::prelude::Cpu;
use serde_json::{Value, json};
use spdflow_engine::kind::{Device, ProgressSink, StageContext, StageError, StopFlag};
use spdflow_engine::ranks::{Alone, Channels, World, in_process};

use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::Tensor;
use crate::bridge::{Backend, Graph};
use crate::data::{Generation, InductionSequences, InputDistribution, SparseFeatures};
use crate::decomposition::config::DecomposeParams;
use crate::decomposition::draws::{DrawKey, Draws, Sampling, StreamDraws};
use crate::decomposition::routing::Routing;
use crate::decomposition::run::{Finished, run};
use crate::decomposition::site::SitePattern;
use crate::decomposition::tests::{random_state, targets};
use crate::models::{Module, TargetConfig, TargetModel};

const STEPS: u64 = 20;

pub(in crate::decomposition) fn params(losses: &Value, more: &Value) -> DecomposeParams {
    let mut all = json!({
        "seed": 3, "steps": STEPS, "batch_size": 90, "lr": { "start": 1e-2 },
        "sites": [], "causal_importance": { "mlp": { "hidden": [4] } },
        "losses": losses, "log_every": 5, "evaluation": { "every": 10, "batches": 1 },
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).expect("parameters")
}

fn data(target: &TargetConfig) -> InputDistribution {
    match target {
        TargetConfig::InductionHead(config) => InputDistribution::InductionSequences(InductionSequences {
            vocab_size: config.vocab_size,
            seq_len: config.seq_len,
            prefix_window: config.seq_len - 3,
        }),
        _ => InputDistribution::SparseFeatures(SparseFeatures {
            n_features: target.n_features(),
            feature_probability: 0.1,
            generation: Generation::AtLeastZeroActive,
            value_range: (0.0, 1.0),
            synced_inputs: Vec::new(),
        }),
    }
}

/// Hears of steps, and raises a flag or panics at one of them.
pub(in crate::decomposition) struct Watch<'a> {
    at: u64,
    action: &'a (dyn Fn() + Sync),
    resumed: AtomicU64,
    /// The lines of the log.
    pub(in crate::decomposition) log: Mutex<Vec<String>>,
}

impl<'a> Watch<'a> {
    pub(in crate::decomposition) fn new((at, action): (u64, &'a (dyn Fn() + Sync))) -> Self {
        Self { at, action, resumed: AtomicU64::new(0), log: Mutex::default() }
    }
}

impl ProgressSink for Watch<'_> {
    fn step(&self, step: u64, _: u64, _: Option<(&str, f64)>) {
        if step == self.at {
            (self.action)();
        }
    }

    fn resumed(&self, step: u64) {
        self.resumed.store(step, Ordering::Relaxed);
    }

    fn log(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
    }
}

/// What a rank ends with.
pub(in crate::decomposition) type End = Result<(Vec<(String, Tensor)>, MetricLog), StageError>;

/// Runs one rank; `action` is done when it tells of step `at`.
fn rank(
    world: &dyn World,
    target: &TargetConfig,
    params: &DecomposeParams,
    scratch: &Path,
    stop: &StopFlag,
    at: (u64, &(dyn Fn() + Sync)),
) -> End {
    rank_on(&Cpu::default(), world, target, params, scratch, stop, &Watch::new(at))
}

/// Runs one rank on `device`.
pub(in crate::decomposition) fn rank_on<D: Backend>(
    device: &D,
    world: &dyn World,
    target: &TargetConfig,
    params: &DecomposeParams,
    scratch: &Path,
    stop: &StopFlag,
    watch: &Watch<'_>,
) -> End {
    let state = random_state(target).into_iter().collect();
    let modules: Box<dyn TargetModel<Cpu>> = target.load(&Cpu::default(), &state).expect("a target");
    let site = |module: &Module<Cpu>| SitePattern { pattern: module.name.clone(), components: 5 };
    let params = &DecomposeParams { sites: modules.modules().iter().map(site).collect(), ..params.clone() };
    let context = StageContext {
        inputs: &BTreeMap::new(),
        files: &BTreeMap::new(),
        out_dir: scratch,
        scratch_dir: scratch,
        repro_path: &scratch.join("repro.sh"),
        threads: 1,
        gpus: &[],
        device: Device::Cpu,
        world,
        checkpoint_every: Duration::from_secs(3600),
        progress: watch,
        stop,
    };
    let Finished { trainer, metrics, .. } = run(device, target, &state, &data(target), params, &context)?;
    Ok((trainer.parameters.state(), metrics))
}

pub(in crate::decomposition) fn nothing() {}

/// Runs a world of `size` threads to its end.
fn ranks(size: usize, target: &TargetConfig, params: &DecomposeParams) -> Vec<(Vec<(String, Tensor)>, MetricLog)> {
    let one = |world: Channels| {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        rank(&world, target, params, scratch.path(), &StopFlag::new(), (u64::MAX, &nothing)).expect("a decomposition")
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = in_process(size).into_iter().map(|world| scope.spawn(|| one(world))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
    })
}

/// Asserts that worlds of two and three do what one rank does, and that their ranks end with the same bits.
fn assert_ranks_agree(target: &TargetConfig, params: &DecomposeParams) {
    assert_agree(&[2, 3], |size| ranks(size, target, params));
}

/// Asserts that worlds of these sizes do what one rank does, and that their ranks end with the same bits.
pub(in crate::decomposition) fn assert_agree(
    sizes: &[usize],
    ranks: impl Fn(usize) -> Vec<(Vec<(String, Tensor)>, MetricLog)>,
) {
    let [(alone, alone_metrics)] = &ranks(1)[..] else { panic!("one rank") };
    for size in sizes {
        let all = ranks(*size);
        let (first, metrics) = &all[0];
        assert!(all.iter().all(|(state, _)| state == first), "ranks of {size} end with different bits");
        for ((name, alone), (_, together)) in alone.iter().zip(first) {
            for (a, b) in alone.data.iter().zip(&together.data) {
                // The same terms summed in another order: 1e-7 of a gradient. Adam divides by its root of squares, so
                // that a parameter moves by up to that of the learning rate 1e-2 per step, more where gradients cancel.
                assert!((a - b).abs() <= 2e-4, "{name} with {size} ranks: {a} alone, {b} together");
            }
        }
        assert_eq!(metrics.names(), alone_metrics.names());
        for ((step, name, alone), (_, _, together)) in alone_metrics.rows().zip(metrics.rows()) {
            let close = (alone - together).abs() <= 5e-3 * alone.abs() + 1e-6;
            // Counts of components jump where an importance crosses the threshold.
            assert!(close || name.contains("l0"), "{name} at {step}, {size} ranks: {alone} alone, {together} together");
        }
    }
}

pub(in crate::decomposition) fn plain() -> Value {
    json!([
        { "importance_minimality": { "coeff": 3e-2, "p": 1.0 } },
        { "faithfulness": { "coeff": 1.0 } },
        { "stochastic_recon": { "coeff": 1.0 } },
        { "stochastic_recon_layerwise": { "coeff": 1.0 } },
        { "stochastic_hidden_acts_recon": { "coeff": 0.5 } },
    ])
}

#[test]
fn several_ranks_decompose_every_target_as_one_does() {
    for target in targets() {
        assert_ranks_agree(&target, &params(&plain(), &json!({})));
    }
}

#[test]
fn losses_of_the_whole_batch_are_the_same_over_ranks() {
    for target in targets().into_iter().take(3) {
        assert_ranks_agree(&target, &params(&of_the_whole_batch(), &json!({})));
    }
}

/// Losses for which the ranks speak in the middle of a step.
pub(in crate::decomposition) fn of_the_whole_batch() -> Value {
    let pgd =
        json!({ "coeff": 1.0, "init": "random", "step_size": 0.1, "n_steps": 2, "mask_scope": "shared_across_batch" });
    let mut unique = pgd.clone();
    unique["mask_scope"] = json!("unique_per_datapoint");
    json!([
        { "importance_minimality": { "coeff": 3e-2, "p": 0.9, "beta": 0.5 } },
        { "pgd_recon": pgd },
        { "pgd_recon_layerwise": unique },
        { "stochastic_recon_subset": { "coeff": 1.0 } },
    ])
}

#[test]
fn warm_up_clipping_and_binomial_masks_are_the_same_over_ranks() {
    let more = json!({
        "sampling": "binomial", "faithfulness_warmup": { "steps": 5 }, "grad_clip": { "components": 0.01 },
    });
    assert_ranks_agree(&targets()[0], &params(&plain(), &more));
}

#[test]
fn a_rank_without_rows_changes_nothing() {
    // Of three rows most are zero, so that two ranks of three have nothing to do at times.
    let target = &targets()[0];
    assert_ranks_agree(target, &params(&plain(), &json!({ "batch_size": 3 })));
}

#[test]
fn a_batch_smaller_than_the_world_is_refused_before_the_first_step() {
    let target = &targets()[0];
    let params = params(&plain(), &json!({ "batch_size": 1 }));
    let mut worlds = in_process(2);
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let end = rank(&worlds.remove(0), target, &params, scratch.path(), &StopFlag::new(), (u64::MAX, &nothing));
    assert_eq!(end.unwrap_err().to_string(), "`batch_size`: a batch of 1 rows cannot be divided among 2 ranks");
}

#[test]
fn the_draws_of_shares_are_those_of_the_batch_to_the_bit() {
    let graph = Graph::detached(&Cpu::default());
    let key = DrawKey { loss: 1, class: "", sample: 0, layer: None };
    let draw = |rows: &[u32]| {
        let mut draws = StreamDraws { seed: 7, step: 11, evaluation: false, rows };
        let draws: &mut dyn Draws<Cpu> = &mut draws;
        let routes = draws.routing(&graph, key, Routing::UniformKSubset, 2).unwrap();
        let mut all = vec![draws.delta(&graph, key, 2).unwrap(), draws.adversary(&graph, key, 2, 1, false).unwrap()];
        all.push(draws.importance_noise(&graph, 2, 1).unwrap());
        all.extend(routes.into_iter().flatten());
        let crate::bridge::MaskSource::Given(coins) = draws.source(&graph, key, 0, 1, Sampling::Binomial).unwrap()
        else {
            panic!("coins are drawn at once")
        };
        all.push(coins);
        all.iter().map(|var| var.to_vec()).collect::<Vec<_>>()
    };
    let rows: Vec<u32> = (0..37).collect();
    let whole = draw(&rows);
    let (first, second) = (draw(&rows[..20]), draw(&rows[20..]));
    for ((whole, first), second) in whole.iter().zip(first).zip(second) {
        assert_eq!(*whole, [first, second].concat());
    }
}

/// Runs two ranks in `folders`; rank `which` does `action` when it tells of step 10. `stops` are their stop flags.
fn pair(folders: [&Path; 2], stops: &[StopFlag; 2], which: usize, action: &(dyn Fn() + Sync)) -> Vec<Option<End>> {
    let (target, params) = (&targets()[0], params(&plain(), &json!({})));
    let one = |world: Channels| {
        let at = if world.rank() == which { 10 } else { u64::MAX };
        rank(&world, target, &params, folders[world.rank()], &stops[world.rank()], (at, action))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = in_process(2).into_iter().map(|world| scope.spawn(|| one(world))).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

fn new_folders() -> [tempfile::TempDir; 2] {
    [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"))
}

#[test]
fn a_lost_rank_ends_the_run_with_a_checkpoint_from_which_it_goes_on_to_the_same_bits() {
    let folders = new_folders();
    let at = [folders[0].path(), folders[1].path()];
    let calm = || [StopFlag::new(), StopFlag::new()];
    // Rank 1 panics after step 10, before it has told anybody anything of step 11.
    let ends = pair(at, &calm(), 1, &|| panic!("a rank dies (a test wants it to)"));
    assert!(ends[1].is_none());
    let Some(Err(error)) = &ends[0] else { panic!("rank 0 goes on alone") };
    assert_eq!(error.to_string(), "rank 1 of 2 is gone (its thread ended) during step 11");
    let again = pair(at, &calm(), 9, &nothing);
    let fresh = new_folders();
    let undisturbed = pair([fresh[0].path(), fresh[1].path()], &calm(), 9, &nothing);
    let bits = |ends: Vec<Option<End>>| ends.into_iter().map(|end| end.unwrap().unwrap()).collect::<Vec<_>>();
    let (again, undisturbed) = (bits(again), bits(undisturbed));
    assert!(again[0] == undisturbed[0], "other bits, or other records, after going on");
    assert!(again[1].0 == undisturbed[1].0);
}

#[test]
fn whoever_is_asked_to_stop_stops_all() {
    for which in [0, 1] {
        let (folders, stops) = (new_folders(), [StopFlag::new(), StopFlag::new()]);
        let ends = pair([folders[0].path(), folders[1].path()], &stops, which, &|| stops[which].raise());
        let texts: Vec<String> = ends.into_iter().map(|end| end.unwrap().unwrap_err().to_string()).collect();
        let leader = ["interrupted", "rank 1 of 2 was asked to stop before step 12"][which];
        assert_eq!(texts, [leader, "interrupted"]);
        // Rank 0 has waited in vain for a wish of its own, as after a signal to all.
        let saved = std::fs::read_to_string(folders[0].path().join("decomposition.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&saved).unwrap()["step"], 12);
        assert!(!folders[1].path().join("decomposition.json").exists(), "rank 0 alone saves");
    }
}

#[test]
fn a_world_of_one_is_asked_for_nothing() {
    let target = &targets()[0];
    let scratch = tempfile::tempdir().expect("a temporary folder");
    // Alone panics when it is spoken to.
    let params = params(&plain(), &json!({}));
    rank(&Alone, target, &params, scratch.path(), &StopFlag::new(), (u64::MAX, &nothing)).expect("a decomposition");
}
