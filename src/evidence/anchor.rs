//! The record of an anchor: where a tree head was written down on a chain.

use serde::{Deserialize, Serialize};

use super::EventProof;
use crate::primitives::{Address, Digest};

/// A hint where to look, not evidence: only a chain that the verifier chose dates a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnchorRecord {
    /// EIP-155 id of the chain.
    #[serde(with = "decimal")]
    pub chain_id: u64,
    /// Address of the RunLedger contract.
    pub contract: Address,
    /// Transaction that wrote the head.
    pub transaction_hash: Digest,
    /// Block of the transaction.
    #[serde(with = "decimal")]
    pub block_number: u64,
    /// Hash of that block.
    pub block_hash: Digest,
    /// Unix seconds of that block.
    #[serde(with = "decimal")]
    pub block_time: u64,
    /// Run of the log.
    pub run: Digest,
    /// Worker of the log.
    pub worker: Address,
    /// Lane of the log.
    pub lane: u32,
    /// Position among the log's anchors.
    #[serde(with = "decimal")]
    pub index: u64,
    /// Leaves the head speaks of.
    #[serde(with = "decimal")]
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// Digest of the signed tree head.
    pub head_digest: Digest,
    /// What shows the event in the block to whoever trusts the block's hash; not every chain can be proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<EventProof>,
}

pub(super) mod decimal {
    //! u64 as a decimal string, which every JSON reader keeps exactly.

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::evidence) fn serialize<S: Serializer>(
        number: &u64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(in crate::evidence) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number: u64 = text.parse().map_err(serde::de::Error::custom)?;
        match number.to_string() == text {
            true => Ok(number),
            false => Err(serde::de::Error::custom(format!("{text:?} is no number in canonical form"))),
        }
    }
}
