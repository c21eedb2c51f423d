//! An adversary's step on the sources of its masks (spec section 5.4): `s ← clamp(s + step · sign(g), 0, 1)`.

#[cfg(feature = "cuda")]
pub mod cuda;

/// Writes the sources after a step along the signs of their gradient.
///
/// The sign of 0 is 0: where the loss does not depend on a source, the source stays.
///
/// # Panics
/// If the lengths differ.
pub fn ascend(sources: &[f32], gradient: &[f32], step: f32, out: &mut [f32]) {
    assert_eq!((sources.len(), sources.len()), (gradient.len(), out.len()), "ascent: sources and their gradient");
    for ((source, slope), out) in sources.iter().zip(gradient).zip(out) {
        let direction = f32::from(i8::from(*slope > 0.0) - i8::from(*slope < 0.0));
        *out = (source + step * direction).clamp(0.0, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_move_by_a_step_and_stay_between_zero_and_one() {
        let mut out = [9.0; 5];
        ascend(&[0.5, 0.5, 0.5, 0.9, 0.1], &[3.0, -1e-20, 0.0, 1.0, -1.0], 0.25, &mut out);
        assert_eq!(out, [0.75, 0.25, 0.5, 1.0, 0.0]);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree_to_the_last_bit() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten, values};
        let device = cuda_device(crate::cuda::MODULES);
        for n in [0, 1, 37, 1024, 1999] {
            let mut sources: Vec<f32> = values(1, n).iter().map(|x| x.abs() / 3.0).collect();
            sources.iter_mut().skip(3).take(1).for_each(|x| *x = f32::NAN);
            let gradient = values(2, n);
            let (mut here, mut there) = (vec![9.0; n], unwritten(&device, n));
            ascend(&sources, &gradient, 0.1, &mut here);
            let (sources, gradient) = (on_device(&device, &sources), on_device(&device, &gradient));
            cuda::ascend(&sources, &gradient, 0.1, &mut there).expect("a launch");
            let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
            assert!(here.iter().zip(&from_device(&there)).all(same));
        }
    }
}
