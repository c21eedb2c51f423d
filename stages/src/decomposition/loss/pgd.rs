//! Output error under adversarial masks: projected gradient ascent on the mask sources (spec section 5.4).
//!
//! The attack runs on a detached copy of the step, so its gradients never reach the model; only the final pass, with
//! the sources found, is differentiated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;

use super::super::draws::{DrawKey, Draws};
use super::super::model::{ComponentMask, SiteMask};
use super::super::routing::Routing;
use super::super::step::Step;
use super::ci_masked::routing_issues;
use super::reconstruction::{Masks, mean_output_error, output_error};
use super::{Extent, Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Graph, MaskSource, Var, sum_over_ranks};

/// Where an attack starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PgdInit {
    /// Uniform in [0, 1).
    Random,
    /// Everything on.
    Ones,
    /// Everything off that may be.
    Zeroes,
}

/// Whether an attack finds one source for each row or one for the whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskScope {
    /// A source of its own for every position.
    UniquePerDatapoint,
    /// One source for all positions.
    SharedAcrossBatch,
}

/// How an attack proceeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PgdAttack {
    /// Where it starts.
    pub init: PgdInit,
    /// The length of a step.
    pub step_size: f64,
    /// How many steps.
    pub n_steps: usize,
    /// One source for each row or for all.
    pub mask_scope: MaskScope,
}

macro_rules! pgd_loss {
    ($(#[$doc:meta])* $name:ident, $class:literal $(, $(#[$extra_doc:meta])* $extra:ident: $extra_type:ty)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Weight in the total.
            pub coeff: f64,
            /// Where the attack starts.
            pub init: PgdInit,
            /// The length of its steps.
            pub step_size: f64,
            /// How many steps it makes.
            pub n_steps: usize,
            /// Whether it finds one source for each position or one for all.
            pub mask_scope: MaskScope,
            $($(#[$extra_doc])* #[serde(default)] pub $extra: $extra_type,)?
        }

        impl $name {
            fn attack(&self) -> PgdAttack {
                PgdAttack { init: self.init, step_size: self.step_size, n_steps: self.n_steps, mask_scope: self.mask_scope }
            }
        }

        impl LossFacts for $name {
            const CLASS: &'static str = $class;

            fn coeff(&self) -> f64 {
                self.coeff
            }

            fn extent(&self) -> Extent {
                match self.mask_scope {
                    MaskScope::UniquePerDatapoint => Extent::Rows,
                    MaskScope::SharedAcrossBatch => Extent::Batch,
                }
            }

            fn issues(&self) -> Vec<ParamIssue> {
                let mut issues = Vec::new();
                $(issues.extend(routing_issues(self.$extra));)?
                if !(self.step_size >= 0.0 && self.step_size.is_finite()) {
                    issues.push(ParamIssue::new("step_size", format!("must not be negative, found {}", self.step_size)));
                }
                issues
            }
        }
    };
}

pgd_loss! {
    /// Output error with all sites under adversarial masks.
    PgdRecon, "PGDReconLoss"
}
pgd_loss! {
    /// The same, with a random subset of sites at each position.
    PgdReconSubset, "PGDReconSubsetLoss",
    /// How positions are routed; drawn once, before the attack.
    routing: Routing
}
pgd_loss! {
    /// The same, attacking one site at a time.
    PgdReconLayerwise, "PGDReconLayerwiseLoss"
}

impl<D: Backend> Loss<D> for PgdRecon {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let key = DrawKey { loss: index, class: Self::CLASS, sample: 0, layer: None };
        let everywhere = vec![Some(None); step.importances.len()];
        mean_output_error(step, vec![attacked_error(step, key, self.attack(), &everywhere, draws)?])
    }
}

impl<D: Backend> Loss<D> for PgdReconSubset {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let key = DrawKey { loss: index, class: Self::CLASS, sample: 0, layer: None };
        let routes = draws.routing(step.graph, key, self.routing, step.importances.len())?;
        let routes: Vec<_> = routes.into_iter().map(Some).collect();
        mean_output_error(step, vec![attacked_error(step, key, self.attack(), &routes, draws)?])
    }
}

