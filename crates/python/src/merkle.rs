//! Merkle proofs over plain entries for Python.

use counterfoil::commit::{Sha256, leaf_hash, merkle};
use counterfoil::primitives::Digest;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::gateway::{digest, enter, raise};

fn leaves(leaves: &[Vec<u8>]) -> Vec<Digest> {
    leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
}

fn digests(py: Python<'_>, proof: &[Vec<u8>]) -> PyResult<Vec<Digest>> {
    proof.iter().map(|hash| digest(py, "each hash of a proof", hash)).collect()
}

fn to_list<'py>(py: Python<'py>, hashes: &[Digest]) -> Vec<Bound<'py, PyBytes>> {
    hashes.iter().map(|hash| PyBytes::new(py, hash.as_slice())).collect()
}

#[pyfunction]
fn merkle_root<'py>(py: Python<'py>, entries: Vec<Vec<u8>>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, merkle::root(&leaves(&entries)).as_slice())
}

#[pyfunction]
fn inclusion_proof<'py>(
    py: Python<'py>,
    entries: Vec<Vec<u8>>,
    index: u64,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    Ok(to_list(py, &enter(py, || merkle::inclusion_proof::<Sha256>(&leaves(&entries), index))?))
}

#[pyfunction]
fn consistency_proof<'py>(
    py: Python<'py>,
    entries: Vec<Vec<u8>>,
    m: u64,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    Ok(to_list(py, &enter(py, || merkle::consistency_proof(&leaves(&entries), m))?))
}

#[pyfunction]
fn verify_inclusion(
    py: Python<'_>,
    leaf: &[u8],
    index: u64,
    size: u64,
    proof: Vec<Vec<u8>>,
    root: &[u8],
    hashed: bool,
) -> PyResult<()> {
    let leaf = if hashed { digest(py, "a hashed leaf", leaf)? } else { leaf_hash(leaf) };
    let (proof, root) = (digests(py, &proof)?, digest(py, "the root", root)?);
    merkle::verify_inclusion::<Sha256>(&leaf, index, size, &proof, &root)
        .map_err(|refused| raise(py, &refused))
}

#[pyfunction]
fn verify_consistency(
    py: Python<'_>,
    m: u64,
    n: u64,
    proof: Vec<Vec<u8>>,
    root_m: &[u8],
    root_n: &[u8],
) -> PyResult<()> {
    let proof = digests(py, &proof)?;
    let (root_m, root_n) = (digest(py, "root_m", root_m)?, digest(py, "root_n", root_n)?);
    merkle::verify_consistency(m, n, &proof, &root_m, &root_n).map_err(|refused| raise(py, &refused))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for function in [
        wrap_pyfunction!(merkle_root, module)?,
        wrap_pyfunction!(inclusion_proof, module)?,
        wrap_pyfunction!(consistency_proof, module)?,
        wrap_pyfunction!(verify_inclusion, module)?,
        wrap_pyfunction!(verify_consistency, module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(())
}
