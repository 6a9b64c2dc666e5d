//! Fingerprints of tensors for Python.

use counterfoil::commit::fingerprint::{BUCKETS, ROWS, fingerprint};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::commit::{Gathered, bytes_of, gather};
use crate::gateway::{digest, enter};

#[pyfunction]
fn fingerprint_tensors<'py>(
    py: Python<'py>,
    tensors: &Bound<'py, PyDict>,
    key: &[u8],
) -> PyResult<Bound<'py, PyDict>> {
    let key = digest(py, "key", key)?;
    let Gathered { entries, held } = gather(py, tensors, Some("a tensor in parts has no fingerprint"))?;
    // Where a tensor's bytes are not here, the core finds too few.
    let mut bytes: Vec<&[u8]> = vec![&[]; entries.len()];
    for (place, found) in bytes_of(&held)? {
        bytes[place] = found;
    }
    let tensors: Vec<_> = entries.iter().zip(bytes).collect();
    let units = PyDict::new(py);
    for (unit, sketch) in enter(py, || fingerprint(&tensors, &key))? {
        units.set_item(unit, PyArray1::from_slice(py, sketch.as_flattened()).reshape([ROWS, BUCKETS])?)?;
    }
    Ok(units)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(fingerprint_tensors, module)?)
}
