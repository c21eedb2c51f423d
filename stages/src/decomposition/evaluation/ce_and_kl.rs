//! How well a masked language model still predicts (spec section 5.7, CEandKLLosses): under six kinds of masks, the
//! divergence from the target and the cross entropy of the next tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{ParamIssue, StageError};

use super::super::draws::{DrawKey, Draws, Sampling};
use super::super::loss::{Masks, stochastic_masks_with};
use super::super::model::{ComponentMask, SiteMask};
use super::super::step::Step;
use super::findings::Findings;
use super::fit::{Fit, Misfit};
use super::next_token::{NextTokens, Prediction};
use super::scene::Scene;
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult};

/// Divergence and cross entropy under six kinds of masks; for targets that read tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CeAndKl {
    /// Rounded masks are on where the lower causal importance exceeds this.
    pub rounding_threshold: f64,
}

/// The name under which the reference draws masks.
const CLASS: &str = "CEandKLLosses";

impl MetricFacts for CeAndKl {
    const IS_SLOW: bool = false;

    fn issues(&self) -> Vec<ParamIssue> {
        if self.rounding_threshold.is_finite() {
            return Vec::new();
        }
        let message = format!("must be a finite number, found {}", self.rounding_threshold);
        vec![ParamIssue::new("rounding_threshold", message)]
    }

    fn fits(&self, fit: &Fit<'_>) -> Result<(), Misfit> {
        fit.expect_tokens()
    }
}

impl<D: Backend> Metric<D> for CeAndKl {
    fn start(&self, _: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        Box::new(Measured { threshold: self.rounding_threshold as f32, sums: Vec::new(), positions: 0.0 })
    }
}

struct Measured {
    threshold: f32,
    /// Sums over batches of a batch's values times its positions, by name.
    sums: Vec<(String, f64)>,
    positions: f64,
}

impl Measured {
    fn add(&mut self, name: String, value: f64) {
        match self.sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => self.sums.push((name, value)),
        }
    }
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        let tokens = NextTokens::new(step)?;
        let (target, nothing) = (tokens.of_target()?, tokens.with_nothing()?);
        let masks: [(&str, Masks<D>); 5] = [
            ("ci_masked", each_site(step, |s| Ok(ComponentMask::Full(step.importances[s].lower.clone())))?),
            ("unmasked", each_site(step, |_| Ok(ComponentMask::Ones))?),
            // Always with the delta component, as in the reference.
            ("stoch_masked", stochastic_masks_with(step, key(index, 0), true, draws)?),
            ("random_masked", random(step, index, draws)?),
            ("rounded_masked", rounded(step, self.threshold)?),
        ];
        let positions = step.positions as f64;
        let predictions: Vec<(&str, Prediction)> =
            masks.iter().map(|(name, masks)| Ok((*name, tokens.with(masks)?))).collect::<Result<_, D::Err>>()?;
        for (name, prediction) in predictions.iter().chain([&("zero_masked", nothing)]) {
            self.add(format!("ce_kl/kl_{name}"), prediction.kl * positions);
        }
        for (name, prediction) in &predictions {
            self.add(format!("ce_kl/ce_difference_{name}"), (prediction.ce - target) * positions);
            let unrecovered = (prediction.ce - target) / (nothing.ce - target);
            self.add(format!("ce_kl/ce_unrecovered_{name}"), unrecovered * positions);
        }
        self.positions += positions;
        Ok(())
    }

    fn compute(self: Box<Self>, _: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut findings = Findings::default();
        for (name, sum) in self.sums {
            findings.number(name, sum / self.positions);
        }
        Ok(findings)
    }
}

fn key(index: usize, sample: usize) -> DrawKey<'static> {
    DrawKey { loss: index, class: CLASS, sample, layer: None }
}

fn each_site<D: Backend>(
    step: &Step<'_, D>,
    mut mask: impl FnMut(usize) -> DeviceResult<ComponentMask<D>, D>,
) -> DeviceResult<Masks<D>, D> {
    (0..step.importances.len()).map(|s| Ok(Some(SiteMask { mask: mask(s)?, delta: None, routing: None }))).collect()
}

/// Masks that are uniform in [0, 1) whatever the causal importances: 0 + (1 − 0) times a source.
fn random<D: Backend>(step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Masks<D>, D> {
    let mut masks = Vec::new();
    for (s, importance) in step.importances.iter().enumerate() {
        let shape = importance.lower.shape();
        let none = step.graph.upload(vec![0.0; shape.0 * shape.1], shape)?;
        let source = draws.source(step.graph, key(index, 1), s, shape.0, Sampling::Continuous)?;
        let mask = ComponentMask::Between(none, source);
        masks.push(Some(SiteMask { mask, delta: None, routing: None }));
    }
    Ok(masks)
}

fn rounded<D: Backend>(step: &Step<'_, D>, threshold: f32) -> DeviceResult<Masks<D>, D> {
    each_site(step, |s| {
        let lower = &step.importances[s].lower;
        let mask = lower.to_vec().iter().map(|g| if *g > threshold { 1.0 } else { 0.0 }).collect();
        Ok(ComponentMask::Full(step.graph.upload(mask, lower.shape())?))
    })
}
