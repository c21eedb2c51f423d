//! How often components are important: one histogram over the components of each site (spec section 5.10).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::super::draws::Draws;
use super::super::step::Step;
use super::activity::ComponentMeans;
use super::findings::Findings;
use super::scene::{Scene, for_each_site};
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult};
use crate::figure::{Histogram, histograms};

/// The fraction of positions on which each component is important.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentActivationDensity {}

impl MetricFacts for ComponentActivationDensity {
    const IS_SLOW: bool = true;
}

impl<D: Backend> Metric<D> for ComponentActivationDensity {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        let sites = vec![ComponentMeans::default(); scene.model.sites().len()];
        Box::new(Measured { threshold: scene.alive_threshold as f32, sites })
    }
}

struct Measured {
    threshold: f32,
    sites: Vec<ComponentMeans>,
}

const KEY: &str = "figures/component_activation_density";

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        for_each_site(step, |s, importances| self.sites[s].add(&importances.alive(self.threshold), step.positions));
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut findings = Findings::default();
        let mut drawn = Vec::new();
        for (site, density) in scene.site_names().into_iter().zip(&self.sites) {
            let density = density.means();
            findings.data(KEY, &site, density.iter().enumerate().map(|(c, density)| (c as f64, 0.0, *density)));
            drawn.push((site, Histogram::of(density.iter().map(|density| (*density, 1.0)))));
        }
        let x_label = format!("fraction of positions with causal importance > {}", scene.alive_threshold);
        findings.figure(KEY, histograms("How often components are important", drawn, &x_label, "components"));
        Ok(findings)
    }
}
