//! Commitments, openings and Merkle proofs for Python.

use std::path::PathBuf;
use std::sync::Arc;

use counterfoil::commit::merkle::CompactRange;
use counterfoil::commit::{
    Block, ChunkOpening, CommitError, Commitment as CoreCommitment, CommitmentKind, Content,
    Entry as CoreEntry, Opening as CoreOpening, ProofError, Sha256, Shard as CoreShard, ShardError, State,
    bytes_root, merge_shards, watched_roots,
};
use counterfoil::files;
use counterfoil::primitives::Digest;
use counterfoil::tensor::{DTYPES, TensorError};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::arrays::PlainArray;
use crate::gateway::{digest, enter, error, position, raise, watched};
use crate::shard::Shard;

/// One entry of a state.
#[pyclass(frozen, module = "counterfoil", name = "Entry")]
pub(crate) struct Entry(pub(crate) CoreEntry);

#[pymethods]
impl Entry {
    /// Its name in the state.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// `dense`, `absent`, `alias` or `sharded`.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.content {
            Content::Dense { .. } => "dense",
            Content::Sharded { .. } => "sharded",
            Content::Absent => "absent",
            Content::Alias { .. } => "alias",
        }
    }

    /// Its tag, one of `counterfoil.DTYPES`; empty unless it has bytes.
    #[getter]
    fn dtype(&self) -> &str {
        match &self.0.content {
            Content::Dense { dtype, .. } | Content::Sharded { dtype, .. } => dtype,
            _ => "",
        }
    }

    /// Its dimensions.
    #[getter]
    fn shape(&self) -> Vec<u64> {
        match &self.0.content {
            Content::Dense { shape, .. } | Content::Sharded { shape, .. } => shape.clone(),
            _ => Vec::new(),
        }
    }

    /// Its bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// The root over its chunks, 32 bytes.
    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.root().as_slice())
    }

    /// The tensor that an alias shares its storage with.
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
    pub(crate) fn of_bytes(commitment: CoreCommitment) -> Commitment {
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
    /// What was hashed how: docs/format.md, section 3.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.commitment.kind.algorithm()
    }

    /// `bytes` or `state`.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.commitment.kind {
            CommitmentKind::Bytes => "bytes",
            CommitmentKind::State => "state",
        }
    }

    /// Bytes, of a state those of all entries.
    #[getter]
    fn size(&self) -> u64 {
        self.commitment.size
    }

    /// Chunks, of a state entries.
    #[getter]
    fn count(&self) -> u64 {
        self.commitment.count
    }

    /// The tree's root, 32 bytes.
    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.commitment.root.as_slice())
    }

    /// A state's entries, sorted by name; empty for bytes.
    #[getter]
    fn entries(&self) -> Vec<Entry> {
        self.state.iter().flat_map(|state| state.entries()).cloned().map(Entry).collect()
    }

    /// What receipts sign: 32 bytes over algorithm, kind, count, size, root and blind.
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
        chunk: Option<&Bound<'_, PyAny>>,
        tensor: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Opening> {
        let Some(state) = &self.state else {
            let chunk = open_chunk(py, position(py, "the chunk", part)?, data, self.commitment.root)?;
            return Ok(Opening(CoreOpening { commitment: self.commitment, entry: None, chunk: Some(chunk) }));
        };
        let name: String = part.extract()?;
        let mut opening = enter(py, || state.prove(&name, None))?;
        if let Some(index) = chunk {
            let root = opening.entry.as_ref().map_or(Digest::ZERO, |entry| entry.root);
            opening.chunk = Some(open_chunk(py, position(py, "the chunk", index)?, tensor, root)?);
        }
        Ok(Opening(opening))
    }

    /// The first name at which two states differ, and the entry that each has there; None where none does.
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
        let opening = ChunkOpening::new(bytes, index)?;
        opening.verify(bytes.len() as u64, &root)?;
        Ok::<_, ProofError>(opening)
    })
}

/// One opened part of a commitment.
#[pyclass(frozen, module = "counterfoil", name = "Opening")]
pub(crate) struct Opening(pub(crate) CoreOpening);

#[pymethods]
impl Opening {
    /// Checks the opening against a digest; returns the entry that it opens, of a state.
    #[pyo3(signature = (digest, blind = None))]
    fn verify(&self, py: Python<'_>, digest: &[u8], blind: Option<&[u8]>) -> PyResult<Option<Entry>> {
        let expected = crate::gateway::digest(py, "digest", digest)?;
        let blind = blind.map_or(Ok(Digest::ZERO), |blind| crate::gateway::digest(py, "blind", blind))?;
        Ok(enter(py, || self.0.verify(&expected, &blind))?.map(Entry))
    }

