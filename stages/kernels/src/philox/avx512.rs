//! Sixteen blocks at a time.
//!
//! Words live in the low halves of 64-bit lanes, where the product of two leaves its high and its low word; what
//! stands above them is never read. So a round is two products, two shifts and two exclusive ors for eight blocks.

use std::arch::x86_64::{
    __m512i, _mm512_castsi512_si256, _mm512_cvtepi32_ps, _mm512_cvtepu32_epi64, _mm512_extracti64x4_epi64,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi32, _mm512_mul_epu32, _mm512_mul_ps, _mm512_permutex2var_epi32,
    _mm512_set1_epi64, _mm512_set1_ps, _mm512_setr_epi32, _mm512_srli_epi32, _mm512_srli_epi64,
    _mm512_ternarylogic_epi64,
};

use super::{MULTIPLIERS, ROUNDS, WEYL};
use crate::lanes::LANES;

/// Returns `word` in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn all(word: u32) -> __m512i {
    _mm512_set1_epi64(i64::from(word))
}

/// Makes eight blocks; the low half of every lane counts.
#[inline]
#[target_feature(enable = "avx512f")]
fn eight_blocks(rows: __m512i, group: u32, step: u32, keys: &[[u32; 2]; ROUNDS]) -> [__m512i; 4] {
    const XOR_OF_THREE: i32 = 0x96;
    let [m0, m1] = MULTIPLIERS.map(|multiplier| all(multiplier));
    let (mut c0, mut c1, mut c2, mut c3) = (rows, all(group), all(step), all(0));
    for [k0, k1] in keys {
        let (p0, p1) = (_mm512_mul_epu32(c0, m0), _mm512_mul_epu32(c2, m1));
        c0 = _mm512_ternarylogic_epi64::<XOR_OF_THREE>(_mm512_srli_epi64::<32>(p1), c1, all(*k0));
        c2 = _mm512_ternarylogic_epi64::<XOR_OF_THREE>(_mm512_srli_epi64::<32>(p0), c3, all(*k1));
        (c1, c3) = (p1, p0);
    }
    [c0, c1, c2, c3]
}

/// As `general_fill_group`, for whole groups of four features: `out` is `[4, rows.len()]`.
#[target_feature(enable = "avx512f")]
pub(super) fn fill_group(key: [u32; 2], step: u32, group: u32, rows: &[u32], out: &mut [f32]) {
    let width = rows.len();
    assert_eq!(out.len(), 4 * width, "four features of uniform draws");
    let mut keys = [key; ROUNDS];
    for round in 1..ROUNDS {
        keys[round] = [0, 1].map(|i| keys[round - 1][i].wrapping_add(WEYL[i]));
    }
    let low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for start in (0..width).step_by(LANES) {
        let mask = if width - start >= LANES { u16::MAX } else { (1 << (width - start)) - 1 };
        // SAFETY: only lanes within `rows` are read: the mask has a bit for each that is left.
        let numbers = unsafe { _mm512_maskz_loadu_epi32(mask, rows.as_ptr().add(start).cast()) };
        let first = eight_blocks(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(numbers)), group, step, &keys);
        let second = eight_blocks(_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(numbers)), group, step, &keys);
        for (feature, (first, second)) in first.into_iter().zip(second).enumerate() {
            let words = _mm512_permutex2var_epi32(first, low_halves, second);
            let units =
                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32::<8>(words)), _mm512_set1_ps(1.0 / 16_777_216.0));
            // SAFETY: as for the load: row `feature` of `out` has `width` elements, and the mask ends with them.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().add(feature * width + start), mask, units) };
        }
    }
}
