//! The stage kind `train.tms`: a toy model of superposition (spec section 1.1).
//!
//! Training is sensitive to the seed: many runs end with features missing. With `restarts = N` it runs N times from
//! seeds derived from `seed` and keeps the run with the lowest loss on batches that all runs share.

use std::sync::atomic::{AtomicU64, Ordering};

use dfdx::prelude::Cpu;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{Device, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};
use spdflow_kernels::philox::{Stream, block, normal, uniform};

use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::{Tensor, Tensors};
use crate::artifact::{json, tensors};
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::checkpoint::Checkpoints;
use crate::data::{Batch, Generation, InputDistribution, SparseFeatures};
use crate::figure::tms::{cosine_similarity_distribution, feature_representation, polygon};
use crate::matrix::Matrix;
use crate::models::{DESCRIPTION_FILE, TargetConfig, TargetDescription, Tms, TmsConfig, WEIGHTS_FILE, run_plain};
use crate::optimizer::parameters::{AdamW, ClipGroup, Parameters};
use crate::optimizer::schedule::Schedule;
use crate::purpose::Purpose;
use crate::threads::with_threads;

/// `train.tms`.
pub struct TrainTms;

/// What the matrices between the first and the last are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HiddenLayers {
    /// Trained like the others.
    #[default]
    Trained,
    /// Fixed to the identity.
    FixedIdentity,
    /// Fixed to independent standard normal entries.
    FixedRandom,
}

/// The parameters of `train.tms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTmsParams {
    /// How many features go in and out.
    pub n_features: usize,
    /// How many dimensions they share.
    pub n_hidden: usize,
    /// How many matrices lie between the first and the last.
    #[serde(default)]
    pub n_hidden_layers: usize,
    /// What those matrices are.
    #[serde(default)]
    pub hidden_layers: HiddenLayers,
    /// Whether the last matrix is the first one's transpose.
    #[serde(default = "yes")]
    pub tied_weights: bool,
    /// Whether the bias starts at zero instead of at random.
    #[serde(default)]
    pub init_bias_to_zero: bool,
    /// The probability that a feature is active.
    #[serde(default = "default_probability")]
    pub feature_probability: f64,
    /// How active features are chosen.
    #[serde(default = "default_generation")]
    pub generation: Generation,
    /// The range of active values.
    #[serde(default = "default_range")]
    pub value_range: (f32, f32),
    /// Groups of features that are active together.
    #[serde(default)]
    pub synced_inputs: Vec<Vec<usize>>,
    /// How many optimiser updates.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Rows in a batch.
    #[serde(default = "default_batch")]
    pub batch_size: usize,
    /// The learning rate.
    #[serde(default = "default_lr")]
    pub lr: Schedule,
    /// Decoupled weight decay, on biases too.
    #[serde(default = "default_decay")]
    pub weight_decay: f64,
    /// How many runs to choose from.
    #[serde(default = "one")]
    pub restarts: u32,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Steps between records of the loss.
    #[serde(default = "default_log")]
    pub log_every: u64,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn default_probability() -> f64 {
    0.05
}

fn default_generation() -> Generation {
    Generation::AtLeastZeroActive
}

fn default_range() -> (f32, f32) {
    (0.0, 1.0)
}

fn default_steps() -> u64 {
    10_000
}

fn default_batch() -> usize {
    1024
}

fn default_lr() -> Schedule {
    Schedule::constant(5e-3)
}

fn default_decay() -> f64 {
    0.01
}

fn default_log() -> u64 {
    100
}

impl TrainTmsParams {
    fn model(&self) -> TmsConfig {
        TmsConfig {
            n_features: self.n_features,
            n_hidden: self.n_hidden,
            n_hidden_layers: self.n_hidden_layers,
            tied_weights: self.tied_weights,
        }
    }

    fn data(&self) -> SparseFeatures {
        SparseFeatures {
            n_features: self.n_features,
            feature_probability: self.feature_probability,
            generation: self.generation,
            value_range: self.value_range,
            synced_inputs: self.synced_inputs.clone(),
        }
    }

    /// Returns the seed of restart `k`: the seed itself for the first, then numbers hashed from both.
    fn restart_seed(&self, k: u32) -> u64 {
        if k == 0 {
            return self.seed;
        }
        let [low, high, ..] = block([k, 0, 0, 0], [self.seed as u32, (self.seed >> 32) as u32]);
        u64::from(high) << 32 | u64::from(low)
    }
}

impl Kind for TrainTms {
    type Params = TrainTmsParams;

    const INFO: KindInfo = KindInfo {
        name: "train.tms",
        version: 1,
        summary: "trains a toy model of superposition: sparse features squeezed through a few dimensions",
        inputs: &[],
    };

