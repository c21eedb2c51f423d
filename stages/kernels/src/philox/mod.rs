//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011).
//!
//! A draw is a pure function of *what it is for*, not of when it is made: the key holds the seed and the purpose, the
//! counter the position. So draws are the same for any number of threads or ranks, in any order, on any device, and
//! after a resume; and they need not be stored. The four words of one block go to four consecutive features of the
//! same row, and the vector lanes to rows, which is exactly the feature-major layout.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(feature = "cuda")]
pub mod cuda;

use crate::lanes::LANES;
use crate::parallel;
use crate::simd::{Level, dispatch, level};

/// The coordinates of a stream of draws. Every field tells streams apart; none may be shared between purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The user's seed.
    pub seed: u64,
    /// What the numbers are for; see the table of purposes in the caller.
    pub purpose: u32,
    /// The training step, evaluation batch or other time-like index.
    pub step: u32,
    /// Anything else that tells streams of one purpose and step apart: site, loss, sample.
    pub index: u32,
}

impl Stream {
    /// Returns the Philox key: the seed, whitened once with purpose and index so that all 128 bits matter.
    fn key(self) -> [u32; 2] {
        let [a, b, ..] =
            block([self.seed as u32, (self.seed >> 32) as u32, self.purpose, self.index], [0x5D_F10A, 0x1]);
        [a, b]
    }
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Returns the four words of one counter block.
#[must_use]
pub fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let (p0, p1) = (u64::from(MULTIPLIERS[0]) * u64::from(c0), u64::from(MULTIPLIERS[1]) * u64::from(c2));
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// Returns the uniform number in [0, 1) with the 24 highest bits of `word`.
#[inline(always)]
fn unit(word: u32) -> f32 {
    // The conversion goes through i32, which every instruction set can do on vectors.
    (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

/// Fills `out` `[features, rows.len()]` with uniform numbers in [0, 1).
///
/// Element `(f, r)` depends only on `stream`, `f` and `rows[r]`: a batch with some rows left out gets the same
/// numbers for the rows that remain.
///
/// # Panics
/// If `out` does not have `features * rows.len()` elements.
pub fn uniform(stream: Stream, features: usize, rows: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), features * rows.len(), "uniform draws: [{features}, {}]", rows.len());
    let key = stream.key();
    let operations = out.len() * 16;
    parallel::for_each_row(out, 4 * rows.len(), operations, |group, out| {
        fill_group(key, stream.step, group as u32, rows, out);
    });
}

/// As [`uniform`], on the calling thread; `out` is `[features, rows.len()]`.
pub(crate) fn uniform_here(stream: Stream, rows: &[u32], out: &mut [f32]) {
    let key = stream.key();
    for (group, out) in out.chunks_mut((4 * rows.len()).max(1)).enumerate() {
        fill_group(key, stream.step, group as u32, rows, out);
    }
}

fn fill_group(key: [u32; 2], step: u32, group: u32, rows: &[u32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 && out.len() == 4 * rows.len() {
        // Both make the same bits; the compiler finds no good way to the high halves of the products.
        // SAFETY: `level` returns a level only if this processor has all of its features.
        return unsafe { avx512::fill_group(key, step, group, rows, out) };
    }
    general_fill_group(key, step, group, rows, out);
}

dispatch! {
    fn general_fill_group(key: [u32; 2], step: u32, group: u32, rows: &[u32], out: &mut [f32]) = fill_group_body
}

/// Fills up to four features; `out` is `[1..=4, rows.len()]`.
#[inline(always)]
fn fill_group_body<const FUSED: bool>(key: [u32; 2], step: u32, group: u32, rows: &[u32], out: &mut [f32]) {
    let width = rows.len();
    for start in (0..width).step_by(LANES) {
        let count = LANES.min(width - start);
        let mut c0 = [0_u32; LANES];
        c0[..count].copy_from_slice(&rows[start..start + count]);
        let (mut c1, mut c2, mut c3) = ([group; LANES], [step; LANES], [0_u32; LANES]);
        let [mut k0, mut k1] = key;
        for _ in 0..ROUNDS {
            for lane in 0..LANES {
                let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0[lane]);
                let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2[lane]);
                c0[lane] = (p1 >> 32) as u32 ^ c1[lane] ^ k0;
                c2[lane] = (p0 >> 32) as u32 ^ c3[lane] ^ k1;
                c1[lane] = p1 as u32;
                c3[lane] = p0 as u32;
            }
            k0 = k0.wrapping_add(WEYL[0]);
            k1 = k1.wrapping_add(WEYL[1]);
        }
        for (words, row) in [c0, c1, c2, c3].iter().zip(out.chunks_mut(width)) {
            if count == LANES {
                for (out, word) in row[start..start + LANES].iter_mut().zip(words) {
                    *out = unit(*word);
                }
            } else {
                for (out, word) in row[start..start + count].iter_mut().zip(words) {
                    *out = unit(*word);
                }
            }
        }
    }
}

