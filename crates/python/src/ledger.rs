//! The writer of a lane, receipts and tree heads for Python.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use counterfoil::evidence::{self, kind_name};
use counterfoil::keys::KeyFolder;
use counterfoil::ledger::{
    CloseReason, Field, Ledger as CoreLedger, LedgerError, RunFolder, RunSettings, Session,
};
use counterfoil::primitives::Digest;
use counterfoil::receipt::schema::Kind;
use counterfoil::receipt::{self, Body, Value, from_typed_data, recover, typed_data};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt};

use crate::commit::Commitment;
use crate::gateway::{address, digest, enter, error, from_json, raise};
use crate::keys::Key;

/// A receipt as it stands in a ledger.
#[pyclass(frozen, module = "counterfoil", name = "Receipt")]
#[derive(Clone)]
pub(crate) struct Receipt(pub(crate) receipt::Receipt);

impl Receipt {
    pub(crate) fn body(&self, py: Python<'_>) -> PyResult<Body> {
        let Some(kind) = Kind::from_number(self.0.kind) else {
            let message = format!("{} receipts cannot be read by this version", kind_name(self.0.kind));
            return Err(error(py, "invalid-input", &message, [None, None, None]));
        };
        Body::decode(kind, &self.0.body).map_err(|refused| raise(py, &refused))
    }
}

#[pymethods]
impl Receipt {
    /// What it states: `genesis`, `step`, `checkpoint` and so on.
    #[getter]
    fn kind(&self) -> String {
        kind_name(self.0.kind)
    }

    /// Its place in the lane, from 0.
    #[getter]
    fn sequence(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.body(py)?.unsigned("sequence"))
    }

    /// Its fields by name, as signed.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fields_of(py, &self.body(py)?)
    }

    /// The EIP-712 hash that is signed, 32 bytes.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.digest.as_slice())
    }

    /// Hash of its EIP-712 type, and its fields as signed, a word each.
    #[getter]
    fn encoded<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let body = self.body(py)?;
        let hash = PyBytes::new(py, body.type_hash().as_slice());
        Ok((hash, PyBytes::new(py, &body.encode())))
    }

    /// The signature, 65 bytes.
    #[getter]
    fn signature<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.signature.0)
    }

    /// Address of the key that signed it.
    #[getter]
    fn signer(&self, py: Python<'_>) -> PyResult<String> {
        signer_of(py, self.0.digest, &self.0.signature)
    }

    /// The EIP-712 message as wallets read it.
    fn typed_data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &typed_data(&self.body(py)?))
    }

    fn __repr__(&self) -> String {
        format!("Receipt({}, {})", self.kind(), self.0.digest)
    }
}

fn fields_of<'py>(py: Python<'py>, body: &Body) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    for (field, value) in body.fields() {
        match value {
            Value::Unsigned(number) => fields.set_item(field.name, number)?,
            Value::Address(address) => fields.set_item(field.name, address.to_checksum(None))?,
            Value::Digest(digest) => fields.set_item(field.name, PyBytes::new(py, digest.as_slice()))?,
        }
    }
    Ok(fields)
}

fn signer_of(py: Python<'_>, digest: Digest, signature: &receipt::Signature) -> PyResult<String> {
    match recover(digest, signature) {
        Ok(address) => Ok(address.to_checksum(None)),
        Err(refused) => {
            Err(error(py, "proof", &format!("the signature is refused: {refused}"), [None, None, None]))
        }
    }
}

/// The digest, the signer and the log's id of a typed-data document (JSON) that a worker signed.
#[pyfunction]
fn check_typed_data(
    py: Python<'_>,
    document: &str,
    signature: &[u8],
) -> PyResult<(Vec<u8>, String, Vec<u8>)> {
    let refused = |detail: String| error(py, "proof", &detail, [None, None, None]);
    let document = serde_json::from_str(document).map_err(|failed| refused(format!("no JSON: {failed}")))?;
    let body = from_typed_data(&document).map_err(|failed| refused(failed.to_string()))?;
    if !["worker", "lane"].iter().all(|name| body.fields().any(|(field, _)| field.name == *name)) {
        return Err(refused(format!("a {} is no statement of a worker about its log", body.kind().name)));
    }
    let signature = signature.try_into().map_err(|_| refused("a signature has 65 bytes".into()))?;
    let signer = signer_of(py, body.digest(), &receipt::Signature(signature))?;
    let lane = u32::try_from(body.unsigned("lane")).expect("a lane has 32 bits");
    let log = receipt::log_id(body.bytes32("run"), body.address("worker"), lane);
    Ok((body.digest().to_vec(), signer, log.to_vec()))
}

