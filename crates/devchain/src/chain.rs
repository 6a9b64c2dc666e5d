//! The chain's state and how events change it, in two steps so that a journal fits between them.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, keccak256};
use counterfoil::chain::{DEVELOPMENT_CHAIN, RpcError, artifact};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction, Output, ResultAndState};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::database::InMemoryDB;
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, Bytecode, EvmState};
use revm::{DatabaseCommit, DatabaseRef, ExecuteEvm, MainBuilder, MainContext};
use serde::{Deserialize, Serialize};

use crate::block::{BASE_FEE, Block, GAS_LIMIT, Outcome, account_change, next_state_root};
use crate::rpc;
use crate::transaction::Transaction;

const SPEC: &str = "cancun";
/// The factory that lies at this address on most chains deploys with CREATE2; with its address and
/// an empty salt the run ledger gets the address here that it would get there.
const FACTORY: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");

/// The first frame: all that replay needs besides the events, the contract's code included, so that
/// a chain stays what it was when a newer library opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Genesis {
    chain_id: u64,
    spec: String,
    time: u64,
    pub(crate) contract: Address,
    code: Bytes,
    /// Makes this chain's first block unlike that of any other; older chains have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<Bytes>,
}

impl Genesis {
    pub(crate) fn new(time: u64, salt: Bytes) -> Self {
        let contract = FACTORY.create2_from_code(B256::ZERO, &artifact().bytecode);
        let code = artifact().deployed_bytecode.clone();
        Self { chain_id: DEVELOPMENT_CHAIN, spec: SPEC.into(), time, contract, code, salt: Some(salt) }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("genesis is plain JSON")
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, String> {
        let genesis: Self = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if (genesis.chain_id, &*genesis.spec) != (DEVELOPMENT_CHAIN, SPEC) {
            return Err(format!("chain {} with rules {} is not known here", genesis.chain_id, genesis.spec));
        }
        Ok(genesis)
    }
}

/// What can happen to the chain: one journal frame each.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// `T`, time (u64), raw transaction: a block.
    Transaction { time: u64, raw: Vec<u8> },
    /// `B`, address (20), balance (32): money from nowhere, outside any block.
    Balance { account: Address, balance: U256 },
}

impl Event {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Event::Transaction { time, raw } => [b"T".as_slice(), &time.to_be_bytes(), raw].concat(),
            Event::Balance { account, balance } => {
                [b"B".as_slice(), account.as_slice(), &balance.to_be_bytes::<32>()].concat()
            }
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, String> {
        match payload.split_first() {
            Some((b'T', rest)) if rest.len() > 8 => {
                let (time, raw) = rest.split_at(8);
                Ok(Event::Transaction { time: U256::from_be_slice(time).to(), raw: raw.to_vec() })
            }
            Some((b'B', rest)) if rest.len() == 52 => {
                let (account, balance) = rest.split_at(20);
                Ok(Event::Balance {
                    account: Address::from_slice(account),
                    balance: U256::from_be_slice(balance),
                })
            }
            _ => Err(format!("no such event in {} bytes", payload.len())),
        }
    }
}

/// What an event will change once it is durable.
pub(crate) enum Change {
    Mined(Box<(Transaction, Outcome, EvmState)>),
    Balance(AccountInfo),
}

/// Result of a call that changes nothing.
pub(crate) struct Called {
    pub(crate) outcome: Outcome,
    pub(crate) halted: Option<String>,
    pub(crate) gas_spent: u64,
}

/// All blocks and the state after the last one.
pub(crate) struct Chain {
    genesis: Genesis,
    database: InMemoryDB,
    state_root: B256,
    blocks: Vec<Block>,
    by_hash: HashMap<B256, u64>,
    by_transaction: HashMap<B256, u64>,
}

