//! Sixteen numbers at a time, in the registers of each instruction set.
//!
//! For kernels whose loops a compiler does not turn into the instructions meant: the body is written once, generic over
//! [`Vector`], and `vectorise!` compiles it for every level. Each operation works lane by lane and rounds as its scalar
//! form does (`multiply_add` as [`crate::simd::multiply_add`]), so a body has the bits of the same loops over plain
//! numbers.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

#[cfg(target_arch = "x86_64")]
use crate::exponential::{LEAST, LN2_HIGH, LN2_LOW, ROUND, TAYLOR_F32};
use crate::lanes::LANES;

/// Sixteen numbers.
///
/// Methods are compiled into the function that `vectorise!` makes for a level, and must not be called elsewhere.
pub(crate) trait Vector: Copy {
    /// Whether sixteen sums and their operands fit into the registers; else eight registers' worth should do.
    const HAS_MANY_REGISTERS: bool;

    fn splat(number: f32) -> Self;
    fn load(lanes: &[f32; LANES]) -> Self;
    fn store(self, lanes: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn subtract(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn divide(self, other: Self) -> Self;
    /// `self · factor + sum`.
    fn multiply_add(self, factor: Self, sum: Self) -> Self;
    /// `self` where it is greater, else `other`, even if one is not a number.
    fn maximum(self, other: Self) -> Self;
    /// `number` in the lanes before `first`, `self` in the others.
    fn replace_before(self, first: usize, number: f32) -> Self;
    /// `eˣ` for lanes that are not positive: [`crate::exponential::exp`].
    fn exp(self) -> Self;
}

/// What [`Vector::exp`] puts together where integers are added to exponents.
#[cfg(target_arch = "x86_64")]
struct ExpParts<V> {
    /// The argument, no less than the least.
    x: V,
    /// The power of two, in the low bits.
    rounded: V,
    /// The exponential of what is left.
    sum: V,
}

#[cfg(target_arch = "x86_64")]
impl<V: Vector> ExpParts<V> {
    #[inline(always)]
    fn of(x: V) -> Self {
        let x = V::splat(LEAST).maximum(x);
        let rounded = x.multiply_add(V::splat(std::f32::consts::LOG2_E), V::splat(ROUND));
        let n = rounded.subtract(V::splat(ROUND));
        let r = n.multiply_add(V::splat(-LN2_LOW), n.multiply_add(V::splat(-LN2_HIGH), x));
        let mut sum = V::splat(TAYLOR_F32[0]);
        for coefficient in &TAYLOR_F32[1..] {
            sum = sum.multiply_add(r, V::splat(*coefficient));
        }
        Self { x, rounded, sum }
    }
}

/// Numbers without registers of their own.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        let mut lanes = [0.0; LANES];
        for (lane, result) in lanes.iter_mut().enumerate() {
            *result = operation(self.0[lane], other.0[lane]);
        }
        Self(lanes)
    }
}

impl Vector for Plain {
    const HAS_MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(number: f32) -> Self {
        Self([number; LANES])
    }

    #[inline(always)]
    fn load(lanes: &[f32; LANES]) -> Self {
        Self(*lanes)
    }

    #[inline(always)]
    fn store(self, lanes: &mut [f32; LANES]) {
        *lanes = self.0;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, sum: Self) -> Self {
        self.multiply(factor).add(sum)
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn replace_before(mut self, first: usize, number: f32) -> Self {
        for lane in 0..first {
            self.0[lane] = number;
        }
        self
    }

    #[inline(always)]
    fn exp(self) -> Self {
        self.zip(self, |x, _| crate::exponential::exp::<false>(x))
    }
}

/// Defines a function that runs `$body` with the [`Vector`] of this processor's best level.
macro_rules! vectorise {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
                fn avx512($($argument: $type),*) { $body::<crate::vector::avx512::Avx512>($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) { $body::<crate::vector::avx2::Avx2>($($argument),*) }
                match crate::simd::level() {
                    // SAFETY: `level` returns a level only if this processor has all of its features.
                    crate::simd::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    crate::simd::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    crate::simd::Level::Baseline => {}
                }
            }
            $body::<crate::vector::Plain>($($argument),*)
        }
    };
}
pub(crate) use vectorise;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exponential::exp;
    use crate::simd::{Level, level, multiply_add};
    use crate::testing::values;

    const OPERATIONS: usize = 9;

    vectorise! {
        fn all(inputs: &[[f32; LANES]; 3], out: &mut [[f32; LANES]; OPERATIONS]) = all_body
    }

    #[inline(always)]
    fn all_body<V: Vector>(inputs: &[[f32; LANES]; 3], out: &mut [[f32; LANES]; OPERATIONS]) {
        let [a, b, c] = [V::load(&inputs[0]), V::load(&inputs[1]), V::load(&inputs[2])];
        a.add(b).store(&mut out[0]);
        a.subtract(b).store(&mut out[1]);
        a.multiply(b).store(&mut out[2]);
        a.divide(b).store(&mut out[3]);
        a.multiply_add(b, c).store(&mut out[4]);
        a.maximum(b).store(&mut out[5]);
        a.exp().store(&mut out[6]);
        a.replace_before(LANES - 3, 7.0).store(&mut out[7]);
        a.replace_before(0, 7.0).add(V::splat(0.5)).store(&mut out[8]);
    }

    #[test]
    fn every_operation_has_the_bits_of_its_scalar_form() {
        let is_fused = level() != Level::Baseline;
        let [fused, exponential]: [fn(f32, f32, f32) -> f32; 2] = if is_fused {
            [multiply_add::<true>, |x, _, _| exp::<true>(x)]
        } else {
            [multiply_add::<false>, |x, _, _| exp::<false>(x)]
        };
        let mut inputs = [1, 2, 3].map(|seed| {
            let mut lanes = [0.0; LANES];
            lanes.copy_from_slice(&values(seed, LANES));
            lanes
        });
        for x in &mut inputs[0] {
            *x = -x.abs();
        }
        inputs[0][..5].copy_from_slice(&[f32::NAN, f32::NEG_INFINITY, -87.0, -87.5, -0.0]);
        inputs[1][..7].copy_from_slice(&[1.0, 2.0, f32::NAN, 0.0, 0.0, f32::INFINITY, f32::NAN]);
        let mut out = [[0.0; LANES]; OPERATIONS];
        all(&inputs, &mut out);
        for lane in 0..LANES {
            let [a, b, c] = inputs.map(|lanes| lanes[lane]);
            let expected = [
                a + b,
                a - b,
                a * b,
                a / b,
                fused(a, b, c),
                if a > b { a } else { b },
                exponential(a, b, c),
                if lane < LANES - 3 { 7.0 } else { a },
                a + 0.5,
            ];
            for (operation, expected) in expected.into_iter().enumerate() {
                let found = out[operation][lane];
                let is_same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(is_same, "operation {operation} of {a}, {b}, {c}: {found}, expected {expected}");
            }
        }
    }
}
