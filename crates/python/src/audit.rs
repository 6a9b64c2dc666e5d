//! Reading a run folder, and its verdict, for Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use counterfoil::audit::{Record as CoreRecord, Selection};
use counterfoil::commit::Content;
use counterfoil::evidence::{self, Log};
use counterfoil::keys::KeyFolder;
use counterfoil::ledger::LedgerError;
use counterfoil::primitives::Address;
use counterfoil::receipt::Value;
use counterfoil::receipt::schema::HEADER;
use counterfoil::verify::first_element as element;
use counterfoil::verify::{Confirmed, Judgement, Specification, Standing, headline, unconfirmed};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::commit::{Commitment, Entry, Opening};
use crate::gateway::{enter, error, from_json};
use crate::keys::Key;
use crate::ledger::{Contradiction, Receipt, TreeHead};

/// A run folder, read once and not believed.
#[pyclass(frozen, module = "counterfoil", name = "Record")]
pub(crate) struct Record(CoreRecord);

impl Record {
    /// The ledger of a worker's lane, the owner's by default.
    fn log(&self, py: Python<'_>, worker: Option<&str>, lane: u32) -> PyResult<&Log> {
        let owner = self.0.logs().iter().find(|log| log.genesis().is_some()).map(|log| log.worker);
        let wanted = worker.map_or(owner, |worker| worker.parse().ok());
        let mut logs = self.0.logs().iter();
        logs.find(|log| Some(log.worker) == wanted && log.lane == lane).ok_or_else(|| {
            let message = format!("the run has no ledger of {} lane {lane}", worker.unwrap_or("its owner"));
            error(py, "not-found", &message, [None, None, None])
        })
    }
}

#[pymethods]
impl Record {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Record> {
        enter(py, || CoreRecord::load(&path)).map(Record)
    }

    /// The folder or bundle.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }

