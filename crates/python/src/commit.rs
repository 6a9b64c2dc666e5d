//! Commitments, openings and Merkle proofs for Python.

use std::path::PathBuf;
use std::sync::Arc;

use counterfoil::commit::{
    ChunkOpening, CommitError, Commitment as CoreCommitment, CommitmentKind, Content, Entry as CoreEntry,
    Opening as CoreOpening, ProofError, State, leaf_hash, merkle, reader_root, roots,
};
use counterfoil::journal::JournalError;
use counterfoil::primitives::Digest;
use counterfoil::tensor::{DTYPES, TensorError};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::gateway::{digest, enter, error, raise};

/// One entry of a state.
#[pyclass(frozen, module = "counterfoil", name = "Entry")]
pub(crate) struct Entry(pub(crate) CoreEntry);

#[pymethods]
impl Entry {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.content {
            Content::Dense { .. } => "dense",
            Content::Absent => "absent",
            Content::Alias { .. } => "alias",
        }
    }

    #[getter]
    fn dtype(&self) -> &str {
        match &self.0.content {
            Content::Dense { dtype, .. } => dtype,
            _ => "",
        }
    }

    #[getter]
    fn shape(&self) -> Vec<u64> {
        match &self.0.content {
            Content::Dense { shape, .. } => shape.clone(),
            _ => Vec::new(),
        }
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.root().as_slice())
    }

    #[getter]
    fn target(&self) -> Option<&str> {
        match &self.0.content {
            Content::Alias { target } => Some(target),
            _ => None,
        }
    }

    fn __repr__(&self) -> String {
        format!("Entry({:?}, {}, {:?}, 0x{:x})", self.0.name, self.dtype(), self.shape(), self.0.root())
    }
}

/// A root with everything that gives it one meaning.
#[pyclass(frozen, module = "counterfoil", name = "Commitment")]
#[derive(Clone)]
pub(crate) struct Commitment {
    pub(crate) commitment: CoreCommitment,
    pub(crate) state: Option<Arc<State>>,
    pub(crate) values: Option<Arc<Vec<u8>>>,
}

impl Commitment {
    fn of_bytes(commitment: CoreCommitment) -> Commitment {
        Commitment { commitment, state: None, values: None }
    }

    pub(crate) fn state(&self, py: Python<'_>) -> PyResult<&Arc<State>> {
        self.state.as_ref().ok_or_else(|| {
            error(
                py,
                "invalid-input",
                "a state commitment is needed here (commit_tensors), not one to bytes",
                [None, None, None],
            )
        })
    }
}

#[pymethods]
impl Commitment {
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.commitment.kind.algorithm()
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.commitment.kind {
            CommitmentKind::Bytes => "bytes",
            CommitmentKind::State => "state",
        }
    }

    #[getter]
    fn size(&self) -> u64 {
        self.commitment.size
    }

    #[getter]
    fn count(&self) -> u64 {
        self.commitment.count
    }

    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.commitment.root.as_slice())
    }

    #[getter]
    fn entries(&self) -> Vec<Entry> {
        self.state.iter().flat_map(|state| state.entries()).cloned().map(Entry).collect()
    }

    #[pyo3(signature = (blind = None))]
    fn digest<'py>(&self, py: Python<'py>, blind: Option<&[u8]>) -> PyResult<Bound<'py, PyBytes>> {
        let blind = blind.map_or(Ok(Digest::ZERO), |blind| digest(py, "blind", blind))?;
        Ok(PyBytes::new(py, self.commitment.digest(&blind).as_slice()))
    }

    /// Opens one chunk of bytes (`prove(index, data)`), or one tensor of a state (`prove(name)`),
    /// or one chunk of one tensor (`prove(name, chunk=index, tensor=tensor)`).
    #[pyo3(signature = (part, data = None, *, chunk = None, tensor = None))]
    fn prove(
        &self,
        py: Python<'_>,
        part: &Bound<'_, PyAny>,
        data: Option<&Bound<'_, PyAny>>,
        chunk: Option<u64>,
        tensor: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Opening> {
        let Some(state) = &self.state else {
            let chunk = open_chunk(py, part.extract()?, data, self.commitment.root)?;
            return Ok(Opening(CoreOpening { commitment: self.commitment, entry: None, chunk: Some(chunk) }));
        };
        let name: String = part.extract()?;
        let mut opening = enter(py, || state.prove(&name, None))?;
        if let Some(index) = chunk {
            let root = opening.entry.as_ref().map_or(Digest::ZERO, |entry| entry.root);
            opening.chunk = Some(open_chunk(py, index, tensor, root)?);
        }
        Ok(Opening(opening))
    }

    fn first_difference(&self, py: Python<'_>, other: &Commitment) -> PyResult<Option<Difference>> {
        let difference = self.state(py)?.first_difference(other.state(py)?);
        Ok(difference.map(|(name, ours, theirs)| {
            (name.to_string(), ours.cloned().map(Entry), theirs.cloned().map(Entry))
        }))
    }

    fn __eq__(&self, other: &Commitment) -> bool {
        self.commitment == other.commitment
    }

    fn __hash__(&self) -> u64 {
        u64::from_be_bytes(self.commitment.root[..8].try_into().expect("eight bytes"))
    }

    fn __repr__(&self) -> String {
        let CoreCommitment { count, size, root, .. } = self.commitment;
        format!(
            "Commitment({}, kind={}, count={count}, size={size}, root={root})",
            self.algorithm(),
            self.kind()
        )
    }
}

