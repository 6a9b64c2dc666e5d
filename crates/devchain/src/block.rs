//! Blocks of at most one transaction, with the roots and hashes that Ethereum gives them.

use alloy_primitives::{Address, B64, B256, Bloom, Bytes, Log, U256, keccak256};
use alloy_rlp::{EMPTY_STRING_CODE, Encodable};

use crate::transaction::Transaction;

/// Wei per gas; constant, since nobody competes for room here.
pub(crate) const BASE_FEE: u64 = 1_000_000_000;
/// Gas that fits into a block.
pub(crate) const GAS_LIMIT: u64 = 30_000_000;

/// What a transaction did.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) gas_used: u64,
    pub(crate) logs: Vec<Log>,
    pub(crate) created: Option<Address>,
    pub(crate) output: Bytes,
}

/// A sealed block; only genesis has no transaction.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) number: u64,
    pub(crate) hash: B256,
    pub(crate) parent: B256,
    pub(crate) time: u64,
    pub(crate) state_root: B256,
    pub(crate) transactions_root: B256,
    pub(crate) receipts_root: B256,
    pub(crate) bloom: Bloom,
    pub(crate) mined: Option<(Transaction, Outcome)>,
}

impl Block {
    /// Seals a block: computes its roots and its hash.
    pub(crate) fn seal(
        number: u64,
        parent: B256,
        time: u64,
        state_root: B256,
        mined: Option<(Transaction, Outcome)>,
    ) -> Self {
        let bloom = mined.iter().flat_map(|(_, outcome)| &outcome.logs).collect();
        let (transactions_root, receipts_root) = match &mined {
            Some((transaction, outcome)) => {
                (root_of_one(&transaction.raw), root_of_one(&receipt(transaction.kind, outcome, &bloom)))
            }
            None => (empty_root(), empty_root()),
        };
        let hash = B256::ZERO;
        let mut block =
            Self { number, hash, parent, time, state_root, transactions_root, receipts_root, bloom, mined };
        block.hash = keccak256(block.header());
        block
    }

    pub(crate) fn gas_used(&self) -> u64 {
        self.mined.as_ref().map_or(0, |(_, outcome)| outcome.gas_used)
    }

    /// The transaction of any block but genesis.
    pub(crate) fn transaction(&self) -> &Transaction {
        &self.mined.as_ref().expect("every block but genesis has a transaction").0
    }

    /// The header's RLP as of Cancun.
    pub(crate) fn header(&self) -> Vec<u8> {
        let (nobody, nothing, no_uncles) = (Address::ZERO, Bytes::new(), empty_list_hash());
        let gas_used = self.gas_used();
        let fields: [&dyn Encodable; 20] = [
            &self.parent,
            &no_uncles,
            &nobody,
            &self.state_root,
            &self.transactions_root,
            &self.receipts_root,
            &self.bloom,
            &0u64, // difficulty
            &self.number,
            &GAS_LIMIT,
            &gas_used,
            &self.time,
            &nothing,    // extra data
            &B256::ZERO, // randomness
            &B64::ZERO,  // nonce
            &BASE_FEE,
            &empty_root(), // withdrawals
            &0u64,         // blob gas used
            &0u64,         // excess blob gas
            &B256::ZERO,   // beacon root
        ];
        list(&fields)
    }
}

/// Keccak-256 of an empty list, the hash of no uncles.
pub(crate) fn empty_list_hash() -> B256 {
    keccak256([alloy_rlp::EMPTY_LIST_CODE])
}

/// Root of a trie without entries.
pub(crate) fn empty_root() -> B256 {
    keccak256([EMPTY_STRING_CODE])
}

/// Root of the trie that holds `value` under the RLP of index 0: one leaf, whose path is the two
/// nibbles of 0x80 behind the leaf marker 0x20.
fn root_of_one(value: &[u8]) -> B256 {
    let path: &[u8] = &[0x20, EMPTY_STRING_CODE];
    keccak256(list(&[&path, &value]))
}

fn receipt(kind: u8, outcome: &Outcome, bloom: &Bloom) -> Vec<u8> {
    let mut bytes = if kind == 0 { Vec::new() } else { vec![kind] };
    bytes.extend(list(&[&outcome.success, &outcome.gas_used, bloom, &outcome.logs]));
    bytes
}

/// RLP of a list of unlike things.
pub(crate) fn list(fields: &[&dyn Encodable]) -> Vec<u8> {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list::<&dyn Encodable, dyn Encodable>(fields, &mut bytes);
    bytes
}

/// Adds a change to the running hash that stands where others have a state root.
pub(crate) fn next_state_root(previous: B256, changes: &[u8]) -> B256 {
    keccak256([previous.as_slice(), changes].concat())
}

/// RLP of one account's change.
pub(crate) fn account_change(
    account: Address,
    balance: U256,
    nonce: u64,
    code: B256,
    slots: &[(U256, U256)],
) -> Vec<u8> {
    let slots: Vec<U256> = slots.iter().flat_map(|(slot, value)| [*slot, *value]).collect();
    list(&[&account, &balance, &nonce, &code, &slots])
}