/// The signed size and root of a ledger.
#[pyclass(frozen, module = "counterfoil", name = "TreeHead")]
pub(crate) struct TreeHead(pub(crate) evidence::TreeHead);

#[pymethods]
impl TreeHead {
    /// How many receipts it covers.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// The root over their digests, 32 bytes.
    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.root().as_slice())
    }

    /// Its fields by name, as signed.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fields_of(py, &self.0.body)
    }

    /// The EIP-712 hash that is signed, 32 bytes.
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.body.digest().as_slice())
    }

    /// Hash of its EIP-712 type, and its fields as signed, a word each.
    #[getter]
    fn encoded<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let body = &self.0.body;
        let hash = PyBytes::new(py, body.type_hash().as_slice());
        Ok((hash, PyBytes::new(py, &body.encode())))
    }

    /// The signature, 65 bytes.
    #[getter]
    fn signature<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.signature.0)
    }

    /// Address of the key that signed it.
    #[getter]
    fn signer(&self, py: Python<'_>) -> PyResult<String> {
        signer_of(py, self.0.body.digest(), &self.0.signature)
    }

    /// The EIP-712 message as wallets read it.
    fn typed_data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &typed_data(&self.0.body))
    }

    fn __repr__(&self) -> String {
        format!("TreeHead(size={}, root={})", self.0.size(), self.0.root())
    }
}

/// The writer of one lane. `release` ends it, so that another writer may open the lane.
#[pyclass(frozen, module = "counterfoil._native", name = "Ledger")]
pub(crate) struct Ledger(Mutex<Option<Arc<CoreLedger>>>);

impl Ledger {
    fn new(ledger: CoreLedger) -> Ledger {
        Ledger(Mutex::new(Some(Arc::new(ledger))))
    }

    fn get(&self, py: Python<'_>) -> PyResult<Arc<CoreLedger>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().ok_or_else(|| raise(py, &LedgerError::Closed))
    }
}

/// A session's key and its end in Unix seconds, 0 for none.
type SessionKey<'py> = (PyRef<'py, Key>, u64);

fn session(given: Option<SessionKey<'_>>) -> Option<Session> {
    given.map(|(key, expires)| Session { signer: Arc::clone(&key.0), expires })
}

fn field(py: Python<'_>, commitment: &Commitment) -> PyResult<Field> {
    let values = commitment.values.as_ref().map(|values| values.to_vec());
    Ok(Field { state: Arc::clone(commitment.state(py)?), values })
}

#[pymethods]
impl Ledger {
    #[staticmethod]
    fn create(
        py: Python<'_>,
        folder: PathBuf,
        specification: Vec<u8>,
        recipe: BTreeMap<String, Vec<u8>>,
        dataset_and_nonce: (Option<PyRef<'_, Commitment>>, Option<[u8; 32]>),
        key: &Key,
        session_key: Option<SessionKey<'_>>,
    ) -> PyResult<Ledger> {
        let (dataset, nonce) = dataset_and_nonce;
        let dataset = dataset.map(|commitment| field(py, &commitment)).transpose()?;
        let settings = RunSettings { specification, recipe, dataset, nonce: nonce.map(Digest::from) };
        let (signer, session) = (Arc::clone(&key.0), session(session_key));
        enter(py, || CoreLedger::create(&folder, &settings, signer, session, &KeyFolder::of_user()?))
            .map(Ledger::new)
    }

    #[staticmethod]
    fn join(
        py: Python<'_>,
        folder: PathBuf,
        lane: u32,
        role: u64,
        rank: u32,
        key: &Key,
        session_key: Option<SessionKey<'_>>,
    ) -> PyResult<Ledger> {
        let (signer, session) = (Arc::clone(&key.0), session(session_key));
        let of = (role, rank);
        enter(py, || CoreLedger::join_run(&folder, lane, of, signer, session, &KeyFolder::of_user()?))
            .map(Ledger::new)
    }

    #[staticmethod]
    fn open(
        py: Python<'_>,
        folder: PathBuf,
        lane: u32,
        key: &Key,
        session_key: Option<SessionKey<'_>>,
    ) -> PyResult<Ledger> {
        let (signer, session) = (Arc::clone(&key.0), session(session_key));
        enter(py, || CoreLedger::open(&folder, lane, signer, session, &KeyFolder::of_user()?))
            .map(Ledger::new)
    }

    /// The worker whose lane this is.
    #[getter]
    fn worker(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.worker().to_checksum(None))
    }

