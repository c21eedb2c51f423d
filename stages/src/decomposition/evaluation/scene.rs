//! One evaluation: the model as it is, the batches, and the losses and metrics that look at them.

use std::cell::OnceCell;

use spdflow_engine::kind::StageError;

use super::super::draws::{Draws, Sampling};
use super::super::loss::LossConfig;
use super::super::model::{ComponentModel, Leaves, Site};
use super::super::probe::probe;
use super::super::step::{Step, StepSettings};
use super::activity::SiteImportances;
use super::findings::Findings;
use super::loss_value::LossValue;
use super::{Measurement, MetricConfig};
use crate::artifact::ci_table::SiteCi;
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::data::{Batch, InputDistribution};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;
use crate::solution::{DensePattern, IdentityPattern};

/// What metrics may look at besides batches.
pub struct Scene<'a, D: Backend> {
    /// Where to compute.
    pub device: &'a D,
    /// The model.
    pub model: &'a ComponentModel<D>,
    /// Its parameters as they are.
    pub parameters: &'a Parameters<D>,
    /// The distribution of inputs.
    pub data: &'a InputDistribution,
    /// Settings of the steps on the batches.
    pub settings: StepSettings,
    /// Sites of which each component should answer for one feature.
    pub identity: &'a [IdentityPattern],
    /// Sites of which a few components should act together.
    pub dense: &'a [DensePattern],
    /// A component counts as alive where its lower causal importance exceeds this.
    pub alive_threshold: f64,
    /// Positions in a batch.
    pub batch_size: usize,
    /// Whether all-zero rows may be counted instead of repeated.
    pub compact: bool,
    /// The decomposition's seed.
    pub seed: u64,
    /// Counts evaluations from 0.
    pub number: u64,
    /// Whether slow metrics are measured and figures drawn.
    pub is_slow: bool,
    /// The one-hot probe, once a metric has asked for it.
    pub probed: OnceCell<Vec<SiteCi>>,
}

impl<D: Backend> Scene<'_, D> {
    /// Returns the causal importances of every site on one feature at a time; computed once for all metrics.
    ///
    /// # Errors
    /// [`StageError::Failed`] if memory runs out.
    ///
    /// # Panics
    /// If the target reads tokens: [`super::Fit`] refuses metrics that look at features there.
    pub fn probe(&self) -> Result<&[SiteCi], StageError> {
        if self.probed.get().is_none() {
            let n_features = self.data.n_features().expect("a target that reads vectors");
            let _ = self.probed.set(self.make_probe(n_features).map_err(Self::device_failed)?);
        }
        Ok(self.probed.get().expect("set above"))
    }

    fn make_probe(&self, n_features: usize) -> DeviceResult<Vec<SiteCi>, D> {
        let rows: Vec<u32> = (0..u32::try_from(n_features).expect("fewer than 2^32 features")).collect();
        let number = u32::try_from(self.number).expect("fewer than 2^32 evaluations");
        let graph = Graph::detached(self.device);
        let draw = |(s, site): (usize, &Site<D>)| {
            let stream = Purpose::ProbeNoise.stream(self.seed, number, u32::try_from(s).expect("few sites"));
            graph.uniform(stream, site.plan.components, &rows)
        };
        let noise: Option<Vec<Var<D>>> = match self.settings.sampling {
            Sampling::Continuous => None,
            Sampling::Binomial => Some(self.model.sites().iter().enumerate().map(draw).collect::<Result<_, _>>()?),
        };
        probe(self.device, self.model, self.parameters, n_features, noise.as_deref())
    }

    /// Returns the names of the sites in canonical order.
    #[must_use]
    pub fn site_names(&self) -> Vec<String> {
        self.model.sites().iter().map(|site| site.plan.name.clone()).collect()
    }

    /// Turns a device's error into a stage's.
    pub fn device_failed(error: D::Err) -> StageError {
        StageError::failed(format!("evaluation: {error:?}"))
    }
}

/// Where the batches of an evaluation and its draws come from.
pub trait EvaluationSource<D: Backend> {
    /// Returns batch `batch` of the evaluation.
    fn batch(&self, batch: usize) -> Batch;

    /// Returns the draws on that batch, whose rows have the numbers `rows`.
    fn draws<'a>(&'a self, batch: usize, rows: &'a [u32]) -> Box<dyn Draws<D> + 'a>;
}

/// Evaluation batches have smaller numbers than this; their draws are keyed by it, those of attacks by larger ones.
pub(in crate::decomposition) const END_OF_BATCHES: u32 = 1 << 31;

/// Draws of metrics are named from here on, those of losses by their place in the list.
const FIRST_METRIC: usize = 128;

/// Measures losses and metrics over `batches` batches.
///
/// # Errors
/// [`StageError::Failed`] if memory runs out or a metric does not fit the model.
pub fn measure<D: Backend>(
    scene: &Scene<'_, D>,
    losses: &[LossConfig],
    metrics: &[MetricConfig],
    batches: usize,
    source: &dyn EvaluationSource<D>,
) -> Result<Findings, StageError> {
    let sites = scene.model.sites().len();
    let mut values: Vec<LossValue> =
        losses.iter().map(|loss| LossValue::start(loss, scene.settings.progress, sites)).collect();
    let metrics = metrics.iter().enumerate().filter(|(_, metric)| scene.is_slow || !metric.is_slow());
    let mut measurements: Vec<(usize, Box<dyn Measurement<D>>)> =
        metrics.map(|(place, metric)| (FIRST_METRIC + place, metric.on::<D>().start(scene))).collect();
    let mut look = |batch: usize| -> DeviceResult<(), D> {
        let batch_data = source.batch(batch);
        let graph = Graph::detached(scene.device);
        let leaves = Leaves(scene.parameters.leaves(&graph)?);
        let mut draws = source.draws(batch, &batch_data.rows);
        let step = Step::new(&graph, scene.model, &leaves, &batch_data, scene.settings, &mut *draws)?;
        for (place, (loss, value)) in losses.iter().zip(&mut values).enumerate() {
            value.update(loss, &step, place, &mut *draws)?;
        }
        for (place, measurement) in &mut measurements {
            measurement.update(&step, *place, &mut *draws)?;
        }
        Ok(())
    };
    (0..batches).try_for_each(&mut look).map_err(Scene::<D>::device_failed)?;
    let mut findings = Findings::default();
    for (loss, value) in losses.iter().zip(&values) {
        findings.number(format!("loss/{}", loss.class()), value.value());
    }
    for (_, measurement) in measurements {
        findings.extend(measurement.compute(scene)?);
    }
    Ok(findings)
}

/// Calls `look` with every site's lower causal importances on the step's batch.
pub(super) fn for_each_site<D: Backend>(step: &Step<'_, D>, mut look: impl FnMut(usize, SiteImportances<'_>)) {
    let counts = step.row_counts.as_ref().map(Var::to_vec);
    for (s, importance) in step.importances.iter().enumerate() {
        let values = importance.lower.to_vec();
        let components = importance.lower.shape().0;
        look(s, SiteImportances { values: &values, components, row_counts: counts.as_deref() });
    }
}