/// A name, and the entries that two states hold under it.
type Difference = (String, Option<Entry>, Option<Entry>);

/// Opens a chunk of bytes that must have this root.
fn open_chunk(
    py: Python<'_>,
    index: u64,
    data: Option<&Bound<'_, PyAny>>,
    root: Digest,
) -> PyResult<ChunkOpening> {
    let Some(data) = data else {
        let message =
            "opening a chunk needs the bytes again: prove(index, data) or prove(name, chunk=, tensor=)";
        return Err(error(py, "invalid-input", message, [None, None, None]));
    };
    let canonical = py.import("counterfoil.commit")?.getattr("canonical_bytes")?.call1((data,))?;
    let array: PyReadonlyArray1<'_, u8> = canonical.extract()?;
    let bytes = array.as_slice()?;
    enter(py, || {
        let actual = CoreCommitment::of_bytes(bytes).root;
        match actual == root {
            true => ChunkOpening::new(bytes, index),
            false => Err(ProofError::RootMismatch { expected: root, actual }),
        }
    })
}

/// One opened part of a commitment.
#[pyclass(frozen, module = "counterfoil", name = "Opening")]
pub(crate) struct Opening(pub(crate) CoreOpening);

#[pymethods]
impl Opening {
    #[pyo3(signature = (digest, blind = None))]
    fn verify(&self, py: Python<'_>, digest: &[u8], blind: Option<&[u8]>) -> PyResult<Option<Entry>> {
        let expected = crate::gateway::digest(py, "digest", digest)?;
        let blind = blind.map_or(Ok(Digest::ZERO), |blind| crate::gateway::digest(py, "blind", blind))?;
        Ok(enter(py, || self.0.verify(&expected, &blind))?.map(Entry))
    }

    #[getter]
    fn chunk<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.chunk.as_ref().map(|chunk| PyBytes::new(py, &chunk.bytes))
    }

    fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("openings hold nothing that JSON lacks")
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Opening> {
        let refused = |failed: serde_json::Error| {
            error(py, "invalid-input", &format!("no opening: {failed}"), [None, None, None])
        };
        serde_json::from_str(text).map(Opening).map_err(refused)
    }

    fn __repr__(&self) -> String {
        let entry = self.0.entry.as_ref().map(|entry| entry.index);
        format!("Opening(entry={entry:?}, chunk={:?})", self.0.chunk.as_ref().map(|chunk| chunk.index))
    }
}

#[pyfunction]
fn commit_bytes(py: Python<'_>, data: PyReadonlyArray1<'_, u8>) -> PyResult<Commitment> {
    let bytes = data.as_slice()?;
    let run = || CoreCommitment::of_bytes(bytes);
    // Releasing the interpreter costs more than hashing two chunks.
    let commitment = if bytes.len() <= 2048 { run() } else { enter(py, || Ok::<_, ProofError>(run()))? };
    Ok(Commitment::of_bytes(commitment))
}

