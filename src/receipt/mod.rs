//! Receipts: what a worker signs about one step, and the identities that receipts refer to.
//!
//! [`schema`] is the one table from which types, encodings and names follow; `docs/format.md`,
//! section 4, describes the bytes.

mod blind;
mod body;
pub mod schema;
mod signature;

pub use blind::{Blind, LaneSecret};
pub use body::{Body, ReceiptError, Value, domain_separator, from_typed_data, typed_data};
pub use signature::{LocalSigner, SignError, Signature, SignatureError, Signer, recover};

use crate::primitives::{Address, Digest, keccak256};

/// Bytes of a ledger's leaf: digest and signature.
pub const LEAF: usize = 97;

/// A receipt as it stands in a ledger: its body may be withheld, its leaf may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Kind number; may be one that this version does not know.
    pub kind: u16,
    /// EIP-712 digest.
    pub digest: Digest,
    /// Signature over the digest.
    pub signature: Signature,
    /// The encoded body.
    pub body: Vec<u8>,
}

impl Receipt {
    /// The leaf of the ledger's tree.
    pub fn leaf(&self) -> [u8; LEAF] {
        let mut leaf = [0; LEAF];
        leaf[..32].copy_from_slice(self.digest.as_slice());
        leaf[32..].copy_from_slice(&self.signature.0);
        leaf
    }
}

fn word_of(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}

/// The identity of a run: nobody but `owner` can register another run under it.
pub fn run_id(owner: Address, specification: Digest, flags: u64, nonce: Digest) -> Digest {
    let tag = keccak256("counterfoil.run.v1");
    keccak256([tag.0, owner.into_word().0, specification.0, word_of(flags), nonce.0].concat())
}

/// The identity of one worker's lane in a run.
pub fn log_id(run: Digest, worker: Address, lane: u32) -> Digest {
    let tag = keccak256("counterfoil.log.v1");
    keccak256([tag.0, run.0, worker.into_word().0, word_of(lane.into())].concat())
}

/// The digest of twelve cadences, as genesis holds its floor.
pub fn policy_digest(cadences: &[u32]) -> Digest {
    keccak256(cadences.iter().map(|every| word_of((*every).into())).collect::<Vec<_>>().concat())
}
