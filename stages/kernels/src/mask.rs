//! Masks from causal importances: `m = g + (1 − g) r` (spec section 4).
//!
//! `g` is the lower-leaky causal importance, `r` the source: a uniform or 0/1 draw, or an adversary's choice.

/// Writes `g + (1 − g) r`.
///
/// # Panics
/// If the lengths differ.
pub fn interpolate_forward(importance: &[f32], source: &[f32], out: &mut [f32]) {
    assert_eq!((importance.len(), source.len()), (out.len(), out.len()), "mask: lengths");
    for ((g, r), out) in importance.iter().zip(source).zip(out) {
        *out = g + (1.0 - g) * r;
    }
}

/// Adds `(1 − r) ∂m` to the importance's gradient and `(1 − g) ∂m` to the source's.
///
/// # Panics
/// If the lengths differ.
pub fn interpolate_backward(
    importance: &[f32],
    source: &[f32],
    grad_out: &[f32],
    grad_importance: Option<&mut [f32]>,
    grad_source: Option<&mut [f32]>,
) {
    assert_eq!((importance.len(), source.len()), (grad_out.len(), grad_out.len()), "mask: lengths");
    if let Some(grad) = grad_importance {
        assert_eq!(grad.len(), source.len(), "mask: length of the importance's gradient");
        for ((r, upstream), grad) in source.iter().zip(grad_out).zip(grad) {
            *grad += (1.0 - r) * upstream;
        }
    }
    if let Some(grad) = grad_source {
        assert_eq!(grad.len(), importance.len(), "mask: length of the source's gradient");
        for ((g, upstream), grad) in importance.iter().zip(grad_out).zip(grad) {
            *grad += (1.0 - g) * upstream;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, slopes, values, wide};

    #[test]
    fn interpolation_matches_finite_differences() {
        let (g, r, k) = (values(1, 35), values(2, 35), values(3, 35));
        let mut m = vec![0.0; 35];
        interpolate_forward(&g, &r, &mut m);
        let exact = |g: &[f64], r: &[f64]| -> Vec<f64> { g.iter().zip(r).map(|(g, r)| g + (1.0 - g) * r).collect() };
        assert_close("mask", &m, &exact(&wide(&g), &wide(&r)), 1e-6, 1e-6);
        let (mut dg, mut dr) = (vec![0.0; 35], vec![0.0; 35]);
        interpolate_backward(&g, &r, &k, Some(&mut dg), Some(&mut dr));
        let weigh = |m: Vec<f64>| m.iter().zip(&k).map(|(m, k)| m * f64::from(*k)).sum::<f64>();
        assert_close("∂g", &dg, &slopes(&g, |g| weigh(exact(g, &wide(&r)))), 1e-6, 1e-6);
        assert_close("∂r", &dr, &slopes(&r, |r| weigh(exact(&wide(&g), r))), 1e-6, 1e-6);
    }

    #[test]
    fn importance_one_ignores_the_source_and_importance_zero_is_the_source() {
        let mut m = [0.0; 2];
        interpolate_forward(&[1.0, 0.0], &[0.3, 0.3], &mut m);
        assert_eq!(m, [1.0, 0.3]);
    }
}
