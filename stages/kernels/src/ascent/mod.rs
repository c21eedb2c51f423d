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
}
