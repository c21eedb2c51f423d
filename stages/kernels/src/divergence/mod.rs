//! Losses of logits: the Kullback-Leibler divergence between two models' outputs (spec section 5.0, kl), and the cross
//! entropy against labels.
//!
//! Logits are `[V, R]`: one column a position. With `z(x) = ln Σ_v e^{x_v}` and p = softmax(target):
//!
//! ```text
//! KL = Σ_r Σ_v p_v ((target_v − z(target)) − (x_v − z(x)))   ∂KL/∂x_v = softmax(x)_v − p_v
//! CE = Σ_r (z(x) − x_label)                                  ∂CE/∂x_v = softmax(x)_v − [v = label]
//! ```
//!
//! Natural logarithms. Values are f64: close models differ in the last digits of f32. The logarithms z are returned for
//! the backward pass.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
mod tests;

use crate::parallel;

/// Positions that one task handles.
const TILE: usize = 128;

/// Returns `Σ_r KL(softmax(target) ‖ softmax(prediction))` and, for each row, z of the prediction and then, from `R` on,
/// z of the target.
///
/// # Panics
/// If the lengths differ or do not fill the rows.
#[must_use]
pub fn kl_forward(prediction: &[f32], target: &[f32], rows: usize) -> (f64, Vec<f32>) {
    assert_eq!(prediction.len(), target.len(), "kl divergence: lengths");
    let logits = check(prediction, rows);
    let mut results = vec![[0.0_f64; 3]; rows];
    let tasks: Vec<_> = results.chunks_mut(TILE).enumerate().collect();
    parallel::for_each(tasks, 8 * prediction.len(), |(tile, results)| {
        cpu::kl_tile(&prediction[tile * TILE..], &target[tile * TILE..], logits, rows, results);
    });
    let normalisers = |which: usize| results.iter().map(move |result| result[which] as f32);
    (results.iter().map(|result| result[0]).sum(), normalisers(1).chain(normalisers(2)).collect())
}

/// Adds `g (softmax(prediction) − softmax(target))` to the prediction's gradient.
///
/// # Panics
/// If a length does not fit.
pub fn kl_backward(
    prediction: &[f32],
    target: &[f32],
    normalisers: &[f32],
    grad_out: f32,
    grad_prediction: &mut [f32],
    rows: usize,
) {
    check(prediction, rows);
    assert_eq!(
        (target.len(), normalisers.len(), grad_prediction.len()),
        (prediction.len(), 2 * rows, prediction.len()),
        "kl divergence: gradients"
    );
    let (ours, theirs) = normalisers.split_at(rows);
    parallel::for_each_row(grad_prediction, rows, 8 * prediction.len(), |v, grad| {
        let line = v * rows..(v + 1) * rows;
        cpu::add_softmax(&prediction[line.clone()], ours, grad_out, grad);
        cpu::add_softmax(&target[line], theirs, -grad_out, grad);
    });
}

/// Returns `Σ_r (z − logits[label(r), r])` over the rows whose label is not negative, and z of each row.
///
/// # Panics
/// If a length does not fit or a label is no logit.
#[must_use]
pub fn cross_entropy_forward(logits: &[f32], labels: &[f32]) -> (f64, Vec<f32>) {
    let rows = labels.len();
    let count = check(logits, rows);
    let mut normalisers = vec![0.0_f64; rows];
    let tasks: Vec<_> = normalisers.chunks_mut(TILE).enumerate().collect();
    parallel::for_each(tasks, 4 * logits.len(), |(tile, normalisers)| {
        cpu::normalisers_tile(&logits[tile * TILE..], count, rows, normalisers);
    });
    let term = |row: usize| {
        let label = label_of(labels[row], count);
        label.map_or(0.0, |label| normalisers[row] - f64::from(logits[label * rows + row]))
    };
    ((0..rows).map(term).sum(), normalisers.iter().map(|z| *z as f32).collect())
}

/// Adds `g (softmax(logits) − [v = label])` to the gradient of the logits of labelled rows.
///
/// # Panics
/// If a length does not fit or a label is no logit.
pub fn cross_entropy_backward(
    logits: &[f32],
    labels: &[f32],
    normalisers: &[f32],
    grad_out: f32,
    grad_logits: &mut [f32],
) {
    let rows = labels.len();
    let count = check(logits, rows);
    assert_eq!((normalisers.len(), grad_logits.len()), (rows, logits.len()), "cross entropy: gradients");
    // A row without a label gets the softmax of infinitely many logits: zero.
    let normalisers: Vec<f32> =
        normalisers.iter().zip(labels).map(|(z, label)| if *label < 0.0 { f32::INFINITY } else { *z }).collect();
    parallel::for_each_row(grad_logits, rows, 4 * logits.len(), |v, grad| {
        cpu::add_softmax(&logits[v * rows..(v + 1) * rows], &normalisers, grad_out, grad);
    });
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label_of(*label, count) {
            grad_logits[label * rows + row] -= grad_out;
        }
    }
}

fn label_of(label: f32, count: usize) -> Option<usize> {
    if label < 0.0 {
        return None;
    }
    let index = label as usize;
    assert!(index as f32 == label && index < count, "label {label} is not one of 0..{count}");
    Some(index)
}

fn check(logits: &[f32], rows: usize) -> usize {
    let count = logits.len().checked_div(rows).unwrap_or(0);
    assert_eq!(logits.len(), count * rows, "logits of {rows} rows");
    count
}
