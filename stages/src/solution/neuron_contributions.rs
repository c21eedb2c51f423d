//! What each neuron of a residual MLP does for each feature, in the target and in its components (SPD paper, Figure 6;
//! reference `resid_mlp_interp`).
//!
//! Neuron n of a layer reads feature i with weight `W_E[i] · W_in[n]` and writes into its output with weight
//! `W_out[:, n] · W_U[:, i]`; the product is the neuron's contribution to the feature. A faithful decomposition has for
//! each feature one component of `W_in` whose neurons contribute as the target's do.

use crate::matrix::Matrix;

/// One layer: its target matrices, and the components of those that are decomposed.
#[derive(Debug, Clone)]
pub struct ResidLayer {
    /// `mlp_in.weight` [d_mlp, d_embed].
    pub w_in: Matrix,
    /// `mlp_out.weight` [d_embed, d_mlp].
    pub w_out: Matrix,
    /// V [d_embed, C] and U [C, d_mlp] of `mlp_in`.
    pub components_in: Option<(Matrix, Matrix)>,
    /// V [d_mlp, C] and U [C, d_embed] of `mlp_out`.
    pub components_out: Option<(Matrix, Matrix)>,
}

/// The contributions in the components, beside those in the target.
#[derive(Debug, Clone)]
pub struct NeuronContributions {
    /// For each layer whose `mlp_in` is decomposed its index.
    pub layers: Vec<usize>,
    /// The target's contributions [n_features, d_mlp], for each of these layers.
    pub target: Vec<Matrix>,
    /// Those of each feature's component, in the same shape.
    pub components: Vec<Matrix>,
    /// For each layer and feature that component: the one with the largest contribution of any neuron.
    pub chosen: Vec<Vec<usize>>,
    /// Pearson's correlation between the two over all layers, features and neurons; not a number if either is constant.
    pub correlation: f64,
}

/// Returns the target's contributions `R[i, n] = (W_E[i] · W_in[n]) (W_out[:, n] · W_U[:, i])` [n_features, d_mlp].
///
/// * `w_e` [n_features, d_embed]; `w_u` [d_embed, n_features]; `w_in` [d_mlp, d_embed]; `w_out` [d_embed, d_mlp].
///
/// # Panics
/// If the shapes do not fit together.
#[must_use]
pub fn target_contributions(w_e: &Matrix, w_u: &Matrix, w_in: &Matrix, w_out: &Matrix) -> Matrix {
    let (reads, writes) = (product(w_e, &w_in.transposed()), product(&w_out.transposed(), w_u));
    Matrix::from_fn(w_e.rows(), w_in.rows(), |i, n| reads.at(i, n) * writes.at(n, i))
}

/// Returns the contributions of every layer whose `mlp_in` is decomposed; `None` if there is none.
///
/// Component c of `mlp_in` contributes `R[i, c, n] = (W_E[i] · V[:, c]) U[c, n] (Ŵ_out[:, n] · W_U[:, i])` with `Ŵ_out`
/// the sum of `mlp_out`'s components, or the target's matrix where that is not decomposed. For each feature the component
/// with the largest `max_n R[i, c, n]` is taken, the first of equal ones.
///
/// # Panics
/// If the shapes do not fit together.
#[must_use]
pub fn neuron_contributions(w_e: &Matrix, w_u: &Matrix, layers: &[ResidLayer]) -> Option<NeuronContributions> {
    let mut found = NeuronContributions {
        layers: Vec::new(),
        target: Vec::new(),
        components: Vec::new(),
        chosen: Vec::new(),
        correlation: f64::NAN,
    };
    for (index, layer) in layers.iter().enumerate() {
        let Some((v, u)) = &layer.components_in else { continue };
        // [d_mlp, n_features]: what each neuron writes into each output.
        let writes = match &layer.components_out {
            Some((v, u)) => product(v, &product(u, w_u)),
            None => product(&layer.w_out.transposed(), w_u),
        };
        let reads = product(w_e, v);
        let contribution = |i: usize, c: usize, n: usize| reads.at(i, c) * u.at(c, n) * writes.at(n, i);
        let neurons = u.cols();
        let largest =
            |i: usize, c: usize| (0..neurons).map(|n| contribution(i, c, n)).fold(f32::NEG_INFINITY, f32::max);
        let chosen: Vec<usize> = (0..w_e.rows())
            .map(|i| {
                let all = (0..u.rows()).map(|c| (c, largest(i, c)));
                all.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(c, _)| c)
            })
            .collect();
        found.components.push(Matrix::from_fn(w_e.rows(), neurons, |i, n| contribution(i, chosen[i], n)));
        found.target.push(target_contributions(w_e, w_u, &layer.w_in, &layer.w_out));
        found.layers.push(index);
        found.chosen.push(chosen);
    }
    if found.layers.is_empty() {
        return None;
    }
    let pairs = found.target.iter().zip(&found.components).flat_map(|(target, components)| {
        target.data().iter().zip(components.data()).map(|(a, b)| (f64::from(*a), f64::from(*b)))
    });
    found.correlation = correlation(pairs);
    Some(found)
}

