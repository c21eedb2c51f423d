//! Sixteen rows of sixteen numbers, transposed.

use crate::lanes::LANES;
use crate::simd::{Level, level};

/// Returns the transpose of sixteen rows of sixteen.
#[inline(always)]
pub(crate) fn transpose(rows: &[[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { avx512::transpose(rows) };
    }
    let mut columns = [[0.0; LANES]; LANES];
    for (column, numbers) in columns.iter_mut().enumerate() {
        for (number, row) in numbers.iter_mut().zip(rows) {
            *number = row[column];
        }
    }
    columns
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use crate::lanes::LANES;

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn transpose(rows: &[[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        let mut registers = [_mm512_setzero_ps(); LANES];
        for (register, row) in registers.iter_mut().zip(rows) {
            // SAFETY: a row is as long as a register.
            *register = unsafe { _mm512_loadu_ps(row.as_ptr()) };
        }
        let mut columns = [[0.0; LANES]; LANES];
        for (column, register) in columns.iter_mut().zip(transpose_registers(registers)) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(column.as_mut_ptr(), register) };
        }
        columns
    }

    /// Returns the transpose of sixteen registers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn transpose_registers(r: [__m512; LANES]) -> [__m512; LANES] {
        let mut s = r;
        for i in 0..8 {
            s[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        // Of four rows, in every quarter of a register: columns 0, 1, 2, 3 of the quarter.
        let mut t = s;
        for i in 0..4 {
            let (a, b) = (_mm512_castps_pd(s[4 * i]), _mm512_castps_pd(s[4 * i + 1]));
            let (c, d) = (_mm512_castps_pd(s[4 * i + 2]), _mm512_castps_pd(s[4 * i + 3]));
            t[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
            t[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
            t[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
            t[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
        }
        // Then the quarters: column 4q + j is quarter q of t[j], t[4 + j], t[8 + j], t[12 + j].
        let mut out = t;
        for j in 0..4 {
            let (low, high) = ([t[j], t[4 + j]], [t[8 + j], t[12 + j]]);
            let even = |[a, b]: [__m512; 2]| _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            let odd = |[a, b]: [__m512; 2]| _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
            // Quarters 0, 2 of the first, then 0, 2 of the second; and 1, 3.
            let (e0, e1, o0, o1) = (even(low), even(high), odd(low), odd(high));
            out[j] = even([e0, e1]);
            out[8 + j] = odd([e0, e1]);
            out[4 + j] = even([o0, o1]);
            out[12 + j] = odd([o0, o1]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let rows: [[f32; LANES]; LANES] = std::array::from_fn(|i| std::array::from_fn(|j| (i * LANES + j) as f32));
        let columns = transpose(&rows);
        for (i, row) in rows.iter().enumerate() {
            for (j, number) in row.iter().enumerate() {
                assert_eq!(columns[j][i], *number);
            }
        }
    }
}
