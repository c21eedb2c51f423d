//! The expected solution of a toy model, site by site, and the error of a decomposition against it (IdentityCIError).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distance::{SolutionError, dense_distance, identity_distance};
use super::permutation::{Assignment, dense_permutation, identity_permutation};
use crate::matrix::Matrix;
use crate::pattern;

/// Sites whose components should each answer for one feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityPattern {
    /// Which sites: `linear1`, `layers.*.mlp_in`.
    pub pattern: String,
    /// How many features the probe has.
    pub n_features: usize,
}

/// Sites of which `k` components should act together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DensePattern {
    /// Which sites.
    pub pattern: String,
    /// How many components.
    pub k: usize,
}

/// The form a site's causal importances should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// One component per feature.
    Identity {
        /// Rows of the probe.
        n_features: usize,
    },
    /// `k` full columns.
    Dense {
        /// How many.
        k: usize,
    },
}

/// The expected forms of all sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSolution {
    /// The first pattern that matches a site decides.
    patterns: Vec<(String, Expected)>,
}

/// What [`TargetSolution::error`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSolutionError {
    /// The number of wrong entries over all sites at tolerance 0.1; 0 for a perfect decomposition.
    pub total: usize,
    /// The same at tolerance 0.2.
    pub total_0p2: usize,
    /// The number of wrong entries at tolerance 0.1 of each site that a pattern matches.
    pub by_site: Vec<(String, usize)>,
}

impl TargetSolutionError {
    /// Returns the numbers under the reference's names: `target_solution_error/total`, `…/total_0p2`, `…/SITE`.
    pub fn metrics(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let totals = [("total", self.total), ("total_0p2", self.total_0p2)];
        let by_site = self.by_site.iter().map(|(site, error)| (site.as_str(), *error));
        totals.into_iter().chain(by_site).map(|(name, error)| (format!("target_solution_error/{name}"), error as f64))
    }
}

impl TargetSolution {
    /// Returns the solution these patterns describe, or `None` if there are none.
    ///
    /// Identity patterns are tried before dense ones. As in the reference, a dense pattern with the text of an identity
    /// pattern replaces it.
    #[must_use]
    pub fn new(identity: &[IdentityPattern], dense: &[DensePattern]) -> Option<Self> {
        let identity = identity.iter().map(|p| (&p.pattern, Expected::Identity { n_features: p.n_features }));
        let dense = dense.iter().map(|p| (&p.pattern, Expected::Dense { k: p.k }));
        let mut patterns: Vec<(String, Expected)> = Vec::new();
        for (text, expected) in identity.chain(dense) {
            match patterns.iter_mut().find(|(known, _)| known == text) {
                Some((_, known)) => *known = expected,
                None => patterns.push((text.clone(), expected)),
            }
        }
        (!patterns.is_empty()).then_some(Self { patterns })
    }

    /// Returns the form expected of `site`, if a pattern matches it.
    #[must_use]
    pub fn expected(&self, site: &str) -> Option<Expected> {
        self.expected_by(site).map(|(_, expected)| expected)
    }

    /// Returns the pattern that decides about `site`, and the form it expects.
    #[must_use]
    pub fn expected_by(&self, site: &str) -> Option<(&str, Expected)> {
        let found = self.patterns.iter().find(|(text, _)| pattern::matches(text, site));
        found.map(|(text, expected)| (&text[..], *expected))
    }

    /// Returns the error of a decomposition whose probe gave these matrices [features, components], site by site.
    ///
    /// # Errors
    /// The site whose matrix cannot be compared, and why.
    pub fn error<'a>(
        &self,
        sites: impl IntoIterator<Item = (&'a str, &'a Matrix)>,
    ) -> Result<TargetSolutionError, (String, SolutionError)> {
        let mut found = TargetSolutionError { total: 0, total_0p2: 0, by_site: Vec::new() };
        for (site, ci) in sites {
            let Some(expected) = self.expected(site) else { continue };
            let at = |tolerance| distance(ci, expected, tolerance).map_err(|error| (site.to_owned(), error));
            let strict = at(0.1)?;
            found.total += strict;
            found.total_0p2 += at(0.2)?;
            found.by_site.push((site.to_owned(), strict));
        }
        Ok(found)
    }
}

impl Expected {
    /// Returns the order of components that shows `ci` closest to this form.
    #[must_use]
    pub fn permutation(self, ci: &Matrix) -> Vec<usize> {
        match self {
            Self::Identity { .. } => identity_permutation(ci, Assignment::Auto),
            Self::Dense { .. } => dense_permutation(ci),
        }
    }
}

fn distance(ci: &Matrix, expected: Expected, tolerance: f64) -> Result<usize, SolutionError> {
    match expected {
        Expected::Identity { n_features } if n_features != ci.rows() => {
            Err(SolutionError::Features { expected: n_features, found: ci.rows() })
        }
        Expected::Identity { .. } => identity_distance(ci, tolerance, Some(Assignment::Auto)),
        Expected::Dense { k } => dense_distance(ci, k, 1, tolerance),
    }
}

#[cfg(test)]
mod tests {
    use super::{DensePattern, Expected, IdentityPattern, TargetSolution};
    use crate::matrix::Matrix;

    fn identity(pattern: &str, n_features: usize) -> IdentityPattern {
        IdentityPattern { pattern: pattern.to_owned(), n_features }
    }

    fn dense(pattern: &str, k: usize) -> DensePattern {
        DensePattern { pattern: pattern.to_owned(), k }
    }

    #[test]
    fn the_first_matching_pattern_decides_and_identity_comes_before_dense() {
        let solution = TargetSolution::new(&[identity("a*", 3)], &[dense("ab", 1), dense("*", 2)]).unwrap();
        assert_eq!(solution.expected("ab"), Some(Expected::Identity { n_features: 3 }));
        assert_eq!(solution.expected("x"), Some(Expected::Dense { k: 2 }));
        let solution = TargetSolution::new(&[identity("a", 3)], &[dense("a", 1)]).unwrap();
        assert_eq!(solution.expected("a"), Some(Expected::Dense { k: 1 }));
        assert_eq!(TargetSolution::new(&[], &[]), None);
    }

    #[test]
    fn errors_add_up_over_matching_sites() {
        let wrong = Matrix::from_rows(&[[1.0, 0.15], [0.0, 0.5]]);
        let right = Matrix::from_rows(&[[0.0, 1.0], [1.0, 0.0]]);
        let solution = TargetSolution::new(&[identity("l*", 2)], &[]).unwrap();
        let error = solution.error([("l1", &wrong), ("l2", &right), ("other", &wrong)]).unwrap();
        assert_eq!((error.total, error.total_0p2), (2, 1));
        let names: Vec<_> = error.metrics().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            names,
            [
                "target_solution_error/total=2",
                "target_solution_error/total_0p2=1",
                "target_solution_error/l1=2",
                "target_solution_error/l2=0"
            ]
        );
    }

    #[test]
    fn a_probe_of_another_size_is_named_with_its_site() {
        let solution = TargetSolution::new(&[identity("l1", 3)], &[]).unwrap();
        let (site, error) = solution.error([("l1", &Matrix::zeros(2, 4))]).unwrap_err();
        assert_eq!((site.as_str(), error.to_string().as_str()), ("l1", "expected 3 features, found 2"));
    }
}
