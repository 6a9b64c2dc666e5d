//! The NVIDIA driver, found when it is first asked for: nothing is linked against it.
#![allow(
    unsafe_code,
    reason = "The driver is a C library. Each call here passes what its manual demands: handles that the \
              driver returned before, of contexts that are never released, and places that live during the call."
)]

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};

use super::Launch;
use crate::primitives::Report;

const PTX: &str = include_str!("reduce.ptx");
const KERNEL: &str = "counterfoil_reduce";
/// Threads of a block, as in `reduce.cu`.
const THREADS: u32 = 256;
/// The first CUDA version whose driver loads the PTX, and the first capability that runs it.
const OLDEST_DRIVER: i32 = 11080;
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);

/// Why a GPU does not hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum CudaError {
    /// The driver's library is not there.
    #[error(
        "no NVIDIA driver: {} could not be loaded; install the driver (525 or newer), or let the CPU hash",
        library()
    )]
    Missing,
    /// The library is no whole driver, such as a stub to link against.
    #[error("{} was loaded, but it has no {call}: it is no NVIDIA driver", library())]
    Incomplete { call: &'static str },
    /// The driver is older than the kernel.
    #[error(
        "the NVIDIA driver supports CUDA {}, the kernel needs 11.8: install driver 525 or newer",
        dotted(*version)
    )]
    OldDriver { version: i32 },
    /// The GPU is older than the kernel.
    #[error("GPU {device} ({name}) has compute capability {}.{}, the kernel needs 7.5", found.0, found.1)]
    OldDevice { device: u32, name: String, found: (i32, i32) },
    /// The driver refused a call.
    #[error("{call} failed with {name}: {text}")]
    Call { call: &'static str, name: String, text: String },
}

impl Report for CudaError {
    fn code(&self) -> &'static str {
        "device"
    }

    fn expected(&self) -> Option<String> {
        match self {
            CudaError::Missing => Some(library().into()),
            CudaError::OldDriver { .. } => Some("CUDA 11.8".into()),
            CudaError::OldDevice { .. } => Some("compute capability 7.5".into()),
            CudaError::Incomplete { call } => Some((*call).into()),
            CudaError::Call { .. } => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            CudaError::Missing | CudaError::Incomplete { .. } => None,
            CudaError::OldDriver { version } => Some(format!("CUDA {}", dotted(*version))),
            CudaError::OldDevice { found, .. } => Some(format!("{}.{}", found.0, found.1)),
            CudaError::Call { name, .. } => Some(name.clone()),
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            CudaError::OldDevice { name, .. } => Some(name.clone()),
            CudaError::Call { call, .. } => Some((*call).into()),
            _ => None,
        }
    }
}

fn library() -> &'static str {
    if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" }
}

fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Names the call that the driver refused.
fn called<T>(call: &'static str, result: Result<T, result::DriverError>) -> Result<T, CudaError> {
    result.map_err(|error| {
        let text = |found: Result<&std::ffi::CStr, _>| {
            found.map_or_else(
                |_| format!("error {}", error.0 as u32),
                |text| text.to_string_lossy().into_owned(),
            )
        };
        CudaError::Call { call, name: text(error.error_name()), text: text(error.error_string()) }
    })
}

/// A GPU, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Such as "NVIDIA H200".
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

/// The calls of the driver that are made here; cudarc would panic where one is missing.
const CALLS: [&str; 14] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchKernel",
    "cuModuleGetFunction",
    "cuModuleLoadData",
];

/// Loads the driver and returns the CUDA version it supports, such as 12040 for 12.4.
///
/// # Errors
/// [`CudaError::Missing`], [`CudaError::Incomplete`], [`CudaError::Call`].
pub fn driver_version() -> Result<i32, CudaError> {
    // SAFETY: loading a library runs its initialisers; this one is the machine's own driver. Its
    // symbols are looked up, and not called by this type.
    unsafe {
        if !sys::is_culib_present() {
            return Err(CudaError::Missing);
        }
        let lacks = |call: &&str| sys::culib().get::<unsafe extern "C" fn()>(call.as_bytes()).is_err();
        if let Some(call) = CALLS.into_iter().find(lacks) {
            return Err(CudaError::Incomplete { call });
        }
    }
    let mut version = 0;
    // SAFETY: the place lives during the call, which needs no initialised driver.
    called("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
    Ok(version)
}

/// The GPUs that this process may see, by their numbers.
///
/// # Errors
/// As for [`driver_version`].
pub fn devices() -> Result<Vec<Device>, CudaError> {
    driver_version()?;
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(Vec::new()),
        initialised => called("cuInit", initialised)?,
    }
    let count = called("cuDeviceGetCount", result::device::get_count())?;
    (0..count).map(|ordinal| describe(handle(ordinal)?)).collect()
}

