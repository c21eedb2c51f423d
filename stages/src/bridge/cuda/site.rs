//! A masked site's views as the memory that its kernels read and write.

use std::cell::RefCell;
use std::sync::Arc;

use cudarc::driver::CudaSlice;
use spdflow_kernels::cuda::{Handle, upload_numbers};
use spdflow_kernels::masked_site::cuda::{Gradients, Inputs, Mask, Source};

use super::super::backend::Gradient;
use super::super::graph::DeviceResult;
use super::super::site_views::{MaskView, SiteGradients, SiteViews, SourceView};
use super::Gpu;

/// Row numbers on the host and on the device.
type RowNumbers = (Arc<[u32]>, Arc<CudaSlice<u32>>);

thread_local! {
    /// The numbers of the batch's rows: every site of a step has the same.
    static ROWS: RefCell<Option<RowNumbers>> = const { RefCell::new(None) };
}

/// Returns the gradients as memory.
pub(super) fn site_gradients<'a>(grads: SiteGradients<'a, Gpu>) -> DeviceResult<Gradients<'a>, Gpu> {
    let parts = |gradient: Option<&'a mut Gradient<Gpu>>| gradient.map(Gradient::on_gpu).transpose();
    Ok(Gradients {
        activations: parts(grads.activations)?,
        mask: parts(grads.mask)?,
        importance: parts(grads.importance)?,
        source: parts(grads.source)?,
        u: parts(grads.u)?,
        frozen: parts(grads.frozen)?,
        delta_mask: grads.delta_mask.map(Gradient::summed_on_gpu).transpose()?,
    })
}

/// Calls `work` with the inputs as memory.
pub(super) fn with_site<T>(
    inputs: &SiteViews<Gpu>,
    work: impl FnOnce(Inputs<'_>) -> DeviceResult<T, Gpu>,
) -> DeviceResult<T, Gpu> {
    let numbers = match &inputs.mask {
        MaskView::Between { source: SourceView::Drawn { rows, .. }, .. } => {
            Some(row_numbers(&inputs.activations.device(), rows)?)
        }
        _ => None,
    };
    let mask = match &inputs.mask {
        MaskView::Ones => Mask::Ones,
        MaskView::PerComponent(mask) => Mask::PerComponent(mask),
        MaskView::Full(mask) => Mask::Full(mask),
        MaskView::Between { importance, source } => Mask::Between {
            importance,
            source: match source {
                SourceView::Given(source) => Source::Given(source),
                SourceView::Shared(source) => Source::Shared(source),
                SourceView::Drawn { stream, .. } => {
                    Source::Drawn { stream: *stream, rows: numbers.as_deref().expect("drawn sources have row numbers") }
                }
            },
        },
    };
    work(Inputs {
        rows: inputs.rows,
        activations: &inputs.activations,
        mask,
        u: &inputs.u,
        frozen: inputs.frozen.as_deref(),
        delta_mask: inputs.delta_mask.as_deref(),
        routing: inputs.routing.as_deref(),
        bias: inputs.bias.as_deref(),
    })
}

/// Returns row numbers on the device.
fn row_numbers(device: &Handle, rows: &Arc<[u32]>) -> DeviceResult<Arc<CudaSlice<u32>>, Gpu> {
    let known = ROWS.with_borrow(|known| {
        let (host, there) = known.as_ref()?;
        (Arc::ptr_eq(host, rows) && there.device().ordinal() == device.ordinal()).then(|| Arc::clone(there))
    });
    if let Some(numbers) = known {
        return Ok(numbers);
    }
    let numbers = Arc::new(upload_numbers(device, rows)?);
    ROWS.set(Some((Arc::clone(rows), Arc::clone(&numbers))));
    Ok(numbers)
}
