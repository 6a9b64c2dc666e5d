//! Making the proof that a block holds an event, from what a node tells of the block.

use alloy_primitives::{Address, B64, B256, Bloom, Bytes, Log, U8, U64, U256};
use alloy_rlp::Encodable;
use alloy_trie::proof::ProofRetainer;
use alloy_trie::{HashBuilder, Nibbles};
use serde::Deserialize;

use crate::evidence::EventProof;
use crate::primitives::{Digest, keccak256};

/// A block's header as JSON-RPC shows it, in the order of its RLP. The later forks appended fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    parent_hash: B256,
    sha3_uncles: B256,
    miner: Address,
    state_root: B256,
    transactions_root: B256,
    receipts_root: B256,
    logs_bloom: Bloom,
    difficulty: U256,
    number: U64,
    gas_limit: U64,
    gas_used: U64,
    timestamp: U64,
    extra_data: Bytes,
    mix_hash: B256,
    nonce: B64,
    base_fee_per_gas: Option<U256>,
    withdrawals_root: Option<B256>,
    blob_gas_used: Option<U64>,
    excess_blob_gas: Option<U64>,
    parent_beacon_block_root: Option<B256>,
    requests_hash: Option<B256>,
}

/// A receipt as JSON-RPC shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receipt {
    transaction_hash: B256,
    #[serde(default, rename = "type")]
    kind: U8,
    status: U64,
    cumulative_gas_used: U64,
    logs_bloom: Bloom,
    logs: Vec<Log>,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut fields: Vec<&dyn Encodable> = vec![
            &self.parent_hash,
            &self.sha3_uncles,
            &self.miner,
            &self.state_root,
            &self.transactions_root,
            &self.receipts_root,
            &self.logs_bloom,
            &self.difficulty,
            &self.number,
            &self.gas_limit,
            &self.gas_used,
            &self.timestamp,
            &self.extra_data,
            &self.mix_hash,
            &self.nonce,
        ];
        fn field<T: Encodable>(value: &Option<T>) -> Option<&dyn Encodable> {
            value.as_ref().map(|value| value as _)
        }
        let later = [
            field(&self.base_fee_per_gas),
            field(&self.withdrawals_root),
            field(&self.blob_gas_used),
            field(&self.excess_blob_gas),
            field(&self.parent_beacon_block_root),
            field(&self.requests_hash),
        ];
        fields.extend(later.into_iter().flatten());
        list(&fields)
    }
}

impl Receipt {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = if self.kind.is_zero() { Vec::new() } else { vec![self.kind.to()] };
        bytes.extend(list(&[&self.status, &self.cumulative_gas_used, &self.logs_bloom, &self.logs]));
        bytes
    }
}

fn list(fields: &[&dyn Encodable]) -> Vec<u8> {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list::<&dyn Encodable, dyn Encodable>(fields, &mut bytes);
    bytes
}

/// Where a block's trie holds the receipt of the transaction at `position`.
fn key_of(position: u64) -> Nibbles {
    Nibbles::unpack(alloy_rlp::encode(position))
}

/// The proof for a transaction; none when the chain's blocks are not those of Ethereum, so that
/// their parts do not give the hash.
pub(super) fn prove(
    block: Digest,
    transaction: Digest,
    header: &Header,
    receipts: &[Receipt],
) -> Option<EventProof> {
    let position = receipts.iter().position(|receipt| receipt.transaction_hash == transaction)? as u64;
    let encoded = header.encode();
    let mut entries: Vec<_> =
        receipts.iter().zip(0..).map(|(receipt, at)| (key_of(at), receipt.encode())).collect();
    entries.sort();
    let retainer = ProofRetainer::new(vec![key_of(position)]);
    let mut trie = HashBuilder::default().with_proof_retainer(retainer);
    entries.iter().for_each(|(key, receipt)| trie.add_leaf(*key, receipt));
    if keccak256(&encoded) != block || trie.root() != header.receipts_root {
        return None;
    }
    let nodes = trie.take_proof_nodes().into_nodes_sorted().into_iter().map(|(_, node)| node).collect();
    Some(EventProof { header: encoded.into(), position, nodes })
}
