//! Causal importances on one feature at a time: the probe behind the pictures and the identity error (spec 5.9, 5.10).

use spdflow_kernels::transpose::transposed;

use super::causal_importance::Importance;
use super::model::{ComponentModel, Leaves};
use crate::artifact::ci_table::SiteCi;
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::matrix::Matrix;
use crate::optimizer::parameters::Parameters;

/// The value of the one active feature.
pub const PROBE_INPUT: f32 = 0.75;

/// Returns every site's causal importances `[n_features, C]` when feature i alone is active with value 0.75, for each i.
///
/// `noise` `(C, n_features)` of each site is given where importances are to be those of binomial sampling; the pictures
/// and tables of the result are made without.
///
/// # Errors
/// The device's.
pub fn probe<D: Backend>(
    device: &D,
    model: &ComponentModel<D>,
    parameters: &Parameters<D>,
    n_features: usize,
    noise: Option<&[Var<D>]>,
) -> DeviceResult<Vec<SiteCi>, D> {
    let mut input = vec![0.0; n_features * n_features];
    input.iter_mut().step_by(n_features + 1).for_each(|x| *x = PROBE_INPUT);
    let graph = Graph::detached(device);
    let leaves = Leaves(parameters.leaves(&graph)?);
    let input = graph.upload(input, (n_features, n_features))?;
    let clean = model.clean_pass(&graph, &leaves, &input)?;
    let importances = model.importances(&graph, &leaves, &clean, noise)?;
    Ok(model.sites().iter().zip(importances).map(|(site, importance)| site_ci(&site.plan.name, &importance)).collect())
}

fn site_ci<D: Backend>(site: &str, importance: &Importance<D>) -> SiteCi {
    SiteCi {
        site: site.to_owned(),
        lower: by_row(&importance.lower),
        upper: by_row(&importance.upper),
        pre_sigmoid: by_row(&importance.pre_sigmoid),
    }
}

/// Returns `(features, R)` as a matrix with one row for each row of the batch.
pub fn by_row<D: Backend>(values: &Var<D>) -> Matrix {
    let (features, rows) = values.shape();
    Matrix::new(rows, features, transposed(&values.to_vec(), features, rows))
}
