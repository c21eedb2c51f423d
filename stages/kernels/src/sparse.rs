//! Sparse features from uniform draws: `x = low + (high − low) u` where another draw is below the probability, else zero.

use crate::simd::dispatch;

/// Writes the features.
///
/// # Panics
/// If the lengths differ.
pub fn features(values: &[f32], active: &[f32], probability: f32, range: (f32, f32), out: &mut [f32]) {
    assert_eq!((values.len(), active.len()), (out.len(), out.len()), "sparse features: draws");
    features_at_level(values, active, probability, range, out);
}

dispatch! {
    fn features_at_level(values: &[f32], active: &[f32], probability: f32, range: (f32, f32), out: &mut [f32])
        = features_body
}

/// Products and sums round apart at every level, so the bits are the same.
#[inline(always)]
fn features_body<const FUSED: bool>(
    values: &[f32],
    active: &[f32],
    probability: f32,
    (low, high): (f32, f32),
    out: &mut [f32],
) {
    for ((value, active), out) in values.iter().zip(active).zip(out) {
        let feature = value * (high - low) + low;
        *out = if *active < probability { feature } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_active_below_the_probability() {
        let mut out = [9.0; 4];
        features(&[0.0, 0.5, 0.5, 1.0], &[0.0, 0.29, 0.3, 0.1], 0.3, (-1.0, 3.0), &mut out);
        assert_eq!(out, [-1.0, 1.0, 0.0, 3.0]);
    }
}
