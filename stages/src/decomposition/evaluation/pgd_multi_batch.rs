//! Output error under adversarial masks that many batches share (spec section 5.4, multi-batch PGD).
//!
//! One set of sources for every position of every batch: an attack that finds components which are needed nowhere, not
//! merely not here. Every step of the attack goes through the same batches, adds up the gradients of their summed
//! errors and makes one signed update; the mean error under the last sources is the result. The batches have a stream of
//! their own, so neither training nor the rest of the evaluation sees other data because of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{ParamIssue, StageError};

use super::super::draws::{DrawKey, Draws, StreamDraws};
use super::super::loss::{PgdInit, Route, adversarial_masks, output_elements, output_error, routing_issues};
use super::super::model::Leaves;
use super::super::routing::Routing;
use super::super::step::Step;
use super::findings::Findings;
use super::scene::{END_OF_BATCHES, Scene};
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::data::Batch;
use crate::purpose::Purpose;

macro_rules! pgd_multi_batch {
    ($(#[$doc:meta])* $name:ident, $class:literal, $stream:literal $(, $(#[$extra_doc:meta])* $routing:ident)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Where the attack starts.
            pub init: PgdInit,
            /// The length of its steps.
            pub step_size: f64,
            /// How many steps it makes.
            pub n_steps: usize,
            /// How many batches every step goes through.
            pub gradient_accumulation_steps: usize,
            $($(#[$extra_doc])* #[serde(default)] pub $routing: Routing,)?
        }

        impl $name {
            fn attack(&self) -> MultiBatchAttack {
                let routing = [$(self.$routing)?].first().copied();
                MultiBatchAttack {
                    init: self.init,
                    step_size: self.step_size,
                    n_steps: self.n_steps,
                    batches: self.gradient_accumulation_steps,
                    routing,
                }
            }
        }

        impl MetricFacts for $name {
            const IS_SLOW: bool = false;

            fn passes(&self) -> u64 {
                self.attack().passes()
            }

            fn issues(&self) -> Vec<ParamIssue> {
                self.attack().issues()
            }
        }

        impl<D: Backend> Metric<D> for $name {
            fn start(&self, _: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
                Box::new(Measured { attack: self.attack(), class: $class, stream: $stream })
            }
        }
    };
}

pgd_multi_batch! {
    /// Output error with all sites under adversarial masks that many batches share.
    PgdMultiBatchRecon, "PGDMultiBatchReconLoss", 0
}
pgd_multi_batch! {
    /// The same, with a random subset of sites at each position.
    PgdMultiBatchReconSubset, "PGDMultiBatchReconSubsetLoss", 1,
    /// How positions are routed; drawn afresh for every step and batch.
    routing
}

/// How the attack proceeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiBatchAttack {
    /// Where it starts.
    pub init: PgdInit,
    /// The length of a step.
    pub step_size: f64,
    /// How many steps.
    pub n_steps: usize,
    /// The number of batches.
    pub batches: usize,
    /// How positions are routed; all sites everywhere when absent.
    pub routing: Option<Routing>,
}

/// Where the attack's batches and draws come from.
pub trait AttackSource<D: Backend> {
    /// Returns batch `batch`, the same in every pass.
    fn batch(&self, batch: usize) -> Batch;

    /// Returns the draws of one pass over that batch, whose rows have the numbers `rows`. The sources' starting points
    /// are asked of pass 0 over batch 0.
    fn draws<'a>(&'a self, pass: usize, batch: usize, rows: &'a [u32]) -> Box<dyn Draws<D> + 'a>;
}

impl MultiBatchAttack {
    /// Returns how many numbers the passes of an evaluation take, as [`Streams`] counts them.
    fn passes(&self) -> u64 {
        (self.n_steps as u64).saturating_add(1).saturating_mul(self.batches as u64).saturating_mul(2)
    }

    fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = self.routing.map(routing_issues).unwrap_or_default();
        if !(self.step_size >= 0.0 && self.step_size.is_finite()) {
            issues.push(ParamIssue::new("step_size", format!("must not be negative, found {}", self.step_size)));
        }
        if self.batches == 0 {
            issues.push(ParamIssue::new("gradient_accumulation_steps", "must be at least 1, found 0"));
        }
        issues
    }

    /// Returns the mean error of the output under the sources that the attack ends with.
    ///
    /// # Errors
    /// The device's.
    pub fn error<D: Backend>(
        &self,
        scene: &Scene<'_, D>,
        class: &str,
        source: &dyn AttackSource<D>,
    ) -> DeviceResult<f64, D> {
        let key = DrawKey { loss: 0, class, sample: 0, layer: None };
        let mut sources = self.start(scene, key, source)?;
        for pass in 0..self.n_steps {
            let graph = Graph::recording(scene.device);
            let leaves: Vec<Var<D>> =
                sources.iter().map(|source| graph.leaf(source.array().clone())).collect::<Result<_, _>>()?;
            let mut errors = Vec::new();
            for batch in 0..self.batches {
                let (error, _) = self.pass(scene, &graph, &leaves, key, (pass, batch), source)?;
                errors.push((1.0, error));
            }
            let gradients = graph.gradients(&graph.combine(&errors)?, &leaves)?;
            for (source, (leaf, gradient)) in sources.iter_mut().zip(leaves.iter().zip(&gradients)) {
                let moved = scene.device.sign_ascent(leaf.view(), gradient, self.step_size as f32, leaf.shape())?;
                *source = graph.constant(moved);
            }
        }
        let graph = Graph::detached(scene.device);
        let (mut sum, mut elements) = (0.0, 0);
        for batch in 0..self.batches {
            let (error, count) = self.pass(scene, &graph, &sources, key, (self.n_steps, batch), source)?;
            sum += error.scalar();
            elements += count;
        }
        Ok(sum / elements as f64)
    }

    /// Returns the sources before the first step, `(C [+ 1], 1)` for each site.
    fn start<D: Backend>(
        &self,
        scene: &Scene<'_, D>,
        key: DrawKey<'_>,
        source: &dyn AttackSource<D>,
    ) -> DeviceResult<Vec<Var<D>>, D> {
        let graph = Graph::detached(scene.device);
        let delta = usize::from(scene.settings.use_delta_component);
        let mut draws = source.draws(0, 0, &[0]);
        let sites = scene.model.sites().iter().enumerate();
        sites
            .map(|(s, site)| {
                let channels = site.plan.components + delta;
                match self.init {
                    PgdInit::Random => draws.adversary(&graph, key, s, channels, true),
                    PgdInit::Ones => graph.upload(vec![1.0; channels], (channels, 1)),
                    PgdInit::Zeroes => graph.upload(vec![0.0; channels], (channels, 1)),
                }
            })
            .collect()
    }

    /// Returns the summed error on one batch as a value of `graph`, and of how many elements.
    fn pass<D: Backend>(
        &self,
        scene: &Scene<'_, D>,
        graph: &Graph<D>,
        sources: &[Var<D>],
        key: DrawKey<'_>,
        (pass, batch): (usize, usize),
        source: &dyn AttackSource<D>,
    ) -> DeviceResult<(Var<D>, usize), D> {
        let data = source.batch(batch);
        let mut draws = source.draws(pass, batch, &data.rows);
        // The model is a constant of the attack: its clean pass and importances are made on a graph that traces nothing.
        let detached = Graph::detached(scene.device);
        let leaves = Leaves(scene.parameters.leaves(&detached)?);
        let outer = Step::new(&detached, scene.model, &leaves, &data, scene.settings, &mut *draws)?;
        let inner = outer.detached(graph);
        let step = inner.step();
        let sites = sources.len();
        let routes: Vec<Route<D>> = match self.routing {
            None => vec![Some(None); sites],
            Some(routing) => draws.routing(graph, key, routing, sites)?.into_iter().map(Some).collect(),
        };
        let sources: Vec<Option<Var<D>>> = sources.iter().cloned().map(Some).collect();
        let error = output_error(&step, &adversarial_masks(&step, &sources, &routes)?)?;
        Ok((error, output_elements(&step)))
    }
}