impl Chain {
    pub(crate) fn new(genesis: Genesis) -> Self {
        let state_root = keccak256(genesis.encode());
        let code = Bytecode::new_raw(genesis.code.clone());
        let time = genesis.time;
        let contract = AccountInfo { nonce: 1, ..AccountInfo::from_bytecode(code) };
        let mut database = InMemoryDB::default();
        database.insert_account_info(genesis.contract, contract);
        let (blocks, by_hash, by_transaction) = Default::default();
        let mut chain = Self { genesis, database, state_root, blocks, by_hash, by_transaction };
        chain.push(Block::seal(0, B256::ZERO, time, state_root, None));
        chain
    }

    /// Checks an event against the state and computes its effect without showing it.
    pub(crate) fn prepare(&self, event: &Event) -> Result<Change, RpcError> {
        match event {
            Event::Transaction { time, raw } => {
                let transaction =
                    Transaction::decode(raw).map_err(|reason| rpc::error(rpc::REJECTED, reason))?;
                if self.by_transaction.contains_key(&transaction.hash) {
                    return Err(rpc::error(rpc::REJECTED, "already known".into()));
                }
                if *time < self.latest().time {
                    return Err(rpc::error(rpc::REJECTED, format!("time {time} lies before the last block")));
                }
                let done = self.execute(transaction.environment(), *time, BASE_FEE)?;
                Ok(Change::Mined(Box::new((transaction, outcome(&done.result), done.state))))
            }
            Event::Balance { account, balance } => {
                Ok(Change::Balance(AccountInfo { balance: *balance, ..self.account(*account) }))
            }
        }
    }

    /// Lets a prepared event happen. Nothing may have happened since it was prepared.
    pub(crate) fn commit(&mut self, event: &Event, change: Change) {
        match (event, change) {
            (Event::Transaction { time, .. }, Change::Mined(mined)) => {
                let (transaction, outcome, state) = *mined;
                self.state_root = next_state_root(self.state_root, &changes(&state));
                self.database.commit(state);
                let (number, parent) = (self.blocks.len() as u64, self.latest().hash);
                self.by_transaction.insert(transaction.hash, number);
                self.push(Block::seal(number, parent, *time, self.state_root, Some((transaction, outcome))));
            }
            (Event::Balance { account, .. }, Change::Balance(info)) => {
                let change = account_change(*account, info.balance, info.nonce, info.code_hash, &[]);
                self.state_root = next_state_root(self.state_root, &change);
                self.database.insert_account_info(*account, info);
            }
            _ => unreachable!("a change comes from its event"),
        }
    }

    fn push(&mut self, block: Block) {
        self.by_hash.insert(block.hash, block.number);
        self.database.cache.block_hashes.insert(U256::from(block.number), block.hash);
        self.blocks.push(block);
    }

    /// Runs a call against the latest state; nothing is paid and nothing remains.
    pub(crate) fn call(&self, mut call: TxEnv) -> Result<Called, RpcError> {
        call.nonce = self.account(call.caller).nonce;
        call.chain_id = Some(DEVELOPMENT_CHAIN);
        // The block that comes next, not the last one: a view may compare deadlines with it.
        let time = crate::unix_time().max(self.latest().time);
        let result = self.execute(call, time, 0)?.result;
        let halted = match &result {
            ExecutionResult::Halt { reason, .. } => Some(format!("{reason:?}")),
            _ => None,
        };
        Ok(Called { outcome: outcome(&result), halted, gas_spent: result.gas().total_gas_spent() })
    }

    fn execute(&self, transaction: TxEnv, time: u64, base_fee: u64) -> Result<ResultAndState, RpcError> {
        let block = BlockEnv {
            number: U256::from(self.blocks.len()),
            timestamp: U256::from(time),
            gas_limit: GAS_LIMIT,
            basefee: base_fee,
            prevrandao: Some(B256::ZERO),
            ..BlockEnv::default()
        };
        let mut rules = CfgEnv::new_with_spec(SpecId::CANCUN);
        rules.chain_id = DEVELOPMENT_CHAIN;
        let context = Context::mainnet().with_ref_db(&self.database).with_cfg(rules).with_block(block);
        context.build_mainnet().transact(transaction).map_err(|error| match error {
            EVMError::Transaction(reason) => rpc::error(rpc::REJECTED, in_words(&reason)),
            other => rpc::error(rpc::INTERNAL, other.to_string()),
        })
    }

