//! Evidence: what lies in a ledger's journal, decoded but not yet believed.
//!
//! `docs/format.md`, section 7, describes the frames. Nothing here checks a signature or a link;
//! that is the business of [`crate::verify`].

mod anchor;
pub mod bundle;
mod contradiction;
mod event_proof;
mod frame;
mod log;
mod opened;

pub use anchor::AnchorRecord;
pub use bundle::{Bundle, BundleError};
pub use contradiction::{Contradiction, ContradictionKind, NoContradiction};
pub use event_proof::{EventProof, EventProofError};
pub use frame::{FieldOpening, Frame, FrameError, Openable, OpeningFrame, PartOpening};
#[cfg(feature = "io")]
pub(crate) use frame::{encode_layout, layout_digest};
pub use log::{Log, Mark, Shown, Source};
pub use opened::{Opened, OpeningError};

use crate::primitives::{Address, Digest};
use crate::receipt::schema::{GENESIS, KINDS, TREE_HEADS};
use crate::receipt::{Body, Signature, SignatureError, recover};

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

/// A worker's signed permission for another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// Fields of `DelegationV1`.
    pub body: Body,
    /// The worker's signature over the body's digest.
    pub signature: Signature,
}

impl Delegation {
    /// The key that may sign.
    pub fn key(&self) -> Address {
        self.body.address("key")
    }

    /// Unix seconds from which on it allows nothing; none when it never ends.
    pub fn expires(&self) -> Option<u64> {
        Some(self.body.unsigned("expires")).filter(|expires| *expires != 0)
    }

    /// Whether it was signed for this log, by the worker.
    ///
    /// # Errors
    /// [`SignatureError`] when the signature names nobody.
    pub fn is_of(&self, run: Digest, worker: Address, lane: u32) -> Result<bool, SignatureError> {
        let signer = recover(self.body.digest(), &self.signature)?;
        let log = (self.body.bytes32("run"), self.body.address("worker"), self.body.unsigned("lane"));
        Ok(signer == worker && log == (run, worker, lane.into()) && self.body.unsigned("schema") == 1)
    }

    /// Whether a receipt of this kind may stand at this position, by the delegation's own words.
    pub fn allows(&self, kind: u16, sequence: u64) -> bool {
        let kinds = self.body.unsigned("kinds");
        let (first, last) = (self.body.unsigned("firstSequence"), self.body.unsigned("lastSequence"));
        kind > GENESIS && kind < 64 && kinds >> kind & 1 == 1 && (first..=last).contains(&sequence)
    }

    /// Whether a tree head of this size may be signed.
    pub fn allows_head(&self, size: u64) -> bool {
        let (first, last) = (self.body.unsigned("firstSequence"), self.body.unsigned("lastSequence"));
        self.body.unsigned("kinds") & TREE_HEADS != 0 && size > first && size - 1 <= last
    }
}

/// The kind with this number, implemented or reserved.
pub fn kind_name(number: u16) -> String {
    let known = KINDS.iter().find(|kind| kind.number == number);
    known.map_or_else(|| format!("unknown kind {number}"), |kind| kind.name.into())
}
