//! Keys for Python: in this process, in files, or behind a callable.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use counterfoil::keys::{KeyError, KeyFolder, Password, Restored, create_key, generate_key, load_key};
use counterfoil::primitives::{Address, Digest};
use counterfoil::receipt::{Body, SignError, Signature, Signer, typed_data};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyString};

use crate::gateway::{enter, error, from_json, raise};

/// Whoever signs receipts for one address. It cannot be printed or pickled.
#[pyclass(frozen, module = "counterfoil", name = "Key")]
pub(crate) struct Key(pub(crate) Arc<dyn Signer>);

#[pymethods]
impl Key {
    /// The key of this device: `COUNTERFOIL_KEY`, else `device.key` or `device.json` in the key
    /// folder, the former made on first use; the latter needs `COUNTERFOIL_PASSWORD`.
    #[staticmethod]
    fn device(py: Python<'_>) -> PyResult<Key> {
        enter(py, || KeyFolder::of_user()?.device_key()).map(|signer| Key(Arc::new(signer)))
    }

    /// A new key: in memory, or in a new file, which is a keystore if there is a password.
    #[staticmethod]
    #[pyo3(signature = (path = None, password = None))]
    fn generate(
        py: Python<'_>,
        path: Option<PathBuf>,
        password: Option<&Bound<'_, PyString>>,
    ) -> PyResult<Key> {
        let password = password.map(|text| read_password(py, text)).transpose()?;
        let Some(path) = path else {
            if password.is_some() {
                let message = "a key that is not stored needs no password; give a path as well";
                return Err(error(py, "invalid-input", message, [None, None, None]));
            }
            return enter(py, generate_key).map(|signer| Key(Arc::new(signer)));
        };
        enter(py, || create_key(&path, password.as_ref())).map(|signer| Key(Arc::new(signer)))
    }

    /// The key in a file: 64 hexadecimal digits, or a keystore (version 3), which needs the
    /// password or `COUNTERFOIL_PASSWORD`.
    #[staticmethod]
    #[pyo3(signature = (path, password = None))]
    fn load(py: Python<'_>, path: PathBuf, password: Option<&Bound<'_, PyString>>) -> PyResult<Key> {
        let password = password.map(|text| read_password(py, text)).transpose()?;
        enter(py, || load_key(&path, password.as_ref())).map(|signer| Key(Arc::new(signer)))
    }

    /// A key that stays elsewhere. `sign(digest, typed_data)` gets 32 bytes, and the EIP-712
    /// message of a receipt or tree head, or None for a transaction; it returns `r || s` or
    /// `r || s || v`. A signature that is not this address's is refused and nothing is recorded.
    /// It is called while the run waits for it, so it must not use the run.
    #[staticmethod]
    fn external(py: Python<'_>, address: &str, sign: &Bound<'_, PyAny>) -> PyResult<Key> {
        let refused = |message: String| error(py, "invalid-input", &message, [None, None, None]);
        let address = address
            .parse()
            // Not quoted: whoever mixes the two up gives a private key.
            .map_err(|_| refused("the address must be 0x and 40 hexadecimal digits".into()))?;
        if !sign.is_callable() {
            return Err(refused(format!("sign must be callable, found {}", sign.get_type().name()?)));
        }
        Ok(Key(Arc::new(External { address, sign: sign.clone().unbind() })))
    }

    /// Its address, `0x` and 40 hexadecimal digits with a checksum in their case.
    #[getter]
    fn address(&self) -> String {
        self.0.address().to_checksum(None)
    }

    fn __repr__(&self) -> String {
        format!("Key({})", self.address())
    }

    fn __reduce__(&self, py: Python<'_>) -> PyResult<()> {
        Err(error(
            py,
            "key",
            "a key cannot be pickled or copied; load it from its file where it is needed",
            [None, None, None],
        ))
    }
}

/// A key elsewhere: a service, a card, a wallet. What it answers is checked before it is used.
struct External {
    address: Address,
    sign: Py<PyAny>,
}

impl External {
    fn ask(&self, digest: Digest, body: Option<&Body>) -> Result<Signature, SignError> {
        let answer = Python::attach(|py| {
            let message = body.map(|body| from_json(py, &typed_data(body))).transpose();
            message
                .and_then(|message| self.sign.call1(py, (PyBytes::new(py, digest.as_slice()), message)))
                .map_err(|raised| remember_raised(py, raised))
                .and_then(|answer| {
                    answer.extract::<PyBackedBytes>(py).map_err(|_| SignError::Refused {
                        detail: format!("sign must return bytes, found {}", type_name(answer.bind(py))),
                    })
                })
        })?;
        Signature::accept(&answer, digest, self.address)
    }
}

