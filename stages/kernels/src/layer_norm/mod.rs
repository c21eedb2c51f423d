//! Layer norm: `y[f, r] = γ[f] x̂[f, r] + β[f]`, `x̂ = (x − mean_f x) / √(var_f x + ε)`, the variance divided by d.
//!
//! `x, y [d, R]`, `γ, β [d]`, ε = 10⁻⁵ as in PyTorch. With upstream g and `h = γ g`:
//! `∂x = (h − mean_f h − x̂ mean_f(h x̂)) / √(var + ε)`, `∂γ = Σ_r g x̂`, `∂β = Σ_r g`. Sums over features and rows are f64.

#[cfg(feature = "cuda")]
pub mod cuda;

const EPSILON: f64 = 1e-5;

/// The gradients that are wanted.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the input, `[d, R]`.
    pub x: Option<&'a mut [f32]>,
    /// Of γ, `[d]`.
    pub scale: Option<&'a mut [f32]>,
    /// Of β, `[d]`.
    pub shift: Option<&'a mut [f32]>,
}

/// Writes the normalised, scaled and shifted values.
///
/// # Panics
/// If a length does not fit.
pub fn forward(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32], rows: usize) {
    check(&[x, out], &[scale, shift], rows);
    let (means, inverses) = statistics(x, rows);
    for (f, (x, out)) in x.chunks(rows.max(1)).zip(out.chunks_mut(rows.max(1))).enumerate() {
        for (r, (x, out)) in x.iter().zip(out).enumerate() {
            *out = (normal(*x, means[r], inverses[r]) * f64::from(scale[f]) + f64::from(shift[f])) as f32;
        }
    }
}

/// Adds the gradients for the upstream gradient `grad_out`.
///
/// # Panics
/// If a length does not fit.
pub fn backward(x: &[f32], scale: &[f32], grad_out: &[f32], grads: Gradients<'_>, rows: usize) {
    check(&[x, grad_out], &[scale], rows);
    if rows == 0 {
        return;
    }
    let d = scale.len() as f64;
    let (means, inverses) = statistics(x, rows);
    let lines = || x.chunks(rows).zip(grad_out.chunks(rows)).zip(scale);
    if let Some(grad_scale) = grads.scale {
        for (grad, ((x, g), _)) in grad_scale.iter_mut().zip(lines()) {
            let term = |r: usize| f64::from(g[r]) * normal(x[r], means[r], inverses[r]);
            *grad += (0..rows).map(term).sum::<f64>() as f32;
        }
    }
    if let Some(grad_shift) = grads.shift {
        for (grad, ((_, g), _)) in grad_shift.iter_mut().zip(lines()) {
            *grad += g.iter().map(|g| f64::from(*g)).sum::<f64>() as f32;
        }
    }
    let Some(grad_x) = grads.x else { return };
    let (mut sums, mut products) = (vec![0.0; rows], vec![0.0; rows]);
    for ((x, g), scale) in lines() {
        for r in 0..rows {
            let h = f64::from(g[r]) * f64::from(*scale);
            sums[r] += h;
            products[r] += h * normal(x[r], means[r], inverses[r]);
        }
    }
    for (((x, g), scale), grad_x) in lines().zip(grad_x.chunks_mut(rows)) {
        for r in 0..rows {
            let h = f64::from(g[r]) * f64::from(*scale);
            let along = normal(x[r], means[r], inverses[r]) * products[r];
            grad_x[r] += ((h - (sums[r] + along) / d) * inverses[r]) as f32;
        }
    }
}

fn normal(x: f32, mean: f64, inverse: f64) -> f64 {
    (f64::from(x) - mean) * inverse
}

/// Returns each row's mean and one over its standard deviation.
fn statistics(x: &[f32], rows: usize) -> (Vec<f64>, Vec<f64>) {
    let d = x.len().checked_div(rows).unwrap_or(0) as f64;
    let (mut means, mut squares) = (vec![0.0; rows], vec![0.0; rows]);
    for x in x.chunks(rows.max(1)) {
        means.iter_mut().zip(x).for_each(|(mean, x)| *mean += f64::from(*x));
    }
    means.iter_mut().for_each(|mean| *mean /= d);
    for x in x.chunks(rows.max(1)) {
        for ((square, mean), x) in squares.iter_mut().zip(&means).zip(x) {
            *square += (f64::from(*x) - mean).powi(2);
        }
    }
    (means, squares.iter().map(|square| 1.0 / (square / d + EPSILON).sqrt()).collect())
}