impl<D: Backend> Loss<D> for PgdReconLayerwise {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let sites = step.importances.len();
        let mut errors = Vec::new();
        for layer in 0..sites {
            let key = DrawKey { loss: index, class: Self::CLASS, sample: 0, layer: Some(layer) };
            let one: Vec<_> = (0..sites).map(|s| (s == layer).then_some(None)).collect();
            errors.push(attacked_error(step, key, self.attack(), &one, draws)?);
        }
        mean_output_error(step, errors)
    }
}

/// Where a site's components are used: nowhere, or at the positions of a routing mask, or everywhere.
pub(in crate::decomposition) type Route<D> = Option<Option<Var<D>>>;

/// Returns the summed output error under the sources that the attack ends with.
fn attacked_error<D: Backend>(
    step: &Step<'_, D>,
    key: DrawKey<'_>,
    attack: PgdAttack,
    routes: &[Route<D>],
    draws: &mut dyn Draws<D>,
) -> DeviceResult<Var<D>, D> {
    let (rows, delta) = (step.clean.input.shape().1, usize::from(step.settings.use_delta_component));
    let shared = attack.mask_scope == MaskScope::SharedAcrossBatch;
    let mut sources: Vec<Option<Var<D>>> = Vec::new();
    for (s, importance) in step.importances.iter().enumerate() {
        let shape = (importance.lower.shape().0 + delta, if shared { 1 } else { rows });
        // A source is drawn for every site, used or not, as in the reference.
        let source = match attack.init {
            PgdInit::Random => draws.adversary(step.graph, key, s, shape.0, shared)?,
            PgdInit::Ones => step.graph.upload(vec![1.0; shape.0 * shape.1], shape)?,
            PgdInit::Zeroes => step.graph.upload(vec![0.0; shape.0 * shape.1], shape)?,
        };
        sources.push(routes[s].is_some().then_some(source));
    }
    for _ in 0..attack.n_steps {
        let graph = Graph::recording(step.graph.device()).with_precision(step.graph.precision());
        // Products of matrices are those of the step.
        let graph = graph.remembering(step.graph);
        let inner = step.detached(&graph);
        let inner = inner.step();
        let leaf = |source: &Var<D>| graph.leaf(source.array().clone());
        let leaves: Vec<Option<Var<D>>> =
            sources.iter().map(|source| source.as_ref().map(leaf).transpose()).collect::<Result<_, _>>()?;
        let error = output_error(&inner, &adversarial_masks(&inner, &leaves, routes)?)?;
        let loss = mean_output_error(&inner, vec![error])?;
        let attacked: Vec<Var<D>> = leaves.into_iter().flatten().collect();
        let mut gradients = graph.gradients(&loss, &attacked)?;
        if shared {
            // The rows of all ranks pull at the same sources.
            sum_over_ranks(step.graph.device(), step.ranks, &mut gradients, &mut [])?;
        }
        for (source, (leaf, gradient)) in sources.iter_mut().flatten().zip(attacked.iter().zip(gradients)) {
            let moved =
                step.graph.device().sign_ascent(leaf.view(), &gradient, attack.step_size as f32, leaf.shape())?;
            *source = step.graph.constant(moved);
            D::recycle_gradient(gradient);
        }
    }
    output_error(step, &adversarial_masks(step, &sources, routes)?)
}

/// Returns the masks that the sources `(C [+ 1], R or 1)` make; the last channel is the delta component's.
pub(in crate::decomposition) fn adversarial_masks<D: Backend>(
    step: &Step<'_, D>,
    sources: &[Option<Var<D>>],
    routes: &[Route<D>],
) -> DeviceResult<Masks<D>, D> {
    let rows = step.clean.input.shape().1;
    let mut masks = Vec::new();
    for ((source, route), importance) in sources.iter().zip(routes).zip(&step.importances) {
        let (Some(source), Some(routing)) = (source, route) else {
            masks.push(None);
            continue;
        };
        let components = importance.lower.shape().0;
        let sources = MaskSource::Given(step.graph.slice_features(source, 0, components)?);
        let mask = ComponentMask::Between(importance.lower.clone(), sources);
        let delta = if step.settings.use_delta_component {
            let delta = step.graph.slice_features(source, components, 1)?;
            Some(if delta.shape().1 == rows { delta } else { step.graph.repeat_rows(&delta, rows)? })
        } else {
            None
        };
        masks.push(Some(SiteMask { mask, delta, routing: routing.clone() }));
    }
    Ok(masks)
}
