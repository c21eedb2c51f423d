//! How well a language model still predicts with only some sites under stochastic masks (spec section 5.8,
//! StochasticReconSubsetCEAndKL): each named subset of sites, and the worst of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{ParamIssue, StageError};

use super::super::draws::{DrawKey, Draws};
use super::super::loss::{Masks, stochastic_masks};
use super::super::step::Step;
use super::findings::Findings;
use super::fit::{Fit, Misfit};
use super::next_token::NextTokens;
use super::scene::Scene;
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult};
use crate::pattern;

/// Divergence and cross entropy with subsets of sites under stochastic masks; for targets that read tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StochasticReconSubsetCeAndKl {
    /// Subsets by name: the sites that one of the patterns matches.
    #[serde(default)]
    pub include_patterns: BTreeMap<String, Vec<String>>,
    /// Subsets by name: the sites that none of the patterns matches.
    #[serde(default)]
    pub exclude_patterns: BTreeMap<String, Vec<String>>,
}

/// The name under which the reference draws masks.
const CLASS: &str = "StochasticReconSubsetCEAndKL";
/// What is measured of each subset.
const QUANTITIES: [&str; 3] = ["kl", "ce", "ce_unrec"];

impl StochasticReconSubsetCeAndKl {
    /// Returns for each subset its name and whether it has each of `sites`.
    fn subsets(&self, sites: &[String]) -> Vec<(String, Vec<bool>)> {
        let matches = |patterns: &[String], site: &String| patterns.iter().any(|p| pattern::matches(p, site));
        let choose = |name: &String, patterns: &[String], wanted: bool| {
            (name.clone(), sites.iter().map(|site| matches(patterns, site) == wanted).collect())
        };
        let included = self.include_patterns.iter().map(|(name, patterns)| choose(name, patterns, true));
        let excluded = self.exclude_patterns.iter().map(|(name, patterns)| choose(name, patterns, false));
        included.chain(excluded).collect()
    }
}

impl MetricFacts for StochasticReconSubsetCeAndKl {
    const IS_SLOW: bool = false;

    fn issues(&self) -> Vec<ParamIssue> {
        if self.include_patterns.is_empty() && self.exclude_patterns.is_empty() {
            let message = "is empty, as is `exclude_patterns`; expected at least one subset of sites, such as `attention = \
                           [\"*.attn.*\"]`";
            return vec![ParamIssue::new("include_patterns", message)];
        }
        let twice = self.exclude_patterns.keys().find(|name| self.include_patterns.contains_key(*name));
        twice
            .map(|name| ParamIssue::new(format!("exclude_patterns.{name}"), "is a subset of `include_patterns` too"))
            .into_iter()
            .collect()
    }

    fn fits(&self, fit: &Fit<'_>) -> Result<(), Misfit> {
        fit.expect_tokens()?;
        let sites: Vec<String> = fit.sites.iter().map(|(name, _)| name.clone()).collect();
        let Some((name, _)) = self.subsets(&sites).into_iter().find(|(_, members)| !members.contains(&true)) else {
            return Ok(());
        };
        let (list, matched) = if self.include_patterns.contains_key(&name) {
            ("include_patterns", "none of its patterns matches a site")
        } else {
            ("exclude_patterns", "its patterns match every site")
        };
        Err(Misfit {
            list: Some(list),
            message: format!("subset `{name}` is empty: {matched}; the sites are `{}`", sites.join("`, `")),
            hint: "a pattern matches whole names; `*` crosses dots".to_owned(),
        })
    }
}

impl<D: Backend> Metric<D> for StochasticReconSubsetCeAndKl {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        let subsets = self.subsets(&scene.site_names());
        let sums = vec![[0.0; 3]; subsets.len()];
        Box::new(Measured { subsets, sums, batches: 0 })
    }
}

struct Measured {
    subsets: Vec<(String, Vec<bool>)>,
    /// Sums over batches of each subset's quantities.
    sums: Vec<[f64; 3]>,
    batches: usize,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        let tokens = NextTokens::new(step)?;
        let (target, nothing) = (tokens.of_target()?, tokens.with_nothing()?.ce);
        let samples = step.settings.mask_samples;
        let masks: Vec<Masks<D>> = (0..samples)
            .map(|sample| stochastic_masks(step, DrawKey { loss: index, class: CLASS, sample, layer: None }, draws))
            .collect::<Result<_, _>>()?;
        for ((_, members), sums) in self.subsets.iter().zip(&mut self.sums) {
            let (mut kl, mut ce) = (0.0, 0.0);
            for masks in &masks {
                let chosen = masks.iter().zip(members).map(|(mask, chosen)| mask.clone().filter(|_| *chosen));
                let prediction = tokens.with(&chosen.collect())?;
                kl += prediction.kl / samples as f64;
                ce += prediction.ce / samples as f64;
            }
            let unrecovered = if nothing == target { 0.0 } else { (ce - target) / (nothing - target) };
            for (sum, value) in sums.iter_mut().zip([kl, ce, unrecovered]) {
                *sum += value;
            }
        }
        self.batches += 1;
        Ok(())
    }

    fn compute(self: Box<Self>, _: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut findings = Findings::default();
        for (q, quantity) in QUANTITIES.iter().enumerate() {
            let mut worst: Option<(&str, f64)> = None;
            for ((name, _), sums) in self.subsets.iter().zip(&self.sums) {
                let value = sums[q] / self.batches as f64;
                findings.number(format!("subset_worst/{name}_{quantity}"), value);
                if worst.is_none_or(|(_, most)| value > most) {
                    worst = Some((name, value));
                }
            }
            let (name, value) = worst.expect("a metric without subsets is refused");
            findings.number(format!("subset_worst/{quantity}"), value);
            // Which one it is cannot be a number.
            let key = format!("subset_worst/{quantity}_subset");
            findings.data(&key, &format!("{name}_{quantity}"), [(0.0, 0.0, value)]);
        }
        Ok(findings)
    }
}
