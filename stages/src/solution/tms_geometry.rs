//! How well the components of a TMS decomposition recover the target's feature vectors (SPD paper, Table 1).
//!
//! Component c of `linear1` is the rank-one subnet `P_c = V[:, c] U[c, :]` [features, hidden]: row j is the vector it
//! gives feature j. The target's vector for feature j is column j of `linear1.weight` [hidden, features].

use crate::matrix::Matrix;

/// How close the best component of each feature comes to the target's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct TmsGeometry {
    /// Mean over features of the largest cosine of any component's vector with the target's ("MMCS"); 1 is perfect.
    pub mean_max_cosine_similarity: f64,
    /// Mean over features of the length of that vector over the target's ("ML2R"); 1 is perfect.
    pub mean_l2_ratio: f64,
    /// For each feature the component of the largest cosine.
    pub best_component: Vec<usize>,
    /// For each feature that cosine.
    pub max_cosine: Vec<f64>,
    /// For each feature that ratio of lengths.
    pub l2_ratio: Vec<f64>,
}

/// Returns how well components recover the target's feature vectors.
///
/// `MMCS = mean_j max_c cos(P_c[j, :], W[:, j])`, `ML2R = mean_j |P_c*(j)[j, :]| / |W[:, j]|` with c*(j) the component
/// of the largest cosine. A vector of length zero has cosine 0 with everything.
///
/// * `target`: `linear1.weight` [hidden, features]; `v` [features, C]; `u` [C, hidden].
///
/// # Panics
/// If the shapes do not fit together or there is no component.
#[must_use]
pub fn tms_geometry(target: &Matrix, v: &Matrix, u: &Matrix) -> TmsGeometry {
    let (hidden, features, components) = (target.rows(), target.cols(), v.cols());
    assert!(
        v.rows() == features && u.rows() == components && u.cols() == hidden,
        "V {} x {} and U {} x {} do not fit a target of {hidden} x {features}",
        v.rows(),
        v.cols(),
        u.rows(),
        u.cols()
    );
    assert!(components > 0, "expected at least one component");
    let u_lengths: Vec<f64> = (0..components).map(|c| length(u.row(c))).collect();
    let mut geometry = TmsGeometry {
        mean_max_cosine_similarity: 0.0,
        mean_l2_ratio: 0.0,
        best_component: Vec::with_capacity(features),
        max_cosine: Vec::with_capacity(features),
        l2_ratio: Vec::with_capacity(features),
    };
    for j in 0..features {
        let w = target.column(j);
        let w_length = length(&w);
        let cosine = |c: usize| {
            let scale = f64::from(v.at(j, c)).signum() * dot(u.row(c), &w);
            let lengths = u_lengths[c] * w_length;
            if lengths == 0.0 || v.at(j, c) == 0.0 { 0.0 } else { scale / lengths }
        };
        let (best, max_cosine) = (0..components)
            .map(|c| (c, cosine(c)))
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .expect("at least one component");
        geometry.best_component.push(best);
        geometry.max_cosine.push(max_cosine);
        geometry.l2_ratio.push(f64::from(v.at(j, best)).abs() * u_lengths[best] / w_length);
    }
    geometry.mean_max_cosine_similarity = mean(&geometry.max_cosine);
    geometry.mean_l2_ratio = mean(&geometry.l2_ratio);
    geometry
}

/// Returns the size of each component's subnet: the sum over rows j of `|V[j, c]| |U[c, :]|`.
///
/// # Panics
/// If `v` [d_in, C] and `u` [C, d_out] do not fit together.
#[must_use]
pub fn subnet_sizes(v: &Matrix, u: &Matrix) -> Vec<f64> {
    assert_eq!(v.cols(), u.rows(), "V has {} components, U {}", v.cols(), u.rows());
    (0..v.cols()).map(|c| (0..v.rows()).map(|j| f64::from(v.at(j, c)).abs()).sum::<f64>() * length(u.row(c))).collect()
}

/// Returns the Frobenius norm of each component's subnet, `|V[:, c]| |U[c, :]|`.
///
/// # Panics
/// If `v` [d_in, C] and `u` [C, d_out] do not fit together.
#[must_use]
pub fn frobenius_norms(v: &Matrix, u: &Matrix) -> Vec<f64> {
    assert_eq!(v.cols(), u.rows(), "V has {} components, U {}", v.cols(), u.rows());
    (0..v.cols()).map(|c| length(&v.column(c)) * length(u.row(c))).collect()
}

/// Returns the components of size above `threshold`, largest first; equal sizes keep their order.
///
/// The paper's thresholds: [`subnet_sizes`] above 0.017 for a feature layer (0.03 with hidden layers),
/// [`frobenius_norms`] above 0.009 for a hidden layer of two units (0.0115 in "5-2-id").
#[must_use]
pub fn significant_subnets(sizes: &[f64], threshold: f64) -> Vec<usize> {
    let mut significant: Vec<usize> = (0..sizes.len()).filter(|&c| sizes[c] > threshold).collect();
    significant.sort_by(|&a, &b| sizes[b].total_cmp(&sizes[a]));
    significant
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::{frobenius_norms, significant_subnets, subnet_sizes, tms_geometry};
    use crate::matrix::Matrix;

    /// Two features at right angles; component 1 gives feature 0 its vector, component 0 gives feature 1 half of its
    /// vector, component 2 is noise.
    fn sample() -> (Matrix, Matrix, Matrix) {
        let target = Matrix::from_rows(&[[3.0, 0.0], [4.0, 2.0]]);
        let v = Matrix::from_rows(&[[0.0, -1.0, 0.001], [1.0, 0.0, 0.0]]);
        let u = Matrix::from_rows(&[[0.0, 1.0], [-3.0, -4.0], [1.0, 0.0]]);
        (target, v, u)
    }

    #[test]
    fn signs_and_order_of_components_do_not_matter_but_lengths_do() {
        let (target, v, u) = sample();
        let geometry = tms_geometry(&target, &v, &u);
        assert_eq!(geometry.best_component, [1, 0]);
        assert!((geometry.mean_max_cosine_similarity - 1.0).abs() < 1e-12);
        assert_eq!(geometry.l2_ratio, [1.0, 0.5]);
        assert_eq!(geometry.mean_l2_ratio, 0.75);
    }

    #[test]
    fn a_target_pointing_the_other_way_has_negative_or_zero_cosine() {
        let target = Matrix::from_rows(&[[-1.0], [0.0]]);
        let geometry = tms_geometry(&target, &Matrix::from_rows(&[[1.0]]), &Matrix::from_rows(&[[1.0, 0.0]]));
        assert_eq!(geometry.max_cosine, [-1.0]);
        let geometry = tms_geometry(&target, &Matrix::zeros(1, 2), &Matrix::zeros(2, 2));
        assert_eq!((geometry.max_cosine[0], geometry.l2_ratio[0]), (0.0, 0.0));
    }

    #[test]
    fn significant_subnets_come_largest_first() {
        let (_, v, u) = sample();
        // |V| sums times |U|: 1 * 1, 1 * 5, 0.001 * 1.
        let sizes = subnet_sizes(&v, &u);
        assert!((sizes[2] - 0.001).abs() < 1e-9);
        assert_eq!(significant_subnets(&sizes, 0.017), [1, 0]);
        assert_eq!(frobenius_norms(&v, &u)[1], 5.0);
    }
}