    /// The bytes of the opened chunk.
    #[getter]
    fn chunk<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.chunk.as_ref().map(|chunk| PyBytes::new(py, &chunk.bytes))
    }

    /// The opening as JSON, as `from_json` reads it.
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
#[pyo3(signature = (data, progress = None))]
fn commit_bytes(
    py: Python<'_>,
    data: PyReadonlyArray1<'_, u8>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Commitment> {
    let bytes = data.as_slice()?;
    let size = bytes.len() as u64;
    // Releasing the interpreter costs more than hashing two chunks.
    let root = match size {
        0..=2048 => bytes_root(bytes),
        _ => watched(py, progress.as_ref(), size, |watch| {
            Ok::<_, ProofError>(watched_roots(&[bytes], watch).map(|roots| roots[0]))
        })?,
    };
    Ok(Commitment::of_bytes(CoreCommitment::of_root(root, size)))
}

#[pyfunction]
#[pyo3(signature = (path, progress = None))]
fn commit_file(py: Python<'_>, path: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<Commitment> {
    let total = enter(py, || files::open(&path).map(|(_, size)| size))?;
    let (size, ranges) =
        watched(py, progress.as_ref(), total, |watch| files::ranges::<Sha256>(&path, watch))?;
    Ok(Commitment::of_bytes(CoreCommitment::of_root(CompactRange::joined(ranges).root(), size)))
}

/// What `counterfoil.commit.describe` says of a value: dtype, shape, and canonical bytes, parts or root;
/// or the target of an alias; or nothing.
#[derive(FromPyObject)]
struct Described<'py> {
    dtype: String,
    shape: Vec<u64>,
    data: Option<PyReadonlyArray1<'py, u8>>,
    target: Option<String>,
    parts: Option<Parts>,
    root: Option<[u8; 32]>,
}

/// A tensor's parts on several workers.
#[derive(FromPyObject)]
enum Parts {
    Shards(Vec<Shard>),
    Blocks(Vec<(Vec<u64>, Vec<u64>, [u8; 32])>),
}

impl Described<'_> {
    /// The entry, with the root if no bytes are to be hashed for it.
    fn entry(&self, name: &str) -> Result<CoreEntry, CommitError> {
        let Described { dtype, shape, .. } = self;
        let refused = |error: ShardError| CommitError::Parts { name: name.into(), detail: error.to_string() };
        match (&self.parts, &self.target, &self.data) {
            (Some(Parts::Shards(shards)), ..) => {
                let shards: Vec<CoreShard> = shards.iter().map(|shard| shard.0.clone()).collect();
                let whole = merge_shards(&shards).map_err(refused)?;
                dense(name, dtype, shape, whole.root, whole.size)
            }
            (Some(Parts::Blocks(blocks)), ..) => {
                let block = |(offset, shape, root): &(Vec<u64>, Vec<u64>, [u8; 32])| Block {
                    offset: offset.clone(),
                    shape: shape.clone(),
                    root: root.into(),
                };
                CoreEntry::sharded(name, dtype, shape, &blocks.iter().map(block).collect::<Vec<_>>())
            }
            (_, Some(target), _) => {
                Ok(CoreEntry { name: name.into(), content: Content::Alias { target: target.clone() } })
            }
            (_, _, Some(data)) => dense(name, dtype, shape, Digest::ZERO, data.as_array().len() as u64),
            _ if !dtype.is_empty() => match self.root {
                Some(root) => CoreEntry::dense(name, dtype, shape, root.into()),
                None => Err(CommitError::Parts { name: name.into(), detail: "no bytes and no root".into() }),
            },
            _ => Ok(CoreEntry { name: name.into(), content: Content::Absent }),
        }
    }
}

/// A dense entry whose bytes are as many as its dtype and shape demand.
fn dense(
    name: &str,
    dtype: &str,
    shape: &[u64],
    root: Digest,
    actual: u64,
) -> Result<CoreEntry, CommitError> {
    let entry = CoreEntry::dense(name, dtype, shape, root)?;
    match entry.size() {
        expected if expected == actual => Ok(entry),
        expected => Err(TensorError::Length { name: name.into(), expected, actual }.into()),
    }
}