    /// The contents of `spec.json`.
    #[getter]
    fn spec<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // Checked first: JSON made to exhaust a parser's stack stops here.
        let bytes = &self.0.contents().specification;
        enter(py, || Specification::parse(bytes))?;
        from_json(py, &String::from_utf8_lossy(bytes))
    }

    /// The run's id, as genesis states it; none without genesis.
    #[getter]
    fn run(&self) -> Option<String> {
        self.0.contents().run().map(|run| run.to_string())
    }

    /// Bytes of unfinished last frames, over all ledgers.
    #[getter]
    fn dropped_bytes(&self) -> u64 {
        self.0.logs().iter().map(|log| log.dropped_bytes).sum()
    }

    /// Workers' addresses and lanes of the ledgers found.
    #[getter]
    fn lanes(&self) -> Vec<(String, u32)> {
        self.0.logs().iter().map(|log| (log.worker.to_checksum(None), log.lane)).collect()
    }

    /// Every worker with every key that may have signed for it.
    #[getter]
    fn keys(&self) -> Vec<(String, String)> {
        let keys = self.0.contents().keys().into_iter();
        keys.map(|(worker, key)| (worker.to_checksum(None), key.to_checksum(None))).collect()
    }

    /// The recipe's files by their paths inside it; empty without a recipe.
    #[getter]
    fn recipe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let files = PyDict::new(py);
        for (name, contents) in &self.0.contents().recipe {
            files.set_item(name, PyBytes::new(py, contents))?;
        }
        Ok(files)
    }

    /// What `recipe=` pins, `0x` and 64 hexadecimal digits; None without a recipe.
    #[getter]
    fn recipe_digest(&self, py: Python<'_>) -> PyResult<Option<String>> {
        enter(py, || self.0.recipe_digest()).map(|digest| digest.map(|digest| digest.to_string()))
    }

    /// Anchor records, as their JSON objects.
    #[getter]
    fn anchors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let records: Vec<_> = self.0.anchors().iter().map(|(_, record)| record).collect();
        from_json(py, &serde_json::to_string(&records).expect("anchor records are plain data"))
    }

    /// A lane's receipts in their order, lane 0 of the run's owner by default.
    #[pyo3(signature = (worker = None, lane = 0))]
    fn receipts(&self, py: Python<'_>, worker: Option<&str>, lane: u32) -> PyResult<Vec<Receipt>> {
        let log = self.log(py, worker, lane)?;
        enter(py, || log.receipts().map(|receipt| receipt.map(Receipt)).collect())
    }

    /// Receipts of a ledger, with those that are withheld.
    fn size(&self, py: Python<'_>, worker: &str, lane: u32) -> PyResult<u64> {
        Ok(self.log(py, Some(worker), lane)?.size())
    }

    /// The last signed tree head of a ledger.
    #[pyo3(signature = (worker = None, lane = 0))]
    fn tree_head(&self, py: Python<'_>, worker: Option<&str>, lane: u32) -> PyResult<Option<TreeHead>> {
        Ok(self.log(py, worker, lane)?.heads().next_back().cloned().map(TreeHead))
    }

    /// The fields of a receipt that this folder opens.
    fn opened<'py>(&self, py: Python<'py>, receipt: &Receipt) -> PyResult<Bound<'py, PyDict>> {
        let body = receipt.body(py)?;
        let fields = PyDict::new(py);
        let of = (body.address("worker"), body.unsigned("lane"));
        let log = self.0.logs().iter().find(|log| (log.worker, u64::from(log.lane)) == of);
        let shown = enter(py, || log.map_or(Ok(None), |log| log.at(body.unsigned("sequence"))))?;
        let Some((log, shown)) = log.zip(shown.filter(|shown| shown.receipt == receipt.0)) else {
            return Ok(fields);
        };
        for opening in &shown.fields {
            let field = body.fields().nth(HEADER.len() + usize::from(opening.index));
            let Some((field, Value::Digest(digest))) = field else { continue };
            fields.set_item(field.name, Opened(enter(py, || log.open(opening, digest))?))?;
        }
        Ok(fields)
    }

    /// The stored bytes of a tensor, checked against its root; none when they are missing.
    fn object<'py>(&self, py: Python<'py>, tensor: &Entry) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let bytes = enter(py, || self.0.object(&tensor.0))?;
        Ok(bytes.map(|bytes| PyBytes::new(py, &bytes)))
    }

    /// The first contradiction between this copy of a run and another one.
    fn contradiction(&self, py: Python<'_>, other: &Record) -> PyResult<Option<Contradiction>> {
        for ours in self.0.logs() {
            let of = |log: &&Log| (log.worker, log.lane) == (ours.worker, ours.lane);
            let Some(theirs) = other.0.logs().iter().find(of) else { continue };
            let found = enter(py, || evidence::Contradiction::between(ours, theirs))?;
            if found.is_some() {
                return Ok(found.map(Contradiction));
            }
        }
        Ok(None)
    }

    /// The first difference between this record and another one of the same training, as JSON.
    fn diff(&self, py: Python<'_>, other: &Record) -> PyResult<String> {
        let found = enter(py, || self.0.diff(&other.0))?;
        Ok(serde_json::to_string(&found).expect("a comparison is plain data"))
    }

    /// Writes a bundle: of these steps, with these tensors opened; by default everything.
    fn export(
        &self,
        py: Python<'_>,
        path: PathBuf,
        key: &Key,
        steps: Option<BTreeSet<u64>>,
        tensors: Option<BTreeMap<String, Option<u64>>>,
    ) -> PyResult<()> {
        let (selection, signer) = (Selection { steps, tensors }, Arc::clone(&key.0));
        enter(py, || self.0.export(&selection, &*signer, &KeyFolder::of_user()?, &path))
    }

    /// Draws the verdict. `judgement` and the answer are JSON; `confirmed` holds, for each anchor,
    /// what the verifier's chain said: (chain, confirmed, development, block time), or none.
    #[pyo3(signature = (judgement, confirmed = None))]
    #[allow(clippy::type_complexity)]
    fn verify(
        &self,
        py: Python<'_>,
        judgement: &str,
        confirmed: Option<Vec<Option<(String, bool, bool, u64)>>>,
    ) -> PyResult<(String, String)> {
        let judgement: Judgement = serde_json::from_str(judgement).map_err(|refused| {
            error(py, "invalid-input", &format!("this is no requirement: {refused}"), [None, None, None])
        })?;
        let answers = confirmed.unwrap_or_default();
        enter(py, || {
            let answer =
                |number: usize, record: &evidence::AnchorRecord| match answers.get(number).cloned().flatten()
                {
                    Some((chain, confirmed, development, block_time)) => {
                        let standing = if confirmed { Standing::Held } else { Standing::Denied };
                        Confirmed { chain, standing, development, block_time }
                    }
                    None => unconfirmed(number, record),
                };
            let verdict = self.0.verify(&judgement, &answer);
            let text = serde_json::to_string(&verdict).expect("a verdict is plain data");
            Ok::<_, LedgerError>((headline(&verdict), text))
        })
    }
}

