//! Registering runs and anchoring tree heads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{B256, Bytes, U64, U128, U256};
use alloy_sol_types::{SolCall, SolEvent};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::contract::abi::IRunLedger;
use super::contract::{artifact, explain_revert, stored_value};
use super::error::{MOST_GAS, MOST_WEI};
use super::transaction::Transaction;
use super::{ChainError, DEVELOPMENT_CHAIN, Node, Registration, event_proof};
use crate::evidence::{AnchorRecord, TreeHead};
use crate::primitives::{Address, Digest, keccak256};
use crate::receipt::{Signer, log_id};
use crate::verify::{MAX_DOCUMENT, Revocation};

/// Below this tip, wei per gas, some chains never mine a transaction.
const LEAST_TIP: u128 = 1_000_000;
const MINING_TIMEOUT: Duration = Duration::from_secs(120);
const FIRST_POLL: Duration = Duration::from_millis(5);
const SLOWEST_POLL: Duration = Duration::from_secs(2);
/// What a development chain gives an account that cannot pay: 1,000 ether of nothing.
const ALLOWANCE: u128 = 1_000_000_000_000_000_000_000;

/// A tree head as the contract takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The run.
    pub run: Digest,
    /// Whose log.
    pub worker: Address,
    /// Which of the worker's logs.
    pub lane: u32,
    /// Receipts below the head.
    pub size: u64,
    /// The log's root at this size.
    pub root: Digest,
    /// Digest of the signed `TreeHeadV1`.
    pub digest: Digest,
}

impl From<&TreeHead> for SignedHead {
    fn from(head: &TreeHead) -> Self {
        Self {
            run: head.body.bytes32("run"),
            worker: head.body.address("worker"),
            lane: head.body.unsigned("lane") as u32,
            size: head.size(),
            root: head.root(),
            digest: head.body.digest(),
        }
    }
}

/// What a chain knows of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOnChain {
    /// Anchors so far; the next one has this index.
    pub count: u64,
    /// Receipts below the last anchored head.
    pub size: u64,
    /// Who besides the worker may anchor; zero for nobody.
    pub anchorer: Address,
}