    pub(crate) fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    pub(crate) fn state_root(&self) -> B256 {
        self.state_root
    }

    pub(crate) fn account(&self, account: Address) -> AccountInfo {
        let Ok(info) = self.database.basic_ref(account);
        info.unwrap_or_default()
    }

    pub(crate) fn code(&self, account: Address) -> Bytes {
        let Ok(code) = self.database.code_by_hash_ref(self.account(account).code_hash);
        code.original_bytes()
    }

    pub(crate) fn slot(&self, account: Address, slot: U256) -> U256 {
        let Ok(value) = self.database.storage_ref(account, slot);
        value
    }

    pub(crate) fn latest(&self) -> &Block {
        self.blocks.last().expect("there is a genesis block")
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn block_by_hash(&self, hash: B256) -> Option<&Block> {
        self.by_hash.get(&hash).map(|number| &self.blocks[*number as usize])
    }

    pub(crate) fn block_of_transaction(&self, hash: B256) -> Option<&Block> {
        self.by_transaction.get(&hash).map(|number| &self.blocks[*number as usize])
    }
}

fn outcome(result: &ExecutionResult) -> Outcome {
    let created = match result {
        ExecutionResult::Success { output: Output::Create(_, created), .. } => *created,
        _ => None,
    };
    Outcome {
        success: result.is_success(),
        gas_used: result.tx_gas_used(),
        logs: if result.is_success() { result.logs().to_vec() } else { Vec::new() },
        created,
        output: result.output().cloned().unwrap_or_default(),
    }
}

/// All changed accounts in order of address and slot: maps have no order of their own.
fn changes(state: &EvmState) -> Vec<u8> {
    let mut accounts: Vec<_> = state.iter().filter(|(_, account)| account.is_touched()).collect();
    accounts.sort_by_key(|(account, _)| **account);
    let encode = |(address, account): (&Address, &revm::state::Account)| {
        let changed = account.storage.iter().filter(|(_, slot)| slot.is_changed());
        let mut slots: Vec<(U256, U256)> =
            changed.map(|(slot, value)| (*slot, value.present_value)).collect();
        slots.sort();
        account_change(*address, account.info.balance, account.info.nonce, account.info.code_hash, &slots)
    };
    accounts.into_iter().flat_map(encode).collect()
}

/// The words that clients look for.
fn in_words(error: &InvalidTransaction) -> String {
    match error {
        InvalidTransaction::NonceTooLow { tx, state } => {
            format!("nonce too low: next nonce {state}, tx nonce {tx}")
        }
        InvalidTransaction::NonceTooHigh { tx, state } => {
            format!("nonce too high: next nonce {state}, tx nonce {tx}; nothing waits here")
        }
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            format!("insufficient funds for gas * price + value: balance {balance}, tx cost {fee}")
        }
        InvalidTransaction::GasPriceLessThanBasefee => {
            format!("max fee per gas less than block base fee: {BASE_FEE}")
        }
        InvalidTransaction::CallerGasLimitMoreThanBlock => format!("exceeds block gas limit: {GAS_LIMIT}"),
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: gas {gas_limit}, minimum needed {initial_gas}")
        }
        other => other.to_string(),
    }
}

/// The call that a request describes, with the block's gas unless it says less.
pub(crate) fn call_environment(
    from: Address,
    to: TxKind,
    value: U256,
    data: Bytes,
    gas: Option<u64>,
) -> TxEnv {
    let gas_limit = gas.unwrap_or(GAS_LIMIT).min(GAS_LIMIT);
    TxEnv { caller: from, kind: to, value, data, gas_limit, ..TxEnv::default() }
}
