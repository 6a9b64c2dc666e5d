//! Shards and the choice of a backend for Python.

use counterfoil::commit::{Backend, Shard as CoreShard, merge_shards as merge};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::commit::Commitment;
use crate::gateway::{enter, error, raise, watched};

/// The hash of a run of a tensor's bytes.
#[pyclass(frozen, from_py_object, eq, hash, module = "counterfoil", name = "Shard")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shard(pub(crate) CoreShard);

#[pymethods]
impl Shard {
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Shard> {
        CoreShard::decode(data).map(Shard).map_err(|refused| raise(py, &refused))
    }

    /// Its encoding, as `from_bytes` reads it.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.encode())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Shard>().getattr("from_bytes")?, (self.to_bytes(py),)))
    }

    /// Where its bytes begin in the whole.
    #[getter]
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    /// Its bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn __repr__(&self) -> String {
        format!("Shard(offset={}, size={})", self.0.offset(), self.0.size())
    }
}

#[pyfunction]
#[pyo3(signature = (data, offset, progress = None))]
fn commit_shard(
    py: Python<'_>,
    data: PyReadonlyArray1<'_, u8>,
    offset: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<Shard> {
    let bytes = data.as_slice()?;
    watched(py, progress.as_ref(), bytes.len() as u64, |watch| CoreShard::new(bytes, offset, watch))
        .map(Shard)
}

#[pyfunction]
fn merge_shards(py: Python<'_>, shards: Vec<Shard>) -> PyResult<Commitment> {
    let shards: Vec<CoreShard> = shards.into_iter().map(|shard| shard.0).collect();
    enter(py, || merge(&shards)).map(Commitment::of_bytes)
}

/// The names of the backends that this processor has, the fastest first.
#[pyfunction]
fn backends() -> Vec<&'static str> {
    Backend::available().into_iter().map(Backend::name).collect()
}

/// Makes one backend hash everything from now on, or the fastest again; for tests and benchmarks.
#[pyfunction]
#[pyo3(signature = (name = None))]
fn force_backend(py: Python<'_>, name: Option<&str>) -> PyResult<&'static str> {
    let available = Backend::available();
    let chosen = available.iter().find(|backend| name.is_none_or(|name| backend.name() == name));
    let Some(chosen) = chosen else {
        let evidence = [Some(backends().join(" ")), name.map(str::to_string), None];
        return Err(error(py, "invalid-input", "this processor has no such backend", evidence));
    };
    Backend::force(Some(*chosen));
    Ok(chosen.name())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Shard>()?;
    module.add_function(wrap_pyfunction!(commit_shard, module)?)?;
    module.add_function(wrap_pyfunction!(merge_shards, module)?)?;
    module.add_function(wrap_pyfunction!(backends, module)?)?;
    module.add_function(wrap_pyfunction!(force_backend, module)?)
}
