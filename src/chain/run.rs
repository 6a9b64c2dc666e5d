//! From a run folder to an anchor, and back into the folder.

use super::{ChainError, Registration, SignedHead, Submitter};
use crate::evidence::AnchorRecord;
use crate::journal::{JournalError, write_durably};
use crate::keys::KeyFolder;
use crate::ledger::{LedgerError, RunFolder};
use crate::primitives::Address;
use crate::receipt::log_id;

/// Anchors the last signed tree head of one lane, the owner's unless `worker` is given, and stores
/// the anchor record in the folder.
///
/// # Errors
/// [`ChainError::NoHead`], [`ChainError::NoGenesis`], [`ChainError::Ledger`] when the folder cannot
/// be read or written, and those of [`Submitter::anchor`].
pub fn anchor_lane(
    submitter: &Submitter,
    folder: &RunFolder,
    worker: Option<Address>,
    lane: u32,
) -> Result<AnchorRecord, ChainError> {
    let run = registration(folder)?;
    let worker = worker.unwrap_or(run.owner);
    let log = folder.log(worker, lane)?;
    folder.release(&log, &KeyFolder::of_user().map_err(LedgerError::from)?)?;
    let head = log.heads().next_back().cloned().ok_or(ChainError::NoHead { worker, lane })?;
    let record = submitter.anchor(&SignedHead::from(&head), &run, Some(folder))?;
    store(folder, &record)?;
    Ok(record)
}

/// What the owner's genesis receipt says about the run.
pub(super) fn registration(folder: &RunFolder) -> Result<Registration, ChainError> {
    let no_genesis = || ChainError::NoGenesis { folder: folder.path().display().to_string() };
    let genesis = match folder.genesis() {
        Err(LedgerError::NotFound { .. }) => return Err(no_genesis()),
        found => found?,
    };
    Ok(Registration {
        owner: genesis.address("owner"),
        specification: genesis.bytes32("specification"),
        flags: genesis.unsigned("flags"),
        nonce: genesis.bytes32("nonce"),
    })
}

/// Writes the record under the next free number, or over that of the same transaction in a block that
/// is no longer on the chain. Lanes may be anchored at the same time, so a free name is taken by a
/// link, which never replaces a file.
pub(super) fn store(folder: &RunFolder, record: &AnchorRecord) -> Result<(), LedgerError> {
    let known = folder.anchors()?;
    if known.iter().any(|(_, known)| known == record) {
        return Ok(());
    }
    let anchors = folder.path().join("anchors");
    let failed = |error: std::io::Error| JournalError::of_file(&anchors, &error);
    std::fs::create_dir_all(&anchors).map_err(failed)?;
    let mut text = serde_json::to_vec_pretty(record).expect("an anchor record is plain data");
    text.push(b'\n');
    let log = log_id(record.run, record.worker, record.lane);
    let partial = anchors.join(format!("{log:x}.{}.partial", std::process::id()));
    write_durably(&partial, &[&text])?;
    let is_same = |known: &AnchorRecord| known.transaction_hash == record.transaction_hash;
    if let Some((name, _)) = known.iter().find(|(_, known)| is_same(known)) {
        return Ok(std::fs::rename(&partial, anchors.join(name)).map_err(failed)?);
    }
    let mut number = known.len();
    while let Err(error) = std::fs::hard_link(&partial, anchors.join(format!("{number}.json"))) {
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(failed(error).into());
        }
        number += 1;
    }
    Ok(std::fs::remove_file(&partial).map_err(failed)?)
}
