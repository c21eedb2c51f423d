//! Initial values of a target's weights.

use spdflow_kernels::philox::{Stream, normal, uniform};

/// Returns PyTorch's default initial entries of a linear layer: uniform within ±1/√fan_in.
pub(super) fn linear(stream: Stream, fan_in: usize, entries: usize) -> Vec<f32> {
    let mut data = vec![0.0; entries];
    uniform(stream, entries, &[0], &mut data);
    let bound = 1.0 / (fan_in as f64).sqrt();
    data.iter().map(|u| ((2.0 * f64::from(*u) - 1.0) * bound) as f32).collect()
}

/// Returns normal entries of standard deviation `std`.
pub(super) fn gaussian(stream: Stream, std: f64, entries: usize) -> Vec<f32> {
    let mut data = vec![0.0; entries];
    normal(stream, &mut data);
    data.iter().map(|x| (f64::from(*x) * std) as f32).collect()
}

/// Returns rows `[rows, cols]` of random direction and length 1.
pub(super) fn unit_rows(stream: Stream, rows: usize, cols: usize) -> Vec<f32> {
    let mut data = vec![0.0; rows * cols];
    normal(stream, &mut data);
    for row in data.chunks_mut(cols) {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    data
}

/// Returns the identity `[d, d]`.
pub(super) fn identity(d: usize) -> Vec<f32> {
    let mut data = vec![0.0; d * d];
    data.iter_mut().step_by(d + 1).for_each(|x| *x = 1.0);
    data
}
