//! The distance from the expected solution of a toy model (spec section 5.9).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::super::draws::Draws;
use super::super::step::Step;
use super::findings::Findings;
use super::fit::{Fit, Misfit};
use super::scene::Scene;
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult};
use crate::solution::{DensePattern, IdentityPattern, TargetSolution};

/// The number of wrong causal importances on one feature at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityCiError {
    /// Sites of which each component should answer for one feature. If both lists are empty, the evaluation's own
    /// `identity` and `dense` hold.
    #[serde(default)]
    pub identity: Vec<IdentityPattern>,
    /// Sites of which a few components should act together.
    #[serde(default)]
    pub dense: Vec<DensePattern>,
}

impl MetricFacts for IdentityCiError {
    const IS_SLOW: bool = true;

    fn fits(&self, fit: &Fit<'_>) -> Result<(), Misfit> {
        fit.expect_solution(&self.identity, &self.dense)
    }
}

impl<D: Backend> Metric<D> for IdentityCiError {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        let is_own = !self.identity.is_empty() || !self.dense.is_empty();
        let (identity, dense) =
            if is_own { (&self.identity[..], &self.dense[..]) } else { (scene.identity, scene.dense) };
        Box::new(Measured { solution: TargetSolution::new(identity, dense) })
    }
}

struct Measured {
    solution: Option<TargetSolution>,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, _: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut findings = Findings::default();
        if let Some(solution) = &self.solution {
            let sites = scene.probe()?.iter().map(|probe| (&probe.site[..], &probe.lower));
            let error = solution
                .error(sites)
                .map_err(|(site, error)| StageError::failed(format!("expected solution of site `{site}`: {error}")))?;
            error.metrics().for_each(|(name, value)| findings.number(name, value));
        }
        Ok(findings)
    }
}
