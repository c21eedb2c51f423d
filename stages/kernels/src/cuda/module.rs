//! From the text of a `.cu` file to functions on the device.
//!
//! NVRTC compiles for the device that is there; its output is kept in the user's cache folder under the digest of
//! everything it depends on, so that only the first start waits for it. A file there that cannot be read or loaded is
//! simply made again.

use std::ffi::{CStr, CString};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaFunction, DriverError};
use cudarc::nvrtc::{Ptx, result as nvrtc, sys};

use super::Handle;

/// What every file begins with.
const COMMON: &str = include_str!("common.cuh");

/// A file of kernels.
#[derive(Debug)]
pub struct Module {
    /// The name of the file, and of its operation.
    pub name: &'static str,
    /// What comes between [`COMMON`] and the text, for files that share more than that.
    pub needs: &'static [&'static str],
    /// The text of the file.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

/// Why kernels cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The compiler refuses a file.
    Compile {
        /// The file.
        module: &'static str,
        /// What the compiler says.
        log: String,
    },
    /// There is no working compiler.
    Compiler(nvrtc::NvrtcError),
    /// The device refuses the code.
    Device {
        /// The file.
        module: &'static str,
        /// What the driver says.
        error: DriverError,
    },
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compile { module, log } => write!(f, "the kernels in `{module}.cu` do not compile:\n{log}"),
            Self::Compiler(error) => write!(f, "the compiler for kernels (`libnvrtc.so.12`) does not work: {error:?}"),
            Self::Device { module, error } => write!(f, "the GPU refuses the kernels in `{module}.cu`: {error:?}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Makes the kernels of `modules` known to the device, unless they are.
///
/// # Errors
/// A [`LoadError`]; kernels that were loaded before it stay known.
pub fn load(device: &Handle, modules: &[&Module]) -> Result<(), LoadError> {
    let missing = modules.iter().filter(|module| !device.has_func(module.name, module.kernels[0]));
    for module in missing {
        load_one(device, module)?;
    }
    Ok(())
}

/// Returns a kernel that was [loaded](load).
pub(crate) fn function(device: &Handle, module: &Module, kernel: &'static str) -> CudaFunction {
    let function = device.get_func(module.name, kernel);
    function.unwrap_or_else(|| panic!("kernel `{kernel}` of `{}.cu` is in its list and was loaded", module.name))
}

fn load_one(device: &Handle, module: &Module) -> Result<(), LoadError> {
    let code = Code::of(device, module)?;
    let load = |ptx: String| device.load_ptx(Ptx::from_src(ptx), module.name, module.kernels);
    let kept = code.place.as_ref().and_then(|place| fs::read_to_string(place).ok());
    if kept.is_some_and(|ptx| load(ptx).is_ok()) {
        return Ok(());
    }
    let ptx = code.compile(module.name)?;
    load(ptx.clone()).map_err(|error| LoadError::Device { module: module.name, error })?;
    code.keep(&ptx);
    Ok(())
}

/// A text with the options for its compiler.
struct Code {
    text: String,
    options: Vec<String>,
    /// Where its result is kept.
    place: Option<PathBuf>,
}

impl Code {
    fn of(device: &Handle, module: &Module) -> Result<Self, LoadError> {
        let attribute = |which| device.attribute(which);
        let wrong = |error| LoadError::Device { module: module.name, error };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR).map_err(wrong)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR).map_err(wrong)?;
        let mut text = COMMON.to_owned();
        for part in module.needs.iter().chain([&module.text]) {
            text.push_str(part);
        }
        let options = vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_owned()];
        let place = folder().map(|folder| folder.join(format!("{}.ptx", digest(&text, &options))));
        Ok(Self { text, options, place })
    }

    fn compile(&self, name: &'static str) -> Result<String, LoadError> {
        let program = Program(nvrtc::create_program(&self.text).map_err(LoadError::Compiler)?);
        // SAFETY: the program is alive until the end of this function.
        if let Err(error) = unsafe { nvrtc::compile_program(program.0, &self.options) } {
            // SAFETY: as above.
            let log = unsafe { nvrtc::get_program_log(program.0) }.map_err(|_| LoadError::Compiler(error))?;
            return Err(LoadError::Compile { module: name, log: text_of(&log) });
        }
        // SAFETY: as above.
        let ptx = unsafe { nvrtc::get_ptx(program.0) }.map_err(LoadError::Compiler)?;
        Ok(text_of(&ptx))
    }

    /// Keeps the compiler's output for the next start; not being able to costs time there, nothing else.
    fn keep(&self, ptx: &str) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Some(place) = &self.place else { return };
        let unique = format!("tmp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let partial = place.with_extension(unique);
        let written = place.parent().map(fs::create_dir_all).is_some_and(|made| made.is_ok())
            && fs::write(&partial, ptx).is_ok()
            && fs::rename(&partial, place).is_ok();
        if !written {
            let _ = fs::remove_file(&partial);
        }
    }
}

/// A program of NVRTC, given back when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program`, and given back only here.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

/// Returns a text that ends in a zero, as NVRTC gives it.
fn text_of(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_owned).unwrap_or_else(|_| CString::default());
    text.to_string_lossy().into_owned()
}

fn digest(text: &str, options: &[String]) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are places for a number.
    let _ = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    let mut hasher = blake3::Hasher::new_derive_key("spdflow kernels v1");
    for part in options.iter().map(String::as_str).chain([&format!("nvrtc {major}.{minor}")[..], text]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Returns the user's folder for what can be made again.
fn folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("spdflow").join("kernels"))
}