    #[getter]
    fn run(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.run().to_string())
    }

    #[getter]
    fn expires(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let ledger = self.get(py)?;
        enter(py, || Ok::<_, LedgerError>(ledger.expires()))
    }

    #[getter]
    fn step(&self, py: Python<'_>) -> PyResult<u64> {
        let ledger = self.get(py)?;
        enter(py, || Ok::<_, LedgerError>(ledger.step()))
    }

    /// Signs and appends a receipt; returns its sequence number.
    fn record(
        &self,
        py: Python<'_>,
        kind: &str,
        values: &Bound<'_, PyDict>,
        fields: &Bound<'_, PyDict>,
    ) -> PyResult<u64> {
        let ledger = self.get(py)?;
        let mut words = Vec::with_capacity(values.len());
        for (name, value) in values {
            let value = match value.cast::<PyInt>() {
                Ok(number) => Value::Unsigned(number.extract().map_err(|_| {
                    error(
                        py,
                        "invalid-input",
                        &format!("{name} must fit 64 bits unsigned, found {number}"),
                        [None, None, None],
                    )
                })?),
                Err(_) => match value.extract::<String>() {
                    Ok(text) => Value::Address(address(py, &text)?),
                    Err(_) => Value::Digest(digest(py, "a digest field", value.extract()?)?),
                },
            };
            words.push((name.extract::<String>()?, value));
        }
        let mut commitments = Vec::with_capacity(fields.len());
        for (name, commitment) in fields {
            let commitment: PyRef<'_, Commitment> = commitment.extract()?;
            commitments.push((name.extract::<String>()?, field(py, &commitment)?));
        }
        enter(py, || {
            let words: Vec<(&str, Value)> =
                words.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let fields: Vec<(&str, Field)> =
                commitments.iter().map(|(name, field)| (name.as_str(), field.clone())).collect();
            ledger.record(kind, &words, &fields)
        })
    }

    /// Stores a tensor's canonical bytes as an object of the run.
    fn store(&self, py: Python<'_>, root: &[u8], bytes: PyReadonlyArray1<'_, u8>) -> PyResult<()> {
        let (ledger, root, bytes) = (self.get(py)?, digest(py, "root", root)?, bytes.as_slice()?);
        enter(py, || ledger.folder().store_object(&root, bytes))
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let ledger = self.get(py)?;
        enter(py, || ledger.flush())
    }

    fn tree_head(&self, py: Python<'_>) -> PyResult<TreeHead> {
        let ledger = self.get(py)?;
        enter(py, || ledger.tree_head()).map(TreeHead)
    }

    /// Writes the close receipt and a last tree head, and gives the lane free.
    fn close(&self, py: Python<'_>, reason: u32) -> PyResult<()> {
        let ledger = self.get(py)?;
        let reason = match reason {
            0 => CloseReason::Finished,
            1 => CloseReason::Exception,
            _ => CloseReason::Abandoned,
        };
        enter(py, || ledger.close(reason))?;
        drop(ledger);
        self.release(py);
        Ok(())
    }

    /// Gives the lane free without closing it.
    fn release(&self, py: Python<'_>) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(taken));
    }
}

/// Erases what lies behind a run's receipts; returns how many frames, files and secrets.
#[pyfunction]
fn erase(py: Python<'_>, folder: PathBuf) -> PyResult<(u64, u64, u64)> {
    let erased = enter(py, || RunFolder::open(&folder)?.erase(&KeyFolder::of_user()?))?;
    Ok((erased.frames, erased.files, erased.secrets))
}

/// Proof that a worker signed two histories of one log.
#[pyclass(frozen, module = "counterfoil", name = "Contradiction")]
pub(crate) struct Contradiction(pub(crate) evidence::Contradiction);

#[pymethods]
impl Contradiction {
    /// Reads the frames of a proof, in hex, and checks it.
    #[new]
    fn new(py: Python<'_>, frames: Vec<Vec<u8>>) -> PyResult<Contradiction> {
        enter(py, || {
            let found = evidence::Contradiction::decode(&frames)?;
            found.check().map(|_| Contradiction(found))
        })
    }

    /// `fork` for two receipts of one position, `two-histories` for two tree heads of one size.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind {
            evidence::ContradictionKind::Fork(_) => "fork",
            evidence::ContradictionKind::TwoHistories(_) => "two-histories",
        }
    }

    /// The worker who signed both.
    #[getter]
    fn worker(&self, py: Python<'_>) -> PyResult<String> {
        enter(py, || self.0.check()).map(|worker| worker.to_checksum(None))
    }

    /// The signed statements as frames of a ledger.
    #[getter]
    fn frames<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.encode().iter().map(|frame| PyBytes::new(py, frame)).collect()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Contradiction>()?;
    module.add_class::<Ledger>()?;
    module.add_function(wrap_pyfunction!(erase, module)?)?;
    module.add_class::<Receipt>()?;
    module.add_function(wrap_pyfunction!(check_typed_data, module)?)?;
    module.add_class::<TreeHead>()
}