impl Signer for External {
    fn address(&self) -> Address {
        self.address
    }

    fn sign(&self, digest: Digest) -> Result<Signature, SignError> {
        self.ask(digest, None)
    }

    fn sign_message(&self, body: &Body) -> Result<Signature, SignError> {
        self.ask(body.digest(), Some(body))
    }
}

thread_local! {
    /// What a callable raised inside the core's call that runs on this thread.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

fn remember_raised(py: Python<'_>, raised: PyErr) -> SignError {
    let detail = format!("sign raised {raised}");
    // What was there is dropped outside the cell: that may run Python, which may come back here.
    drop(RAISED.replace(Some(raised.clone_ref(py))));
    SignError::Refused { detail }
}

/// Begins a call of the core: nothing was raised in it yet.
pub(crate) fn forget_raised() {
    drop(RAISED.take());
}

/// Ends a call of the core with an error: an exception that a callable raised is its cause, or, like
/// an interrupt, takes its place.
pub(crate) fn with_raised(py: Python<'_>, error: PyErr) -> PyErr {
    match RAISED.take() {
        Some(raised) if raised.is_instance_of::<PyException>(py) => {
            error.set_cause(py, Some(raised));
            error
        }
        Some(raised) => raised,
        None => error,
    }
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "another type".into(), |name| name.to_string())
}

/// A password given by a caller; what is no text is not quoted.
fn read_password(py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<Password> {
    text.to_str().map(Password::new).map_err(|_| {
        error(py, "invalid-input", "the password holds halves of a surrogate pair", [None, None, None])
    })
}

/// The password of a command line: what was typed, or `$COUNTERFOIL_PASSWORD`.
fn given_or_set(py: Python<'_>, text: Option<&Bound<'_, PyString>>) -> PyResult<Password> {
    match text {
        Some(text) => read_password(py, text),
        None => Password::from_environment().ok_or_else(|| raise(py, &KeyError::NoPassword)),
    }
}

/// The folder in which this user's keys lie.
#[pyfunction]
fn key_folder(py: Python<'_>) -> PyResult<PathBuf> {
    enter(py, || KeyFolder::of_user().map(|folder| folder.path().to_path_buf()))
}

/// Encrypts the device key; returns its address.
#[pyfunction]
#[pyo3(signature = (password = None))]
fn protect_device_key(py: Python<'_>, password: Option<&Bound<'_, PyString>>) -> PyResult<String> {
    let password = given_or_set(py, password)?;
    enter(py, || KeyFolder::of_user()?.protect(&password)).map(|address| address.to_checksum(None))
}

/// Writes a keystore of the device key to a new file; returns its address.
#[pyfunction]
#[pyo3(signature = (path, password = None))]
fn back_up_device_key(
    py: Python<'_>,
    path: PathBuf,
    password: Option<&Bound<'_, PyString>>,
) -> PyResult<String> {
    let password = given_or_set(py, password)?;
    enter(py, || KeyFolder::of_user()?.back_up(&path, &password)).map(|address| address.to_checksum(None))
}

/// Makes the key in a keystore the device key; returns its address and whether it was not before.
#[pyfunction]
#[pyo3(signature = (path, password = None))]
fn restore_device_key(
    py: Python<'_>,
    path: PathBuf,
    password: Option<&Bound<'_, PyString>>,
) -> PyResult<(String, bool)> {
    let password = given_or_set(py, password)?;
    let restored = enter(py, || KeyFolder::of_user()?.restore(&path, &password))?;
    Ok(match restored {
        Restored::Installed(address) => (address.to_checksum(None), true),
        Restored::AlreadyThere(address) => (address.to_checksum(None), false),
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Key>()?;
    module.add_function(wrap_pyfunction!(key_folder, module)?)?;
    module.add_function(wrap_pyfunction!(protect_device_key, module)?)?;
    module.add_function(wrap_pyfunction!(back_up_device_key, module)?)?;
    module.add_function(wrap_pyfunction!(restore_device_key, module)?)
}
