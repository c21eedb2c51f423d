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
use super::next_token::{NextTokens, expect_tokens};
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
            let message = "is empty and so is `exclude_patterns`, expected a subset of sites in one of them";
            return vec![ParamIssue::new("include_patterns", message)];
        }
        let twice = self.exclude_patterns.keys().find(|name| self.include_patterns.contains_key(*name));
        twice
            .map(|name| ParamIssue::new(format!("exclude_patterns.{name}"), "is a subset of `include_patterns` too"))
            .into_iter()
            .collect()
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
        if step.sequence_length < 2 {
            return Ok(()); // `compute` says why.
        }
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

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        expect_tokens(scene, "stochastic_recon_subset_ce_and_kl")?;
        if let Some((name, _)) = self.subsets.iter().find(|(_, members)| !members.contains(&true)) {
            return Err(StageError::failed(format!(
                "`evaluation.metrics`: subset `{name}` of `stochastic_recon_subset_ce_and_kl` has no site; there are `{}`",
                scene.site_names().join("`, `")
            )));
        }
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
