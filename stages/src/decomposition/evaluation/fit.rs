//! Whether what an evaluation measures fits the model, asked before the first step: the first evaluation that would
//! notice may be hours away.

use spdflow_engine::kind::StageError;

use super::super::config::Evaluation;
use crate::data::InputDistribution;
use crate::solution::{DensePattern, Expected, IdentityPattern, TargetSolution};

/// What metrics need to know of a model before they measure it.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'a> {
    /// The distribution of inputs.
    pub data: &'a InputDistribution,
    /// The sites in canonical order, and how many components each has.
    pub sites: &'a [(String, usize)],
}

/// Why a metric cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The list among the metric's parameters that does not fit; the metric as a whole when absent.
    pub list: Option<&'static str>,
    /// What was expected, and what was found.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Fit<'_> {
    /// Returns an error if the target reads vectors, which nothing comes next after.
    pub(super) fn expect_tokens(&self) -> Result<(), Misfit> {
        if self.data.n_features().is_none() {
            return Ok(());
        }
        let message = "expects a target that reads tokens, found one that reads vectors".to_owned();
        Err(Misfit { list: None, message, hint: "leave it out: nothing comes next after a vector".to_owned() })
    }

    /// Returns how many features there are; an error if the target reads tokens, which have none.
    pub(super) fn expect_vectors(&self) -> Result<usize, Misfit> {
        self.data.n_features().ok_or_else(|| {
            let message = "expects a target that reads vectors, found one that reads tokens".to_owned();
            let hint = "leave it out: it looks at one feature at a time, and tokens have none".to_owned();
            Misfit { list: None, message, hint }
        })
    }

    /// Returns an error if the model cannot have the solution that these patterns describe.
    pub(super) fn expect_solution(&self, identity: &[IdentityPattern], dense: &[DensePattern]) -> Result<(), Misfit> {
        let features = self.expect_vectors()?;
        let Some(solution) = TargetSolution::new(identity, dense) else { return Ok(()) };
        for (site, components) in self.sites {
            let Some((pattern, expected)) = solution.expected_by(site) else { continue };
            let too_few = |list, wanted: usize, what: &str| Misfit {
                list: Some(list),
                message: format!("pattern `{pattern}` expects {what}, but site `{site}` has {components} components"),
                hint: format!("give the site at least {wanted} components (`C`), or leave the pattern out"),
            };
            match expected {
                Expected::Identity { n_features } if n_features != features => {
                    return Err(Misfit {
                        list: Some("identity"),
                        message: format!(
                            "pattern `{pattern}` expects {n_features} features, but the target has {features}"
                        ),
                        hint: format!("say `n_features = {features}`"),
                    });
                }
                Expected::Identity { n_features } if *components < n_features => {
                    return Err(too_few(
                        "identity",
                        n_features,
                        &format!("a component for each of {n_features} features"),
                    ));
                }
                Expected::Dense { k } if *components < k => {
                    return Err(too_few("dense", k, &format!("{k} components that act together")));
                }
                Expected::Identity { .. } | Expected::Dense { .. } => {}
            }
        }
        Ok(())
    }
}

impl Evaluation {
    /// Returns an error if something that is to be measured does not fit the model.
    ///
    /// # Errors
    /// [`StageError::Failed`] with the parameter, what it expects and what was found.
    pub fn check(&self, fit: &Fit<'_>) -> Result<(), StageError> {
        let failed = |place: String, misfit: Misfit| {
            Err(StageError::failed_with_hint(format!("{place}{}", misfit.message), misfit.hint))
        };
        if !self.identity.is_empty() || !self.dense.is_empty() {
            let first = if self.identity.is_empty() { "dense" } else { "identity" };
            if let Err(misfit) = fit.expect_solution(&self.identity, &self.dense) {
                return failed(format!("`evaluation.{}`: ", misfit.list.unwrap_or(first)), misfit);
            }
        }
        for (i, metric) in self.metrics.iter().enumerate() {
            if let Err(misfit) = metric.fits(fit) {
                let place = match misfit.list {
                    Some(list) => format!("`evaluation.metrics[{i}].{list}`: "),
                    None => format!("`evaluation.metrics[{i}]`: `{}` ", metric.kind()),
                };
                return failed(place, misfit);
            }
        }
        Ok(())
    }
}
