//! Draws by weight for Python.

use counterfoil::sortition;
use pyo3::prelude::*;

use crate::gateway::{digest, enter};

#[pyfunction]
fn sortition_draw(py: Python<'_>, beacon: &[u8], slot: u64, weights: Vec<u128>) -> PyResult<usize> {
    let beacon = digest(py, "the beacon", beacon)?;
    enter(py, || sortition::draw(&beacon, slot, &weights))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sortition_draw, module)?)
}
