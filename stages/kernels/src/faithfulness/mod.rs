//! How far the components' sum is from the weights: `Σ (W − (VU)ᵀ)²` (spec section 5.1).
//!
//! `W [d_out, d_in]`, `V [d_in, C]`, `U [C, d_out]`. The weight difference is what the delta component carries.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::transpose::transposed;
use crate::{Store, linear, squared_error};

/// A site's matrices.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The target's weight, `[d_out, d_in]`.
    pub w: &'a [f32],
    /// The components' input directions, `[d_in, C]`.
    pub v: &'a [f32],
    /// The components' output directions, `[C, d_out]`.
    pub u: &'a [f32],
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
}

impl Site<'_> {
    fn components(&self) -> usize {
        let components = self.v.len().checked_div(self.d_in).unwrap_or(0);
        assert_eq!(
            (self.w.len(), self.v.len(), self.u.len()),
            (self.d_in * self.d_out, self.d_in * components, components * self.d_out),
            "faithfulness: W [{}, {}]",
            self.d_out,
            self.d_in
        );
        components
    }

    /// Returns `W − (VU)ᵀ`, `[d_out, d_in]`.
    ///
    /// # Panics
    /// If the matrices do not fit each other.
    #[must_use]
    pub fn weight_delta(&self) -> Vec<f32> {
        let components = self.components();
        let v_transposed = transposed(self.v, self.d_in, components);
        let mut product = vec![0.0; self.w.len()];
        let shape = [self.d_out, components, self.d_in];
        linear::apply_transposed(self.u, &v_transposed, &mut product, shape, Store::Write);
        self.w.iter().zip(&product).map(|(w, product)| w - product).collect()
    }
}

/// Returns the sum of squared differences.
#[must_use]
pub fn forward(site: Site<'_>) -> f64 {
    let delta = site.weight_delta();
    squared_error::forward(&delta, &vec![0.0; delta.len()])
}

/// Adds the gradients of V and U for the upstream gradient `grad_out`.
///
/// `∂V = −2g Δᵀ Uᵀ`, `∂U = −2g Vᵀ Δᵀ`.
///
/// # Panics
/// If the gradients do not have the shapes of V and U.
pub fn backward(site: Site<'_>, grad_out: f32, grad_v: &mut [f32], grad_u: &mut [f32]) {
    let components = site.components();
    assert_eq!((grad_v.len(), grad_u.len()), (site.v.len(), site.u.len()), "faithfulness: gradients");
    let upstream: Vec<f32> = site.weight_delta().iter().map(|delta| -2.0 * grad_out * delta).collect();
    let v_transposed = transposed(site.v, site.d_in, components);
    let shape = [components, site.d_out, site.d_in];
    linear::outer(&v_transposed, &upstream, grad_u, shape, Store::Add);
    let mut grad_v_transposed = vec![0.0; site.v.len()];
    linear::apply(site.u, &upstream, &mut grad_v_transposed, shape, Store::Write);
    for (grad, term) in grad_v.iter_mut().zip(transposed(&grad_v_transposed, components, site.d_in)) {
        *grad += term;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, slopes, values};

    #[test]
    fn the_known_deltas_give_the_known_sum() {
        // Spec appendix A.4: 1 + 4 + 0 + 1 = 6 for the first module, with V U = 0.
        let site = Site { w: &[1.0, 2.0, 0.0, 1.0], v: &[0.0; 2], u: &[0.0; 2], d_in: 2, d_out: 2 };
        assert_eq!(forward(site), 6.0);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (d_in, d_out, components) in [(1, 1, 1), (5, 2, 20), (2, 5, 7), (40, 30, 11)] {
            let (w, v, u) = (values(1, d_in * d_out), values(2, d_in * components), values(3, components * d_out));
            let exact = |v: &[f64], u: &[f64]| -> f64 {
                let mut sum = 0.0;
                for o in 0..d_out {
                    for i in 0..d_in {
                        let product: f64 = (0..components).map(|c| v[i * components + c] * u[c * d_out + o]).sum();
                        sum += (f64::from(w[o * d_in + i]) - product).powi(2);
                    }
                }
                0.25 * sum
            };
            let site = Site { w: &w, v: &v, u: &u, d_in, d_out };
            let (mut grad_v, mut grad_u) = (vec![0.0; v.len()], vec![0.0; u.len()]);
            backward(site, 0.25, &mut grad_v, &mut grad_u);
            let wide = crate::testing::wide;
            // Sums of up to 40 products of C·4 terms; f32 rounding of the terms that cancel.
            let bound = 2e-5 * components as f64;
            assert_close("∂V", &grad_v, &slopes(&v, |v| exact(v, &wide(&u))), 1e-5, bound);
            assert_close("∂U", &grad_u, &slopes(&u, |u| exact(&wide(&v), u)), 1e-5, bound);
            assert!((0.25 * forward(site) - exact(&wide(&v), &wide(&u))).abs() < 1e-5 * exact(&wide(&v), &wide(&u)));
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten, wide};
        let device = cuda_device(crate::cuda::MODULES);
        for (d_in, d_out, components) in
            [(1, 1, 1), (3, 2, 0), (0, 2, 0), (5, 2, 20), (2, 5, 7), (67, 30, 11), (40, 65, 530)]
        {
            let (w, v, u) = (values(1, d_in * d_out), values(2, d_in * components), values(3, components * d_out));
            let site = Site { w: &w, v: &v, u: &u, d_in, d_out };
            let [w_there, v_there, u_there, g] = [&w[..], &v, &u, &[0.25]].map(|data| on_device(&device, data));
            let there = cuda::Site { w: &w_there, v: &v_there, u: &u_there, d_in, d_out };
            let (mut delta, mut out) = (unwritten(&device, w.len()), unwritten(&device, 1));
            there.weight_delta(&mut delta).expect("a launch");
            cuda::forward(there, &mut out).expect("a launch");
            // Sums of C products up to 9 in f32, in two orders: 9 · 6e-8 · C at the very most.
            let bound = 6e-7 * components as f64;
            assert_close("delta", &from_device(&delta), &wide(&site.weight_delta()), 1e-6, bound);
            assert_close("sum", &from_device(&out), &[forward(site)], 1e-5, 0.0);
            let (held_v, held_u) = (values(4, v.len()), values(5, u.len()));
            let (mut grad_v, mut grad_u) = (held_v.clone(), held_u.clone());
            backward(site, 0.25, &mut grad_v, &mut grad_u);
            let (mut v_grad, mut u_grad) = (on_device(&device, &held_v), on_device(&device, &held_u));
            cuda::backward(there, &g, &mut v_grad, &mut u_grad).expect("a launch");
            // Up to 67 products of a weight up to 3 and a delta with the error above; half of each goes into the gradient.
            let bound = 100.0 * bound + 1e-5;
            assert_close("∂V", &from_device(&v_grad), &wide(&grad_v), 1e-5, bound);
            assert_close("∂U", &from_device(&u_grad), &wide(&grad_u), 1e-5, bound);
        }
    }
}