    fn validate(params: &TrainTmsParams) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        let counts = [
            ("n_features", params.n_features as u64),
            ("n_hidden", params.n_hidden as u64),
            ("batch_size", params.batch_size as u64),
            ("restarts", u64::from(params.restarts)),
            ("log_every", params.log_every),
        ];
        for (path, _) in counts.iter().filter(|(_, n)| *n == 0) {
            issues.push(ParamIssue::new(*path, "must be at least 1, found 0"));
        }
        if let Some((field, message)) = params.data().mistake() {
            issues.push(ParamIssue::new(field, message));
        }
        if let Some((field, message)) = params.lr.mistake() {
            issues.push(ParamIssue::new(format!("lr.{field}"), message));
        }
        if !(params.weight_decay >= 0.0 && params.weight_decay.is_finite()) {
            issues
                .push(ParamIssue::new("weight_decay", format!("must not be negative, found {}", params.weight_decay)));
        }
        if params.n_hidden_layers == 0 && params.hidden_layers != HiddenLayers::Trained {
            issues
                .push(ParamIssue::new("hidden_layers", "says how hidden layers are fixed, but `n_hidden_layers` is 0"));
        }
        issues
    }

    fn run(params: &TrainTmsParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        match context.device {
            Device::Cpu => with_threads(context.threads, || train(&Cpu::default(), params, context))?,
            Device::Cuda(_) => Err(StageError::failed_with_hint(
                "this build of spdflow has no CUDA support",
                "leave out `--device`, or use `--device cpu`",
            )),
        }
    }
}

/// Batches on which the runs are compared.
const FINAL_BATCHES: u32 = 20;
/// Steps between two reports of progress.
const REPORT_EVERY: u64 = 50;

/// One finished run.
struct Trained {
    state: Vec<(String, Tensor)>,
    metrics: MetricLog,
    final_loss: f64,
}

fn train<D: Backend + Sync>(
    device: &D,
    params: &TrainTmsParams,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let done = AtomicU64::new(0);
    let runs: Vec<Trained> = (0..params.restarts)
        .into_par_iter()
        .map(|k| train_once(device, params, k, context, &done))
        .collect::<Result<_, _>>()?;
    // NaN never wins; ties go to the earlier run.
    let winner = (0..runs.len())
        .min_by(|a, b| runs[*a].final_loss.total_cmp(&runs[*b].final_loss))
        .expect("at least one restart");
    for (k, run) in runs.iter().enumerate() {
        let mark = if k == winner { " (kept)" } else { "" };
        context.progress.log(&format!(
            "restart {k}, seed {}: final loss {:.6}{mark}",
            params.restart_seed(k as u32),
            run.final_loss
        ));
    }
    write(device, params, &runs, winner, context)
}

fn write<D: Backend>(
    device: &D,
    params: &TrainTmsParams,
    runs: &[Trained],
    winner: usize,
    context: &StageContext<'_>,
) -> Result<Summary, StageError> {
    let (best, out) = (&runs[winner], context.out_dir);
    if !best.final_loss.is_finite() {
        return Err(StageError::failed_with_hint(
            "every restart ended with a loss that is not a number",
            "a smaller learning rate (`lr.start`) usually helps",
        ));
    }
    let state: Tensors = best.state.iter().cloned().collect();
    let weight = state.matrix("linear1.weight")?;
    let mut summary = Summary::default();
    summary.metric("loss", best.final_loss);
    summary.metric("restart", winner as f64);
    for (name, value) in geometry(&weight) {
        summary.metric(name, value);
    }
    let description = TargetDescription {
        kind: TrainTms::INFO.name.to_owned(),
        model: TargetConfig::Tms(params.model()),
        data: InputDistribution::SparseFeatures(params.data()),
        result: serde_json::json!({
            "loss": best.final_loss,
            "restart": winner,
            "restart_seed": params.restart_seed(winner as u32),
            "restart_losses": runs.iter().map(|run| run.final_loss).collect::<Vec<_>>(),
        }),
    };
    tensors::write(&out.join(WEIGHTS_FILE), best.state.iter().map(|(name, tensor)| (&name[..], tensor)))?;
    summary.file(WEIGHTS_FILE, "safetensors", "the trained weights under their PyTorch names");
    json::write(&out.join(DESCRIPTION_FILE), &description)?;
    summary.file(DESCRIPTION_FILE, "json", "the model, its inputs, and which restart was kept");
    best.metrics.write(&out.join("metrics.parquet"))?;
    summary.file("metrics.parquet", "parquet", "training loss of the kept run by step");
    if params.n_hidden == 2 {
        polygon(&weight).write(out, "polygon", &mut summary)?;
    }
    let responses = one_hot_responses(device, params, &state)?;
    feature_representation(&responses).write(out, "feature_representation_analysis", &mut summary)?;
    if params.n_features > 1 {
        cosine_similarity_distribution(&weight).write(out, "cosine_similarity_distribution", &mut summary)?;
    }
    Ok(summary)
}

