//! Launches of `attention.cu` and `last.cu`.

use cudarc::driver::{DevicePtr, DeviceRepr, DriverError, LaunchAsync};

use super::Shape;
use crate::cuda::{
    Handle, Launched, Memory, Module, TILE, address, address_mut, function, grid, length, memory, narrow,
};

pub(crate) const MODULE: Module = Module {
    name: "attention",
    needs: &[TILE],
    text: include_str!("attention.cu"),
    kernels: &["attention_forward", "attention_statistics", "attention_queries", "attention_keys", "attention_weights"],
};

/// Attention of last positions alone.
pub(crate) const LAST: Module = Module {
    name: "attention_last",
    needs: &[],
    text: include_str!("last.cu"),
    kernels: &["attention_last_forward", "attention_last_backward"],
};

/// Queries, keys and features of a block.
const SIDE: u32 = 64;

/// Threads of a block.
const THREADS: u32 = 256;

/// The gradients that are wanted, as [`super::Gradients`].
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the queries.
    pub q: Option<&'a mut Memory>,
    /// Of the keys.
    pub k: Option<&'a mut Memory>,
    /// Of the values.
    pub v: Option<&'a mut Memory>,
}

/// As `struct Attention` in `attention.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Arguments {
    q: u64,
    k: u64,
    v: u64,
    g: u64,
    statistics: u64,
    heads: u32,
    d: u32,
    rows: u32,
    length: u32,
    tasks: u32,
    tiles: u32,
    scale: f32,
}

// SAFETY: it has the layout of `struct Attention`: pointers, then numbers of 32 bits.
unsafe impl DeviceRepr for Arguments {}

impl Arguments {
    fn new([q, k]: [&Memory; 2], v: Option<&Memory>, g: Option<&Memory>, shape: Shape) -> Self {
        let length = narrow(shape.length);
        Self {
            q: address(Some(q)),
            k: address(Some(k)),
            v: address(v),
            g: address(g),
            statistics: 0,
            heads: narrow(shape.heads),
            d: narrow(shape.d_head),
            rows: narrow(shape.rows()),
            length,
            tasks: narrow(shape.heads * shape.sequences),
            tiles: length.div_ceil(SIDE),
            scale: scale(shape),
        }
    }

    /// Returns a launch for each tile of queries or keys, each 64 of the `others`, of every task.
    fn blocks(&self, others: u32) -> cudarc::driver::LaunchConfig {
        grid([self.tasks * self.tiles, others.div_ceil(SIDE), 1], THREADS)
    }