/// A value whose bytes are here.
pub(crate) enum Held<'py> {
    Plain(PlainArray<'py>),
    Described(PyReadonlyArray1<'py, u8>),
}

/// The entries of a mapping, without the roots of those whose bytes are here.
pub(crate) struct Gathered<'py> {
    pub(crate) entries: Vec<CoreEntry>,
    /// Bytes, each with its entry's place.
    pub(crate) held: Vec<(usize, Held<'py>)>,
}

/// Reads a mapping from names to values. Tensors in parts are refused with these words, if there are any.
pub(crate) fn gather<'py>(
    py: Python<'py>,
    tensors: &Bound<'py, PyDict>,
    refusal: Option<&str>,
) -> PyResult<Gathered<'py>> {
    let describe = py.import("counterfoil.commit")?.getattr("describe")?;
    let mut entries = Vec::with_capacity(tensors.len());
    let mut held = Vec::with_capacity(tensors.len());
    // A copy, since describing a value may run anything, and other threads run too.
    for (name, value) in tensors.copy()? {
        let place = entries.len();
        let refused = |error: CommitError| raise(py, &error);
        let text = name.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
        if let (Some(name), Some(array)) = (text, PlainArray::new(&value)) {
            let (dtype, shape, size) = (array.dtype, &array.shape, array.bytes().len() as u64);
            entries.push(dense(name, dtype, shape, Digest::ZERO, size).map_err(refused)?);
            held.push((place, Held::Plain(array)));
            continue;
        }
        let described: Described<'_> = describe.call1((&name, &value))?.extract()?;
        let name: String = name.extract()?;
        if let (Some(detail), Some(_)) = (refusal, &described.parts) {
            return Err(refused(CommitError::Parts { name, detail: detail.into() }));
        }
        entries.push(described.entry(&name).map_err(refused)?);
        held.extend(described.data.map(|data| (place, Held::Described(data))));
    }
    Ok(Gathered { entries, held })
}

pub(crate) fn bytes_of<'a>(held: &'a [(usize, Held<'_>)]) -> PyResult<Vec<(usize, &'a [u8])>> {
    let mut hashed = Vec::with_capacity(held.len());
    for (place, value) in held {
        let bytes = match value {
            Held::Plain(array) => array.bytes(),
            Held::Described(array) => array.as_slice()?,
        };
        hashed.push((*place, bytes));
    }
    Ok(hashed)
}

#[pyfunction]
#[pyo3(signature = (tensors, keep = false, progress = None))]
fn commit_tensors(
    py: Python<'_>,
    tensors: &Bound<'_, PyDict>,
    keep: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Commitment> {
    let refusal = keep.then_some("a tensor in parts cannot be kept by value");
    let Gathered { mut entries, held } = gather(py, tensors, refusal)?;
    let hashed = bytes_of(&held)?;
    let total = hashed.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    watched(py, progress.as_ref(), total, |watch| {
        let bytes: Vec<&[u8]> = hashed.iter().map(|(_, bytes)| *bytes).collect();
        let Some(roots) = watched_roots(&bytes, watch) else { return Ok(None) };
        for ((place, _), root) in hashed.iter().zip(roots) {
            entries[*place].set_root(root);
        }
        let values = keep.then(|| Arc::new(in_order(&entries, &hashed)));
        let state = State::new(entries)?;
        Ok::<_, CommitError>(Some(Commitment {
            commitment: state.commitment(),
            state: Some(Arc::new(state)),
            values,
        }))
    })
}

/// All bytes, in the order of their names.
fn in_order(entries: &[CoreEntry], hashed: &[(usize, &[u8])]) -> Vec<u8> {
    let mut sorted = hashed.to_vec();
    sorted.sort_by_key(|(place, _)| entries[*place].name.as_bytes());
    sorted.into_iter().flat_map(|(_, bytes)| bytes).copied().collect()
}

/// Plain SHA-256 of the whole buffer, the measure that benchmarks compare with.
#[pyfunction]
fn flat_sha256<'py>(py: Python<'py>, data: PyReadonlyArray1<'_, u8>) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = data.as_slice()?;
    let hash = enter(py, || Ok::<_, ProofError>(counterfoil::primitives::sha256(&[bytes])))?;
    Ok(PyBytes::new(py, hash.as_slice()))
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
    ] {
        module.add_function(function)?;
    }
    Ok(())
}
