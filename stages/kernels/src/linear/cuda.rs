//! Launches of `linear.cu`: every product of matrices that is not fused into something else.

use cudarc::driver::{DevicePtr, DeviceRepr, LaunchAsync};

use crate::Store;
use crate::cuda::{Launched, Memory, Module, TILE, address, function, grid, length, memory, narrow};

pub(crate) const MODULE: Module = Module {
    name: "linear",
    needs: &[TILE],
    text: include_str!("linear.cu"),
    kernels: &["product_along_along", "product_along_deep", "product_deep_along", "product_deep_deep", "sum_parts"],
};

/// Numbers of a tile's side.
const SIDE: u32 = 64;

/// Blocks that keep a large device busy: below that, a long sum is cut.
const ENOUGH_BLOCKS: u32 = 256;

/// Terms of a sum that are worth a block of their own.
const SHORTEST_SPAN: u32 = 256;

/// How the memory of an operand runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Along m or n: number (k, x) at `k pitch + x`.
    Along,
    /// Along k: number (k, x) at `x pitch + k`.
    Deep,
}

/// One operand of a product.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// Its numbers.
    pub array: &'a Memory,
    /// How they run.
    pub runs: Runs,
    /// From one row in memory to the next.
    pub pitch: usize,
    /// From one group to the next.
    pub stride: usize,
    /// Where the first group begins.
    pub start: usize,
}

impl<'a> Operand<'a> {
    /// Returns the operand of a single product.
    #[must_use]
    pub fn new(array: &'a Memory, runs: Runs, pitch: usize) -> Self {
        Self { array, runs, pitch, stride: 0, start: 0 }
    }

    /// Returns the operand of one of its groups.
    #[must_use]
    pub fn of_group(self, group: usize) -> Self {
        Self { start: self.start + group * self.stride, ..self }
    }

    /// Returns the address of the first number.
    fn address(&self) -> u64 {
        *self.array.device_ptr() + (self.start * size_of::<f32>()) as u64
    }
}

/// `out [groups, m, n] = alpha · scale · Σ_k a(k, m) b(k, n) + bias[m]`, or added.
#[derive(Debug)]
pub struct Product<'a> {
    /// a.
    pub a: Operand<'a>,
    /// b.
    pub b: Operand<'a>,
    /// `[groups, m]`.
    pub bias: Option<&'a Memory>,
    /// A factor that lies on the device, `[1]`.
    pub scale: Option<&'a Memory>,
    /// A factor.
    pub alpha: f32,
    /// `[m, n, k]` of one group.
    pub shape: [usize; 3],
    /// How many products.
    pub groups: usize,
}

/// As the kernel takes it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Arguments {
    a: u64,
    b: u64,
    bias: u64,
    scale: u64,
    out: u64,
    m: u32,
    n: u32,
    k: u32,
    a_pitch: u32,
    b_pitch: u32,
    out_pitch: u32,
    a_stride: u32,
    b_stride: u32,
    out_stride: u32,
    bias_stride: u32,
    groups: u32,
    span: u32,
    alpha: f32,
    add: i32,
}

// SAFETY: it has the layout of `struct Product` in `linear.cu`: pointers, then numbers of 32 bits.
unsafe impl DeviceRepr for Arguments {}

impl Product<'_> {
    /// Computes it.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If an array is shorter than its shape asks for.
    pub fn launch(&self, out: &mut Memory, store: Store) -> Launched {
        let [m, n, k] = self.shape.map(narrow);
        let groups = narrow(self.groups);
        assert_eq!(
            length(out) as usize,
            self.groups * self.shape[0] * self.shape[1],
            "product: result {:?}",
            self.shape
        );
        self.a.check(self.shape[0], self.shape[2], self.groups);
        self.b.check(self.shape[1], self.shape[2], self.groups);
        assert!(self.bias.is_none_or(|bias| length(bias) == groups * m), "product: bias");
        if length(out) == 0 {
            return Ok(());
        }
        let tiles = m.div_ceil(SIDE) * n.div_ceil(SIDE) * groups;
        let Parts { count: splits, span } = if self.bias.is_some() { Parts::whole(k) } else { Parts::of(k, tiles) };
        let handle = out.device();
        let mut parts = if splits > 1 { Some(memory(&handle, splits as usize * length(out) as usize)?) } else { None };
        let arguments = Arguments {
            a: self.a.address(),
            b: self.b.address(),
            bias: address(self.bias),
            scale: if splits > 1 { 0 } else { address(self.scale) },
            out: *parts.as_mut().unwrap_or(out).device_ptr(),
            m,
            n,
            k,
            a_pitch: narrow(self.a.pitch),
            b_pitch: narrow(self.b.pitch),
            out_pitch: n,
            a_stride: narrow(self.a.stride),
            b_stride: narrow(self.b.stride),
            out_stride: m * n,
            bias_stride: m,
            groups,
            span,
            alpha: if splits > 1 { 1.0 } else { self.alpha },
            add: if splits > 1 { 0 } else { store.flag() },
        };
        let name = match (self.a.runs, self.b.runs) {
            (Runs::Along, Runs::Along) => "product_along_along",
            (Runs::Along, Runs::Deep) => "product_along_deep",
            (Runs::Deep, Runs::Along) => "product_deep_along",
            (Runs::Deep, Runs::Deep) => "product_deep_deep",
        };
        let blocks = grid([n.div_ceil(SIDE), m.div_ceil(SIDE), splits * groups], 256);
        // SAFETY: operands, bias and result are as long as checked above; parts are `splits` times the result.
        unsafe { function(&handle, &MODULE, name).launch(blocks, (arguments,)) }?;
        match parts {
            Some(parts) => sum_parts(&parts, splits, self.scale, self.alpha, out, store),
            None => Ok(()),
        }
    }
}