#[pyfunction]
fn commit_file(py: Python<'_>, path: PathBuf) -> PyResult<Commitment> {
    enter(py, || {
        let failed = |error: std::io::Error| JournalError::of_file(&path, &error);
        let (root, size) = std::fs::File::open(&path).and_then(reader_root).map_err(failed)?;
        Ok::<_, JournalError>(Commitment::of_bytes(CoreCommitment::of_root(root, size)))
    })
}

/// A described tensor: name, dtype, shape, canonical bytes; or, without bytes, the target of an
/// alias or nothing.
type Described<'py> = (String, String, Vec<u64>, Option<PyReadonlyArray1<'py, u8>>, Option<String>);

#[pyfunction]
#[pyo3(signature = (tensors, keep = false))]
fn commit_tensors(py: Python<'_>, tensors: Vec<Described<'_>>, keep: bool) -> PyResult<Commitment> {
    let mut bytes = Vec::with_capacity(tensors.len());
    for (.., array, _) in &tensors {
        bytes.push(array.as_ref().map_or(Ok(&[][..]), |array| array.as_slice())?);
    }
    let described: Vec<Description<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, dtype, shape, array, target), bytes)| Description {
            name,
            tensor: array.is_some().then_some((dtype.as_str(), shape.as_slice(), *bytes)),
            target: target.as_deref(),
        })
        .collect();
    enter(py, || commit_described(&described, &bytes, keep))
}

/// A tensor by dtype, shape and bytes; or an alias of another; or nothing.
struct Description<'a> {
    name: &'a str,
    tensor: Option<(&'a str, &'a [u64], &'a [u8])>,
    target: Option<&'a str>,
}

impl Description<'_> {
    fn entry(&self, root: Digest) -> Result<CoreEntry, CommitError> {
        let Some((dtype, shape, bytes)) = self.tensor else {
            let content =
                self.target.map_or(Content::Absent, |target| Content::Alias { target: target.into() });
            return Ok(CoreEntry { name: self.name.into(), content });
        };
        let entry = CoreEntry::dense(self.name, dtype, shape, root)?;
        let (expected, actual) = (entry.size(), bytes.len() as u64);
        if expected != actual {
            return Err(TensorError::Length { name: self.name.into(), expected, actual }.into());
        }
        Ok(entry)
    }
}

fn commit_described(
    described: &[Description<'_>],
    bytes: &[&[u8]],
    keep: bool,
) -> Result<Commitment, CommitError> {
    let entries = described.iter().zip(roots(bytes)).map(|(description, root)| description.entry(root));
    let state = State::new(entries.collect::<Result<_, _>>()?)?;
    let values = keep.then(|| {
        let mut named: Vec<(&str, &[u8])> =
            described.iter().zip(bytes).map(|(row, bytes)| (row.name, *bytes)).collect();
        named.sort_by_key(|(name, _)| name.as_bytes());
        Arc::new(named.into_iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect())
    });
    Ok(Commitment { commitment: state.commitment(), state: Some(Arc::new(state)), values })
}

/// Plain SHA-256 of the whole buffer, the measure that benchmarks compare with.
#[pyfunction]
fn flat_sha256<'py>(py: Python<'py>, data: PyReadonlyArray1<'_, u8>) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = data.as_slice()?;
    let hash = enter(py, || Ok::<_, ProofError>(counterfoil::primitives::sha256(&[bytes])))?;
    Ok(PyBytes::new(py, hash.as_slice()))
}

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
    Ok(to_list(py, &enter(py, || merkle::inclusion_proof(&leaves(&entries), index))?))
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
    merkle::verify_inclusion(&leaf, index, size, &proof, &root).map_err(|refused| raise(py, &refused))
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
    module.add_class::<Commitment>()?;
    module.add_class::<Entry>()?;
    module.add_class::<Opening>()?;
    module.add("DTYPES", PyTuple::new(module.py(), DTYPES.map(|(tag, _)| tag))?)?;
    for function in [
        wrap_pyfunction!(commit_bytes, module)?,
        wrap_pyfunction!(commit_file, module)?,
        wrap_pyfunction!(commit_tensors, module)?,
        wrap_pyfunction!(flat_sha256, module)?,
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
