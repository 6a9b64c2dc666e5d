//! What a lane's journal holds, and repairing it, for Python.

use std::path::PathBuf;

use counterfoil::evidence::Log;
use counterfoil::journal;
use counterfoil::keys::KeyFolder;
use counterfoil::ledger::LedgerError;
use counterfoil::primitives::Address;
use counterfoil::receipt::log_id;
use pyo3::prelude::*;

use crate::gateway::{digest, enter, error};

/// Receipts and tree heads in a lane's journal, and bytes of an unfinished last write.
#[pyfunction]
fn read_journal(py: Python<'_>, path: PathBuf) -> PyResult<(usize, usize, u64)> {
    enter(py, || {
        let recovered = journal::read(&path, "ledger")?;
        let log = Log::from_frames(Address::ZERO, 0, &recovered.frames)?;
        Ok::<_, LedgerError>((log.shown(), log.heads().count(), recovered.dropped_bytes))
    })
}

/// Cuts off an unfinished last write; returns how many bytes it had.
#[pyfunction]
fn repair_journal(py: Python<'_>, path: PathBuf) -> PyResult<u64> {
    enter(py, || journal::repair(&path, "ledger"))
}

/// How many receipts of a lane have left this device; none when the lane was not begun here.
#[pyfunction]
fn released_receipts(py: Python<'_>, run: &[u8], worker: &str, lane: u32) -> PyResult<Option<u64>> {
    let run = digest(py, "run", run)?;
    let Ok(worker) = worker.parse::<Address>() else {
        let message = format!("{worker:?} is no address (0x and 40 hexadecimal digits)");
        return Err(error(py, "invalid-input", &message, [None, None, None]));
    };
    enter(py, || {
        let (keys, log) = (KeyFolder::of_user()?, log_id(run, worker, lane));
        keys.has_lane(log).then(|| keys.released(log)).transpose()
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_journal, module)?)?;
    module.add_function(wrap_pyfunction!(repair_journal, module)?)?;
    module.add_function(wrap_pyfunction!(released_receipts, module)?)
}
