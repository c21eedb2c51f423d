//! The price of importance: a p-norm of the upper-leaky causal importances (spec section 5.2).
//!
//! With `S[c] = Σ_r w[r] (u[c, r] + ε)^p` and `n = Σ_r w[r]` positions:
//! `L = Σ_c (S[c]/n) (1 + β log2(1 + k S[c]))`, `k` the number of ranks whose sums are alike.
//!
//! `u` is `[C, R]`; `w` `[R]` counts how many equal rows of the batch a row stands for, 1 when absent.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
mod tests;

use crate::lanes::sum_over;
use crate::simd::dispatch;
use crate::{Store, parallel};

/// The constants of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    /// The exponent `p`.
    pub p: f32,
    /// The offset `ε` under the power.
    pub eps: f32,
    /// The weight `β` of the frequency term.
    pub beta: f64,
    /// The factor `k` in the logarithm.
    pub ranks: f64,
}

/// Writes `S[c]` into `sums` `[C]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn sums(u: &[f32], weights: Option<&[f32]>, constants: Constants, rows: usize, sums: &mut [f32]) {
    assert_eq!(u.len(), sums.len() * rows, "importance minimality: u [{}, {rows}]", sums.len());
    assert!(weights.is_none_or(|w| w.len() == rows), "importance minimality: weights [{rows}]");
    parallel::for_each_row(sums, 1, u.len() * 4, |c, sum| {
        sum[0] = component_sum(&u[c * rows..(c + 1) * rows], weights, constants.p, constants.eps);
    });
}

dispatch! { fn component_sum(u: &[f32], weights: Option<&[f32]>, p: f32, eps: f32) -> f32 = component_sum_body }

#[inline(always)]
fn component_sum_body<const FUSED: bool>(u: &[f32], weights: Option<&[f32]>, p: f32, eps: f32) -> f32 {
    let total = |power: &dyn Fn(f32) -> f32| match weights {
        None => sum_over(u.len(), |r| power(u[r] + eps)),
        Some(weights) => sum_over(u.len(), |r| weights[r] * power(u[r] + eps)),
    };
    if p == 1.0 {
        match weights {
            None => sum_over(u.len(), |r| u[r] + eps),
            Some(weights) => sum_over(u.len(), |r| weights[r] * (u[r] + eps)),
        }
    } else if p == 2.0 {
        match weights {
            None => sum_over(u.len(), |r| (u[r] + eps) * (u[r] + eps)),
            Some(weights) => sum_over(u.len(), |r| weights[r] * ((u[r] + eps) * (u[r] + eps))),
        }
    } else {
        total(&|x| x.powf(p))
    }
}

/// Returns the loss for the sums `S` over `n` positions.
#[must_use]
pub fn value(sums: &[f32], positions: f64, constants: Constants) -> f64 {
    sums.iter()
        .map(|s| {
            let s = f64::from(*s);
            let frequency =
                if constants.beta == 0.0 { 0.0 } else { constants.beta * (1.0 + constants.ranks * s).log2() };
            s / positions * (1.0 + frequency)
        })
        .sum()
}

/// Stores `grad_out ∂L/∂u`.
///
/// # Panics
/// If a length does not fit the shape.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    u: &[f32],
    weights: Option<&[f32]>,
    constants: Constants,
    sums: &[f32],
    positions: f64,
    grad_out: f32,
    (grad_u, store): (&mut [f32], Store),
    rows: usize,
) {
    assert_eq!(
        (u.len(), grad_u.len()),
        (sums.len() * rows, sums.len() * rows),
        "importance minimality: u [{}, {rows}]",
        sums.len()
    );
    let operations = u.len() * 4;
    parallel::for_each_row(grad_u, rows, operations, |c, grad| {
        let s = f64::from(sums[c]);
        let inside = 1.0 + constants.ranks * s;
        let frequency = if constants.beta == 0.0 {
            0.0
        } else {
            constants.beta * (inside.log2() + s * constants.ranks / (inside * std::f64::consts::LN_2))
        };
        let scale = (f64::from(grad_out) / positions * (1.0 + frequency)) as f32;
        component_backward(&u[c * rows..(c + 1) * rows], weights, constants.p, constants.eps, scale, grad, store);
    });
}

dispatch! {
    fn component_backward(u: &[f32], weights: Option<&[f32]>, p: f32, eps: f32, scale: f32, grad: &mut [f32], store: Store) = component_backward_body
}

#[inline(always)]
fn component_backward_body<const FUSED: bool>(
    u: &[f32],
    weights: Option<&[f32]>,
    p: f32,
    eps: f32,
    scale: f32,
    grad: &mut [f32],
    store: Store,
) {
    let weight = |r: usize| weights.map_or(1.0, |w| w[r]);
    for (r, (u, grad)) in u.iter().zip(grad).enumerate() {
        let slope = if p == 1.0 {
            1.0
        } else if p == 2.0 {
            2.0 * (u + eps)
        } else {
            p * (u + eps).powf(p - 1.0)
        };
        *grad = store.merge(*grad, scale * weight(r) * slope);
    }
}