/// How a long sum is cut, so that enough blocks share it. Depends on shapes alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    /// How many parts.
    pub(crate) count: u32,
    /// Terms of each but the last.
    pub(crate) span: u32,
}

impl Parts {
    /// Returns the parts of sums of `terms` terms in each of `tiles` tiles.
    pub(crate) fn of(terms: u32, tiles: u32) -> Self {
        let count = terms.div_ceil(SHORTEST_SPAN).min(ENOUGH_BLOCKS.div_ceil(tiles)).max(1);
        // A multiple of what a block takes at a time, so that only the last part has an end.
        let span = terms.div_ceil(count).next_multiple_of(16).max(16);
        Self { count: terms.div_ceil(span).max(1), span }
    }

    fn whole(terms: u32) -> Self {
        Self { count: 1, span: terms.max(1) }
    }
}

/// Stores `alpha · scale · Σ_s parts[s]`, added in the order of the `count` parts.
pub(crate) fn sum_parts(
    parts: &Memory,
    count: u32,
    scale: Option<&Memory>,
    alpha: f32,
    out: &mut Memory,
    store: Store,
) -> Launched {
    let n = length(out);
    assert!(length(parts) as usize >= count as usize * n as usize, "sum of parts: {count} of {n} numbers");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&parts.device(), &MODULE, "sum_parts");
    let blocks = grid([n.div_ceil(256).min(4096), 1, 1], 256);
    // SAFETY: `parts` holds `count` times n numbers.
    unsafe { kernel.launch(blocks, (parts, count, address(scale), alpha, out, n, store.flag())) }
}

impl Operand<'_> {
    /// Checks that the array holds `groups` panels of `size` by `depth`.
    fn check(&self, size: usize, depth: usize, groups: usize) {
        let (rows, width) = match self.runs {
            Runs::Along => (depth, size),
            Runs::Deep => (size, depth),
        };
        if rows * width * groups == 0 {
            return;
        }
        let needed = self.start + (groups - 1) * self.stride + (rows - 1) * self.pitch + width;
        assert!(
            needed <= length(self.array) as usize,
            "product: operand of {} numbers, needs {needed}",
            length(self.array)
        );
        assert!(width <= self.pitch || rows == 1, "product: rows of an operand overlap");
    }
}

/// As [`super::apply`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply(w: &Memory, x: &Memory, y: &mut Memory, [m, n, rows]: [usize; 3], store: Store) -> Launched {
    single(Operand::new(w, Runs::Deep, n), Operand::new(x, Runs::Along, rows), [m, rows, n]).launch(y, store)
}

/// As [`super::apply_transposed`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply_transposed(w: &Memory, x: &Memory, y: &mut Memory, [m, n, rows]: [usize; 3], store: Store) -> Launched {
    single(Operand::new(w, Runs::Along, m), Operand::new(x, Runs::Along, rows), [m, rows, n]).launch(y, store)
}

/// As [`super::outer`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn outer(y: &Memory, x: &Memory, g: &mut Memory, [m, n, rows]: [usize; 3], store: Store) -> Launched {
    single(Operand::new(y, Runs::Deep, rows), Operand::new(x, Runs::Deep, rows), [m, n, rows]).launch(g, store)
}

fn single<'a>(a: Operand<'a>, b: Operand<'a>, shape: [usize; 3]) -> Product<'a> {
    Product { a, b, bias: None, scale: None, alpha: 1.0, shape, groups: 1 }
}
