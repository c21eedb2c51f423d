//! Launches of `sum.cu`.

use cudarc::driver::{DevicePtr, DevicePtrMut, DeviceRepr, LaunchAsync};

use crate::Store;
use crate::cuda::{Launched, Memory, Module, function, grid, in_fours, length, narrow};

pub(crate) const MODULE: Module = Module {
    name: "sum",
    needs: &[],
    text: include_str!("sum.cu"),
    kernels: &["blend", "scale_into", "add_bias", "over_rows", "add_span", "combine", "combine_into"],
};

/// As [`super::blend`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn blend(x: &Memory, x_scale: f32, y: &Memory, y_scale: f32, out: &mut Memory) -> Launched {
    let n = length(out);
    assert_eq!((length(x), length(y)), (n, n), "sum: lengths");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "blend");
    // SAFETY: all arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (x, x_scale, y, y_scale, out, n)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn backward(scale: f32, grad_out: &Memory, grad_x: &mut Memory, store: Store) -> Launched {
    let n = length(grad_out);
    assert_eq!(n, length(grad_x), "sum: lengths of the gradients");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&grad_out.device(), &MODULE, "scale_into");
    // SAFETY: both arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (scale, grad_out, grad_x, n, store.flag())) }
}

/// As [`super::add_bias`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn add_bias(x: &Memory, bias: &Memory, out: &mut Memory) -> Launched {
    let n = length(x);
    let rows = n.checked_div(length(bias)).unwrap_or(0);
    assert_eq!((n, length(out)), (length(bias) * rows, n), "bias: lengths");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "add_bias");
    // SAFETY: x and out have `rows` elements for each of the bias.
    unsafe { kernel.launch(in_fours(n), (x, bias, out, rows, n)) }
}

/// As [`super::over_rows`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn over_rows(x: &Memory, out: &mut Memory) -> Launched {
    let features = length(out);
    let rows = length(x).checked_div(features).unwrap_or(0);
    assert_eq!(length(x), features * rows, "sum over rows: lengths");
    if length(x) == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "over_rows");
    // SAFETY: x has `rows` elements for each of out.
    unsafe { kernel.launch(grid([features, 1, 1], 256), (x, out, rows)) }
}

/// Adds `x` to the elements of `out` from `start` on.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If they do not lie within `out`.
pub fn add_span(x: &Memory, out: &mut Memory, start: usize) -> Launched {
    let (n, start) = (length(x), narrow(start));
    assert!(start + n <= length(out), "sum: {n} elements from {start} on, of {}", length(out));
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "add_span");
    // SAFETY: checked above.
    unsafe { kernel.launch(grid([n.div_ceil(256).min(4096), 1, 1], 256), (x, out, start, n)) }
}

/// As the kernel takes some scalars.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Scalars {
    scalar: [u64; 8],
    coefficient: [f64; 8],
    sum: u64,
    out: u64,
    count: i32,
    first: i32,
}

// SAFETY: it has the layout of `struct Scalars` in `sum.cu`: eight pointers, eight f64, two pointers, two i32.
unsafe impl DeviceRepr for Scalars {}

/// Writes `Σ_i coefficient_i · scalar_i`, summed in f64 and in order, to `out` `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If there are not as many coefficients as scalars, or one of those is no scalar.
pub fn combine(scalars: &[&Memory], coefficients: &[f64], out: &mut Memory) -> Launched {
    assert_eq!(scalars.len(), coefficients.len(), "combine: a coefficient for each scalar");
    assert!(length(out) == 1 && scalars.iter().all(|scalar| length(scalar) == 1), "combine: scalars");
    let device = out.device();
    // SAFETY: the first launch below writes it before anything reads it.
    let mut sum = unsafe { device.alloc::<f64>(1) }?;
    // No scalars at all are a sum too.
    for start in (0..scalars.len().max(1)).step_by(8) {
        let part = start..scalars.len().min(start + 8);
        let mut arguments = Scalars {
            scalar: [0; 8],
            coefficient: [0.0; 8],
            sum: *sum.device_ptr_mut(),
            out: *out.device_ptr_mut(),
            count: part.len() as i32,
            first: i32::from(start == 0),
        };
        for (i, (scalar, coefficient)) in scalars[part.clone()].iter().zip(&coefficients[part]).enumerate() {
            (arguments.scalar[i], arguments.coefficient[i]) = (*scalar.device_ptr(), *coefficient);
        }
        // SAFETY: `count` of the pointers are scalars; sum and out are scalars too.
        unsafe { function(&device, &MODULE, "combine").launch(grid([1, 1, 1], 1), (arguments,)) }?;
    }
    Ok(())
}

/// Adds `coefficient · x` to `out`, scalars both.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If one of them is no scalar.
pub fn combine_backward(coefficient: f64, x: &Memory, out: &mut Memory) -> Launched {
    assert_eq!((length(x), length(out)), (1, 1), "combine: gradients of scalars");
    let kernel = function(&x.device(), &MODULE, "combine_into");
    // SAFETY: both are scalars.
    unsafe { kernel.launch(grid([1, 1, 1], 1), (coefficient, x, out)) }
}
