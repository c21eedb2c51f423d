//! Sixteen numbers in one register, with AVX-512.

use std::arch::x86_64::{
    __m512, _CMP_UNORD_Q, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_max_ps,
    _mm512_mul_ps, _mm512_set1_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{ExpParts, Vector};
use crate::lanes::LANES;

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY of every block below: `vectorise!` calls these where the processor has AVX-512, and a register holds as
// many numbers as the arrays.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, just above")]
impl Vector for Avx512 {
    const HAS_MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(number: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(number)) }
    }

    #[inline(always)]
    fn load(lanes: &[f32; LANES]) -> Self {
        unsafe { Self(_mm512_loadu_ps(lanes.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        unsafe { Self(_mm512_div_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, sum: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, sum.0)) }
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn replace_before(self, first: usize, number: f32) -> Self {
        let mask = ((1_u32 << first) - 1) as u16;
        unsafe { Self(_mm512_mask_blend_ps(mask, self.0, _mm512_set1_ps(number))) }
    }

    #[inline(always)]
    fn exp(self) -> Self {
        let ExpParts { x, rounded, sum } = ExpParts::of(self);
        unsafe {
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded.0));
            let y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum.0), power));
            Self(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x.0, x.0), y, x.0))
        }
    }
}
