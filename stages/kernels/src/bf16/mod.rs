//! Rounding to bfloat16: the upper half of an f32, eight bits of significand.

#[cfg(feature = "cuda")]
pub mod cuda;

/// Returns the bfloat16 number closest to `x`, as an f32; of two equally close ones that with an even last bit.
///
/// Numbers from 2¹²⁸ − 2¹¹⁹ on become infinite, NaN stays NaN.
#[must_use]
pub fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Adding to the bits below could carry a NaN over into the sign.
        return f32::from_bits((bits | 0x0040_0000) & 0xffff_0000);
    }
    // Just under half a unit, and exactly half where the last bit that stays is odd; a carry moves to the next binade.
    let half = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(bits.wrapping_add(half) & 0xffff_0000)
}

/// Writes every number rounded.
///
/// # Panics
/// If the lengths differ.
pub fn forward(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "bf16: lengths of input and output");
    for (x, out) in x.iter().zip(out) {
        *out = round(*x);
    }
}

/// Adds `grad_out` rounded: the gradient goes straight through, as a bfloat16 number.
///
/// # Panics
/// If the lengths differ.
pub fn backward(grad_out: &[f32], grad_x: &mut [f32]) {
    assert_eq!(grad_out.len(), grad_x.len(), "bf16: lengths of gradients");
    for (grad_out, grad_x) in grad_out.iter().zip(grad_x) {
        *grad_x += round(*grad_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_even_neighbour_and_all_else_to_the_nearer() {
        // One unit at 1 is 2^-7.
        let unit = 2.0_f32.powi(-7);
        let cases = [
            (1.0 + unit / 2.0, 1.0),
            (1.0 + 1.5 * unit, 1.0 + 2.0 * unit),
            (1.0 + unit / 2.0 + f32::EPSILON, 1.0 + unit),
            (1.0 + 1.5 * unit - f32::EPSILON, 1.0 + unit),
            (2.0 - f32::EPSILON, 2.0),
            (f32::MAX, f32::INFINITY),
            (3.389_531_4e38, 3.389_531_4e38), // (2 - 2^-7) 2^127, the largest bfloat16 number
            (0.0, 0.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::from_bits(1), 0.0),
            (f32::from_bits(0x0000_8001), f32::from_bits(0x0001_0000)),
        ];
        for (x, expected) in cases {
            assert_eq!(round(x).to_bits(), expected.to_bits(), "{x:e}");
            assert_eq!(round(-x).to_bits(), (-expected).to_bits(), "-{x:e}");
        }
        assert!(round(f32::NAN).is_nan() && round(f32::from_bits(0x7f80_0001)).is_nan());
        assert!(round(f32::from_bits(0xffff_ffff)).is_nan());
    }

    #[test]
    fn rounding_twice_changes_nothing_and_the_error_is_at_most_half_a_unit() {
        // Every pattern of the upper half with some lower halves: the closest of the two neighbours by exact arithmetic.
        for upper in (0..=u16::MAX).step_by(7) {
            for lower in [0_u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(upper) << 16 | lower);
                let rounded = round(x);
                if x.is_nan() {
                    assert!(rounded.is_nan());
                    continue;
                }
                assert_eq!(round(rounded).to_bits(), rounded.to_bits());
                let down = f32::from_bits(u32::from(upper) << 16);
                let up = f32::from_bits((u32::from(upper) << 16).wrapping_add(0x1_0000));
                if up.is_finite() && down.is_finite() {
                    let distance = |y: f32| (f64::from(x) - f64::from(y)).abs();
                    let nearest = distance(down).min(distance(up));
                    assert_eq!(distance(rounded), nearest, "{x:e} to {rounded:e}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_added_rounded() {
        let mut gradient = [1.0_f32, 0.0];
        backward(&[1.0 + 2.0_f32.powi(-9), -3.0], &mut gradient);
        assert_eq!(gradient, [2.0, -3.0]);
    }
}