struct Measured {
    attack: MultiBatchAttack,
    class: &'static str,
    /// Which of the two metrics: each has streams of its own.
    stream: u32,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, _: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let source = Streams { scene, attack: self.attack, stream: self.stream };
        let error = self.attack.error(scene, self.class, &source).map_err(Scene::<D>::device_failed)?;
        let mut findings = Findings::default();
        findings.number(self.class, error);
        Ok(findings)
    }
}

/// The attack's own streams.
struct Streams<'s, 'a, D: Backend> {
    scene: &'s Scene<'a, D>,
    attack: MultiBatchAttack,
    stream: u32,
}

impl<D: Backend> AttackSource<D> for Streams<'_, '_, D> {
    fn batch(&self, batch: usize) -> Batch {
        let scene = self.scene;
        let number = scene.number * self.attack.batches as u64 + batch as u64;
        let number = u32::try_from(number).expect("fewer than 2^32 batches of attacks");
        let stream = Purpose::AttackData.stream(scene.seed, number, self.stream);
        scene.data.batch_counting(stream, scene.batch_size, scene.compact)
    }

    fn draws<'a>(&'a self, pass: usize, batch: usize, rows: &'a [u32]) -> Box<dyn Draws<D> + 'a> {
        let passes = self.scene.number * (self.attack.n_steps as u64 + 1) + pass as u64;
        let number = (passes * self.attack.batches as u64 + batch as u64) * 2 + u64::from(self.stream);
        // The draws of evaluation batches end where those of attacks begin.
        let step = u32::try_from(number + u64::from(END_OF_BATCHES)).expect("fewer than 2^31 passes of attacks");
        Box::new(StreamDraws { seed: self.scene.seed, step, evaluation: true, rows })
    }
}