/// Returns how evenly the features share the hidden space: the smallest length of a feature's vector and, in two
/// dimensions, the largest deviation of the angle between neighbours from the even one, in degrees.
fn geometry(weight: &Matrix) -> Vec<(String, f64)> {
    let lengths =
        (0..weight.cols()).map(|j| weight.column(j).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt());
    let mut numbers = vec![("min_feature_norm".to_owned(), lengths.fold(f64::INFINITY, f64::min))];
    if weight.rows() == 2 && weight.cols() > 2 {
        let mut angles: Vec<f64> = (0..weight.cols())
            .map(|j| f64::from(weight.at(1, j)).atan2(f64::from(weight.at(0, j))).to_degrees())
            .collect();
        angles.sort_by(f64::total_cmp);
        let even = 360.0 / angles.len() as f64;
        let last_gap = angles[0] + 360.0 - angles[angles.len() - 1];
        let gaps = angles.windows(2).map(|pair| pair[1] - pair[0]).chain([last_gap]);
        numbers.push(("angle_deviation".to_owned(), gaps.map(|gap| (gap - even).abs()).fold(0.0, f64::max)));
    }
    numbers
}

/// Returns the model's outputs `[n_features, n_features]`, one row for each feature active alone at 0.75.
fn one_hot_responses<D: Backend>(device: &D, params: &TrainTmsParams, state: &Tensors) -> Result<Matrix, StageError> {
    let n = params.n_features;
    let model = Tms::load(params.model(), device, state)?;
    let mut input = vec![0.0; n * n];
    input.iter_mut().step_by(n + 1).for_each(|x| *x = 0.75);
    let graph = Graph::detached(device);
    let output = graph.upload(input, (n, n)).and_then(|input| run_plain(&model, &graph, &input));
    let output = output.map_err(|error: D::Err| StageError::failed(format!("{error:?}")))?;
    Ok(Matrix::new(n, n, output.to_vec()).transposed())
}

fn train_once<D: Backend>(
    device: &D,
    params: &TrainTmsParams,
    k: u32,
    context: &StageContext<'_>,
    done: &AtomicU64,
) -> Result<Trained, StageError> {
    let failed = |error: D::Err| StageError::failed(format!("{error:?}"));
    let seed = params.restart_seed(k);
    let mut run = Run::new(device, params, seed).map_err(failed)?;
    let mut checkpoints = Checkpoints::new(context.scratch_dir, &format!("restart{k}"), context.checkpoint_every);
    let mut metrics = MetricLog::new();
    let mut first = 0;
    if let Some((progress, tensors)) = checkpoints.load() {
        run.parameters.restore(&tensors, progress.updates)?;
        metrics = progress.metrics;
        first = progress.step;
        done.fetch_add(first, Ordering::Relaxed);
        context.progress.resumed(first);
    }
    let data = params.data();
    let total = params.steps * u64::from(params.restarts);
    for step in first..params.steps {
        checkpoints.keep(context, step, &run.parameters, &metrics)?;
        let at = u32::try_from(step)
            .map_err(|_| StageError::failed(format!("step {step}: expected fewer than 2^32 steps")))?;
        let batch = data.batch(Purpose::TargetData.stream(seed, at, 0), params.batch_size);
        let loss = run.update(&batch, params.lr.value(step, params.steps)).map_err(failed)?;
        if step % params.log_every == 0 {
            metrics.push(step, "train/loss", loss);
        }
        let finished = done.fetch_add(1, Ordering::Relaxed) + 1;
        if finished.is_multiple_of(REPORT_EVERY) {
            context.progress.step(finished, total, Some(("loss", loss)));
        }
    }
    if first < params.steps {
        // Other restarts may still be running when this one is done: a stop must not cost it.
        checkpoints.save(params.steps, run.parameters.updates(), &metrics, &run.parameters.checkpoint())?;
    }
    let mut final_loss = 0.0;
    for batch in 0..FINAL_BATCHES {
        let batch = data.batch(Purpose::TargetEvaluation.stream(params.seed, batch, 0), params.batch_size);
        final_loss += run.loss_on(&batch).map_err(failed)? / f64::from(FINAL_BATCHES);
    }
    metrics.push(params.steps, "eval/loss", final_loss);
    Ok(Trained { state: run.state(), metrics, final_loss })
}

/// A run in progress.
struct Run<'a, D: Backend> {
    device: &'a D,
    params: &'a TrainTmsParams,
    parameters: Parameters<D>,
    /// Hidden layers that are not trained, by name.
    frozen: Vec<(String, Var<D>)>,
}

