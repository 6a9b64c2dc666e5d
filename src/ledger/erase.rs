//! Forgetting what lies behind a run's receipts: the receipts themselves stay, and verify.

use std::path::Path;

use super::{LedgerError, RunFolder};
use crate::journal::{self, JournalError};
use crate::keys::KeyFolder;
use crate::receipt::log_id;

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Frames that opened receipts or named what they open.
    pub frames: u64,
    /// Stored tensors and lists of records.
    pub files: u64,
    /// Secrets of lanes, from which every blind could be derived.
    pub secrets: u64,
}

impl RunFolder {
    /// Erases everything behind the receipts: openings, stored tensors, lists of records and the lanes'
    /// secrets. No lane that was begun here can be continued. Repeating it, also after an
    /// interruption, is safe.
    ///
    /// # Errors
    /// [`LedgerError::Key`] when a lane is being written, [`LedgerError::Journal`] when a journal is
    /// corrupt or cannot be written.
    pub fn erase(&self, keys: &KeyFolder) -> Result<Erased, LedgerError> {
        let run = self.genesis()?.bytes32("run");
        let mut erased = Erased::default();
        let mut lanes = Vec::new();
        // Nothing is touched before everything may be.
        for (worker, lane) in self.lanes()? {
            let log = log_id(run, worker, lane);
            let lock = keys.has_lane(log).then(|| keys.lock_lane(log)).transpose()?;
            let (found, released) = (self.log(worker, lane)?, keys.released(log)?);
            if released > found.size() {
                return Err(LedgerError::OlderCopy { released, found: found.size() });
            }
            if found.dropped_bytes > 0 {
                let place = self.lane(worker, lane).display().to_string();
                let detail = "an unfinished write; type counterfoil doctor RUN --repair first".into();
                return Err(LedgerError::Damaged { place, detail });
            }
            lanes.push((worker, lane, log, lock));
        }
        for (worker, lane, log, lock) in lanes {
            let opens = |payload: &[u8]| matches!(payload.first(), Some(b'L' | b'O' | b'P'));
            erased.frames += journal::remove(&self.lane(worker, lane).join("journal"), "ledger", &opens)?;
            if lock.is_some() {
                keys.forget_lane(log)?;
                erased.secrets += 1;
            }
        }
        for name in ["objects", "records"] {
            erased.files += empty(&self.path().join(name))?;
        }
        Ok(erased)
    }
}

/// Removes the files of a folder.
fn empty(folder: &Path) -> Result<u64, LedgerError> {
    let failed = |error: std::io::Error| JournalError::of_file(folder, &error);
    let mut count = 0;
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        read => read.map_err(failed)?,
    };
    for entry in entries {
        // Also what an interrupted write left behind.
        std::fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        count += 1;
    }
    Ok(count)
}