/// One opened field of a receipt.
#[pyclass(frozen, module = "counterfoil", name = "Opened")]
pub(crate) struct Opened(evidence::Opened);

#[pymethods]
impl Opened {
    /// The state's entries, sorted by name.
    #[getter]
    fn entries(&self) -> Vec<Entry> {
        self.0.state.entries().iter().cloned().map(Entry).collect()
    }

    /// The plain commitment, comparable between runs.
    #[getter]
    fn commitment(&self) -> Commitment {
        let state = self.0.state.clone();
        Commitment { commitment: state.commitment(), state: Some(Arc::new(state)), values: None }
    }

    /// What the receipt's digest was blinded with.
    #[getter]
    fn blind<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.field.blind.blind.as_slice())
    }

    /// Canonical bytes by name, when they were stored by value.
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(values) = &self.0.values else { return Ok(None) };
        let named = PyDict::new(py);
        let dense = self.0.state.entries().iter().filter(|entry| entry.is_dense());
        for (entry, bytes) in dense.zip(values) {
            named.set_item(&entry.name, PyBytes::new(py, bytes))?;
        }
        Ok(Some(named))
    }

    /// Opens one tensor's entry against the receipt's digest, disclosing no other.
    fn prove(&self, py: Python<'_>, name: &str) -> PyResult<Opening> {
        enter(py, || self.0.state.prove(name, self.0.field.blind.entry_key())).map(Opening)
    }

    /// Scalars and texts by name, when they were stored by value.
    fn scalars<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let scalars = PyDict::new(py);
        let mut values = self.0.values.iter().flatten();
        for entry in self.0.state.entries() {
            match &entry.content {
                Content::Dense { dtype, shape, .. } => {
                    let Some(bytes) = values.next() else { break };
                    match (*dtype, shape.as_slice(), bytes.as_slice()) {
                        ("BOOL", [], [byte]) => scalars.set_item(&entry.name, *byte != 0)?,
                        ("I64", [], bytes) => {
                            scalars.set_item(&entry.name, i64::from_le_bytes(eight(bytes)))?
                        }
                        ("F64", [], bytes) => {
                            scalars.set_item(&entry.name, f64::from_le_bytes(eight(bytes)))?
                        }
                        ("U8", [_], bytes) if std::str::from_utf8(bytes).is_ok() => {
                            scalars.set_item(&entry.name, String::from_utf8_lossy(bytes))?;
                        }
                        _ => {}
                    }
                }
                Content::Absent => scalars.set_item(&entry.name, py.None())?,
                Content::Alias { .. } | Content::Sharded { .. } => {}
            }
        }
        Ok(scalars)
    }
}

fn eight(bytes: &[u8]) -> [u8; 8] {
    bytes.try_into().expect("a scalar of eight bytes, by its dtype")
}

/// Whether text is an address; returns it with its checksum.
#[pyfunction]
fn checksum_address(py: Python<'_>, text: &str) -> PyResult<String> {
    let parsed: Result<Address, _> = text.parse();
    parsed.map(|address| address.to_checksum(None)).map_err(|_| {
        error(
            py,
            "invalid-input",
            &format!("{text:?} is no address (0x and 40 hexadecimal digits)"),
            [None, None, None],
        )
    })
}

/// Where two tensors of one dtype and shape first differ; none when their canonical bytes are equal.
#[pyfunction]
fn first_element<'py>(
    py: Python<'py>,
    dtype: &str,
    shape: Vec<u64>,
    ours: &[u8],
    theirs: &[u8],
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(found) = enter(py, || element(dtype, &shape, ours, theirs))? else { return Ok(None) };
    let named = PyDict::new(py);
    named.set_item("chunk", found.chunk)?;
    named.set_item("index", found.index)?;
    named.set_item("ours", found.ours)?;
    named.set_item("theirs", found.theirs)?;
    named.set_item("ulps", found.ulps)?;
    named.set_item("differing", found.differing)?;
    Ok(Some(named))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Record>()?;
    module.add_class::<Opened>()?;
    module.add_function(wrap_pyfunction!(first_element, module)?)?;
    module.add_function(wrap_pyfunction!(checksum_address, module)?)
}