/// Whose money a transaction spends.
#[derive(Clone, Copy)]
pub enum Payer<'a> {
    /// A key that the user named for this purpose.
    Chosen(&'a dyn Signer),
    /// The key that was made without asking; it pays on development chains only.
    Device(&'a dyn Signer),
}

/// The run ledger on one chain.
#[derive(Clone)]
pub struct Client {
    node: Arc<dyn Node>,
    chain_id: u64,
    contract: Address,
}

impl Client {
    /// Finds the run ledger and checks its code. Development chains say where it lies.
    ///
    /// # Errors
    /// [`ChainError::ContractNotNamed`] without `contract` on any other chain,
    /// [`ChainError::NotRunLedger`] when something else lies there, else what the node reports.
    pub fn connect(node: Arc<dyn Node>, contract: Option<Address>) -> Result<Self, ChainError> {
        let chain_id = chain_id(&*node)?;
        let contract = match contract {
            Some(contract) => contract,
            None if chain_id == DEVELOPMENT_CHAIN => call(&*node, "dev_contract", json!([]))?,
            None => return Err(ChainError::ContractNotNamed { chain: chain_id }),
        };
        let code: Bytes = call(&*node, "eth_getCode", json!([contract, "latest"]))?;
        let (expected, actual) = (keccak256(&artifact().deployed_bytecode), keccak256(&code));
        if actual != expected {
            return Err(ChainError::NotRunLedger { address: contract, expected, actual });
        }
        Ok(Self { node, chain_id, contract })
    }

    /// The chain's id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The run ledger's address.
    pub fn contract(&self) -> Address {
        self.contract
    }

    /// What the chain knows of the log; `None` before its first anchor.
    ///
    /// # Errors
    /// What the node reports.
    pub fn head(&self, run: Digest, worker: Address, lane: u32) -> Result<Option<HeadOnChain>, ChainError> {
        let head = self.view(&IRunLedger::headCall { log: log_id(run, worker, lane) })?;
        let head = HeadOnChain { count: head.count, size: head.size, anchorer: head.anchorer };
        Ok((head.count > 0).then_some(head))
    }

    /// Anchors a head, registering its run first where the chain does not know it. Repeating a call
    /// is safe: a head that the chain already holds gives the record of the first time.
    ///
    /// # Errors
    /// [`ChainError::Behind`] or [`ChainError::OtherHistory`] when the chain holds another head,
    /// [`ChainError::DeviceKeyRefused`] when `payer` may not pay here, [`ChainError::Reverted`]
    /// with the contract's reason, else what the node or the signer reports.
    pub fn anchor(
        &self,
        head: &SignedHead,
        run: &Registration,
        payer: Payer,
    ) -> Result<AnchorRecord, ChainError> {
        let log = log_id(head.run, head.worker, head.lane);
        let known = self.head(head.run, head.worker, head.lane)?;
        if let Some(last) = known.filter(|last| last.size >= head.size) {
            return self.earlier_anchor(log, head, last).map(|record| self.with_proof(record));
        }
        let signer = self.admit(payer)?;
        if self.view(&IRunLedger::ownerOfCall { run: head.run })?.is_zero() {
            let Registration { owner, specification, flags, nonce } = *run;
            self.send(signer, IRunLedger::registerCall { owner, specification, flags, nonce }.abi_encode())?;
        }
        let anchor = IRunLedger::Anchor {
            run: head.run,
            worker: head.worker,
            lane: head.lane,
            index: known.map_or(0, |last| last.count),
            size: head.size,
            headDigest: head.digest,
            root: head.root,
        };
        let receipt = self.send(signer, IRunLedger::anchorCall { a: anchor }.abi_encode())?;
        let missing = || malformed("eth_getTransactionReceipt", "no Anchored event of this head");
        let record = receipt.logs.iter().find_map(|event| self.record(log, head, event));
        Ok(self.with_proof(record.ok_or_else(missing)??))
    }

    /// The record with its proof, which a node may be unable to give: then a verifier needs an RPC.
    fn with_proof(&self, record: AnchorRecord) -> AnchorRecord {
        let header = call(&*self.node, "eth_getBlockByHash", json!([record.block_hash, false]));
        let receipts: Result<Vec<_>, _> =
            call(&*self.node, "eth_getBlockReceipts", json!([record.block_hash]));
        let proof = header.ok().zip(receipts.ok()).and_then(|(header, receipts)| {
            event_proof::prove(record.block_hash, record.transaction_hash, &header, &receipts)
        });
        let proven = AnchorRecord { proof: proof.filter(|proof| proof.check(&record).is_ok()), ..record };
        // A receipt can be larger than what a verifier reads of a record.
        let size = serde_json::to_vec_pretty(&proven).map_or(u64::MAX, |text| text.len() as u64);
        if size < MAX_DOCUMENT { proven } else { AnchorRecord { proof: None, ..proven } }
    }

    /// Declares that a key signs for a worker no more; `payer` is the worker or the key. Returns the block
    /// from which on that holds. Repeating a call is safe.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] when `payer` is neither, else as of [`Client::anchor`].
    pub fn revoke(&self, worker: Address, key: Address, payer: Payer) -> Result<Revocation, ChainError> {
        let missing = || malformed("eth_call", "no revocation after a transaction that made it");
        if self.revocation(worker, key)?.is_none() {
            self.send(self.admit(payer)?, IRunLedger::revokeCall { worker, key }.abi_encode())?;
        }
        self.revocation(worker, key)?.ok_or_else(missing)
    }

    /// Since when a key signs for a worker no more; none if it was not revoked.
    ///
    /// # Errors
    /// What the node reports.
    pub fn revocation(&self, worker: Address, key: Address) -> Result<Option<Revocation>, ChainError> {
        let found = self.view(&IRunLedger::revocationCall { worker, key })?;
        let (block, time) = (found.blockNumber, found.time);
        Ok((block != 0).then_some(Revocation { worker, key, block, time }))
    }

    /// The number of the latest block.
    ///
    /// # Errors
    /// What the node reports.
    pub fn latest_block(&self) -> Result<u64, ChainError> {
        call::<U64>(&*self.node, "eth_blockNumber", json!([])).map(|number| number.to())
    }

    fn earlier_anchor(
        &self,
        log: B256,
        head: &SignedHead,
        last: HeadOnChain,
    ) -> Result<AnchorRecord, ChainError> {
        if last.size > head.size {
            return Err(ChainError::Behind { expected: head.size, actual: last.size });
        }
        let expected = stored_value(head);
        let actual = self.view(&IRunLedger::anchorAtCall { log, index: last.count - 1 })?;
        if actual != expected {
            return Err(ChainError::OtherHistory { size: head.size, expected, actual });
        }
        self.event_of(log, head)
    }

    /// What this chain itself says about an anchor record; `None` when it holds no such anchor.
    ///
    /// # Errors
    /// What the node reports.
    pub fn confirm(&self, claimed: &AnchorRecord) -> Result<Option<AnchorRecord>, ChainError> {
        let AnchorRecord { run, worker, lane, index, size, root, head_digest: digest, .. } = *claimed;
        let head = SignedHead { run, worker, lane, size, root, digest };
        let log = log_id(run, worker, lane);
        if (claimed.chain_id, claimed.contract) != (self.chain_id, self.contract)
            || self.view(&IRunLedger::anchorAtCall { log, index })? != stored_value(&head)
        {
            return Ok(None);
        }
        self.event_of(log, &head).map(Some)
    }

    /// The record of an anchor that the contract holds, from the event of its time.
    fn event_of(&self, log: B256, head: &SignedHead) -> Result<AnchorRecord, ChainError> {
        let topics = json!([IRunLedger::Anchored::SIGNATURE_HASH, log]);
        let filter =
            json!([{"address": self.contract, "topics": topics, "fromBlock": "0x0", "toBlock": "latest"}]);
        let events: Vec<Event> = call(&*self.node, "eth_getLogs", filter)?;
        let missing =
            || malformed("eth_getLogs", "the event of an anchor that the contract holds is missing");
        events.iter().rev().find_map(|event| self.record(log, head, event)).ok_or_else(missing)?
    }

    /// The record of `event`, if it is the anchoring of `head`.
    fn record(
        &self,
        log: B256,
        head: &SignedHead,
        event: &Event,
    ) -> Option<Result<AnchorRecord, ChainError>> {
        let found = IRunLedger::Anchored::decode_raw_log(event.topics.iter().copied(), &event.data).ok()?;
        let same = event.address == self.contract && found.log == log;
        if !same || (found.size, found.root, found.headDigest) != (head.size, head.root, head.digest) {
            return None;
        }
        let block = call::<Block>(&*self.node, "eth_getBlockByHash", json!([event.block_hash, false]));
        Some(block.map(|block| AnchorRecord {
            chain_id: self.chain_id,
            contract: self.contract,
            transaction_hash: event.transaction_hash,
            block_number: event.block_number.to(),
            block_hash: event.block_hash,
            block_time: block.timestamp.to(),
            run: head.run,
            worker: head.worker,
            lane: head.lane,
            index: found.index,
            size: found.size,
            root: found.root,
            head_digest: found.headDigest,
            proof: None,
        }))
    }

    fn admit<'s>(&self, payer: Payer<'s>) -> Result<&'s dyn Signer, ChainError> {
        match payer {
            Payer::Chosen(signer) => Ok(signer),
            Payer::Device(signer) if self.chain_id == DEVELOPMENT_CHAIN => Ok(signer),
            Payer::Device(signer) => {
                Err(ChainError::DeviceKeyRefused { address: signer.address(), chain: self.chain_id })
            }
        }
    }

    fn view<C: SolCall>(&self, arguments: &C) -> Result<C::Return, ChainError> {
        let request = json!([{"to": self.contract, "data": Bytes::from(arguments.abi_encode())}, "latest"]);
        let answer: Bytes = call(&*self.node, "eth_call", request).map_err(explain_revert)?;
        C::abi_decode_returns(&answer).map_err(|error| malformed("eth_call", &error.to_string()))
    }

    /// Pays for a call of the contract and waits until it was mined.
    fn send(&self, signer: &dyn Signer, data: Vec<u8>) -> Result<Mined, ChainError> {
        let (node, data, from) = (&*self.node, Bytes::from(data), signer.address());
        let actual = chain_id(node)?;
        if actual != self.chain_id {
            return Err(ChainError::WrongChain { expected: self.chain_id, actual });
        }
        let request = json!([{"from": from, "to": self.contract, "data": data}]);
        let gas: U64 = call(node, "eth_estimateGas", request).map_err(explain_revert)?;
        let gas_limit = gas.to::<u64>().saturating_mul(6) / 5;
        let tip = call::<U128>(node, "eth_maxPriorityFeePerGas", json!([]))?.to::<u128>().max(LEAST_TIP);
        let block: Block = call(node, "eth_getBlockByNumber", json!(["latest", false]))?;
        let fee_cap = block.base_fee_per_gas.to::<u128>().saturating_mul(2).saturating_add(tip);
        let cost = fee_cap.saturating_mul(gas_limit.into());
        if gas_limit > MOST_GAS || cost > MOST_WEI {
            return Err(ChainError::TooExpensive { gas: gas_limit, fee_cap, cost });
        }
        self.fund_on_development_chain(from, U256::from(fee_cap) * U256::from(gas_limit))?;
        let nonce: U64 = call(node, "eth_getTransactionCount", json!([from, "latest"]))?;
        let transaction = Transaction {
            chain_id: self.chain_id,
            nonce: nonce.to(),
            tip,
            fee_cap,
            gas_limit,
            to: self.contract,
            data,
        };
        let raw = Bytes::from(transaction.sign(signer)?);
        let hash: B256 = call(node, "eth_sendRawTransaction", json!([raw]))?;
        self.wait(hash)
    }

    fn fund_on_development_chain(&self, account: Address, cost: U256) -> Result<(), ChainError> {
        if self.chain_id != DEVELOPMENT_CHAIN {
            return Ok(());
        }
        let balance: U256 = call(&*self.node, "eth_getBalance", json!([account, "latest"]))?;
        if balance < cost {
            self.node.call("anvil_setBalance", json!([account, U256::from(ALLOWANCE)]))?;
        }
        Ok(())
    }

    fn wait(&self, transaction: B256) -> Result<Mined, ChainError> {
        let (start, mut pause) = (Instant::now(), FIRST_POLL);
        loop {
            let receipt: Option<Mined> =
                call(&*self.node, "eth_getTransactionReceipt", json!([transaction]))?;
            match receipt {
                Some(receipt) if receipt.status == U64::from(1) => return Ok(receipt),
                Some(_) => return Err(ChainError::Failed { transaction }),
                None if start.elapsed() > MINING_TIMEOUT => {
                    return Err(ChainError::NotMined { transaction, seconds: MINING_TIMEOUT.as_secs() });
                }
                None => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(SLOWEST_POLL);
        }
    }
}

#[derive(Deserialize)]
struct Mined {
    status: U64,
    logs: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    block_number: U64,
    block_hash: B256,
    transaction_hash: B256,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    timestamp: U64,
    #[serde(default)]
    base_fee_per_gas: U128,
}

fn chain_id(node: &dyn Node) -> Result<u64, ChainError> {
    call::<U64>(node, "eth_chainId", json!([])).map(|id| id.to())
}

fn call<T: DeserializeOwned>(node: &dyn Node, method: &str, params: Value) -> Result<T, ChainError> {
    let answer = node.call(method, params)?;
    serde_json::from_value(answer).map_err(|error| malformed(method, &error.to_string()))
}

fn malformed(method: &str, reason: &str) -> ChainError {
    ChainError::Malformed { method: method.into(), reason: reason.into() }
}
