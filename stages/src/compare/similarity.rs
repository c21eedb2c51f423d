//! Geometric similarity of the subcomponents of two decompositions of one target (reference `compare_models`).
//!
//! A subcomponent is a direction in weight space, `D_c = V[:, c] U[c, :]`. For each live subcomponent of the current
//! decomposition the best match in the reference decomposition counts. The cosine of two such rank-one matrices is
//! the product of the cosines of their factors, so the matrices themselves are never formed.

use rayon::prelude::*;

use crate::matrix::Matrix;

/// Norms below this count as this, so that a subcomponent of norm zero has similarity zero.
const MIN_NORM: f64 = 1e-12;

/// The subcomponents of one site.
#[derive(Debug, Clone)]
pub struct SiteComponents {
    /// The site's name.
    pub site: String,
    /// [d_in, C].
    pub v: Matrix,
    /// [C, d_out].
    pub u: Matrix,
}

/// The best matches of the live subcomponents of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteSimilarity {
    /// The site's name.
    pub site: String,
    /// The match of each live subcomponent, in the order of their indices.
    pub matches: Vec<Match>,
}

/// The best match of one subcomponent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// The subcomponent of the current decomposition.
    pub current: usize,
    /// The subcomponent of the reference decomposition most similar to it; the first of equals.
    pub reference: usize,
    /// The absolute cosine of the two, in [0, 1].
    pub abs_cosine: f64,
}

/// The four numbers that describe a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean of the maximal absolute cosines.
    pub mean: f64,
    /// Their standard deviation with n - 1 below; NaN for a single subcomponent.
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Returns the best matches of the live subcomponents of every site that both decompositions have.
///
/// A subcomponent is live when its density, the share of data rows on which its causal importance is above a threshold
/// (`density[site][c]`), is above `density_threshold`; compared in f32, strictly. Sites without live subcomponents, or
/// that the reference lacks, are left out. The order is that of `current`.
///
/// # Errors
/// The site whose shapes differ between the decompositions, in words.
///
/// # Panics
/// If `densities` does not hold one number per subcomponent of `current`.
pub fn similarities(
    current: &[SiteComponents],
    reference: &[SiteComponents],
    densities: &[Vec<f32>],
    density_threshold: f64,
) -> Result<Vec<SiteSimilarity>, String> {
    assert_eq!(current.len(), densities.len(), "densities of {} sites, expected {}", densities.len(), current.len());
    let mut similarities = Vec::new();
    for (ours, density) in current.iter().zip(densities) {
        assert_eq!(ours.v.cols(), density.len(), "densities of site `{}`", ours.site);
        let Some(theirs) = reference.iter().find(|theirs| theirs.site == ours.site) else { continue };
        if (ours.v.rows(), ours.u.cols()) != (theirs.v.rows(), theirs.u.cols()) {
            return Err(format!(
                "site `{}` is {} x {} in the current decomposition but {} x {} in the reference",
                ours.site,
                ours.v.rows(),
                ours.u.cols(),
                theirs.v.rows(),
                theirs.u.cols()
            ));
        }
        let live: Vec<usize> = (0..density.len()).filter(|&c| density[c] > density_threshold as f32).collect();
        if live.is_empty() || theirs.v.cols() == 0 {
            continue;
        }
        similarities.push(SiteSimilarity { site: ours.site.clone(), matches: best_matches(ours, theirs, &live) });
    }
    Ok(similarities)
}