fn check(matrices: &[&[f32]], vectors: &[&[f32]], rows: usize) {
    let d = vectors[0].len();
    let fits = matrices.iter().all(|m| m.len() == d * rows) && vectors.iter().all(|v| v.len() == d);
    assert!(fits, "layer norm: {d} features, {rows} rows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, slopes, values, wide};

    fn exact(x: &[f64], scale: &[f64], shift: &[f64], rows: usize) -> Vec<f64> {
        let d = scale.len();
        let mut out = vec![0.0; x.len()];
        for r in 0..rows {
            let column: Vec<f64> = (0..d).map(|f| x[f * rows + r]).collect();
            let mean = column.iter().sum::<f64>() / d as f64;
            let variance = column.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
            for f in 0..d {
                out[f * rows + r] = (column[f] - mean) / (variance + 1e-5).sqrt() * scale[f] + shift[f];
            }
        }
        out
    }

    #[test]
    fn values_agree_with_f64_and_gradients_with_finite_differences() {
        for (d, rows) in [(3, 0), (2, 1), (5, 17), (16, 9)] {
            let (x, upstream) = (values(1, d * rows), values(2, d * rows));
            let (scale, shift) = (values(3, d), values(4, d));
            let (x64, scale64, shift64) = (wide(&x), wide(&scale), wide(&shift));
            let mut out = vec![9.0; x.len()];
            forward(&x, &scale, &shift, &mut out, rows);
            assert_close("output", &out, &exact(&x64, &scale64, &shift64, rows), 1e-6, 1e-6);
            let loss = |x: &[f64], scale: &[f64], shift: &[f64]| -> f64 {
                exact(x, scale, shift, rows).iter().zip(&upstream).map(|(y, g)| y * f64::from(*g)).sum()
            };
            let (mut grad_x, mut grad_scale, mut grad_shift) = (vec![0.0; x.len()], vec![0.0; d], vec![0.0; d]);
            let grads = Gradients { x: Some(&mut grad_x), scale: Some(&mut grad_scale), shift: Some(&mut grad_shift) };
            backward(&x, &scale, &upstream, grads, rows);
            assert_close("x", &grad_x, &slopes(&x, |x| loss(x, &scale64, &shift64)), 1e-5, 1e-5);
            assert_close("scale", &grad_scale, &slopes(&scale, |scale| loss(&x64, scale, &shift64)), 1e-6, 1e-5);
            assert_close("shift", &grad_shift, &slopes(&shift, |shift| loss(&x64, &scale64, shift)), 1e-6, 1e-5);
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten};
        let device = cuda_device(crate::cuda::MODULES);
        for (d, rows) in [(0, 3), (3, 0), (1, 1), (2, 1), (5, 17), (33, 16), (131, 50), (3, 1031)] {
            let (x, upstream) = (values(1, d * rows), values(2, d * rows));
            let (scale, shift) = (values(3, d), values(4, d));
            let [x_there, g_there, scale_there, shift_there] =
                [&x, &upstream, &scale, &shift].map(|data| on_device(&device, data));
            let (mut here, mut there) = (vec![f32::NAN; x.len()], unwritten(&device, x.len()));
            forward(&x, &scale, &shift, &mut here, rows);
            cuda::forward(&x_there, &scale_there, &shift_there, &mut there, rows).expect("a launch");
            // Both count in f64 and round once; sums of f64 in another order do not show.
            assert_close("output", &from_device(&there), &wide(&here), 2e-7, 1e-7);
            let held: [Vec<f32>; 3] = [values(5, x.len()), values(6, d), values(7, d)];
            let [mut x_grad, mut scale_grad, mut shift_grad] = held.clone();
            let grads = Gradients { x: Some(&mut x_grad), scale: Some(&mut scale_grad), shift: Some(&mut shift_grad) };
            backward(&x, &scale, &upstream, grads, rows);
            let expected = [x_grad, scale_grad, shift_grad].map(|grad| wide(&grad));
            // All at once, and each alone.
            for wanted in [[true; 3], [true, false, false], [false, true, false], [false, false, true]] {
                let [mut x_grad, mut scale_grad, mut shift_grad] =
                    [0, 1, 2].map(|i: usize| on_device(&device, &held[i]));
                let grads = cuda::Gradients {
                    x: wanted[0].then_some(&mut x_grad),
                    scale: wanted[1].then_some(&mut scale_grad),
                    shift: wanted[2].then_some(&mut shift_grad),
                };
                cuda::backward(&x_there, &scale_there, &g_there, grads, rows).expect("a launch");
                for (i, grad) in [x_grad, scale_grad, shift_grad].iter().enumerate() {
                    if wanted[i] {
                        // Rounded to f32, then added to numbers up to 3 and rounded again. One feature has ∂x of nearly
                        // nothing, times 316.
                        assert_close("gradient", &from_device(grad), &expected[i], 3e-7, 3e-6);
                    } else {
                        assert_eq!(from_device(grad), held[i], "a gradient that nobody wants");
                    }
                }
            }
        }
    }
}
