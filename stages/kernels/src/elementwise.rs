//! Products of slices, element by element.

use crate::Store;
use crate::simd::{dispatch, multiply_add};

dispatch! {
    /// `out = a ⊙ b`.
    pub(crate) fn multiply(a: &[f32], b: &[f32], out: &mut [f32]) = multiply_body
}

#[inline(always)]
fn multiply_body<const FUSED: bool>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = a * b;
    }
}

dispatch! {
    /// `out += a ⊙ b`.
    pub(crate) fn add_product(a: &[f32], b: &[f32], out: &mut [f32]) = add_product_body
}

#[inline(always)]
fn add_product_body<const FUSED: bool>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = multiply_add::<FUSED>(*a, *b, *out);
    }
}

/// `out = a ⊙ b` or `out += a ⊙ b`.
pub(crate) fn store_product(a: &[f32], b: &[f32], out: &mut [f32], store: Store) {
    match store {
        Store::Write => multiply(a, b, out),
        Store::Add => add_product(a, b, out),
    }
}
