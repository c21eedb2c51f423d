//! Heat maps of V and U, components in the order of their upper-leaky causal importances (spec section 5.10).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::super::draws::Draws;
use super::super::export::matrices;
use super::super::step::Step;
use super::findings::Findings;
use super::fit::{Fit, Misfit};
use super::permuted_ci_plots::Orders;
use super::scene::Scene;
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult};
use crate::figure::weight_maps;

/// Heat maps of the components' input and output vectors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UvPlots {
    /// As in `permuted_ci_plots`.
    #[serde(default)]
    pub identity_patterns: Vec<String>,
    /// As in `permuted_ci_plots`.
    #[serde(default)]
    pub dense_patterns: Vec<String>,
}

impl MetricFacts for UvPlots {
    const IS_SLOW: bool = true;

    fn fits(&self, fit: &Fit<'_>) -> Result<(), Misfit> {
        fit.expect_vectors().map(|_| ())
    }
}

impl<D: Backend> Metric<D> for UvPlots {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        Box::new(Measured { orders: Orders::new(&self.identity_patterns, &self.dense_patterns, scene) })
    }
}

struct Measured {
    orders: Orders,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, _: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut sites: Vec<_> = scene.probe()?.iter().zip(matrices(scene.model, scene.parameters)).collect();
        sites.sort_by(|(a, _), (b, _)| a.site.cmp(&b.site));
        let ordered = sites.into_iter().map(|(ci, (v, u))| {
            let order = self.orders.of(&ci.site, &ci.upper);
            (ci.site.clone(), v.with_columns(&order), u.transposed().with_columns(&order))
        });
        let mut findings = Findings::default();
        if let Some(figure) = weight_maps(ordered.collect()) {
            findings.figure("figures/uv_matrices", figure);
        }
        Ok(findings)
    }
}
