//! The squashing functions that turn a causal-importance network's output into an importance (spec section 3.2).
//!
//! Their gradients are part of the method, not derivatives: the lower leaky-hard sigmoid is flat below zero but lets a
//! hundredth of those gradients through that would *raise* the importance, so that dead components can come back.
//! At exactly 0 and 1 a clamp passes the gradient.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
mod tests;

use crate::simd::dispatch;
use crate::{Store, parallel};

/// A squashing function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sigmoid {
    /// `1 / (1 + e^{−x})`.
    Normal,
    /// `clamp(x, 0, 1)`; gradient passes on [0, 1].
    Hard,
    /// `min(x, 1)` above zero, `αx` below; gradient 1 on (0, 1], `α` at and below 0, none above 1.
    LeakyHard {
        /// The leak.
        alpha: f32,
    },
    /// `clamp(x, 0, 1)`, continued above 1 with slope `α`.
    UpperLeakyHard {
        /// The leak.
        alpha: f32,
    },
    /// `clamp(x, 0, 1)` forward; at and below 0 the gradient is `α G` where `G < 0` and zero elsewhere.
    LowerLeakyHard {
        /// The leak.
        alpha: f32,
    },
    /// A smooth hard sigmoid made of swish functions of sharpness `β`.
    SwishHard {
        /// The sharpness.
        beta: f32,
        /// Half the width of the ramp.
        scale: f32,
        /// Its middle.
        x_shift: f32,
        /// The value there.
        y_shift: f32,
    },
    /// `x σ(βx)`.
    Swish {
        /// The sharpness.
        beta: f32,
    },
    /// `x σ(−βx)`.
    UpsideDownSwish {
        /// The sharpness.
        beta: f32,
    },
}

impl Sigmoid {
    /// The smooth hard sigmoid of the method: sharpness 10, centred on (0.5, 0.5), half width 0.5.
    pub const SWISH_HARD: Self = Self::SwishHard { beta: 10.0, scale: 0.5, x_shift: 0.5, y_shift: 0.5 };

    /// Returns the value at `x`.
    #[must_use]
    #[inline(always)]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Normal => logistic(x),
            Self::Hard | Self::LowerLeakyHard { .. } => x.clamp(0.0, 1.0),
            Self::LeakyHard { alpha } => {
                if x > 0.0 {
                    x.min(1.0)
                } else {
                    alpha * x
                }
            }
            Self::UpperLeakyHard { alpha } => {
                if x > 1.0 {
                    1.0 + alpha * (x - 1.0)
                } else {
                    x.clamp(0.0, 1.0)
                }
            }
            Self::Swish { beta } => swish(x, beta),
            Self::UpsideDownSwish { beta } => swish(x, -beta),
            Self::SwishHard { beta, scale, x_shift, y_shift } => {
                let t = x - x_shift;
                y_shift + (swish(t - scale, -beta) - swish(t, beta)) + (swish(t + scale, beta) - swish(t, -beta))
            }
        }
    }

    /// Returns the gradient passed on at `x` for the upstream gradient `g`.
    #[must_use]
    #[inline(always)]
    pub fn gradient(self, x: f32, g: f32) -> f32 {
        match self {
            Self::Normal => {
                let y = logistic(x);
                g * y * (1.0 - y)
            }
            Self::Hard => {
                if (0.0..=1.0).contains(&x) {
                    g
                } else {
                    0.0
                }
            }
            Self::LeakyHard { alpha } => {
                if x <= 0.0 {
                    alpha * g
                } else if x <= 1.0 {
                    g
                } else {
                    0.0
                }
            }
            Self::UpperLeakyHard { alpha } => {
                if x > 1.0 {
                    alpha * g
                } else if x >= 0.0 {
                    g
                } else {
                    0.0
                }
            }
            Self::LowerLeakyHard { alpha } => {
                if x <= 0.0 {
                    if g < 0.0 { alpha * g } else { 0.0 }
                } else if x <= 1.0 {
                    g
                } else {
                    0.0
                }
            }
            Self::Swish { beta } => g * swish_slope(x, beta),
            Self::UpsideDownSwish { beta } => g * swish_slope(x, -beta),
            Self::SwishHard { beta, scale, x_shift, .. } => {
                let t = x - x_shift;
                g * ((swish_slope(t - scale, -beta) - swish_slope(t, beta))
                    + (swish_slope(t + scale, beta) - swish_slope(t, -beta)))
            }
        }
    }
}

#[inline(always)]
fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `x σ(βx)`.
#[inline(always)]
fn swish(x: f32, beta: f32) -> f32 {
    x * logistic(beta * x)
}

/// The slope of `x σ(βx)`.
#[inline(always)]
fn swish_slope(x: f32, beta: f32) -> f32 {
    let s = logistic(beta * x);
    s + x * beta * s * (1.0 - s)
}

/// Runs a loop with the function matched outside it, so that the loop vectorises.
macro_rules! for_function {
    ($function:expr, |$name:ident| $body:expr) => {
        match $function {
            Sigmoid::LowerLeakyHard { alpha } => {
                let $name = Sigmoid::LowerLeakyHard { alpha };
                $body
            }
            Sigmoid::UpperLeakyHard { alpha } => {
                let $name = Sigmoid::UpperLeakyHard { alpha };
                $body
            }
            $name => $body,
        }
    };
}

/// Elements of a thread's piece of work.
const PIECE: usize = 1 << 14;

/// Vector operations per element, roughly; decides whether threads pay.
const OPERATIONS_PER_ELEMENT: usize = 4;

/// Writes the function's values.
///
/// # Panics
/// If the lengths differ.
pub fn forward(function: Sigmoid, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "sigmoid: lengths of input and output");
    let operations = x.len() * OPERATIONS_PER_ELEMENT;
    parallel::for_each_row(out, PIECE, operations, |index, out| {
        let start = index * PIECE;
        forward_at_level(function, &x[start..start + out.len()], out);
    });
}

dispatch! { fn forward_at_level(function: Sigmoid, x: &[f32], out: &mut [f32]) = forward_body }

#[inline(always)]
fn forward_body<const FUSED: bool>(function: Sigmoid, x: &[f32], out: &mut [f32]) {
    for_function!(function, |f| {
        for (x, out) in x.iter().zip(out) {
            *out = f.value(*x);
        }
    });
}

/// Stores the gradient that the function passes on.
///
/// # Panics
/// If the lengths differ.
pub fn backward(function: Sigmoid, x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    assert_eq!((x.len(), x.len()), (grad_out.len(), grad_x.len()), "sigmoid: lengths of input and gradients");
    let operations = x.len() * OPERATIONS_PER_ELEMENT;
    parallel::for_each_row(grad_x, PIECE, operations, |index, grad_x| {
        let span = index * PIECE..index * PIECE + grad_x.len();
        backward_at_level(function, &x[span.clone()], &grad_out[span], grad_x, store);
    });
}

dispatch! {
    fn backward_at_level(function: Sigmoid, x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) = backward_body
}

#[inline(always)]
fn backward_body<const FUSED: bool>(function: Sigmoid, x: &[f32], grad_out: &[f32], grad_x: &mut [f32], store: Store) {
    for_function!(function, |f| {
        for ((x, g), grad) in x.iter().zip(grad_out).zip(grad_x) {
            *grad = store.merge(*grad, f.gradient(*x, *g));
        }
    });
}
