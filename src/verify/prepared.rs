//! What can be computed of a receipt alone: its digest, its signer and the states behind its fields.
//! That is nearly all the work of verification, and is done on all cores.

use crate::commit::for_all;
use crate::evidence::{FrameError, Log, Opened, OpeningError, PartOpening};
use crate::primitives::{Address, Digest};
use crate::receipt::schema::{HEADER, Kind};
use crate::receipt::{Body, Receipt, ReceiptError, SignatureError, Value, recover};

/// Receipts that are prepared together, so that memory stays small.
const BATCH: usize = 1024;
/// Larger than any state that would be prepared by one core alone.
const WORTH_ALL_CORES: u64 = u64::MAX;

/// What the body of a receipt says.
pub(super) enum Content {
    /// A body of a known kind.
    Body(Body),
    /// The kind is not known.
    Unknown,
    /// The bytes are no body of the kind.
    Refused(&'static Kind, ReceiptError),
}

/// A receipt after the work that needs no other one.
pub(super) struct Prepared {
    pub(super) sequence: u64,
    pub(super) receipt: Result<Receipt, FrameError>,
    pub(super) content: Content,
    /// Digest of the body.
    pub(super) digest: Digest,
    pub(super) signer: Result<Address, SignatureError>,
    /// Positions of all fields that something claims to open.
    pub(super) indexes: Vec<u8>,
    /// Fields opened as a whole, by their position after the header.
    pub(super) opened: Vec<(u8, Result<Opened, OpeningError>)>,
    /// Single tensors opened.
    pub(super) parts: Vec<PartOpening>,
}

/// All shown receipts of a log in order, in batches.
pub(super) fn batches(log: &Log) -> impl Iterator<Item = Vec<Prepared>> {
    let indexes: Vec<usize> = (0..log.shown()).collect();
    let count = indexes.len().div_ceil(BATCH);
    (0..count).map(move |batch| {
        let batch = &indexes[batch * BATCH..indexes.len().min((batch + 1) * BATCH)];
        for_all(batch, WORTH_ALL_CORES, |index| prepare(log, *index))
    })
}

fn prepare(log: &Log, index: usize) -> Prepared {
    let mut prepared = Prepared {
        sequence: log.sequence(index),
        receipt: Err(FrameError { number: index, detail: String::new() }),
        content: Content::Unknown,
        digest: Digest::ZERO,
        signer: Err(SignatureError::NoKey),
        indexes: Vec::new(),
        opened: Vec::new(),
        parts: Vec::new(),
    };
    let shown = match log.read(index) {
        Ok(shown) => shown,
        Err(error) => {
            prepared.receipt = Err(error);
            return prepared;
        }
    };
    prepared.signer = recover(shown.receipt.digest, &shown.receipt.signature);
    if let Some(kind) = Kind::from_number(shown.receipt.kind) {
        match Body::decode(kind, &shown.receipt.body) {
            Ok(body) => {
                prepared.digest = body.digest();
                for field in &shown.fields {
                    let bound = body.fields().nth(HEADER.len() + usize::from(field.index));
                    let Some((_, Value::Digest(digest))) = bound else { continue };
                    prepared.opened.push((field.index, log.open(field, digest)));
                }
                prepared.content = Content::Body(body);
            }
            Err(error) => prepared.content = Content::Refused(kind, error),
        }
    }
    let parts = shown.parts.iter().map(|part| part.index);
    prepared.indexes = shown.fields.iter().map(|field| field.index).chain(parts).collect();
    prepared.parts = shown.parts;
    prepared.receipt = Ok(shown.receipt);
    prepared
}
