//! The sum of squared differences, `Σ (prediction − target)²`, accumulated in f64 (spec section 5.0, mse).

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::Store;

/// Returns the sum.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn forward(prediction: &[f32], target: &[f32]) -> f64 {
    const LANES: usize = 16;
    assert_eq!(prediction.len(), target.len(), "squared error: lengths");
    let mut lanes = [0.0_f64; LANES];
    let (p, t) = (prediction.chunks_exact(LANES), target.chunks_exact(LANES));
    let tail = p.remainder().iter().zip(t.remainder());
    for (lane, (p, t)) in tail.enumerate() {
        let difference = f64::from(p - t);
        lanes[lane] += difference * difference;
    }
    for (p, t) in p.zip(t) {
        for lane in 0..LANES {
            let difference = f64::from(p[lane] - t[lane]);
            lanes[lane] += difference * difference;
        }
    }
    lanes.iter().sum()
}

/// Stores `2 g (prediction − target)` as the prediction's gradient.
///
/// # Panics
/// If the lengths differ.
pub fn backward(prediction: &[f32], target: &[f32], grad_out: f32, grad_prediction: &mut [f32], store: Store) {
    assert_eq!(
        (prediction.len(), target.len()),
        (grad_prediction.len(), grad_prediction.len()),
        "squared error: lengths"
    );
    for ((p, t), grad) in prediction.iter().zip(target).zip(grad_prediction) {
        *grad = store.merge(*grad, 2.0 * grad_out * (p - t));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, slopes, values};

    #[test]
    fn the_sum_and_its_gradient_are_exact() {
        // Spec appendix A.4: (1)² + 0 + (1)² + (1)² + 0 + (1)² = 4.
        assert_eq!(forward(&[0.0, 1.0, 2.0, 1.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 2.0, 0.0, 1.0]), 4.0);
        for n in [0, 1, 16, 17, 50] {
            let (p, t) = (values(1, n), values(2, n));
            let mut grad = vec![f32::NAN; n];
            backward(&p, &t, 0.5, &mut grad, Store::Write);
            let exact = |p: &[f64]| 0.5 * p.iter().zip(&t).map(|(p, t)| (p - f64::from(*t)).powi(2)).sum::<f64>();
            assert_close("gradient", &grad, &slopes(&p, exact), 1e-6, 1e-6);
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten, wide};
        let device = cuda_device(crate::cuda::MODULES);
        for n in [0, 1, 7, 256, 1021, 4099] {
            let [p, t, held] = [1, 2, 3].map(|seed| values(seed, n));
            let [p_there, t_there, g] = [&p[..], &t, &[0.37]].map(|data| on_device(&device, data));
            let mut out = unwritten(&device, 1);
            cuda::forward(&p_there, &t_there, &mut out).expect("a launch");
            // Both add the same squares in f64; rounded once.
            assert_close("sum", &from_device(&out), &[forward(&p, &t)], 1e-7, 0.0);
            for (store, mut there, mut here) in [
                (Store::Write, unwritten(&device, n), vec![f32::NAN; n]),
                (Store::Add, on_device(&device, &held), held.clone()),
            ] {
                cuda::backward(&p_there, &t_there, &g, &mut there, store).expect("a launch");
                backward(&p, &t, 0.37, &mut here, store);
                // Products up to 5 may be rounded before they are added, or not.
                assert_close("gradient", &from_device(&there), &wide(&here), 2e-7, 6e-7);
            }
        }
    }
}
