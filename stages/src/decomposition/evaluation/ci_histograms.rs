//! Histograms of causal importances, after and before squashing (spec section 5.10).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{ParamIssue, StageError};

use super::super::draws::Draws;
use super::super::step::Step;
use super::findings::Findings;
use super::scene::Scene;
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult, Var};
use crate::figure::{Histogram, histograms};

/// Histograms of all lower causal importances and of the logits they are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CiHistograms {
    /// How many batches of the evaluation are looked at; all where left out. Their values are held in memory.
    #[serde(default)]
    pub n_batches_accum: Option<usize>,
}

impl MetricFacts for CiHistograms {
    const IS_SLOW: bool = true;

    fn issues(&self) -> Vec<ParamIssue> {
        let is_none = self.n_batches_accum == Some(0);
        is_none.then(|| ParamIssue::new("n_batches_accum", "must be at least 1, found 0")).into_iter().collect()
    }
}

impl<D: Backend> Metric<D> for CiHistograms {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        let nothing = || vec![Vec::new(); scene.model.sites().len()];
        Box::new(Measured {
            batches_left: self.n_batches_accum.unwrap_or(usize::MAX),
            lower: nothing(),
            pre_sigmoid: nothing(),
        })
    }
}

/// Values and how often they occur.
type Counted = Vec<(f32, f32)>;

struct Measured {
    batches_left: usize,
    lower: Vec<Counted>,
    pre_sigmoid: Vec<Counted>,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        if self.batches_left == 0 {
            return Ok(());
        }
        self.batches_left -= 1;
        let counts = step.row_counts.as_ref().map(Var::to_vec);
        let add = |values: &Var<D>, to: &mut Counted| {
            let rows = values.shape().1.max(1);
            let count = |i: usize| counts.as_ref().map_or(1.0, |counts| counts[i % rows]);
            to.extend(values.to_vec().into_iter().enumerate().map(|(i, value)| (value, count(i))));
        };
        for (s, importance) in step.importances.iter().enumerate() {
            add(&importance.lower, &mut self.lower[s]);
            add(&importance.pre_sigmoid, &mut self.pre_sigmoid[s]);
        }
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let sites = scene.site_names();
        let mut findings = Findings::default();
        let mut draw = |key: &str, title: &str, x_label: &str, values: &[Counted]| {
            let mut drawn = Vec::new();
            for (site, values) in sites.iter().zip(values) {
                let bins = Histogram::of(values.iter().map(|(value, count)| (f64::from(*value), f64::from(*count))));
                findings.data(key, site, bins.bins().map(|(low, count)| (low, bins.width(), count)));
                drawn.push((site.clone(), bins));
            }
            findings.figure(key, histograms(title, drawn, x_label, "count"));
        };
        let key = "figures/causal_importance_values";
        draw(key, "Causal importances", "causal importance", &self.lower);
        let key = "figures/causal_importance_values_pre_sigmoid";
        draw(key, "Causal importances before the sigmoid", "logit of the causal importance", &self.pre_sigmoid);
        Ok(findings)
    }
}
