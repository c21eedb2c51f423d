//! Sixteen numbers in two registers of eight, with AVX2.

use std::arch::x86_64::{
    __m256, _CMP_UNORD_Q, _mm256_add_epi32, _mm256_add_ps, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cmp_ps, _mm256_cmpgt_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{ExpParts, Vector};
use crate::lanes::LANES;

const HALF: usize = LANES / 2;

#[derive(Clone, Copy)]
pub(crate) struct Avx2([__m256; 2]);

impl Avx2 {
    #[inline(always)]
    fn zip(self, other: Self, operation: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self([operation(self.0[0], other.0[0]), operation(self.0[1], other.0[1])])
    }
}

// SAFETY of every block below: `vectorise!` calls these where the processor has AVX2 and FMA, and eight numbers of
// an array of sixteen are where they are read or written.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, just above")]
impl Vector for Avx2 {
    const HAS_MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(number: f32) -> Self {
        unsafe { Self([_mm256_set1_ps(number); 2]) }
    }

    #[inline(always)]
    fn load(lanes: &[f32; LANES]) -> Self {
        let start = lanes.as_ptr();
        unsafe { Self([_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(HALF))]) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut [f32; LANES]) {
        let start = lanes.as_mut_ptr();
        unsafe {
            _mm256_storeu_ps(start, self.0[0]);
            _mm256_storeu_ps(start.add(HALF), self.0[1]);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_div_ps(a, b) })
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, sum: Self) -> Self {
        let half = |i: usize| unsafe { _mm256_fmadd_ps(self.0[i], factor.0[i], sum.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }

    #[inline(always)]
    fn replace_before(self, first: usize, number: f32) -> Self {
        let half = |i: usize| unsafe {
            let first = _mm256_set1_epi32(first as i32 - (i * HALF) as i32);
            let is_before = _mm256_cmpgt_epi32(first, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            _mm256_blendv_ps(self.0[i], _mm256_set1_ps(number), _mm256_castsi256_ps(is_before))
        };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    fn exp(self) -> Self {
        let ExpParts { x, rounded, sum } = ExpParts::of(self);
        let half = |i: usize| unsafe {
            let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded.0[i]));
            let y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum.0[i]), power));
            _mm256_blendv_ps(y, x.0[i], _mm256_cmp_ps::<_CMP_UNORD_Q>(x.0[i], x.0[i]))
        };
        Self([half(0), half(1)])
    }
}
