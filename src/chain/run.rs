//! From a run folder to an anchor, and back into the folder.

use super::{ChainError, Client, HeadOnChain, Payer, Registration, SignedHead};
use crate::evidence::{AnchorRecord, Log};
use crate::journal::{self, JournalError, write_durably};
use crate::ledger::{LedgerError, RunFolder};
use crate::primitives::Address;
use crate::receipt::schema::{GENESIS, Kind};
use crate::receipt::{Body, log_id};

/// Anchors the last signed tree head of one lane, the owner's unless `worker` is given, and stores
/// the anchor record in the folder.
///
/// # Errors
/// [`ChainError::NoHead`], [`ChainError::NoGenesis`], [`ChainError::Ledger`] when the folder cannot
/// be read or written, and those of [`Client::anchor`].
pub fn anchor_lane(
    client: &Client,
    folder: &RunFolder,
    worker: Option<Address>,
    lane: u32,
    payer: Payer,
) -> Result<AnchorRecord, ChainError> {
    let run = registration(folder)?;
    let worker = worker.unwrap_or(run.owner);
    let head = read_log(folder, worker, lane)?.heads.pop().ok_or(ChainError::NoHead { worker, lane })?;
    let record = client.anchor(&SignedHead::from(&head), &run, payer)?;
    store(folder, &record)?;
    Ok(record)
}

/// What the chain knows of one lane, the owner's unless `worker` is given; `None` before its first
/// anchor.
///
/// # Errors
/// [`ChainError::NoGenesis`], [`ChainError::Ledger`], and what the node reports.
pub fn head_of_lane(
    client: &Client,
    folder: &RunFolder,
    worker: Option<Address>,
    lane: u32,
) -> Result<Option<HeadOnChain>, ChainError> {
    let run = registration(folder)?;
    client.head(run.run(), worker.unwrap_or(run.owner), lane)
}

/// What the owner's genesis receipt says about the run.
fn registration(folder: &RunFolder) -> Result<Registration, ChainError> {
    for (worker, lane) in folder.lanes()?.into_iter().filter(|(_, lane)| *lane == 0) {
        let log = read_log(folder, worker, lane)?;
        let Some(first) = log.receipts.first().filter(|first| first.kind == GENESIS) else { continue };
        let kind = Kind::from_number(GENESIS).expect("genesis is in the schema");
        let body = Body::decode(kind, &first.body).map_err(LedgerError::from)?;
        return Ok(Registration {
            owner: body.address("owner"),
            specification: body.bytes32("specification"),
            flags: body.unsigned("flags"),
            nonce: body.bytes32("nonce"),
        });
    }
    Err(ChainError::NoGenesis { folder: folder.path().display().to_string() })
}

fn read_log(folder: &RunFolder, worker: Address, lane: u32) -> Result<Log, LedgerError> {
    let recovered = journal::read(&folder.lane(worker, lane).join("journal"), "ledger")?;
    Ok(Log::from_frames(worker, lane, &recovered.frames)?)
}

/// Writes the record under the next free number. Lanes may be anchored at the same time, so the
/// name is taken by a link, which never replaces a file.
fn store(folder: &RunFolder, record: &AnchorRecord) -> Result<(), LedgerError> {
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
    let mut number = known.len();
    while let Err(error) = std::fs::hard_link(&partial, anchors.join(format!("{number}.json"))) {
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(failed(error).into());
        }
        number += 1;
    }
    Ok(std::fs::remove_file(&partial).map_err(failed)?)
}
