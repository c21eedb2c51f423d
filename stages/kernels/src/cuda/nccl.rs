//! Sums and copies over the GPUs of several processes, by NCCL.
//!
//! A [`Communicator`] is one rank's end. NCCL itself notices a dead rank late or never: what waits for it on the device
//! would wait for ever, and the host with it. So the communicator is one that does not block, every call polls until the
//! device is done, and meanwhile asks its caller whether to go on ([`Watch`]); if not, it is aborted, which ends what
//! waits on the device. The memory of an operation that failed holds arbitrary numbers.
//!
//! Everything is done on the device's one stream, so what was asked for before a sum is in it.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::{DevicePtr, DeviceSlice, DriverError, sys as driver};
use cudarc::nccl::sys;

use super::{Handle, Memory};

/// What all ranks of a communicator know, and nobody else.
pub type UniqueId = [u8; 128];

/// Says whether to go on waiting for other ranks; asked every few milliseconds.
pub type Watch<'a> = dyn Fn() -> bool + 'a;

/// Why nothing was summed.
#[derive(Debug)]
pub enum NcclError {
    /// The [`Watch`] said so.
    Stopped,
    /// NCCL does not work, or has noticed itself that a rank is gone.
    Nccl {
        /// The function.
        call: &'static str,
        /// What NCCL says.
        text: String,
    },
    /// The device fails.
    Device(DriverError),
}

impl std::fmt::Display for NcclError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("given up"),
            Self::Nccl { call, text } => write!(f, "NCCL fails ({call}: {text})"),
            Self::Device(error) => write!(f, "the GPU fails ({error:?})"),
        }
    }
}

impl std::error::Error for NcclError {}

impl From<DriverError> for NcclError {
    fn from(error: DriverError) -> Self {
        Self::Device(error)
    }
}

/// Returns NCCL's version, such as `2.18.3`.
///
/// # Errors
/// If there is none on this machine.
pub fn version() -> Result<String, NcclError> {
    let mut version = 0;
    // SAFETY: a place for a number.
    let result = unsafe { sys::ncclGetVersion(&mut version) };
    done("ncclGetVersion", result, std::ptr::null_mut())?;
    Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
}

/// Returns a new id, for one communicator; rank 0 makes it and gives it to the others.
///
/// # Errors
/// NCCL's.
pub fn unique_id() -> Result<UniqueId, NcclError> {
    let mut id = sys::ncclUniqueId { internal: [0; 128] };
    // SAFETY: a place for an id.
    let result = unsafe { sys::ncclGetUniqueId(&mut id) };
    done("ncclGetUniqueId", result, std::ptr::null_mut())?;
    Ok(id.internal.map(|byte| byte as u8))
}

/// One rank's end of a connection of GPUs.
#[derive(Debug)]
pub struct Communicator {
    /// Nothing once it is closed or has failed.
    raw: Mutex<Option<Raw>>,
    device: Handle,
}

/// NCCL's handle.
#[derive(Debug)]
struct Raw(sys::ncclComm_t);

// SAFETY: NCCL lets any thread use a communicator, one at a time: the only ones are in the mutex of a `Communicator`.
unsafe impl Send for Raw {}

impl Communicator {
    /// Connects `device` with those of the other ranks, all of which have to call this with the same id.
    ///
    /// # Errors
    /// A [`NcclError`], also if two ranks have the same GPU.
    pub fn connect(
        device: &Handle,
        id: &UniqueId,
        rank: usize,
        size: usize,
        watch: &Watch<'_>,
    ) -> Result<Self, NcclError> {
        device.bind_to_thread()?;
        let id = sys::ncclUniqueId { internal: id.map(|byte| byte as c_char) };
        let number = |number: usize| i32::try_from(number).expect("ranks are fewer than 2^31");
        let mut config = not_blocking();
        let mut comm = std::ptr::null_mut();
        // SAFETY: places for a handle and of a configuration, which NCCL copies.
        let result = unsafe { sys::ncclCommInitRankConfig(&mut comm, number(size), id, number(rank), &mut config) };
        if comm.is_null() {
            done("ncclCommInitRank", result, comm)?;
        }
        let communicator = Self { raw: Mutex::new(Some(Raw(comm))), device: device.clone() };
        communicator.work(|_| ("ncclCommInitRank", result), watch)?;
        Ok(communicator)
    }

    /// Replaces each number by its sum over all ranks. For the same ranks and the same NCCL, the same bits each time and
    /// on every rank.
    ///
    /// # Errors
    /// A [`NcclError`]; the communicator cannot be used any more then.
    pub fn sum(&self, memory: &mut Memory, watch: &Watch<'_>) -> Result<(), NcclError> {
        let (place, length, stream) = self.place(memory);
        let sum = |comm| {
            let (kind, of) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
            // SAFETY: `length` numbers on the communicator's device, which nothing else touches: `place` is all of
            // `memory`, borrowed until the device is done or has been made to end. In place is allowed.
            ("ncclAllReduce", unsafe { sys::ncclAllReduce(place, place, length, kind, of, comm, stream) })
        };
        self.work(sum, watch)
    }

    /// Replaces each number by that of rank 0.
    ///
    /// # Errors
    /// As [`Communicator::sum`].
    pub fn copy_from_first(&self, memory: &mut Memory, watch: &Watch<'_>) -> Result<(), NcclError> {
        let (place, length, stream) = self.place(memory);
        let copy = |comm| {
            let kind = sys::ncclDataType_t::ncclFloat32;
            // SAFETY: as in `sum`.
            ("ncclBroadcast", unsafe { sys::ncclBroadcast(place, place, length, kind, 0, comm, stream) })
        };
        self.work(copy, watch)
    }

