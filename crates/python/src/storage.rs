//! 0G storage for Python.

use std::path::PathBuf;

use counterfoil::files;
use counterfoil::primitives::Digest;
use counterfoil::storage::{self, StorageRoot as CoreRoot, padded_chunks, verify_segment};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::gateway::{digest, enter, position, raise, watched};

/// What 0G storage knows a file by.
#[pyclass(frozen, eq, hash, module = "counterfoil.storage", name = "StorageRoot")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct StorageRoot(CoreRoot);

fn to_bytes<'py>(py: Python<'py>, hash: &Digest) -> Bound<'py, PyBytes> {
    PyBytes::new(py, hash.as_slice())
}

type Hashes<'py> = Vec<Bound<'py, PyBytes>>;

#[pymethods]
impl StorageRoot {
    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        to_bytes(py, &self.0.root)
    }

    #[getter]
    fn length(&self) -> u64 {
        self.0.length
    }

    #[getter]
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
        pyo3::types::PyTuple::new(py, self.0.nodes.iter().map(|(height, root)| (to_bytes(py, root), *height)))
    }

    #[getter]
    fn chunks(&self) -> u64 {
        self.0.length.div_ceil(storage::CHUNK)
    }

    #[getter]
    fn padded_chunks(&self) -> u64 {
        padded_chunks(self.0.length)
    }

    #[getter]
    fn segments(&self) -> usize {
        self.0.segments().len()
    }

    /// The root of a segment.
    fn segment_root<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(self.segment_proof(py, index)?.0.swap_remove(0))
    }

    /// The proof of a segment: hashes from its root over the siblings to the file's root, and for
    /// each sibling whether it stands on the right.
    fn segment_proof<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<(Hashes<'py>, Vec<bool>)> {
        let index = position(py, "the segment", index)?;
        let (lemma, path) = self.0.segment_proof(index).map_err(|refused| raise(py, &refused))?;
        Ok((lemma.iter().map(|hash| to_bytes(py, hash)).collect(), path))
    }

    fn __repr__(&self) -> String {
        format!("StorageRoot(root={}, length={}, nodes={})", self.0.root, self.0.length, self.0.nodes.len())
    }
}

#[pyfunction]
#[pyo3(signature = (data, progress = None))]
fn storage_root(
    py: Python<'_>,
    data: PyReadonlyArray1<'_, u8>,
    progress: Option<Py<PyAny>>,
) -> PyResult<StorageRoot> {
    let bytes = data.as_slice()?;
    let work = |watch: counterfoil::commit::Watch<'_>| CoreRoot::of_bytes(bytes, watch);
    watched(py, progress.as_ref(), bytes.len() as u64, work).map(StorageRoot)
}

#[pyfunction]
#[pyo3(signature = (path, progress = None))]
fn storage_root_of_file(py: Python<'_>, path: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<StorageRoot> {
    let total = enter(py, || files::open(&path).map(|(_, size)| size))?;
    watched(py, progress.as_ref(), total, |watch| CoreRoot::of_file(&path, watch)).map(StorageRoot)
}

#[pyfunction]
fn verify_storage_segment(
    py: Python<'_>,
    segment: &[u8],
    index: u64,
    lemma: Vec<Vec<u8>>,
    path: Vec<bool>,
    root: &[u8],
    length: u64,
) -> PyResult<()> {
    let lemma =
        lemma.iter().map(|hash| digest(py, "each hash of a proof", hash)).collect::<PyResult<Vec<_>>>()?;
    let root = digest(py, "the root", root)?;
    enter(py, || verify_segment(segment, index, (&lemma, &path), &root, length))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<StorageRoot>()?;
    module.add_function(wrap_pyfunction!(storage_root, module)?)?;
    module.add_function(wrap_pyfunction!(storage_root_of_file, module)?)?;
    module.add_function(wrap_pyfunction!(verify_storage_segment, module)?)
}
