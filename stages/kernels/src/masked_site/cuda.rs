//! Launches of `masked_site.cu`.

use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr, DeviceSlice, LaunchAsync};

use crate::Store;
use crate::cuda::{
    Handle, Launched, Memory, Module, TILE, address, clear, function, grid, in_fours, length, memory, narrow,
};
use crate::linear::cuda::{Parts, sum_parts};
use crate::philox::{self, Stream};

pub(crate) const MODULE: Module = Module {
    name: "masked_site",
    needs: &[TILE],
    text: include_str!("masked_site.cu"),
    kernels: &[
        "masked_site_forward",
        "masked_activations",
        "masked_site_backward",
        "masked_activations_backward",
        "masked_site_u",
        "masked_site_frozen",
        "masked_site_delta",
    ],
};

/// Numbers of a tile's side.
const SIDE: u32 = 64;

/// As [`super::Mask`], on the device.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// All components fully on.
    Ones,
    /// One mask for every row, `[C]`.
    PerComponent(&'a Memory),
    /// A mask for each component and row, `[C, R]`.
    Full(&'a Memory),
    /// `g + (1 − g) r`.
    Between {
        /// `g`, `[C, R]`.
        importance: &'a Memory,
        /// `r`.
        source: Source<'a>,
    },
}

/// As [`super::Source`], on the device.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// `[C, R]`.
    Given(&'a Memory),
    /// `[C]`.
    Shared(&'a Memory),
    /// Uniform draws.
    Drawn {
        /// Which ones.
        stream: Stream,
        /// The number of each row in the whole batch, `[R]`.
        rows: &'a CudaSlice<u32>,
    },
}

/// As [`super::Inputs`], on the device.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// R.
    pub rows: usize,
    /// `[C, R]`.
    pub activations: &'a Memory,
    /// The components' masks.
    pub mask: Mask<'a>,
    /// `[C, d_out]`.
    pub u: &'a Memory,
    /// `[d_out, R]`.
    pub frozen: Option<&'a Memory>,
    /// `[R]`.
    pub delta_mask: Option<&'a Memory>,
    /// `[R]`.
    pub routing: Option<&'a Memory>,
    /// `[d_out]`.
    pub bias: Option<&'a Memory>,
}

/// As [`super::Gradients`], on the device.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the activations.
    pub activations: Option<(&'a mut Memory, Store)>,
    /// Of a mask that is given.
    pub mask: Option<(&'a mut Memory, Store)>,
    /// Of the causal importances.
    pub importance: Option<(&'a mut Memory, Store)>,
    /// Of the sources, if they are not drawn.
    pub source: Option<(&'a mut Memory, Store)>,
    /// Of U.
    pub u: Option<(&'a mut Memory, Store)>,
    /// Of the frozen product.
    pub frozen: Option<(&'a mut Memory, Store)>,
    /// Of the delta mask, added to.
    pub delta_mask: Option<&'a mut Memory>,
}

/// A site as kernels take it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Site {
    activations: u64,
    mask: u64,
    source: u64,
    numbers: u64,
    u: u64,
    frozen: u64,
    delta: u64,
    route: u64,
    bias: u64,
    stream: philox::cuda::Arguments,
    kind: i32,
    components: u32,
    d_out: u32,
    rows: u32,
}

// SAFETY: it has the layout of `struct Site` in `masked_site.cu`: nine pointers, then numbers of 32 bits.
unsafe impl DeviceRepr for Site {}

/// Where gradients go, as kernels take it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Targets {
    activations: u64,
    mask: u64,
    importance: u64,
    source: u64,
    delta_parts: u64,
    component_parts: u64,
    add: [i32; 4],
}

// SAFETY: it has the layout of `struct Gradients` in `masked_site.cu`: six pointers, then four i32.
unsafe impl DeviceRepr for Targets {}

impl Inputs<'_> {
    /// Returns C after checking the lengths of activations and masks, as the twin on the processor does.
    fn components(&self) -> u32 {
        let rows = narrow(self.rows);
        let components = length(self.activations).checked_div(rows).unwrap_or(0);
        let size = components * rows;
        assert_eq!(length(self.activations), size, "masked site: activations [C, {rows}]");
        let shared = |array: &Memory| rows == 0 || length(array) == components;
        let fits = match self.mask {
            Mask::Ones => true,
            Mask::PerComponent(mask) => shared(mask),
            Mask::Full(mask) => length(mask) == size,
            Mask::Between { importance, source } => {
                length(importance) == size
                    && match source {
                        Source::Given(source) => length(source) == size,
                        Source::Shared(source) => shared(source),
                        Source::Drawn { rows: numbers, .. } => numbers.len() == self.rows,
                    }
            }
        };
        assert!(fits, "masked site: masks of {components} components and {rows} rows");
        let of_rows = |array: Option<&Memory>| array.is_none_or(|array| length(array) == rows);
        assert!(of_rows(self.delta_mask) && of_rows(self.routing), "masked site: delta and routing masks [{rows}]");
        components
    }

    /// Returns the site as kernels take it, with an output of `out_len` numbers, after checking every length.
    fn site(&self, out_len: u32) -> Site {
        let (rows, components) = (narrow(self.rows), self.components());
        let d_out = out_len.checked_div(rows).unwrap_or(0);
        assert!(rows == 0 || length(self.u) == components * d_out, "masked site: U [{components}, {d_out}]");
        assert!(self.frozen.is_none_or(|t| length(t) == out_len), "masked site: frozen product [{d_out}, {rows}]");
        assert!(rows == 0 || self.bias.is_none_or(|b| length(b) == d_out), "masked site: bias [{d_out}]");
        assert!(
            self.frozen.is_some() || (self.delta_mask.is_none() && self.routing.is_none()),
            "masked site: a delta mask or a routing mask needs the frozen product"
        );
        Site { u: *self.u.device_ptr(), frozen: address(self.frozen), d_out, ..self.masks(components) }
    }

    /// Returns the site without an output.
    fn masks(&self, components: u32) -> Site {
        let mut site = Site {
            activations: *self.activations.device_ptr(),
            mask: 0,
            source: 0,
            numbers: 0,
            u: 0,
            frozen: 0,
            delta: address(self.delta_mask),
            route: address(self.routing),
            bias: address(self.bias),
            stream: philox::cuda::Arguments::default(),
            kind: 0,
            components,
            d_out: 0,
            rows: narrow(self.rows),
        };
        // The kinds are numbered as in `masked_site.cu`.
        match self.mask {
            Mask::Ones => {}
            Mask::PerComponent(mask) => (site.kind, site.mask) = (1, *mask.device_ptr()),
            Mask::Full(mask) => (site.kind, site.mask) = (2, *mask.device_ptr()),
            Mask::Between { importance, source } => {
                site.mask = *importance.device_ptr();
                match source {
                    Source::Given(source) => (site.kind, site.source) = (3, *source.device_ptr()),
                    Source::Shared(source) => (site.kind, site.source) = (4, *source.device_ptr()),
                    Source::Drawn { stream, rows } => {
                        (site.kind, site.numbers, site.stream) = (5, *rows.device_ptr(), stream.into());
                    }
                }
            }
        }
        site
    }

    fn handle(&self) -> Handle {
        self.activations.device()
    }
}

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape, or the frozen product is needed and absent.
pub fn forward(inputs: Inputs<'_>, out: &mut Memory) -> Launched {
    let site = inputs.site(length(out));
    if length(out) == 0 {
        return Ok(());
    }
    let blocks = grid([site.rows.div_ceil(SIDE), site.d_out.div_ceil(SIDE), 1], 256);
    // SAFETY: every length was checked.
    unsafe { function(&inputs.handle(), &MODULE, "masked_site_forward").launch(blocks, (site, out)) }
}

/// As [`super::masked_activations`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn masked_activations(inputs: Inputs<'_>, out: &mut Memory) -> Launched {
    let site = inputs.masks(inputs.components());
    assert_eq!(length(out), site.components * site.rows, "masked site: masked activations");
    if length(out) == 0 {
        return Ok(());
    }
    let blocks = grid([site.rows.div_ceil(64), site.components.div_ceil(16), 1], 256);
    // SAFETY: every length was checked.
    unsafe { function(&inputs.handle(), &MODULE, "masked_activations").launch(blocks, (site, out)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(inputs: Inputs<'_>, grad_out: &Memory, mut grads: Gradients<'_>) -> Launched {
    let site = inputs.site(length(grad_out));
    if site.rows == 0 {
        return nothing(grads);
    }
    let handle = inputs.handle();
    if let (Some((grad, store)), Some(_), true) = (grads.frozen.take(), inputs.frozen, site.d_out > 0) {
        let n = length(grad_out);
        assert_eq!(length(grad), n, "masked site: gradient of the frozen product");
        let kernel = function(&handle, &MODULE, "masked_site_frozen");
        // SAFETY: both arrays have n elements.
        unsafe { kernel.launch(in_fours(n), (site, grad_out, grad, n, store.flag())) }?;
    }
    if let Some((grad, store)) = grads.u.take() {
        gradient_of_u(&handle, site, grad_out, grad, store)?;
    }
    spread(&handle, &inputs, site, "masked_site_backward", grad_out, grads)
}

/// As [`super::masked_activations_backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn masked_activations_backward(inputs: Inputs<'_>, grad_out: &Memory, grads: Gradients<'_>) -> Launched {
    let site = inputs.masks(inputs.components());
    assert_eq!(length(grad_out), site.components * site.rows, "masked site: gradient of the masked activations");
    if site.rows == 0 {
        return nothing(grads);
    }
    spread(&inputs.handle(), &inputs, site, "masked_activations_backward", grad_out, grads)
}

/// Without rows, what rows share gets no gradient.
fn nothing(grads: Gradients<'_>) -> Launched {
    for (grad, store) in [grads.u, grads.mask, grads.source].into_iter().flatten() {
        if store == Store::Write {
            clear(grad)?;
        }
    }
    Ok(())
}

fn gradient_of_u(handle: &Handle, site: Site, grad_out: &Memory, grad: &mut Memory, store: Store) -> Launched {
    assert_eq!(length(grad), site.components * site.d_out, "masked site: gradient of U");
    if length(grad) == 0 {
        return Ok(());
    }
    let (across, down) = (site.d_out.div_ceil(SIDE), site.components.div_ceil(SIDE));
    let Parts { count, span } = Parts::of(site.rows, across * down);
    let mut parts = memory(handle, count as usize * length(grad) as usize)?;
    let kernel = function(handle, &MODULE, "masked_site_u");
    // SAFETY: every length was checked; there is a part for each span of rows.
    unsafe { kernel.launch(grid([across, down, count], 256), (site, grad_out, &mut parts, span)) }?;
    sum_parts(&parts, count, None, 1.0, grad, store)
}

/// Computes the gradients that follow from what each masked activation is worth.
fn spread(
    handle: &Handle,
    inputs: &Inputs<'_>,
    site: Site,
    kernel: &'static str,
    grad_out: &Memory,
    mut grads: Gradients<'_>,
) -> Launched {
    let (components, rows) = (site.components, site.rows);
    let (across, down) = (rows.div_ceil(SIDE), components.div_ceil(SIDE));
    // At most one of mask and source is shared by all rows.
    let shared = match inputs.mask {
        Mask::PerComponent(_) => grads.mask.take(),
        Mask::Between { source: Source::Shared(_), .. } => grads.source.take(),
        _ => None,
    };
    let mut targets = Targets::default();
    let places = [
        (&mut targets.activations, &mut grads.activations),
        (&mut targets.mask, &mut grads.mask),
        (&mut targets.importance, &mut grads.importance),
        (&mut targets.source, &mut grads.source),
    ];
    for (i, (place, grad)) in places.into_iter().enumerate() {
        if let Some((grad, store)) = grad {
            assert_eq!(length(grad), components * rows, "masked site: gradient [{components}, {rows}]");
            (*place, targets.add[i]) = (*grad.device_ptr_mut(), store.flag());
        }
    }
    let mut delta_parts = match &grads.delta_mask {
        Some(_) => Some(memory(handle, (down * rows) as usize)?),
        None => None,
    };
    let mut component_parts = match &shared {
        Some(_) => Some(memory(handle, (across * components) as usize)?),
        None => None,
    };
    targets.delta_parts = delta_parts.as_mut().map_or(0, |parts| *parts.device_ptr_mut());
    targets.component_parts = component_parts.as_mut().map_or(0, |parts| *parts.device_ptr_mut());
    let wanted = [targets.activations, targets.mask, targets.importance, targets.source];
    let wanted = wanted.iter().any(|place| *place != 0) || grads.delta_mask.is_some() || shared.is_some();
    if wanted && components > 0 {
        let blocks = grid([across, down, 1], 256);
        // SAFETY: every length was checked; each tile has its place in the parts.
        unsafe { function(handle, &MODULE, kernel).launch(blocks, (site, grad_out, targets)) }?;
    }
    if let (Some(grad), Some(parts)) = (grads.delta_mask, &delta_parts) {
        assert_eq!(length(grad), rows, "masked site: gradient of the delta mask");
        let upstream = if site.d_out > 0 { *grad_out.device_ptr() } else { 0 };
        let kernel = function(handle, &MODULE, "masked_site_delta");
        let blocks = grid([rows.div_ceil(256), 1, 1], 256);
        // SAFETY: there is a part for each of `down` tiles and each row.
        unsafe { kernel.launch(blocks, (site, upstream, parts, down, grad)) }?;
    }
    if let (Some((grad, store)), Some(parts)) = (shared, &component_parts) {
        assert_eq!(length(grad), components, "masked site: gradient of what rows share");
        sum_parts(parts, across, None, 1.0, grad, store)?;
    }
    Ok(())
}
