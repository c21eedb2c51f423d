//! NVIDIA GPUs: what a stage opens, and how a failing device ends it. `memory.rs`, `kernels.rs`, `sequence.rs` and
//! `site.rs` implement the traits of `backend.rs` with the launchers of `spdflow-kernels`.
//!
//! Everything runs on the device's one stream, in the order in which it is asked for. The tape is dfdx's, on the host:
//! what flows along it lies on the device.

mod accord;
mod kernels;
#[cfg(feature = "nccl")]
mod link;
mod memory;
mod sequence;
mod site;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use cudarc::driver::{CudaDevice, DriverError, result};
use spdflow_engine::ranks::{RankError, World};
use spdflow_kernels::cuda::{Handle, MODULES, identity, load};

use super::backend::Backend;
use super::link::Link;
use accord::{Accord, Offer, agree};

/// An NVIDIA GPU with the kernels loaded. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Gpu {
    handle: Handle,
    /// The connection with the GPUs of other ranks.
    link: Option<Arc<dyn Link<Self>>>,
}

impl Backend for Gpu {
    fn linked(&self, world: &dyn World, tell: &dyn Fn(&str)) -> Result<Self, RankError> {
        let (rank, size) = (world.rank(), world.size());
        if size == 1 {
            return Ok(self.clone());
        }
        let failed = |message: String| RankError::Failed { rank, size, message };
        let gpu = identity(&self.handle).map_err(|error| failed(text(&error)))?;
        let ours = Offer { gpu, nccl: nccl_here() };
        let version = ours.nccl.clone().unwrap_or_default();
        match agree(world, ours, new_id)? {
            Accord::Nccl(id) => {
                let link = Some(self.connected(&id, world)?);
                tell(&format!("the GPUs of {size} ranks sum by NCCL {version}"));
                Ok(Self { link, ..self.clone() })
            }
            Accord::Host(reason) => {
                tell(&format!("gradients of {size} ranks are summed by their processors, not by NCCL: {reason}"));
                Ok(self.clone())
            }
        }
    }

    fn link(&self) -> Option<&dyn Link<Self>> {
        self.link.as_deref()
    }
}

/// `0` here keeps ranks from using NCCL.
const SWITCH: &str = "SPDFLOW_NCCL";

/// Returns the version of NCCL, or why it is not used.
fn nccl_here() -> Result<String, String> {
    if std::env::var_os(SWITCH).is_some_and(|value| value == "0") {
        return Err(format!("`{SWITCH}` is 0"));
    }
    #[cfg(feature = "nccl")]
    return spdflow_kernels::cuda::nccl::version().map_err(|error| error.to_string());
    #[cfg(not(feature = "nccl"))]
    Err("this build of spdflow has no NCCL; `--features nccl` adds it".to_owned())
}

fn new_id() -> Result<Vec<u8>, String> {
    #[cfg(feature = "nccl")]
    return spdflow_kernels::cuda::nccl::unique_id().map(Vec::from).map_err(|error| error.to_string());
    #[cfg(not(feature = "nccl"))]
    nccl_here().map(|_| Vec::new())
}

impl Gpu {
    #[cfg(feature = "nccl")]
    fn connected(&self, id: &[u8], world: &dyn World) -> Result<Arc<dyn Link<Self>>, RankError> {
        let place = (world.rank(), world.size());
        let id = id.try_into().map_err(|_| RankError::Confused {
            rank: 0,
            size: place.1,
            expected: "an id of 128 bytes".to_owned(),
            found: format!("{} bytes", id.len()),
        })?;
        Ok(Arc::new(link::NcclLink::connect(&self.handle, id, place, &|| world.trouble())?))
    }

    #[cfg(not(feature = "nccl"))]
    fn connected(&self, _: &[u8], world: &dyn World) -> Result<Arc<dyn Link<Self>>, RankError> {
        let (expected, found) = ("sums through the host".to_owned(), "the id of a meeting by NCCL".to_owned());
        Err(RankError::Confused { rank: 0, size: world.size(), expected, found })
    }
}

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
    Ok(Gpu { handle, link: None })
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
