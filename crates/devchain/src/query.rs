//! Blocks, transactions, receipts and logs as JSON-RPC shows them.

use alloy_primitives::{Address, B64, B256, Bytes, Log, TxKind, U64, U128, U256};
use counterfoil::chain::{DEVELOPMENT_CHAIN, RpcError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::block::{BASE_FEE, Block, GAS_LIMIT, empty_list_hash, empty_root};
use crate::chain::Chain;
use crate::rpc;

const INVALID_PARAMS: i64 = -32602;
const LONGEST_HISTORY: u64 = 1024;

/// The number that a block's name means.
pub(crate) fn block_number(chain: &Chain, name: &str) -> Result<u64, RpcError> {
    match name {
        "latest" | "pending" | "safe" | "finalized" => Ok(chain.latest().number),
        "earliest" => Ok(0),
        _ => {
            let number = name.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            number.ok_or_else(|| rpc::error(INVALID_PARAMS, format!("{name:?} names no block")))
        }
    }
}

pub(crate) fn block(block: &Block, with_transactions: bool) -> Value {
    let transactions: Vec<Value> = match &block.mined {
        None => vec![],
        Some(_) if with_transactions => vec![transaction(block)],
        Some((transaction, _)) => vec![json!(transaction.hash)],
    };
    json!({
        "number": U64::from(block.number),
        "hash": block.hash,
        "parentHash": block.parent,
        "timestamp": U64::from(block.time),
        "stateRoot": block.state_root,
        "transactionsRoot": block.transactions_root,
        "receiptsRoot": block.receipts_root,
        "logsBloom": block.bloom,
        "gasLimit": U64::from(GAS_LIMIT),
        "gasUsed": U64::from(block.gas_used()),
        "baseFeePerGas": U64::from(BASE_FEE),
        "sha3Uncles": empty_list_hash(),
        "miner": Address::ZERO,
        "difficulty": U64::ZERO,
        "totalDifficulty": U64::ZERO,
        "extraData": Bytes::new(),
        "mixHash": B256::ZERO,
        "nonce": B64::ZERO,
        "withdrawalsRoot": empty_root(),
        "withdrawals": [],
        "blobGasUsed": U64::ZERO,
        "excessBlobGas": U64::ZERO,
        "parentBeaconBlockRoot": B256::ZERO,
        "size": U64::from(block.header().len()),
        "uncles": [],
        "transactions": transactions,
    })
}

/// The transaction of a block that is not genesis.
pub(crate) fn transaction(block: &Block) -> Value {
    let transaction = block.transaction();
    let parity = u64::from(transaction.parity);
    let mut members = json!({
        "hash": transaction.hash,
        "type": U64::from(transaction.kind),
        "chainId": U64::from(DEVELOPMENT_CHAIN),
        "nonce": U64::from(transaction.nonce),
        "from": transaction.sender,
        "to": recipient(transaction.to),
        "value": transaction.value,
        "input": transaction.data,
        "gas": U64::from(transaction.gas_limit),
        "gasPrice": U128::from(transaction.price(BASE_FEE)),
        "v": U64::from(if transaction.kind == 0 { 35 + 2 * DEVELOPMENT_CHAIN + parity } else { parity }),
        "r": transaction.r,
        "s": transaction.s,
        "blockNumber": U64::from(block.number),
        "blockHash": block.hash,
        "transactionIndex": U64::ZERO,
    });
    if let Some(tip) = transaction.tip_cap {
        let access = transaction.access_list.iter();
        let access = access.map(|item| json!({"address": item.address, "storageKeys": item.storage_keys}));
        members["maxFeePerGas"] = json!(U128::from(transaction.fee_cap));
        members["maxPriorityFeePerGas"] = json!(U128::from(tip));
        members["accessList"] = access.collect();
        members["yParity"] = json!(U64::from(parity));
    }
    members
}

/// The receipt of a block's transaction.
pub(crate) fn receipt(block: &Block) -> Value {
    let (transaction, outcome) = block.mined.as_ref().expect("the block was found by its transaction");
    let logs = outcome.logs.iter().enumerate();
    json!({
        "transactionHash": transaction.hash,
        "transactionIndex": U64::ZERO,
        "blockNumber": U64::from(block.number),
        "blockHash": block.hash,
        "from": transaction.sender,
        "to": recipient(transaction.to),
        "contractAddress": outcome.created,
        "status": U64::from(outcome.success),
        "type": U64::from(transaction.kind),
        "gasUsed": U64::from(outcome.gas_used),
        "cumulativeGasUsed": U64::from(outcome.gas_used),
        "effectiveGasPrice": U128::from(transaction.price(BASE_FEE)),
        "logsBloom": block.bloom,
        "logs": logs.map(|(index, log)| event(block, index, log)).collect::<Vec<_>>(),
    })
}

fn recipient(to: TxKind) -> Option<Address> {
    to.to().copied()
}

fn event(block: &Block, index: usize, log: &Log) -> Value {
    json!({
        "address": log.address,
        "topics": log.topics(),
        "data": log.data.data,
        "logIndex": U64::from(index),
        "transactionHash": block.transaction().hash,
        "transactionIndex": U64::ZERO,
        "blockNumber": U64::from(block.number),
        "blockHash": block.hash,
        "removed": false,
    })
}

/// Which logs are asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter {
    from_block: Option<String>,
    to_block: Option<String>,
    block_hash: Option<B256>,
    address: Option<OneOrMany<Address>>,
    #[serde(default)]
    topics: Vec<Option<OneOrMany<B256>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: PartialEq> OneOrMany<T> {
    fn admits(&self, value: &T) -> bool {
        match self {
            OneOrMany::One(one) => one == value,
            OneOrMany::Many(many) => many.is_empty() || many.contains(value),
        }
    }
}

impl Filter {
    fn admits(&self, log: &Log) -> bool {
        let wanted = |(index, topic): (usize, &Option<OneOrMany<B256>>)| {
            topic
                .as_ref()
                .is_none_or(|topic| log.topics().get(index).is_some_and(|found| topic.admits(found)))
        };
        self.address.as_ref().is_none_or(|address| address.admits(&log.address))
            && self.topics.iter().enumerate().all(wanted)
    }
}

pub(crate) fn logs(chain: &Chain, filter: &Filter) -> Result<Value, RpcError> {
    let named = |name: &Option<String>| {
        name.as_deref().map_or(Ok(chain.latest().number), |name| block_number(chain, name))
    };
    let (first, last) = match filter.block_hash {
        None => (named(&filter.from_block)?, named(&filter.to_block)?),
        Some(hash) => {
            let unknown = || rpc::error(rpc::REJECTED, format!("unknown block {hash}"));
            let number = chain.block_by_hash(hash).ok_or_else(unknown)?.number;
            (number, number)
        }
    };
    let blocks = chain.blocks().iter().filter(|block| (first..=last).contains(&block.number));
    let events = blocks.flat_map(|block| {
        let logs = block.mined.iter().flat_map(|(_, outcome)| outcome.logs.iter().enumerate());
        logs.filter(|(_, log)| filter.admits(log)).map(|(index, log)| event(block, index, log))
    });
    Ok(events.collect())
}

/// What wallets guess fees from: they never change here.
pub(crate) fn fee_history(chain: &Chain, count: U256, newest: &str) -> Result<Value, RpcError> {
    let newest = block_number(chain, newest)?.min(chain.latest().number);
    let count = count.saturating_to::<u64>().clamp(1, LONGEST_HISTORY).min(newest + 1);
    let blocks = &chain.blocks()[(newest + 1 - count) as usize..=newest as usize];
    Ok(json!({
        "oldestBlock": U64::from(newest + 1 - count),
        "baseFeePerGas": vec![U64::from(BASE_FEE); blocks.len() + 1],
        "gasUsedRatio": blocks.iter().map(|block| rpc::used_ratio(block.gas_used())).collect::<Vec<_>>(),
        "reward": vec![vec![U64::ZERO]; blocks.len()],
    }))
}