fn handle(ordinal: i32) -> Result<sys::CUdevice, CudaError> {
    called("cuDeviceGet", result::device::get(ordinal))
}

fn describe(device: sys::CUdevice) -> Result<Device, CudaError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let name = called("cuDeviceGetName", result::device::get_name(device))?;
    // SAFETY: the device is one that the driver returned.
    let read = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    let capability = called("cuDeviceGetAttribute", read(MAJOR).and_then(|major| Ok((major, read(MINOR)?))))?;
    Ok(Device { name, capability })
}

/// The kernel in one device's primary context, which PyTorch uses too. Neither is ever released.
#[derive(Clone, Copy)]
struct Kernel {
    context: sys::CUcontext,
    function: sys::CUfunction,
}

// SAFETY: both are handles that the driver takes from any thread.
unsafe impl Send for Kernel {}

static KERNELS: Mutex<BTreeMap<u32, Kernel>> = Mutex::new(BTreeMap::new());

/// Makes a context current, and on drop the one that was.
struct Current(Option<sys::CUcontext>);

impl Current {
    fn set(context: sys::CUcontext) -> Result<Current, CudaError> {
        let before = called("cuCtxGetCurrent", result::ctx::get_current())?;
        // SAFETY: the context is a primary one, retained for good.
        called("cuCtxSetCurrent", unsafe { result::ctx::set_current(context) })?;
        Ok(Current(before))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        // SAFETY: the context was current when this began. None leaves the thread without one again.
        let _ = unsafe { result::ctx::set_current(self.0.unwrap_or(std::ptr::null_mut())) };
    }
}

/// The device's kernel; the first call compiles the PTX for it, which takes up to some seconds.
fn kernel(ordinal: u32) -> Result<Kernel, CudaError> {
    let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = kernels.get(&ordinal) {
        return Ok(*kernel);
    }
    let version = driver_version()?;
    if version < OLDEST_DRIVER {
        return Err(CudaError::OldDriver { version });
    }
    called("cuInit", result::init())?;
    let device = handle(ordinal as i32)?;
    let Device { name, capability } = describe(device)?;
    if capability < OLDEST_CAPABILITY {
        return Err(CudaError::OldDevice { device: ordinal, name, found: capability });
    }
    // SAFETY: the device is one that the driver returned.
    let context = called("cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
    let _current = Current::set(context)?;
    let image = CString::new(PTX).expect("PTX is text");
    // SAFETY: the image is PTX that ends with a zero byte.
    let module = called("cuModuleLoadData", unsafe { result::module::load_data(image.as_ptr().cast()) })?;
    let name = CString::new(KERNEL).expect("a name is text");
    // SAFETY: the module was just loaded into the current context.
    let function = called("cuModuleGetFunction", unsafe { result::module::get_function(module, name) })?;
    kernels.insert(ordinal, Kernel { context, function });
    Ok(Kernel { context, function })
}

/// Puts launches on a stream of a device and returns at once. Without launches it loads the kernel.
///
/// # Safety
/// The stream must be one of the device's primary context (0 is its default stream). Until it has come
/// past the launches, their table, the tensors that it names and the memory for digests must stay
/// where they are.
///
/// # Errors
/// [`CudaError`].
pub unsafe fn launch(device: u32, stream: u64, launches: &[Launch]) -> Result<(), CudaError> {
    let Kernel { context, function } = kernel(device)?;
    let _current = Current::set(context)?;
    for launch in launches {
        let Launch { blocks, mut segments, mut count, mut domain, mut digests } = *launch;
        let mut parameters: [*mut c_void; 4] = [
            (&raw mut segments).cast(),
            (&raw mut count).cast(),
            (&raw mut domain).cast(),
            (&raw mut digests).cast(),
        ];
        // SAFETY: the parameters are those of the kernel, in its order and sizes; the driver copies them
        // during the call. For the rest the caller vouches.
        let launched = unsafe {
            let stream = stream as sys::CUstream;
            result::launch_kernel(function, (blocks, 1, 1), (THREADS, 1, 1), 0, stream, &mut parameters)
        };
        called("cuLaunchKernel", launched)?;
    }
    Ok(())
}