    /// Ends the connection when all ranks have what they asked for. All of them have to call this at the same point.
    ///
    /// # Errors
    /// A [`NcclError`]; the connection is ended all the same.
    pub fn close(&self, watch: &Watch<'_>) -> Result<(), NcclError> {
        // SAFETY: `work` hands out a live communicator.
        self.work(|comm| ("ncclCommFinalize", unsafe { sys::ncclCommFinalize(comm) }), watch)?;
        if let Some(Raw(comm)) = self.taken() {
            // SAFETY: it was live and nobody has it any more.
            done("ncclCommDestroy", unsafe { sys::ncclCommDestroy(comm) }, std::ptr::null_mut())?;
        }
        Ok(())
    }

    fn place(&self, memory: &mut Memory) -> (*mut c_void, usize, sys::cudaStream_t) {
        let same = memory.device().ordinal() == self.device.ordinal();
        assert!(same, "memory of GPU {} with the communicator of another", memory.device().ordinal());
        // The driver and the runtime call the same thing by two names.
        (*memory.device_ptr() as *mut c_void, memory.len(), (*self.device.cu_stream()).cast())
    }

    fn taken(&self) -> Option<Raw> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes a call and waits until the device has done what it asks for; aborts the communicator if that fails.
    fn work(
        &self,
        call: impl FnOnce(sys::ncclComm_t) -> (&'static str, sys::ncclResult_t),
        watch: &Watch<'_>,
    ) -> Result<(), NcclError> {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Raw(comm)) = *raw else { return Err(NcclError::Stopped) };
        self.device.bind_to_thread()?;
        let (name, result) = call(comm);
        let end = self.wait(name, result, comm, watch);
        if end.is_err() {
            *raw = None;
            abort(comm);
        }
        end
    }

    fn wait(
        &self,
        name: &'static str,
        result: sys::ncclResult_t,
        comm: sys::ncclComm_t,
        watch: &Watch<'_>,
    ) -> Result<(), NcclError> {
        let mut patience = Patience::new(watch);
        if result != sys::ncclResult_t::ncclInProgress {
            done(name, result, comm)?;
        }
        loop {
            let mut state = sys::ncclResult_t::ncclSuccess;
            // SAFETY: a live communicator and a place for a number.
            done(name, unsafe { sys::ncclCommGetAsyncError(comm, &mut state) }, comm)?;
            if state != sys::ncclResult_t::ncclInProgress {
                done(name, state, comm)?;
                // SAFETY: the device's stream.
                match unsafe { driver::cuStreamQuery(*self.device.cu_stream()) } {
                    driver::CUresult::CUDA_ERROR_NOT_READY => {}
                    result => return Ok(result.result()?),
                }
            }
            if !patience.goes_on() {
                return Err(NcclError::Stopped);
            }
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Not closed: some rank has failed, and the others may not come any more.
        if let Some(Raw(comm)) = self.taken() {
            abort(comm);
        }
    }
}

fn abort(comm: sys::ncclComm_t) {
    // SAFETY: a live communicator, which nobody has any more.
    let _ = unsafe { sys::ncclCommAbort(comm) };
}

/// Returns a configuration that asks for nothing but calls that do not block.
fn not_blocking() -> sys::ncclConfig_t {
    // As NCCL's header fills it; these two are how it knows an older caller.
    const MAGIC: u32 = 0xcafe_beef;
    const VERSION: u32 = 21_800;
    const UNDEFINED: i32 = i32::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: VERSION,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: std::ptr::null(),
        splitShare: UNDEFINED,
    }
}

/// Returns an error for every result but success; `comm` may be null.
fn done(call: &'static str, result: sys::ncclResult_t, comm: sys::ncclComm_t) -> Result<(), NcclError> {
    if result == sys::ncclResult_t::ncclSuccess {
        return Ok(());
    }
    // SAFETY: both return texts that live as long as the library, or until this thread's next call.
    let [what, more] = unsafe { [sys::ncclGetErrorString(result), sys::ncclGetLastError(comm)] }.map(|text| {
        // SAFETY: a text with its end, if there is one.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned())
    });
    let what = what.unwrap_or_default();
    let more = more.filter(|more| !more.is_empty() && *more != what).map(|more| format!("; {more}"));
    Err(NcclError::Nccl { call, text: what + &more.unwrap_or_default() })
}

/// Waits between two looks: hardly at first, then a little.
struct Patience<'a> {
    watch: &'a Watch<'a>,
    begin: Instant,
    asked: Instant,
}

/// While an operation is this young, the processor is kept busy: sums of small models take some ten microseconds.
const EAGER: Duration = Duration::from_micros(200);

/// Between two looks after that.
const PAUSE: Duration = Duration::from_micros(50);

/// Between two questions to the watch.
const ASK_EVERY: Duration = Duration::from_millis(5);

impl<'a> Patience<'a> {
    fn new(watch: &'a Watch<'a>) -> Self {
        let begin = Instant::now();
        Self { watch, begin, asked: begin }
    }

    fn goes_on(&mut self) -> bool {
        let now = Instant::now();
        if now - self.begin < EAGER {
            std::thread::yield_now();
            return true;
        }
        if now - self.asked >= ASK_EVERY {
            self.asked = now;
            if !(self.watch)() {
                return false;
            }
        }
        std::thread::sleep(PAUSE);
        true
    }
}
