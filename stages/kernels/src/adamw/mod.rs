//! AdamW and gradient clipping, in the order of operations of the reference (spec sections 0, 6.4 and 12.2).
//!
//! Decay first, `p ← p (1 − ηλ)`; then moments `m ← m + (1−β₁)(g − m)`, `v ← β₂v + (1−β₂)g²`; then
//! `p ← p − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)`.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::parallel;
use crate::simd::dispatch;

/// Elements of a thread's piece of work.
const PIECE: usize = 1 << 14;

/// About as many as the square root and the divisions of one element take.
const OPERATIONS_PER_ELEMENT: usize = 4;

/// The constants of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Learning rate η.
    pub learning_rate: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε, added after the square root.
    pub eps: f64,
    /// Decoupled weight decay λ.
    pub weight_decay: f64,
    /// The number of this update, from 1.
    pub step: u64,
    /// What gradients are multiplied by first (clipping).
    pub gradient_scale: f32,
}

/// The constants as the inner loop needs them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Factors {
    decay: f32,
    keep1: f32,
    beta2: f32,
    keep2: f32,
    step_size: f32,
    root: f32,
    eps: f32,
    gradient_scale: f32,
}

impl Update {
    /// Returns the constants as the inner loops need them.
    fn factors(&self) -> Factors {
        let exponent = self.step as f64;
        Factors {
            decay: (1.0 - self.learning_rate * self.weight_decay) as f32,
            keep1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            keep2: (1.0 - self.beta2) as f32,
            step_size: (self.learning_rate / (1.0 - self.beta1.powf(exponent))) as f32,
            root: (1.0 - self.beta2.powf(exponent)).sqrt() as f32,
            eps: self.eps as f32,
            gradient_scale: self.gradient_scale,
        }
    }
}

/// Updates a parameter and its moments in place.
///
/// # Panics
/// If the lengths differ.
pub fn step(parameter: &mut [f32], gradient: &[f32], mean: &mut [f32], variance: &mut [f32], update: Update) {
    assert_eq!(
        (gradient.len(), mean.len(), variance.len()),
        (parameter.len(), parameter.len(), parameter.len()),
        "adamw: gradient and moments of a parameter"
    );
    let factors = update.factors();
    let operations = parameter.len() * OPERATIONS_PER_ELEMENT;
    let pieces = parameter.chunks_mut(PIECE).zip(gradient.chunks(PIECE));
    let pieces = pieces.zip(mean.chunks_mut(PIECE)).zip(variance.chunks_mut(PIECE));
    parallel::for_each(pieces.collect(), operations, |(((parameter, gradient), mean), variance)| {
        step_at_level(parameter, gradient, mean, variance, factors);
    });
}

dispatch! {
    fn step_at_level(parameter: &mut [f32], gradient: &[f32], mean: &mut [f32], variance: &mut [f32], factors: Factors) = step_body
}

#[inline(always)]
fn step_body<const FUSED: bool>(
    parameter: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    variance: &mut [f32],
    f: Factors,
) {
    for (((p, g), m), v) in parameter.iter_mut().zip(gradient).zip(mean).zip(variance) {
        let g = g * f.gradient_scale;
        *m += f.keep1 * (g - *m);
        *v = *v * f.beta2 + f.keep2 * g * g;
        let denominator = v.sqrt() / f.root + f.eps;
        *p = *p * f.decay - f.step_size * (*m / denominator);
    }
}

/// Returns `Σ g²` in f64.
#[must_use]
pub fn squared_norm(gradient: &[f32]) -> f64 {
    gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum()
}

/// Returns the factor that brings gradients of global L2 norm `norm` down to `max_norm`: `min(1, max/(norm + 1e-6))`.
#[must_use]
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, values, wide};

    const UPDATE: Update = Update {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 1.0,
    };

    #[test]
    fn twenty_updates_match_the_formula_in_f64() {
        let n = 37;
        let mut parameter = values(1, n);
        let (mut mean, mut variance) = (vec![0.0; n], vec![0.0; n]);
        let (mut p, mut m, mut v) = (wide(&parameter), vec![0.0; n], vec![0.0; n]);
        for t in 1..=20 {
            let gradient = values(100 + t, n);
            step(&mut parameter, &gradient, &mut mean, &mut variance, Update { step: t, ..UPDATE });
            for i in 0..n {
                let g = f64::from(gradient[i]);
                p[i] *= 1.0 - 0.01 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mean, variance) = (m[i] / (1.0 - 0.9_f64.powi(t as i32)), v[i] / (1.0 - 0.999_f64.powi(t as i32)));
                p[i] -= 0.01 * mean / (variance.sqrt() + 1e-8);
            }
        }
        // Twenty updates of 0.01 each, rounded at 6e-8 relative to parameters up to 3.
        assert_close("parameter", &parameter, &p, 1e-6, 2e-6);
    }

    #[test]
    fn the_first_update_moves_by_the_learning_rate() {
        let (mut p, mut m, mut v) = ([0.0], [0.0], [0.0]);
        step(&mut p, &[123.0], &mut m, &mut v, Update { weight_decay: 0.0, ..UPDATE });
        assert!((p[0] + 0.01).abs() < 1e-8, "{}", p[0]);
    }

    #[test]
    fn clipping_only_ever_shrinks() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(10.0, 1.0) - 0.1).abs() < 1e-6);
        assert_eq!(squared_norm(&[3.0, 4.0]), 25.0);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree() {
        use crate::testing::{cuda_device, from_device, on_device};
        let device = cuda_device(crate::cuda::MODULES);
        for n in [0, 1, 37, 1024, 1999] {
            let (mut p, mut m, mut v) = (values(1, n), vec![0.0; n], vec![0.0; n]);
            let [mut p_there, mut m_there, mut v_there] = [&p, &m, &v].map(|data| on_device(&device, data));
            for step_number in 1..=5 {
                let gradient = values(100 + step_number, n);
                let update = Update { step: step_number, gradient_scale: 0.3, ..UPDATE };
                step(&mut p, &gradient, &mut m, &mut v, update);
                let gradient_there = on_device(&device, &gradient);
                cuda::step(&mut p_there, &gradient_there, &mut m_there, &mut v_there, update).expect("a launch");
                let (norm, expected) =
                    (cuda::squared_norm(&gradient_there).expect("a launch"), squared_norm(&gradient));
                assert!((norm - expected).abs() <= 1e-13 * expected, "{norm} {expected}");
            }
            // Five roundings of 6e-8 relative; moments that cancel have terms up to 0.1. A mean that is nearly zero moves the
            // parameter by its error over √v, far below 1e-6.
            assert_close("mean", &from_device(&m_there), &wide(&m), 1e-6, 1e-7);
            assert_close("variance", &from_device(&v_there), &wide(&v), 1e-6, 0.0);
            assert_close("parameter", &from_device(&p_there), &wide(&p), 1e-6, 1e-6);
        }
    }
}
