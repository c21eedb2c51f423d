//! `eˣ` for arguments that are not positive, as softmax needs it, in plain arithmetic so that loops over it vectorise.
//!
//! `eˣ = 2ⁿ eʳ` with n the nearest integer to x/ln 2 and |r| ≤ 0.3466; eʳ is its Taylor polynomial, of degree 7 in f32
//! (remainder 5·10⁻⁹) and of degree 11 in f64 (6·10⁻¹⁵). Below −87 (f32) and −700 (f64) the result stays at the smallest
//! value there: nobody can tell such a probability from zero.

use crate::simd::multiply_add;

/// `1/k!` for k = 7, 6, …, 0.
pub(crate) const TAYLOR_F32: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts; the first has few bits, so that n times it is exact.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// What is left of ln 2.
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;

/// Below this the exponential is that of this.
pub(crate) const LEAST: f32 = -87.0;

/// `1/k!` for k = 11, 10, …, 0.
const TAYLOR_F64: [f64; 12] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// Returns `eˣ` for x ≤ 0 with a relative error of 2·10⁻⁷. [`crate::vector::Vector::exp`] is the same in registers.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    let x = if x < LEAST { LEAST } else { x };
    let rounded = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = multiply_add::<FUSED>(n, -LN2_LOW, multiply_add::<FUSED>(n, -LN2_HIGH, x));
    let mut sum = TAYLOR_F32[0];
    for coefficient in &TAYLOR_F32[1..] {
        sum = multiply_add::<FUSED>(sum, r, *coefficient);
    }
    let y = f32::from_bits(sum.to_bits().wrapping_add(rounded.to_bits() << 23));
    if x.is_nan() { x } else { y }
}

/// Returns `eˣ` for x ≤ 0 with a relative error of 10⁻¹⁴. Multiplies and adds round separately at every level.
#[inline(always)]
pub(crate) fn exp_wide(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let x = if x < -700.0 { -700.0 } else { x };
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = TAYLOR_F64[0];
    for coefficient in &TAYLOR_F64[1..] {
        sum = sum * r + coefficient;
    }
    let y = f64::from_bits(sum.to_bits().wrapping_add(rounded.to_bits() << 52));
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_exponentials_are_as_exact_as_they_claim() {
        for i in 0..=870_000 {
            let x = -f64::from(i) * 1e-4;
            let narrow = x as f32;
            let exact = f64::from(narrow).exp();
            for y in [exp::<true>(narrow), exp::<false>(narrow)] {
                assert!((f64::from(y) - exact).abs() <= 2e-7 * exact, "exp({narrow}) = {y}, exactly {exact}");
            }
            let exact = x.exp();
            assert!((exp_wide(x) - exact).abs() <= 1e-14 * exact, "exp({x}) = {}, exactly {exact}", exp_wide(x));
        }
        assert_eq!((exp::<true>(0.0), exp_wide(0.0)), (1.0, 1.0));
        assert!(exp::<true>(f32::NAN).is_nan() && exp_wide(f64::NAN).is_nan());
        assert!(exp::<true>(-1e30) < 1e-37 && exp_wide(-1e300) < 1e-300);
    }
}
