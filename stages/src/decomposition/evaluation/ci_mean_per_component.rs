//! The mean causal importance of each component, largest first, on a linear and on a logarithmic axis (spec
//! section 5.10).

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
use crate::figure::{Axis, Figure, Mark, Panel, Rgb, Scale, column_grid};

/// The mean over positions of each component's lower causal importance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CiMeanPerComponent {}

impl MetricFacts for CiMeanPerComponent {
    const IS_SLOW: bool = true;
}

impl<D: Backend> Metric<D> for CiMeanPerComponent {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        Box::new(Measured { sites: vec![ComponentMeans::default(); scene.model.sites().len()] })
    }
}

struct Measured {
    sites: Vec<ComponentMeans>,
}

const KEY: &str = "figures/ci_mean_per_component";

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        for_each_site(step, |s, importances| self.sites[s].add(&importances.sums(f64::from), step.positions));
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut findings = Findings::default();
        let mut sites = Vec::new();
        for (site, means) in scene.site_names().into_iter().zip(&self.sites) {
            let mut means = means.means();
            findings.data(KEY, &site, means.iter().enumerate().map(|(c, mean)| (c as f64, 0.0, *mean)));
            means.sort_by(|a, b| b.total_cmp(a));
            sites.push((site, means));
        }
        findings.figure(
            KEY,
            figure(&sites, |means| {
                let (_, max) = Scale::fit_linear(means.iter().copied()).range();
                Scale::Linear { min: 0.0, max: if max > 0.0 { max } else { 1.0 } }
            }),
        );
        findings.figure(format!("{KEY}_log"), figure(&sites, |means| Scale::fit_log(means.iter().copied())));
        Ok(findings)
    }
}

fn figure(sites: &[(String, Vec<f64>)], scale: fn(&[f64]) -> Scale) -> Figure {
    let panels = sites.iter().map(|(site, means)| {
        let x = Axis::new("", Scale::Linear { min: -0.5, max: means.len() as f64 - 0.5 });
        let y = Axis::new("", scale(means));
        // Zero has no place on a logarithmic axis: such components are left out there.
        let points = means.iter().enumerate().map(|(rank, mean)| (rank as f64, *mean)).collect();
        Panel::new(site.clone(), x, y).with(Mark::Points { points, color: Rgb::BLUE, radius: 1.4, opacity: 1.0 })
    });
    let rows = column_grid(panels.collect(), 92.0, "component (by rank)", "mean causal importance");
    Figure::grid("Mean causal importance of each component", rows)
}
