//! From a run folder to an anchor, and back into the folder.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{ChainError, Registration, SignedHead, Submitter};
use crate::evidence::AnchorRecord;
use crate::journal::{JournalError, write_durably};
use crate::keys::KeyFolder;
use crate::ledger::{LedgerError, RunFolder};
use crate::primitives::Address;
use crate::receipt::log_id;
use crate::verify::MAX_DOCUMENT;

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
/// is no longer on the chain. Lanes may be anchored at the same time, so a free name is taken without
/// replacing a file.
pub(super) fn store(folder: &RunFolder, record: &AnchorRecord) -> Result<(), LedgerError> {
    let anchors = folder.path().join("anchors");
    let failed = |error: std::io::Error| JournalError::of_file(&anchors, &error);
    std::fs::create_dir_all(&anchors).map_err(failed)?;
    let known = known(&anchors).map_err(failed)?;
    if known.iter().any(|(_, known)| known == record) {
        return Ok(());
    }
    let mut text = serde_json::to_vec_pretty(record).expect("an anchor record is plain data");
    text.push(b'\n');
    let log = log_id(record.run, record.worker, record.lane);
    let partial = anchors.join(format!("{log:x}.{}.partial", std::process::id()));
    write_durably(&partial, &[&text])?;
    let is_same = |known: &AnchorRecord| known.transaction_hash == record.transaction_hash;
    if let Some((path, _)) = known.iter().find(|(_, known)| is_same(known)) {
        return Ok(std::fs::rename(&partial, path).map_err(failed)?);
    }
    let mut number = known.len();
    loop {
        match take_name(&partial, &anchors.join(format!("{number}.json"))) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            taken => return Ok(taken.map_err(failed)?),
        }
    }
}

/// The anchor records in a folder. What else lies there is none of ours to judge.
fn known(anchors: &Path) -> std::io::Result<Vec<(PathBuf, AnchorRecord)>> {
    if anchors.is_symlink() {
        return Err(std::io::Error::other("a link where a folder belongs"));
    }
    let mut known = Vec::new();
    for entry in std::fs::read_dir(anchors)? {
        let entry = entry?;
        let path = entry.path();
        // Of the entry itself: a stranger's folder may hold links to devices.
        let is_small_file = entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= MAX_DOCUMENT);
        let is_whole = path.extension().is_none_or(|extension| extension != "partial");
        if is_small_file
            && is_whole
            && let Ok(record) = serde_json::from_slice(&std::fs::read(&path).unwrap_or_default())
        {
            known.push((path, record));
        }
    }
    Ok(known)
}

/// Gives a file a name that nobody has.
fn take_name(file: &Path, name: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(file, name) {
        Ok(()) => std::fs::remove_file(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) => take_name_without_links(file, name),
    }
}

/// As [`take_name`] on exFAT and some network disks: an empty file holds the name until the whole one has it.
fn take_name_without_links(file: &Path, name: &Path) -> std::io::Result<()> {
    File::create_new(name)?;
    std::fs::rename(file, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug: on a disk without links no record is ever stored, or one replaces another.
    #[test]
    fn a_name_is_taken_once_with_and_without_links() {
        for take in [take_name, take_name_without_links] {
            let folder = tempfile::tempdir().unwrap();
            let [one, other, name] = ["one", "other", "name"].map(|file| folder.path().join(file));
            std::fs::write(&one, "one").unwrap();
            std::fs::write(&other, "other").unwrap();
            take(&one, &name).unwrap();
            assert_eq!(take(&other, &name).unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read_to_string(&name).unwrap(), "one");
            assert!(!one.exists() && other.exists());
        }
    }
}
