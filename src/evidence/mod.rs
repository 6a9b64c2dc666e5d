//! Evidence: what lies in a ledger's journal, decoded but not yet believed.
//!
//! `docs/format.md`, section 7, describes the frames. Nothing here checks a signature or a link;
//! that is the business of [`crate::verify`].

mod anchor;
mod frame;

use std::collections::HashMap;

pub use anchor::AnchorRecord;
pub use frame::{FieldOpening, Frame, FrameError, Openable, OpeningFrame};

use crate::commit::{CommitError, Entry, State, roots};
use crate::primitives::{Address, Digest, Report};
use crate::receipt::schema::{GENESIS, KINDS, Kind, TREE_HEAD};
use crate::receipt::{Body, Receipt, Signature};

/// The signed size and root of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Fields of `TreeHeadV1`.
    pub body: Body,
    /// Signature over the body's digest.
    pub signature: Signature,
}

impl TreeHead {
    /// Leaves the head speaks of.
    pub fn size(&self) -> u64 {
        self.body.unsigned("size")
    }

    /// Root over those leaves.
    pub fn root(&self) -> Digest {
        self.body.bytes32("root")
    }
}

/// One worker's lane, as found in its journal.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Address in the folder's name.
    pub worker: Address,
    /// Lane in the folder's name.
    pub lane: u32,
    /// Receipts in order.
    pub receipts: Vec<Receipt>,
    /// Tree heads in order.
    pub heads: Vec<TreeHead>,
    /// Bytes of an unfinished last frame.
    pub dropped_bytes: u64,
    layouts: HashMap<Digest, Vec<Entry>>,
    openings: HashMap<Digest, Vec<FieldOpening>>,
}

/// Why an opened field cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum OpeningError {
    /// The layout it refers to is not in the journal.
    #[error("its layout {layout} is missing")]
    NoLayout { layout: Digest },
    /// The state is not the one that was signed.
    #[error("it opens to {actual}, the receipt binds {expected}")]
    Digest { expected: Digest, actual: Digest },
    /// The payload does not have as many bytes as the layout demands.
    #[error("its payload has {actual} bytes, the layout demands {expected}")]
    Length { expected: u64, actual: u64 },
    /// Values are given for a tensor in blocks.
    #[error("it holds values, but one of its tensors is sharded")]
    ShardedValue,
    /// The entries make no state.
    #[error(transparent)]
    State(#[from] CommitError),
}

impl Report for OpeningError {
    fn code(&self) -> &'static str {
        "journal-corrupt"
    }
}

/// One opened field: the state behind its digest and, where it was kept, the state's bytes.
#[derive(Clone, Debug)]
pub struct Opened {
    /// How the field was stored.
    pub field: FieldOpening,
    /// Names, shapes and roots.
    pub state: State,
    /// Canonical bytes of each dense entry in order, when they were stored by value.
    pub values: Option<Vec<Vec<u8>>>,
}

impl Log {
    /// Collects the frames of one journal.
    ///
    /// # Errors
    /// [`FrameError`] with the number of the first frame that is none.
    pub fn from_frames(worker: Address, lane: u32, frames: &[Vec<u8>]) -> Result<Log, FrameError> {
        let mut log = Log { worker, lane, ..Log::default() };
        for (number, payload) in frames.iter().enumerate() {
            match Frame::decode(payload).map_err(|error| error.at(number))? {
                Frame::Receipt(receipt) => log.receipts.push(receipt),
                Frame::Head(head) => log.heads.push(head),
                Frame::Layout(entries) => {
                    log.layouts.insert(frame::layout_digest(payload), entries);
                }
                Frame::Opening(OpeningFrame { receipt, fields }) => {
                    if log.openings.insert(receipt, fields).is_some() {
                        let detail = format!("receipt {receipt} is opened twice");
                        return Err(FrameError { number, detail });
                    }
                }
            }
        }
        Ok(log)
    }

    /// The body of the genesis receipt, if this log begins with one.
    pub fn genesis(&self) -> Option<Body> {
        let first = self.receipts.first().filter(|receipt| receipt.kind == GENESIS)?;
        Body::decode(Kind::from_number(GENESIS)?, &first.body).ok()
    }

    /// The fields of a receipt that this journal opens.
    pub fn openings(&self, receipt: &Digest) -> &[FieldOpening] {
        self.openings.get(receipt).map_or(&[], Vec::as_slice)
    }

    /// The state behind one opened field, which must have the digest that the receipt binds.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub fn open(&self, field: &FieldOpening, digest: Digest) -> Result<Opened, OpeningError> {
        let layout =
            self.layouts.get(&field.layout).ok_or(OpeningError::NoLayout { layout: field.layout })?;
        let sizes: Vec<u64> = layout.iter().filter(|entry| entry.has_root()).map(Entry::size).collect();
        let expected = match field.content {
            Openable::Roots(_) => sizes.len() as u64 * 32,
            // No value gives a sharded entry its root.
            Openable::Values(_) if layout.iter().any(|entry| entry.has_root() && !entry.is_dense()) => {
                return Err(OpeningError::ShardedValue);
            }
            Openable::Values(_) => sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size)),
        };
        let (Openable::Roots(payload) | Openable::Values(payload)) = &field.content;
        if payload.len() as u64 != expected {
            return Err(OpeningError::Length { expected, actual: payload.len() as u64 });
        }
        let (found, values) = match &field.content {
            Openable::Roots(payload) => (payload.chunks_exact(32).map(Digest::from_slice).collect(), None),
            Openable::Values(payload) => {
                let mut rest = payload.as_slice();
                let mut next = |size: &u64| {
                    let (head, tail) = rest.split_at(*size as usize);
                    rest = tail;
                    head
                };
                let values: Vec<&[u8]> = sizes.iter().map(&mut next).collect();
                (roots(&values), Some(values.into_iter().map(<[u8]>::to_vec).collect()))
            }
        };
        let mut found = found.into_iter();
        let mut entries = layout.clone();
        for entry in &mut entries {
            if entry.has_root() {
                entry.set_root(found.next().expect("one root per tensor"));
            }
        }
        let state = State::new(entries)?;
        let commitment = field.blind.entry_key().map_or(state.commitment(), |key| state.blinded(key));
        let actual = commitment.digest(&field.blind.blind);
        if actual != digest {
            return Err(OpeningError::Digest { expected: digest, actual });
        }
        Ok(Opened { field: field.clone(), state, values })
    }
}

/// The kind with this number, implemented or reserved.
pub fn kind_name(number: u16) -> String {
    let known = KINDS.iter().find(|kind| kind.number == number);
    known.map_or_else(|| format!("unknown kind {number}"), |kind| kind.name.into())
}

/// The type of tree heads, for decoding.
pub(crate) fn head_kind() -> &'static Kind {
    &TREE_HEAD
}