/// Returns the contributions in a decomposed model; `None` if it is no residual MLP or no `mlp_in` is decomposed.
///
/// * `target`: the target's tensor of a name (`W_E`, `layers.0.mlp_in.weight`), if there is one;
/// * `components`: V and U of a site (`layers.0.mlp_in`), if it is decomposed.
pub fn model_contributions(
    target: impl Fn(&str) -> Option<Matrix>,
    components: impl Fn(&str) -> Option<(Matrix, Matrix)>,
) -> Option<NeuronContributions> {
    let (w_e, w_u) = (target("W_E")?, target("W_U")?);
    let layer = |index: usize| {
        let site = |name: &str| format!("layers.{index}.{name}");
        Some(ResidLayer {
            w_in: target(&site("mlp_in.weight"))?,
            w_out: target(&site("mlp_out.weight"))?,
            components_in: components(&site("mlp_in")),
            components_out: components(&site("mlp_out")),
        })
    };
    let layers: Vec<ResidLayer> = (0..).map_while(layer).collect();
    neuron_contributions(&w_e, &w_u, &layers)
}

/// Returns Pearson's correlation; not a number if either side is constant.
pub fn correlation(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = pairs.clone().count() as f64;
    let (a, b) = pairs.clone().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / count, b + y / count));
    let sums = pairs.fold((0.0, 0.0, 0.0), |(xx, xy, yy), (x, y)| {
        (xx + (x - a) * (x - a), xy + (x - a) * (y - b), yy + (y - b) * (y - b))
    });
    sums.1 / (sums.0.sqrt() * sums.2.sqrt())
}

/// Returns the matrix product, summed in f64.
fn product(a: &Matrix, b: &Matrix) -> Matrix {
    assert_eq!(a.cols(), b.rows(), "product of {} x {} and {} x {}", a.rows(), a.cols(), b.rows(), b.cols());
    let mut out = Vec::with_capacity(a.rows() * b.cols());
    let mut row = vec![0.0_f64; b.cols()];
    for i in 0..a.rows() {
        row.fill(0.0);
        for (k, x) in a.row(i).iter().enumerate() {
            for (sum, y) in row.iter_mut().zip(b.row(k)) {
                *sum += f64::from(*x) * f64::from(*y);
            }
        }
        out.extend(row.iter().map(|sum| *sum as f32));
    }
    Matrix::new(a.rows(), b.cols(), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two features along the first two of three dimensions; neuron 0 serves feature 0, neuron 1 feature 1 and, a
    /// little, feature 0.
    fn sample() -> (Matrix, Matrix, ResidLayer) {
        let w_e = Matrix::from_rows(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        let w_in = Matrix::from_rows(&[[2.0, 0.0, 9.0], [0.5, 1.0, 9.0]]);
        let w_out = Matrix::from_rows(&[[3.0, 0.5], [0.0, 4.0], [9.0, 9.0]]);
        let layer = ResidLayer { w_in, w_out, components_in: None, components_out: None };
        (w_e.clone(), w_e.transposed(), layer)
    }

    #[test]
    fn a_neuron_contributes_what_it_reads_times_what_it_writes() {
        let (w_e, w_u, layer) = sample();
        // Feature 0: neuron 0 2 * 3, neuron 1 0.5 * 0.5; feature 1: neuron 0 0 * 0, neuron 1 1 * 4.
        let expected = Matrix::from_rows(&[[6.0, 0.25], [0.0, 4.0]]);
        assert_eq!(target_contributions(&w_e, &w_u, &layer.w_in, &layer.w_out), expected);
    }

    #[test]
    fn each_feature_gets_the_component_that_serves_it_and_a_perfect_decomposition_correlates() {
        let (w_e, w_u, mut layer) = sample();
        assert!(neuron_contributions(&w_e, &w_u, std::slice::from_ref(&layer)).is_none(), "nothing is decomposed");
        // One component per feature, in the other order, and one of noise: V Uᵀ rows are W_in's columns.
        let v = Matrix::from_rows(&[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
        let u = Matrix::from_rows(&[[0.0, 1.0], [2.0, 0.5], [9.0, 9.0]]);
        layer.components_in = Some((v, u));
        let found = neuron_contributions(&w_e, &w_u, std::slice::from_ref(&layer)).expect("mlp_in is decomposed");
        assert_eq!((&found.layers[..], &found.chosen[..]), (&[0][..], &[vec![1, 0]][..]));
        assert_eq!(found.components, found.target);
        assert!((found.correlation - 1.0).abs() < 1e-12);

        // With components of mlp_out whose sum is half the target's matrix, contributions are half as large.
        let half = Matrix::from_rows(&[[1.5, 0.0, 4.5], [0.25, 2.0, 4.5]]);
        layer.components_out = Some((Matrix::from_rows(&[[1.0, 0.0], [0.0, 1.0]]), half));
        let found = neuron_contributions(&w_e, &w_u, std::slice::from_ref(&layer)).expect("mlp_in is decomposed");
        assert_eq!(found.components[0], Matrix::from_rows(&[[3.0, 0.125], [0.0, 2.0]]));
        assert!((found.correlation - 1.0).abs() < 1e-12);
    }

    #[test]
    fn correlation_is_the_cosine_of_what_differs_from_the_mean() {
        let pairs = [(1.0, 2.0), (2.0, 1.0), (3.0, 3.0)];
        // Differences (-1, 0, 1) and (0, -1, 1): 1 / (√2 √2).
        assert!((correlation(pairs.into_iter()) - 0.5).abs() < 1e-12);
        assert!(correlation([(1.0, 2.0), (1.0, 3.0)].into_iter()).is_nan());
    }
}
