//! Hashing on NVIDIA GPUs for Python: `counterfoil.cuda` owns memory and streams, through PyTorch.
#![allow(
    unsafe_code,
    reason = "A launch reads and writes device memory by address; counterfoil.cuda passes those of PyTorch's \
              tensors, on the stream in whose order PyTorch frees them."
)]

use counterfoil::commit::cuda::{self, CudaError, Launch};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::gateway::{enter, error};

/// Blocks, address of the table, segments, domain, address of the digests.
type Parameters = (u32, u64, u32, u32, u64);

/// The launches that make the roots of tensors on one device.
#[pyclass(frozen, module = "counterfoil", name = "CudaPlan")]
pub(crate) struct CudaPlan {
    plan: cuda::Plan,
    tensors: usize,
}

#[pymethods]
impl CudaPlan {
    #[new]
    fn new(py: Python<'_>, lengths: Vec<u64>) -> PyResult<CudaPlan> {
        let plan = cuda::Plan::new(&lengths).ok_or_else(|| refused(py, "too many bytes for one launch"))?;
        Ok(CudaPlan { plan, tensors: lengths.len() })
    }

    #[getter]
    fn size(&self) -> u64 {
        self.plan.size()
    }

    #[getter]
    fn roots_size(&self) -> u64 {
        self.plan.roots_size()
    }

    fn launches<'py>(
        &self,
        py: Python<'py>,
        tensors: Vec<u64>,
        memory: u64,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<Parameters>)> {
        let is_placed = memory.is_multiple_of(32) && memory.checked_add(self.plan.size()).is_some();
        if tensors.len() != self.tensors || !is_placed {
            return Err(refused(
                py,
                "an address for each tensor and one of memory, a multiple of 32, are needed",
            ));
        }
        let (table, launches) = self.plan.launches(&tensors, memory);
        let parameters = launches.iter().map(|l| (l.blocks, l.segments, l.count, l.domain, l.digests));
        Ok((PyBytes::new(py, &table), parameters.collect()))
    }

    fn roots<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        if bytes.len() as u64 != self.plan.roots_size() {
            return Err(refused(py, "the roots of this plan have another size"));
        }
        Ok(self.plan.roots(bytes).iter().map(|root| PyBytes::new(py, root.as_slice())).collect())
    }
}

fn refused(py: Python<'_>, message: &str) -> PyErr {
    error(py, "invalid-input", message, [None, None, None])
}

#[pyfunction]
fn cuda_launch(py: Python<'_>, device: u32, stream: u64, launches: Vec<Parameters>) -> PyResult<()> {
    let launch =
        |(blocks, segments, count, domain, digests)| Launch { blocks, segments, count, domain, digests };
    let launches: Vec<Launch> = launches.into_iter().map(launch).collect();
    // SAFETY: see the reason above.
    enter(py, || unsafe { cuda::launch(device, stream, &launches) })
}

type Device = (String, (i32, i32));

/// The driver's CUDA version, and the name and compute capability of each GPU.
#[pyfunction]
fn cuda_devices(py: Python<'_>) -> PyResult<(i32, Vec<Device>)> {
    enter(py, || {
        let devices = cuda::devices()?.into_iter().map(|device| (device.name, device.capability));
        Ok::<_, CudaError>((cuda::driver_version()?, devices.collect()))
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CudaPlan>()?;
    module.add_function(wrap_pyfunction!(cuda_launch, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_devices, module)?)
}
