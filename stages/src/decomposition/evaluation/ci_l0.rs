//! L0: how many components are important at once (spec section 5.6).

use std::collections::BTreeMap;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{ParamIssue, StageError};

use super::super::draws::Draws;
use super::super::step::Step;
use super::findings::Findings;
use super::scene::{Scene, for_each_site};
use super::{Measurement, Metric, MetricFacts};
use crate::bridge::{Backend, DeviceResult};
use crate::figure::{Axis, FULL_WIDTH, Figure, Mark, ONE_COLUMN, Panel, Rgb, Scale, Ticks, category};

/// The mean number of important components, site by site and summed over groups of sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CiL0 {
    /// Groups of sites by name, each a list of regular expressions in which `*` stands for `.*`. They are anchored at
    /// the start of a site's name only: `h.1` matches `h.10` too.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// Whether slow evaluations draw it.
    #[serde(default = "yes")]
    pub bar_chart: bool,
}

fn yes() -> bool {
    true
}

impl CiL0 {
    /// Returns the metric as every evaluation has it: numbers of the sites, no figure.
    #[must_use]
    pub fn unseen() -> Self {
        Self { groups: BTreeMap::new(), bar_chart: false }
    }

    /// Returns the L0 of the sites, then that of the groups: the sum over the sites that one of a group's patterns
    /// matches.
    ///
    /// Groups come in the order of their first site, then by name; a group that no site belongs to is absent.
    ///
    /// # Panics
    /// If a pattern is not a regular expression: [`MetricFacts::issues`] says so before.
    #[must_use]
    pub fn with_groups(&self, sites: &[String], l0: &[f64]) -> Vec<(String, f64)> {
        let groups: Vec<(&String, Vec<Regex>)> = self
            .groups
            .iter()
            .map(|(name, patterns)| {
                (name, patterns.iter().map(|text| anchored(text).expect("checked with the parameters")).collect())
            })
            .collect();
        let mut sums: Vec<(String, f64)> = Vec::new();
        for (site, l0) in sites.iter().zip(l0) {
            for (name, patterns) in &groups {
                if !patterns.iter().any(|pattern| pattern.is_match(site)) {
                    continue;
                }
                match sums.iter_mut().find(|(known, _)| known == *name) {
                    Some((_, sum)) => *sum += l0,
                    None => sums.push(((*name).clone(), *l0)),
                }
            }
        }
        sites.iter().cloned().zip(l0.iter().copied()).chain(sums).collect()
    }
}

fn anchored(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{})", pattern.replace('*', ".*")))
}

impl MetricFacts for CiL0 {
    const IS_SLOW: bool = false;

    fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        for (name, patterns) in &self.groups {
            for (i, pattern) in patterns.iter().enumerate() {
                if anchored(pattern).is_err() {
                    let message = format!(
                        "`{pattern}` is not a regular expression once `*` is replaced by `.*`, expected one such as \
                         `h.0.*`"
                    );
                    issues.push(ParamIssue::new(format!("groups.{name}[{i}]"), message));
                }
            }
        }
        issues
    }
}

impl<D: Backend> Metric<D> for CiL0 {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        Box::new(Measured {
            metric: self.clone(),
            threshold: scene.alive_threshold as f32,
            sums: vec![0.0; scene.model.sites().len()],
            batches: 0,
        })
    }
}

struct Measured {
    metric: CiL0,
    threshold: f32,
    /// Sums over batches of the batches' means.
    sums: Vec<f64>,
    batches: usize,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        for_each_site(step, |s, importances| {
            self.sums[s] += importances.alive(self.threshold).iter().sum::<f64>() / step.positions as f64;
        });
        self.batches += 1;
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let l0: Vec<f64> = self.sums.iter().map(|sum| sum / self.batches as f64).collect();
        let bars = self.metric.with_groups(&scene.site_names(), &l0);
        let mut findings = Findings::default();
        for (name, value) in &bars {
            findings.number(format!("l0/{:?}_{name}", scene.alive_threshold), *value);
        }
        if scene.is_slow && self.metric.bar_chart {
            for (i, (name, value)) in bars.iter().enumerate() {
                findings.data(KEY, name, [(i as f64, 0.0, *value)]);
            }
            findings.figure(KEY, bar_chart(&bars, l0.len(), scene.alive_threshold));
        }
        Ok(findings)
    }
}

const KEY: &str = "l0/bar_chart";

/// Draws one bar for each site, then one for each group in another colour.
fn bar_chart(bars: &[(String, f64)], sites: usize, threshold: f64) -> Figure {
    let highest = bars.iter().fold(0.0_f64, |highest, (_, value)| highest.max(*value));
    let ticks = bars.iter().enumerate().map(|(i, (name, _))| (i as f64, name.clone())).collect();
    let x = Axis::new("", Scale::Linear { min: -0.6, max: bars.len() as f64 - 0.4 }).with_ticks(Ticks::At(ticks));
    let top = if highest > 0.0 { highest * 1.08 } else { 1.0 };
    let y = Axis::new(format!("L0 (causal importance > {threshold})"), Scale::Linear { min: 0.0, max: top });
    let color = |i: usize| if i < sites { Rgb::BLUE } else { category(1) };
    let bars_drawn = bars.iter().enumerate().map(|(i, (_, value))| (i as f64, *value, color(i))).collect();
    let panel = Panel::new("", x, y).with(Mark::Bars { bars: bars_drawn, width: 0.62, base: 0.0 });
    let width = if bars.len() > 8 { FULL_WIDTH } else { ONE_COLUMN };
    Figure::single("Mean number of important components", width, 120.0, panel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, patterns: &[&str]) -> CiL0 {
        let patterns = patterns.iter().map(|text| (*text).to_owned()).collect();
        CiL0 { groups: BTreeMap::from([(name.to_owned(), patterns)]), bar_chart: true }
    }

    #[test]
    fn a_group_adds_each_of_its_sites_once() {
        let sites = ["h.1.attn", "h.10.attn", "mlp"].map(str::to_owned);
        let found = metric("first", &["h.1", "*attn"]).with_groups(&sites, &[1.0, 2.0, 4.0]);
        assert_eq!(found[3..], [("first".to_owned(), 3.0)], "anchored at the start only, dots are wild");
        assert_eq!(metric("none", &["attn"]).with_groups(&sites, &[1.0, 2.0, 4.0]).len(), 3);
    }

    #[test]
    fn a_pattern_that_is_no_regular_expression_is_named() {
        let issues = metric("g", &["h.*", "h.("]).issues();
        assert_eq!(issues.len(), 1);
        assert_eq!(issues[0].path, "groups.g[1]");
        assert_eq!(
            issues[0].message,
            "`h.(` is not a regular expression once `*` is replaced by `.*`, expected one such as `h.0.*`"
        );
    }
}
