//! The one way from Python into the core: release the interpreter, run, turn errors and panics
//! into the classes of `counterfoil.errors`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use counterfoil::commit::Watch;
use counterfoil::primitives::{Address, Report};
use pyo3::prelude::*;

use crate::keys;

/// Runs core code without the interpreter's lock.
pub(crate) fn enter<T: Send, E: Report + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    keys::forget_raised();
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(keys::with_raised(py, raise(py, &error))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(error(
                py,
                "internal",
                &format!("internal error, please report it: {text}"),
                [None, None, None],
            ))
        }
    }
}

/// Runs core code that may take long: now and then Python handles its signals and `progress` is
/// called with the bytes done and `total`. What either of them raises stops the work.
pub(crate) fn watched<T: Send, E: Report + Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    total: u64,
    work: impl FnOnce(Watch<'_>) -> Result<Option<T>, E> + Send,
) -> PyResult<T> {
    let (mut raised, mut seen) = (None, Instant::now());
    let mut watch = |done: u64| {
        // To wait for the interpreter can take as long as hashing a few megabytes.
        if seen.elapsed() < Duration::from_millis(50) {
            return true;
        }
        seen = Instant::now();
        let called = Python::attach(|py| {
            py.check_signals()?;
            progress.map_or(Ok(()), |progress| progress.call1(py, (done, total)).map(drop))
        });
        raised = called.err();
        raised.is_none()
    };
    let result = enter(py, || work(&mut watch));
    match raised {
        Some(raised) => Err(raised),
        None => Ok(result?.expect("only an exception stops the work")),
    }
}

/// The exception that belongs to an error of the core.
pub(crate) fn raise(py: Python<'_>, report: &dyn Report) -> PyErr {
    error(py, report.code(), &report.to_string(), [report.expected(), report.actual(), report.place()])
}

/// An exception by its code.
pub(crate) fn error(py: Python<'_>, code: &str, message: &str, evidence: [Option<String>; 3]) -> PyErr {
    let made = py.import("counterfoil.errors").and_then(|errors| errors.getattr("from_code")).and_then(
        |from_code| {
            from_code.call1((code, message, evidence[0].clone(), evidence[1].clone(), evidence[2].clone()))
        },
    );
    made.map_or_else(|failed| failed, PyErr::from_value)
}

/// A plain Python value from JSON text.
pub(crate) fn from_json<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (text,))
}

/// A position or size given by a caller.
pub(crate) fn position(py: Python<'_>, what: &str, given: &Bound<'_, PyAny>) -> PyResult<u64> {
    given.extract().map_err(|_| {
        let evidence = [Some("0 to 2^64 - 1".into()), Some(given.to_string()), Some(what.into())];
        error(py, "invalid-input", &format!("{what} must be a position, found {given}"), evidence)
    })
}

/// An address as Python has it.
pub(crate) fn address(py: Python<'_>, text: &str) -> PyResult<Address> {
    let message = || format!("{text:?} is no address (0x and 40 hexadecimal digits)");
    text.parse().map_err(|_| error(py, "invalid-input", &message(), [None, None, None]))
}

/// 32 bytes given by a caller.
pub(crate) fn digest(py: Python<'_>, what: &str, bytes: &[u8]) -> PyResult<counterfoil::primitives::Digest> {
    counterfoil::primitives::Digest::try_from(bytes).map_err(|_| {
        let evidence = [Some("32 bytes".into()), Some(format!("{} bytes", bytes.len())), Some(what.into())];
        error(py, "invalid-input", &format!("{what} must have 32 bytes, found {}", bytes.len()), evidence)
    })
}