/// Returns number `index` of a stream, uniform in [0, 1) with 53 bits: for choices that are made one at a time.
#[must_use]
pub fn unit_f64(stream: Stream, index: u32) -> f64 {
    let [high, low, ..] = block([index, u32::MAX, stream.step, 2], stream.key());
    let word = u64::from(high) << 32 | u64::from(low);
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// Fills `out` with standard normal numbers (Box–Muller in f64, so that every platform rounds alike).
pub fn normal(stream: Stream, out: &mut [f32]) {
    let key = stream.key();
    for (index, pair) in out.chunks_mut(2).enumerate() {
        let words = block([index as u32, u32::MAX, stream.step, 1], key);
        let open = (f64::from(words[0]) + 1.0) / 4_294_967_296.0;
        let angle = f64::from(words[1]) / 4_294_967_296.0 * std::f64::consts::TAU;
        let radius = (-2.0 * open.ln()).sqrt();
        pair[0] = (radius * angle.cos()) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * angle.sin()) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream { seed: 7, purpose: 3, step: 11, index: 2 };

    #[test]
    fn philox_gives_the_published_known_answers() {
        // The vectors of the Random123 distribution for philox4x32-10.
        assert_eq!(block([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(block([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            block([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn vector_draws_equal_single_blocks_and_leaving_rows_out_changes_nothing() {
        for features in [0, 1, 3, 4, 7, 20] {
            for rows in [0_usize, 1, 15, 16, 17, 67] {
                let all: Vec<u32> = (0..rows as u32).collect();
                let mut dense = vec![0.0; features * rows];
                uniform(STREAM, features, &all, &mut dense);
                for f in 0..features {
                    for r in 0..rows {
                        let words = block([r as u32, (f / 4) as u32, STREAM.step, 0], STREAM.key());
                        assert_eq!(dense[f * rows + r], unit(words[f % 4]), "feature {f}, row {r}");
                    }
                }
                let odd: Vec<u32> = all.iter().copied().filter(|r| r % 2 == 1).collect();
                let mut some = vec![0.0; features * odd.len()];
                uniform(STREAM, features, &odd, &mut some);
                for f in 0..features {
                    for (position, r) in odd.iter().enumerate() {
                        assert_eq!(some[f * odd.len() + position], dense[f * rows + *r as usize]);
                    }
                }
            }
        }
    }

    #[test]
    fn every_coordinate_of_a_stream_matters() {
        let draw = |stream: Stream| {
            let mut out = [0.0; 8];
            uniform(stream, 8, &[5], &mut out);
            out
        };
        let base = draw(STREAM);
        for other in [
            Stream { seed: 8, ..STREAM },
            Stream { seed: 7 + (1 << 32), ..STREAM },
            Stream { purpose: 4, ..STREAM },
            Stream { step: 12, ..STREAM },
            Stream { index: 3, ..STREAM },
        ] {
            assert!(base.iter().zip(draw(other)).all(|(a, b)| *a != b), "{other:?}");
        }
    }

    #[test]
    fn single_numbers_are_uniform_and_differ_from_each_other() {
        let n = 20_000;
        let numbers: Vec<f64> = (0..n).map(|index| unit_f64(STREAM, index)).collect();
        let mean = numbers.iter().sum::<f64>() / f64::from(n);
        // Standard error 0.29/sqrt(2e4) = 2e-3; four of them.
        assert!((mean - 0.5).abs() < 8.2e-3 && numbers.iter().all(|x| (0.0..1.0).contains(x)), "{mean}");
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn uniform_and_normal_draws_have_the_right_moments() {
        let n = 100_000;
        let mut x = vec![0.0; n];
        uniform(STREAM, n / 100, &(0..100).collect::<Vec<_>>(), &mut x);
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let square = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
        // Standard errors: 0.29/sqrt(1e5) = 9e-4 and 0.30/sqrt(1e5) = 9.4e-4; four of each.
        assert!((mean - 0.5).abs() < 3.7e-3 && (square - 1.0 / 3.0).abs() < 3.8e-3, "{mean} {square}");
        assert!(x.iter().all(|x| (0.0..1.0).contains(x)));
        normal(STREAM, &mut x);
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let square = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
        let fourth = x.iter().map(|x| f64::from(*x).powi(4)).sum::<f64>() / n as f64;
        // Standard errors: 1/sqrt(1e5) = 3.2e-3, sqrt(2)·3.2e-3, sqrt(96)·3.2e-3; four of each.
        assert!(mean.abs() < 1.3e-2 && (square - 1.0).abs() < 1.8e-2 && (fourth - 3.0).abs() < 0.13);
    }
}
