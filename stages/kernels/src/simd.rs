//! Chooses the instruction set once, at run time.
//!
//! A kernel body is written as plain loops over fixed-width lane arrays in an `#[inline(always)]` function with a
//! const parameter saying whether fused multiply-adds exist. `dispatch!` compiles that body once per level inside a
//! `#[target_feature]` function and calls the best one this processor has. Bodies that a compiler would not vectorise as
//! meant are written over registers instead (`vector/`), with the bits of plain loops. Three operations have a form of
//! their own for AVX-512: the fused networks (`ci_mlp/avx512.rs`) and products (`linear/avx512.rs`), with other bits, and
//! Philox (`philox/avx512.rs`), with the same. Within a level the bits are always the same.

use std::sync::OnceLock;

/// The instruction sets a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the target's baseline offers; multiplies and adds round separately.
    Baseline,
    /// 8 lanes with fused multiply-add.
    Avx2,
    /// 16 lanes with fused multiply-add.
    Avx512,
}

impl Level {
    /// Returns the name that goes into records: `baseline`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Returns the level in use: the best of this processor, or the lower one that `SPDFLOW_SIMD` names.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = detect();
        match std::env::var("SPDFLOW_SIMD").as_deref() {
            Ok("baseline") => Level::Baseline,
            Ok("avx2") => best.min(Level::Avx2),
            _ => best,
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw");
    if avx512 {
        Level::Avx512
    } else if avx2 {
        Level::Avx2
    } else {
        Level::Baseline
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Returns `a * b + c`, rounded once when `FUSED`. Never let a body without hardware support fuse: it would become a
/// call into the C library.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function that runs `$body::<FUSED>` at the best level of this processor.
macro_rules! dispatch {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }
                match crate::simd::level() {
                    // SAFETY: `level` returns a level only if this processor has all of its features.
                    crate::simd::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    crate::simd::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    crate::simd::Level::Baseline => {}
                }
            }
            $body::<false>($($argument),*)
        }
    };
}
pub(crate) use dispatch;