impl<'a, D: Backend> Run<'a, D> {
    fn new(device: &'a D, params: &'a TrainTmsParams, seed: u64) -> DeviceResult<Self, D> {
        let mut parameters = Parameters::new(device);
        let mut frozen = Vec::new();
        let config = params.model();
        let fan_in = |name: &str| if name == "linear1.weight" { config.n_features } else { config.n_hidden };
        for (index, (name, shape)) in config.tensors().into_iter().enumerate() {
            let stream = Purpose::TargetInit.stream(seed, 0, index as u32);
            let matrix = (shape[0], shape.get(1).copied().unwrap_or(1));
            let entries = matrix.0 * matrix.1;
            if name.starts_with("hidden_layers") && params.hidden_layers != HiddenLayers::Trained {
                let graph = Graph::detached(device);
                frozen.push((name, graph.upload(fixed_layer(params.hidden_layers, matrix.0, stream), matrix)?));
                continue;
            }
            let zero = name == "linear2.bias" && params.init_bias_to_zero;
            let data = if zero { vec![0.0; entries] } else { default_linear_init(stream, fan_in(&name), entries) };
            parameters.push(name, shape, matrix, data)?;
        }
        if params.tied_weights {
            let find = |name: &str| {
                parameters.iter().position(|parameter| parameter.name == name).expect("both matrices are trained")
            };
            let (first, last) = (find("linear1.weight"), find("linear2.weight"));
            parameters.tie(first, last)?;
        }
        Ok(Self { device, params, parameters, frozen })
    }

    fn model(&self, leaves: &[Var<D>]) -> Tms<D> {
        let config = self.params.model();
        let find = |name: &str| {
            let trained = self.parameters.iter().map(|parameter| &parameter.name).zip(leaves);
            let frozen = self.frozen.iter().map(|(name, value)| (name, value));
            let found = trained.chain(frozen).find(|(other, _)| *other == name);
            found.map(|(_, value)| value.clone()).expect("every tensor is trained or frozen")
        };
        let values = config.tensors().iter().map(|(name, _)| find(name)).collect();
        Tms::new(config, values)
    }

    /// Returns the loss: the mean over rows and features of `(|x| − y)²`.
    fn loss(&self, graph: &Graph<D>, leaves: &[Var<D>], batch: &Batch) -> DeviceResult<Var<D>, D> {
        let shape = (batch.features, batch.rows.len());
        let input = graph.upload(batch.input.clone(), shape)?;
        let label = graph.upload(batch.input.iter().map(|x| x.abs()).collect(), shape)?;
        let output = run_plain(&self.model(leaves), graph, &input)?;
        graph.combine(&[(1.0 / batch.input.len() as f64, graph.squared_error(&output, &label)?)])
    }

    fn update(&mut self, batch: &Batch, learning_rate: f64) -> DeviceResult<f64, D> {
        let graph = Graph::recording(self.device);
        let leaves = self.parameters.leaves(&graph)?;
        let loss = self.loss(&graph, &leaves, batch)?;
        let mut gradients = graph.backward(&loss)?;
        let all = ClipGroup { parameters: 0..self.parameters.len(), max_norm: None };
        let optimizer = AdamW { weight_decay: self.params.weight_decay, ..AdamW::DEFAULT };
        self.parameters.update(&graph, &mut gradients, &leaves, &[all], optimizer, learning_rate)?;
        Ok(loss.scalar())
    }

    fn loss_on(&self, batch: &Batch) -> DeviceResult<f64, D> {
        let graph = Graph::detached(self.device);
        let leaves = self.parameters.leaves(&graph)?;
        Ok(self.loss(&graph, &leaves, batch)?.scalar())
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = self.parameters.state();
        state.extend(self.frozen.iter().map(|(name, value)| {
            let (rows, cols) = value.shape();
            (name.clone(), Tensor::new(vec![rows, cols], value.to_vec()))
        }));
        state
    }
}

fn fixed_layer(kind: HiddenLayers, d: usize, stream: Stream) -> Vec<f32> {
    let mut data = vec![0.0; d * d];
    match kind {
        HiddenLayers::FixedRandom => normal(stream, &mut data),
        HiddenLayers::FixedIdentity | HiddenLayers::Trained => data.iter_mut().step_by(d + 1).for_each(|x| *x = 1.0),
    }
    data
}

/// Returns PyTorch's default initial entries of a linear layer: uniform within ±1/√fan_in.
fn default_linear_init(stream: Stream, fan_in: usize, entries: usize) -> Vec<f32> {
    let mut data = vec![0.0; entries];
    uniform(stream, entries, &[0], &mut data);
    let bound = 1.0 / (fan_in as f64).sqrt();
    data.iter().map(|u| ((2.0 * f64::from(*u) - 1.0) * bound) as f32).collect()
}
