//! NVIDIA GPUs: what a stage opens, and how a failing device ends it. `memory.rs`, `kernels.rs`, `sequence.rs` and
//! `site.rs` implement the traits of `backend.rs` with the launchers of `spdflow-kernels`.
//!
//! Everything runs on the device's one stream, in the order in which it is asked for. The tape is dfdx's, on the host:
//! what flows along it lies on the device.

mod kernels;
mod memory;
mod sequence;
mod site;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cudarc::driver::{CudaDevice, DriverError, result};
use spdflow_kernels::cuda::{Handle, MODULES, load};

use super::backend::Backend;

/// An NVIDIA GPU with the kernels loaded. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Gpu {
    handle: Handle,
}

impl Backend for Gpu {}

/// Why a GPU cannot be used, and what to do about it.
#[derive(Debug)]
pub struct GpuError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// A failure of the device in a place that returns no errors, such as reading a loss. [`on_gpu`] catches it.
struct Lost(String);

/// Returns what `work` returns on the GPU of this index.
///
/// # Errors
/// A [`GpuError`] if there is no such GPU, it refuses the kernels, or it fails while its numbers are read.
pub fn on_gpu<T>(ordinal: usize, work: impl FnOnce(&Gpu) -> T) -> Result<T, GpuError> {
    let device = open(ordinal)?;
    catch_unwind(AssertUnwindSafe(|| work(&device))).map_err(|panic| match panic.downcast::<Lost>() {
        Ok(lost) => {
            GpuError { message: format!("GPU {ordinal} fails: {}", lost.0), hint: "the system's log may say more" }
        }
        Err(panic) => resume_unwind(panic),
    })
}

fn open(ordinal: usize) -> Result<Gpu, GpuError> {
    let none = |message| GpuError { message, hint: "leave out `--device`, or use `--device cpu`" };
    // Asked here, because cudarc panics where there is no driver.
    result::init().map_err(|error| none(format!("there is no NVIDIA GPU that works here ({})", text(&error))))?;
    let count = result::device::get_count().map_err(|error| none(text(&error)))?;
    if usize::try_from(count).is_ok_and(|count| ordinal >= count) {
        return Err(none(format!(
            "`--device cuda:{ordinal}`: expected a number below {count}, the number of GPUs here"
        )));
    }
    let refused = |error: String| GpuError {
        message: format!("GPU {ordinal} cannot be opened: {error}"),
        hint: "`nvidia-smi` says whether another program holds it or its memory",
    };
    let handle = CudaDevice::new(ordinal).map_err(|error| refused(text(&error)))?;
    load(&handle, MODULES).map_err(|error| refused(error.to_string()))?;
    Ok(Gpu { handle })
}

/// Returns what the driver calls an error.
fn text(error: &DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| format!("{error:?}"))
}

/// Returns the value, or ends the stage.
fn or_lost<T>(result: Result<T, DriverError>) -> T {
    // Not a panic: nobody prints it.
    result.unwrap_or_else(|error| resume_unwind(Box::new(Lost(text(&error)))))
}