fn best_matches(ours: &SiteComponents, theirs: &SiteComponents, live: &[usize]) -> Vec<Match> {
    let (our_v, their_v) = (ours.v.transposed(), theirs.v.transposed());
    let norm = |v: &[f32], u: &[f32]| (dot(v, v).sqrt() * dot(u, u).sqrt()).max(MIN_NORM);
    let their_norms: Vec<f64> = (0..their_v.rows()).map(|r| norm(their_v.row(r), theirs.u.row(r))).collect();
    live.par_iter()
        .map(|&c| {
            let (v, u) = (our_v.row(c), ours.u.row(c));
            let our_norm = norm(v, u);
            let cosine =
                |r: usize| (dot(v, their_v.row(r)) * dot(u, theirs.u.row(r))).abs() / (our_norm * their_norms[r]);
            let first = Match { current: c, reference: 0, abs_cosine: cosine(0) };
            (1..their_v.rows()).fold(first, |best, r| {
                let abs_cosine = cosine(r);
                if abs_cosine > best.abs_cosine { Match { current: c, reference: r, abs_cosine } } else { best }
            })
        })
        .collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Returns for each column of `ci` [rows, C] the share of rows on which it is above `alive_threshold`.
#[must_use]
pub fn densities(ci: &Matrix, alive_threshold: f64) -> Vec<f32> {
    let mut counts = vec![0_u32; ci.cols()];
    for row in 0..ci.rows() {
        for (count, value) in counts.iter_mut().zip(ci.row(row)) {
            *count += u32::from(*value > alive_threshold as f32);
        }
    }
    counts.iter().map(|count| *count as f32 / ci.rows() as f32).collect()
}

impl SiteSimilarity {
    /// Returns mean, spread and range of the site's matches.
    #[must_use]
    pub fn spread(&self) -> Spread {
        let n = self.matches.len() as f64;
        let values = || self.matches.iter().map(|found| found.abs_cosine);
        let mean = values().sum::<f64>() / n;
        Spread {
            mean,
            std: (values().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt(),
            min: values().fold(f64::INFINITY, f64::min),
            max: values().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// Returns the numbers under the reference's names: four for each site, then the same over all sites as plain means
/// (absent if there is no site).
#[must_use]
pub fn metrics(similarities: &[SiteSimilarity]) -> Vec<(String, f64)> {
    let spreads: Vec<Spread> = similarities.iter().map(SiteSimilarity::spread).collect();
    let named = |spread: &Spread, site: &str| {
        [
            (format!("mean_max_abs_cosine_sim/{site}"), spread.mean),
            (format!("max_abs_cosine_sim_std/{site}"), spread.std),
            (format!("max_abs_cosine_sim_min/{site}"), spread.min),
            (format!("max_abs_cosine_sim_max/{site}"), spread.max),
        ]
    };
    let mut metrics: Vec<(String, f64)> =
        similarities.iter().zip(&spreads).flat_map(|(found, spread)| named(spread, &found.site)).collect();
    if !spreads.is_empty() {
        let mean = |number: fn(&Spread) -> f64| spreads.iter().map(number).sum::<f64>() / spreads.len() as f64;
        let all = Spread { mean: mean(|s| s.mean), std: mean(|s| s.std), min: mean(|s| s.min), max: mean(|s| s.max) };
        metrics.extend(named(&all, "all_layers"));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::{SiteComponents, densities, metrics, similarities};
    use crate::matrix::Matrix;

    fn site(name: &str, v: &[[f32; 2]], u: &[[f32; 2]]) -> SiteComponents {
        // Components are given as rows here: easier to read.
        SiteComponents { site: name.to_owned(), v: Matrix::from_rows(v).transposed(), u: Matrix::from_rows(u) }
    }

    #[test]
    fn order_sign_and_scale_of_subcomponents_do_not_matter() {
        let ours = site("l", &[[1.0, 0.0], [0.0, 2.0]], &[[0.0, 3.0], [1.0, 1.0]]);
        let theirs = site("l", &[[0.0, -7.0], [5.0, 0.0]], &[[0.1, 0.1], [0.0, -1.0]]);
        let found = similarities(&[ours], &[theirs], &[vec![1.0, 1.0]], 0.5).unwrap();
        let pairs: Vec<_> = found[0].matches.iter().map(|m| (m.current, m.reference)).collect();
        assert_eq!(pairs, [(0, 1), (1, 0)]);
        assert!(found[0].matches.iter().all(|m| (m.abs_cosine - 1.0).abs() < 1e-12));
    }

    #[test]
    fn dead_subcomponents_and_missing_sites_are_left_out() {
        let ours = [site("a", &[[1.0, 0.0], [0.0, 1.0]], &[[1.0, 0.0]; 2]), site("b", &[[1.0, 0.0]], &[[1.0, 0.0]])];
        let theirs = [site("a", &[[1.0, 1.0]], &[[1.0, 0.0]])];
        let found = similarities(&ours, &theirs, &[vec![0.5, 0.6], vec![1.0]], 0.5).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].matches.len(), 1);
        let numbers = metrics(&found);
        assert_eq!(numbers.len(), 8);
        assert!((numbers[0].1 - 0.5_f64.sqrt()).abs() < 1e-7);
        assert!(numbers[1].1.is_nan(), "the spread of one number is not defined");
        assert!(metrics(&similarities(&ours, &theirs, &[vec![0.0, 0.0], vec![1.0]], 0.5).unwrap()).is_empty());
    }

    #[test]
    fn a_subcomponent_of_norm_zero_is_similar_to_nothing() {
        let ours = [site("l", &[[0.0, 0.0]], &[[1.0, 0.0]])];
        let found = similarities(&ours, &ours, &[vec![1.0]], 0.5).unwrap();
        assert_eq!(found[0].matches[0].abs_cosine, 0.0);
    }

    #[test]
    fn sites_of_different_shape_are_an_error_that_names_both() {
        let ours = site("l", &[[1.0, 0.0]], &[[1.0, 0.0]]);
        let mut theirs = ours.clone();
        theirs.v = Matrix::zeros(3, 1);
        let message = similarities(&[ours], &[theirs], &[vec![1.0]], 0.5).unwrap_err();
        assert_eq!(message, "site `l` is 2 x 2 in the current decomposition but 3 x 2 in the reference");
    }

    #[test]
    fn density_is_the_share_of_rows_strictly_above_the_threshold() {
        let ci = Matrix::from_rows(&[[0.0, 0.5, 1.0], [0.0, 0.4, 0.5], [0.0, 0.5, 0.6], [0.0, 0.9, 0.0]]);
        assert_eq!(densities(&ci, 0.5), [0.0, 0.25, 0.5]);
    }
}