    /// Returns maximum, one over the sum, and mean slope of every query's softmax, and remembers where they are.
    fn statistics(&mut self, device: &Handle) -> Result<Memory, DriverError> {
        let statistics = memory(device, 3 * self.tasks as usize * self.length as usize)?;
        let kernel = function(device, &MODULE, "attention_statistics");
        // SAFETY: the arrays fit the shape, the callers checked that; the statistics are three for each query and head.
        unsafe { kernel.launch(self.blocks(1), (*self, &statistics)) }?;
        self.statistics = *statistics.device_ptr();
        Ok(statistics)
    }
}

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(q: &Memory, k: &Memory, v: &Memory, out: &mut Memory, shape: Shape) -> Launched {
    check(&[q, k, v, out], shape);
    if shape.elements() == 0 {
        return Ok(());
    }
    let arguments = Arguments::new([q, k], Some(v), None, shape);
    let kernel = function(&q.device(), &MODULE, "attention_forward");
    // SAFETY: all arrays have the shape's elements, as checked above.
    unsafe { kernel.launch(arguments.blocks(arguments.d), (arguments, out)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(q: &Memory, k: &Memory, v: &Memory, grad_out: &Memory, grads: Gradients<'_>, shape: Shape) -> Launched {
    check(&[q, k, v, grad_out], shape);
    check_gradients([&grads.q, &grads.k, &grads.v], [shape.elements(); 3]);
    let through_scores = grads.q.is_some() || grads.k.is_some();
    if shape.elements() == 0 || !(through_scores || grads.v.is_some()) {
        return Ok(());
    }
    let device = q.device();
    // Without upstream gradient there are no mean slopes, which only the scores' gradients need.
    let mut arguments = Arguments::new([q, k], Some(v), through_scores.then_some(grad_out), shape);
    let statistics = arguments.statistics(&device)?;
    arguments.g = address(Some(grad_out));
    if let Some(grad_q) = grads.q {
        let kernel = function(&device, &MODULE, "attention_queries");
        // SAFETY: all arrays have the shape's elements, as checked above; the statistics live on.
        unsafe { kernel.launch(arguments.blocks(arguments.d), (arguments, grad_q)) }?;
    }
    if grads.k.is_some() || grads.v.is_some() {
        let kernel = function(&device, &MODULE, "attention_keys");
        let (grad_k, grad_v) = (address_mut(grads.k), address_mut(grads.v));
        // SAFETY: as above.
        unsafe { kernel.launch(arguments.blocks(arguments.d), (arguments, grad_k, grad_v)) }?;
    }
    // Given back only now, in the order of the stream.
    drop(statistics);
    Ok(())
}

/// As [`super::weights`], into `out`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn weights(q: &Memory, k: &Memory, out: &mut Memory, shape: Shape) -> Launched {
    check(&[q, k], shape);
    let elements = shape.sequences * shape.heads * shape.length * shape.length;
    assert_eq!(length(out) as usize, elements, "attention: weights of {shape:?}");
    if elements == 0 {
        return Ok(());
    }
    let device = q.device();
    let mut arguments = Arguments::new([q, k], None, None, shape);
    let statistics = arguments.statistics(&device)?;
    let kernel = function(&device, &MODULE, "attention_weights");
    // SAFETY: all arrays have the lengths checked above; the statistics live on.
    unsafe { kernel.launch(arguments.blocks(arguments.length), (arguments, out)) }?;
    drop(statistics);
    Ok(())
}

/// As `struct Last` in `last.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct LastArguments {
    q: u64,
    k: u64,
    v: u64,
    g: u64,
    p: u64,
    slopes: u64,
    heads: u32,
    d: u32,
    rows: u32,
    length: u32,
    sequences: u32,
    scale: f32,
}

// SAFETY: it has the layout of `struct Last`: pointers, then numbers of 32 bits.
unsafe impl DeviceRepr for LastArguments {}

impl LastArguments {
    fn new([q, k, v]: [&Memory; 3], g: Option<&Memory>, p: &Memory, slopes: Option<&Memory>, shape: Shape) -> Self {
        Self {
            q: address(Some(q)),
            k: address(Some(k)),
            v: address(Some(v)),
            g: address(g),
            p: address(Some(p)),
            slopes: address(slopes),
            heads: narrow(shape.heads),
            d: narrow(shape.d_head),
            rows: narrow(shape.rows()),
            length: narrow(shape.length),
            sequences: narrow(shape.sequences),
            scale: scale(shape),
        }
    }
}

/// As [`super::forward_last`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward_last(q: &Memory, k: &Memory, v: &Memory, out: &mut Memory, shape: Shape) -> Launched {
    check(&[k, v], shape);
    check_last(&[q, out], shape);
    if length(out) == 0 {
        return Ok(());
    }
    let device = q.device();
    let tasks = shape.heads * shape.sequences;
    let p = memory(&device, tasks * shape.length)?;
    let arguments = LastArguments::new([q, k, v], None, &p, None, shape);
    let kernel = function(&device, &LAST, "attention_last_forward");
    // SAFETY: the arrays have the lengths checked above; `p` has a number for each of a task's positions.
    unsafe { kernel.launch(grid([narrow(tasks), 1, 1], THREADS), (arguments, out)) }
}

/// As [`super::backward_last`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward_last(
    q: &Memory,
    k: &Memory,
    v: &Memory,
    grad_out: &Memory,
    grads: Gradients<'_>,
    shape: Shape,
) -> Launched {
    check(&[k, v], shape);
    check_last(&[q, grad_out], shape);
    check_gradients([&grads.q, &grads.k, &grads.v], [length(q) as usize, shape.elements(), shape.elements()]);
    if shape.elements() == 0 {
        return Ok(());
    }
    let device = q.device();
    let tasks = shape.heads * shape.sequences;
    let (p, slopes) = (memory(&device, tasks * shape.length)?, memory(&device, tasks * shape.length)?);
    let arguments = LastArguments::new([q, k, v], Some(grad_out), &p, Some(&slopes), shape);
    let (grad_q, grad_k, grad_v) = (address_mut(grads.q), address_mut(grads.k), address_mut(grads.v));
    let kernel = function(&device, &LAST, "attention_last_backward");
    // SAFETY: the arrays have the lengths checked above; `p` and `slopes` have a number for each of a task's positions.
    unsafe { kernel.launch(grid([narrow(tasks), 1, 1], THREADS), (arguments, grad_q, grad_k, grad_v)) }
}

/// Returns `1/√d_head`; a head without features has nothing to scale.
fn scale(shape: Shape) -> f32 {
    1.0 / (shape.d_head.max(1) as f32).sqrt()
}

fn check(arrays: &[&Memory], shape: Shape) {
    for array in arrays {
        assert_eq!(length(array) as usize, shape.elements(), "attention: {shape:?}");
    }
}

fn check_last(arrays: &[&Memory], shape: Shape) {
    let expected = shape.heads * shape.d_head * shape.sequences;
    for array in arrays {
        assert_eq!(length(array) as usize, expected, "attention of last positions: {shape:?}");
    }
}

fn check_gradients(grads: [&Option<&mut Memory>; 3], elements: [usize; 3]) {
    for (grad, elements) in grads.into_iter().zip(elements) {
        assert!(grad.as_ref().is_none_or(|grad| length(grad) as usize == elements), "attention: gradients");
    }
}
