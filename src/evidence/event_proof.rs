//! The proof that a chain's block holds the event of an anchor, checked from the block's hash alone.

use alloy_primitives::{Bytes, Log};
use alloy_rlp::{Decodable, PayloadView};
use serde::{Deserialize, Serialize};

use super::AnchorRecord;
use super::anchor::decimal;
use crate::primitives::{Digest, keccak256};
use crate::receipt::log_id;

/// The event that the contract emits for an anchor.
const EVENT: &str = "Anchored(bytes32,bytes32,address,uint32,uint64,uint64,bytes32,bytes32)";
/// Positions of fields in a block's header, the same since the first block of Ethereum.
const RECEIPTS_ROOT: usize = 5;
const NUMBER: usize = 8;
const TIME: usize = 11;

/// A block's header, and the way from it to the receipt of one transaction.
///
/// # Source
/// The Ethereum yellow paper, sections 4.3 and 4.4, appendix D; EIP-2718 (typed receipts).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    /// RLP of the header, whose Keccak-256 is the block's hash.
    pub header: Bytes,
    /// Position of the transaction in its block.
    #[serde(with = "decimal")]
    pub position: u64,
    /// Nodes of the receipts' trie, from the root to the leaf that holds the receipt.
    pub nodes: Vec<Bytes>,
}

/// Why a proof shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: expected {expected}, found {actual}")]
pub struct EventProofError {
    /// The part of the record or the block that does not hold.
    pub part: &'static str,
    /// What the other parts demand.
    pub expected: String,
    /// What was found.
    pub actual: String,
}

fn refused(part: &'static str, expected: impl ToString, actual: impl ToString) -> EventProofError {
    EventProofError { part, expected: expected.to_string(), actual: actual.to_string() }
}

impl EventProof {
    /// Whether the block that `record` names holds the event that it describes. Nothing is said
    /// about the block itself: it must be one that the verifier trusts.
    ///
    /// # Errors
    /// [`EventProofError`] with the first part that does not hold.
    pub fn check(&self, record: &AnchorRecord) -> Result<(), EventProofError> {
        let hash = keccak256(&self.header);
        if hash != record.block_hash {
            return Err(refused("blockHash", record.block_hash, hash));
        }
        let malformed = |error: alloy_rlp::Error| refused("header", "the RLP of a block's header", error);
        let fields = list(&self.header).map_err(malformed)?;
        if fields.len() <= TIME {
            return Err(malformed(alloy_rlp::Error::UnexpectedLength));
        }
        let number = |field: usize| u64::decode(&mut &fields[field][..]).map_err(malformed);
        for (part, expected, actual) in [
            ("blockNumber", record.block_number, number(NUMBER)?),
            ("blockTime", record.block_time, number(TIME)?),
        ] {
            if expected != actual {
                return Err(refused(part, expected, actual));
            }
        }
        let root = Digest::decode(&mut &fields[RECEIPTS_ROOT][..]).map_err(malformed)?;
        let events = events_of(&self.receipt(root)?)
            .map_err(|error| refused("receipt", "the receipt of a transaction", error))?;
        match events.contains(&event_of(record)) {
            true => Ok(()),
            false => {
                let actual = format!("{} other events", events.len());
                Err(refused("event", "the anchoring of this tree head", actual))
            }
        }
    }

    /// The receipt that the trie under `root` holds at the position, found along the nodes.
    fn receipt(&self, root: Digest) -> Result<Vec<u8>, EventProofError> {
        let key = nibbles(&alloy_rlp::encode(self.position));
        let (mut expected, mut path) = (root, key.as_slice());
        for (number, node) in self.nodes.iter().enumerate() {
            let hash = keccak256(node);
            if hash != expected {
                return Err(refused("nodes", expected, hash));
            }
            let step = step(node, path).map_err(|error| refused("nodes", "a node of a trie", error))?;
            match step {
                Some(Step::Down(child, rest)) => (expected, path) = (child, rest),
                Some(Step::Leaf(value)) if number + 1 == self.nodes.len() => return Ok(value),
                _ => {
                    return Err(refused(
                        "nodes",
                        "the path of the position",
                        "that of another, or more nodes",
                    ));
                }
            }
        }
        Err(refused("nodes", "the path to a leaf", "its beginning"))
    }
}

enum Step<'a> {
    /// The hash of the next node, and the path from there.
    Down(Digest, &'a [u8]),
    /// What the trie holds at the end of the path.
    Leaf(Vec<u8>),
}

/// Where a node leads along a path; none when it leads elsewhere. Nodes of receipts are never so
/// small that they would lie inside of others.
fn step<'a>(node: &[u8], path: &'a [u8]) -> alloy_rlp::Result<Option<Step<'a>>> {
    let fields = list(node)?;
    match (fields.as_slice(), path) {
        ([_, _, ..], [first, rest @ ..]) if fields.len() == 17 => {
            Ok(Some(Step::Down(Digest::decode(&mut &fields[usize::from(*first)][..])?, rest)))
        }
        ([prefix, value], _) => {
            let prefix = nibbles(&Bytes::decode(&mut &prefix[..])?);
            // The first nibble says whether this is a leaf, and whether the second one is of the path.
            let Some(flag) = prefix.first().filter(|flag| **flag < 4) else { return Ok(None) };
            let own = &prefix[2 - usize::from(flag % 2)..];
            Ok(match (path.strip_prefix(own), flag / 2) {
                (Some(rest), 0) => Some(Step::Down(Digest::decode(&mut &value[..])?, rest)),
                (Some([]), 1) => Some(Step::Leaf(Bytes::decode(&mut &value[..])?.to_vec())),
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

fn nibbles(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect()
}

/// The encoded items of a list, and nothing behind them.
fn list(mut encoded: &[u8]) -> alloy_rlp::Result<Vec<&[u8]>> {
    match alloy_rlp::Header::decode_raw(&mut encoded)? {
        PayloadView::List(items) if encoded.is_empty() => Ok(items),
        PayloadView::List(_) => Err(alloy_rlp::Error::UnexpectedLength),
        PayloadView::String(_) => Err(alloy_rlp::Error::UnexpectedString),
    }
}

/// The events of an encoded receipt.
fn events_of(receipt: &[u8]) -> alloy_rlp::Result<Vec<Log>> {
    // A typed receipt begins with its type, which is smaller than the first byte of any list.
    let encoded = if receipt.first().is_some_and(|first| *first < 0x80) { &receipt[1..] } else { receipt };
    match list(encoded)?.as_slice() {
        [_, _, _, events] => Vec::decode(&mut &events[..]),
        _ => Err(alloy_rlp::Error::UnexpectedLength),
    }
}

/// The event that the contract emitted when it recorded the anchor.
fn event_of(record: &AnchorRecord) -> Log {
    let word = |number: u64| Digest::left_padding_from(&number.to_be_bytes());
    let log = log_id(record.run, record.worker, record.lane);
    let topics = vec![keccak256(EVENT), log, record.run, record.worker.into_word()];
    let data =
        [word(record.lane.into()), word(record.index), word(record.size), record.head_digest, record.root];
    Log::new_unchecked(record.contract, topics, data.concat().into())
}
