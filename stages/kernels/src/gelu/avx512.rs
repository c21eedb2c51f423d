//! The GELU of sixteen numbers at a time, from a table that stays in registers.
//!
//! One permutation picks the right one of 32 coefficients for each lane, so a polynomial of degree four replaces the
//! exponential and the division of the general formula: half of the instructions.

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_abs_ps, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    _mm512_ternarylogic_epi32,
};

use super::table::{CENTRAL, END, PIECES_PER_UNIT};
use crate::Store;
use crate::lanes::LANES;

/// Returns the lanes as a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(lanes: &[f32; LANES]) -> __m512 {
    // SAFETY: the reference is to sixteen floats, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

/// Writes a register to the lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(lanes: &mut [f32; LANES], register: __m512) {
    // SAFETY: as for `load`, and the reference is exclusive.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), register) }
}

/// The table of `Φ(t) − 1/2` in ten registers.
#[derive(Clone, Copy)]
pub(crate) struct Gelu([[__m512; 2]; 5]);

impl Gelu {
    /// Loads the table.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn new() -> Self {
        let mut registers = [[_mm512_set1_ps(0.0); 2]; 5];
        for (registers, coefficients) in registers.iter_mut().zip(&CENTRAL.0) {
            let (halves, _) = coefficients.as_chunks::<LANES>();
            *registers = [load(&halves[0]), load(&halves[1])];
        }
        Self(registers)
    }

    /// Returns `|x|`, the same in units of a piece but at most the end of the table, the place `u` in its piece, and the
    /// piece's coefficients.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn place(&self, x: __m512) -> (__m512, __m512, __m512, [__m512; 5]) {
        let magnitude = _mm512_abs_ps(x);
        // Of a NaN and a number the minimum is the second operand.
        let t = _mm512_min_ps(_mm512_set1_ps(END), magnitude);
        let pieces = _mm512_mul_ps(t, _mm512_set1_ps(PIECES_PER_UNIT));
        // Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits, of which the permutation reads
        // five.
        let round = _mm512_set1_ps(12_582_912.0);
        let rounded = _mm512_add_ps(pieces, round);
        let u = _mm512_sub_ps(pieces, _mm512_sub_ps(rounded, round));
        let piece = _mm512_castps_si512(rounded);
        (magnitude, pieces, u, self.0.map(|[low, high]| _mm512_permutex2var_ps(low, piece, high)))
    }

    /// Returns `gelu(x) = x/2 + |x| (Φ(|x|) − 1/2)`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn value(&self, x: __m512) -> __m512 {
        let (magnitude, _, u, [c0, c1, c2, c3, c4]) = self.place(x);
        let central =
            _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c4, u, c3), u, c2), u, c1), u, c0);
        _mm512_fmadd_ps(magnitude, central, _mm512_mul_ps(x, _mm512_set1_ps(0.5)))
    }

    /// Returns `gelu(x)` and its slope `1/2 ± (Φ(|x|) − 1/2 + |x| φ(x))`, the sign that of `x`.
    ///
    /// The density is the derivative of the polynomial: the slope is that of the function as it is computed.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn value_and_slope(&self, x: __m512) -> (__m512, __m512) {
        let half = _mm512_set1_ps(0.5);
        let (magnitude, pieces, u, [c0, c1, c2, c3, c4]) = self.place(x);
        // Horner's scheme for the polynomial, and with its intermediate values for the derivative.
        let p3 = _mm512_fmadd_ps(c4, u, c3);
        let p2 = _mm512_fmadd_ps(p3, u, c2);
        let p1 = _mm512_fmadd_ps(p2, u, c1);
        let central = _mm512_fmadd_ps(p1, u, c0);
        let density = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c4, u, p3), u, p2), u, p1);
        let value = _mm512_fmadd_ps(magnitude, central, _mm512_mul_ps(x, half));
        let odd = _mm512_castps_si512(_mm512_fmadd_ps(pieces, density, central));
        // odd ^ (x & sign), bit by bit: the truth table of (odd, x, sign) is 0x78.
        let signed = _mm512_ternarylogic_epi32::<0x78>(odd, _mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN));
        (value, _mm512_add_ps(half, _mm512_castsi512_ps(signed)))
    }
}

/// Calls `task` with the start of every sixteen elements and with how many there are.
#[inline]
#[target_feature(enable = "avx512f")]
fn for_each_register(length: usize, mut task: impl FnMut(usize, __mmask16)) {
    for start in (0..length).step_by(LANES) {
        let count = (length - start).min(LANES);
        task(start, !0 >> (LANES - count));
    }
}

/// Writes `gelu(x)` element by element.
#[target_feature(enable = "avx512f")]
pub(super) fn forward(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: lengths of input and output");
    let gelu = Gelu::new();
    for_each_register(x.len(), |start, mask| {
        // SAFETY: the mask ends with the slices, which are equally long.
        unsafe {
            let value = gelu.value(_mm512_maskz_loadu_ps(mask, x.as_ptr().add(start)));
            _mm512_mask_storeu_ps(out.as_mut_ptr().add(start), mask, value);
        }
    });
}

/// Stores `grad_out` times the slope at `x`.
#[target_feature(enable = "avx512f")]
pub(super) fn backward(x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    assert_eq!((x.len(), x.len()), (grad_out.len(), grad_x.len()), "gelu: lengths of input and gradients");
    let gelu = Gelu::new();
    for_each_register(x.len(), |start, mask| {
        // SAFETY: the mask ends with the slices, which are equally long.
        unsafe {
            let (_, slope) = gelu.value_and_slope(_mm512_maskz_loadu_ps(mask, x.as_ptr().add(start)));
            let upstream = _mm512_maskz_loadu_ps(mask, grad_out.as_ptr().add(start));
            let to = grad_x.as_mut_ptr().add(start);
            let gradient = match store {
                Store::Write => _mm512_mul_ps(upstream, slope),
                Store::Add => _mm512_fmadd_ps(upstream, slope, _mm512_maskz_loadu_ps(mask, to)),
            };
            _mm512_mask_storeu_ps(to, mask, gradient);
        }
    });
}
