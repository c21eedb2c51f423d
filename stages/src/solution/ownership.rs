//! Which features have a component of their own, and how many components act at all, by the one-hot probe.

use crate::matrix::Matrix;

/// A component answers for a feature above this causal importance …
pub const OWNED_ABOVE: f32 = 0.9;
/// … and all others must stay below this one.
pub const OTHERS_BELOW: f32 = 0.1;

/// Returns how many features have a component of their own, all sites taken together.
///
/// Feature i has one if exactly one component's importance on its probe exceeds [`OWNED_ABOVE`], every other's is below
/// [`OTHERS_BELOW`], and that component is not another such feature's too.
///
/// * `sites`: for each site the importances [n_features, C].
///
/// # Panics
/// If the sites' numbers of features differ.
#[must_use]
pub fn features_with_own_component(sites: &[&Matrix]) -> usize {
    let features = sites.first().map_or(0, |ci| ci.rows());
    assert!(sites.iter().all(|ci| ci.rows() == features), "all sites are probed with the same features");
    let owner = |feature: usize| {
        let all = sites
            .iter()
            .enumerate()
            .flat_map(|(s, ci)| ci.row(feature).iter().enumerate().map(move |(c, importance)| ((s, c), *importance)));
        // NaN is not negligible either.
        let mut relevant = all.filter(|(_, importance)| importance.is_nan() || *importance >= OTHERS_BELOW);
        match (relevant.next(), relevant.next()) {
            (Some((place, importance)), None) if importance > OWNED_ABOVE => Some(place),
            _ => None,
        }
    };
    let owners: Vec<Option<(usize, usize)>> = (0..features).map(owner).collect();
    let is_own = |place: &(usize, usize)| owners.iter().flatten().filter(|other| *other == place).count() == 1;
    owners.iter().flatten().filter(|place| is_own(place)).count()
}

/// Returns how many components' importance exceeds `threshold` for at least one feature.
///
/// * `ci`: [n_features, C].
#[must_use]
pub fn active_components(ci: &Matrix, threshold: f64) -> usize {
    (0..ci.cols()).filter(|c| (0..ci.rows()).any(|i| f64::from(ci.at(i, *c)) > threshold)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_owns_the_only_component_that_answers_for_it_in_any_layer() {
        let first = Matrix::from_rows(&[[1.0, 0.0], [0.05, 0.0], [0.0, 0.95]]);
        let second = Matrix::from_rows(&[[0.0], [0.92], [0.3]]);
        // Feature 2 has a second component at 0.3 in the other layer.
        assert_eq!(features_with_own_component(&[&first, &second]), 2);
        assert_eq!(features_with_own_component(&[&first]), 2);
        assert_eq!(features_with_own_component(&[]), 0);
    }

    #[test]
    fn a_component_shared_by_two_features_is_nobodys_own() {
        assert_eq!(features_with_own_component(&[&Matrix::from_rows(&[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])]), 1);
        assert_eq!(features_with_own_component(&[&Matrix::from_rows(&[[1.0, f32::NAN]])]), 0);
    }

    #[test]
    fn a_component_is_active_if_any_feature_needs_it() {
        let ci = Matrix::from_rows(&[[0.0, 0.2, 0.05], [0.0, 0.0, 0.08]]);
        assert_eq!(active_components(&ci, 0.1), 1);
        assert_eq!(active_components(&ci, 0.07), 2);
    }
}
