//! What a chain says: of its blocks, of its accounts, and of the run ledger.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, U64, U128, U256};
use alloy_sol_types::{SolCall, SolEvent};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::contract::abi::IRunLedger;
use super::contract::{artifact, explain_revert, stored_value};
use super::task::usual_address;
use super::{ChainError, Network, Networks, Node, event_proof};
use crate::evidence::{AnchorRecord, TreeHead};
use crate::primitives::{Address, Digest, keccak256};
use crate::receipt::log_id;
use crate::verify::{MAX_DOCUMENT, Revocation, Standing};

/// Calls after which the search for an anchor's event ends.
const MOST_SEARCHES: u32 = 2_000;
/// What a development chain gives an account that cannot pay: 1,000 ether of nothing.
const ALLOWANCE: u128 = 1_000_000_000_000_000_000_000;

/// A tree head as the contract takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

impl SignedHead {
    /// The contract's argument.
    pub(super) fn at(&self, index: u64) -> IRunLedger::Anchor {
        let Self { run, worker, lane, size, root, digest } = *self;
        IRunLedger::Anchor { run, worker, lane, index, size, headDigest: digest, root }
    }
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

/// The run ledger on one chain.
#[derive(Clone)]
pub struct Client {
    node: Arc<dyn Node>,
    network: Network,
    contract: Address,
    /// Hash of the first block, if the node told it.
    genesis: Option<B256>,
}

impl Client {
    /// Finds the run ledger and checks its code. It lies at `contract`, where the user's table says,
    /// where a development chain says, or where its code puts it.
    ///
    /// # Errors
    /// [`ChainError::NotDeployed`] when nothing lies there, [`ChainError::NotRunLedger`] when
    /// something else does, else what the node reports.
    pub fn connect(
        node: Arc<dyn Node>,
        networks: &Networks,
        contract: Option<Address>,
    ) -> Result<Self, ChainError> {
        let client = Self::reach(node, networks, contract)?;
        let contract = client.contract;
        client.at(contract)
    }

    /// As [`Client::connect`], where there may be no run ledger yet.
    ///
    /// # Errors
    /// What the node reports.
    pub fn reach(
        node: Arc<dyn Node>,
        networks: &Networks,
        contract: Option<Address>,
    ) -> Result<Self, ChainError> {
        let network = networks.of(chain_id(&*node)?)?;
        let told = || match call(&*node, "dev_contract", json!([])) {
            Err(ChainError::Rpc { .. }) => Ok(usual_address()),
            told => told,
        };
        let contract = match contract.or(network.contract) {
            Some(contract) => contract,
            None if network.is_development() => told()?,
            None => usual_address(),
        };
        let client = Self { node, network, contract, genesis: None };
        let genesis = client.block_hash(0).ok().flatten();
        Ok(Self { genesis, ..client })
    }

    /// The run ledger at this address.
    ///
    /// # Errors
    /// [`ChainError::NotDeployed`], [`ChainError::NotRunLedger`], else what the node reports.
    pub(super) fn at(self, contract: Address) -> Result<Self, ChainError> {
        match self.has_ledger(contract)? {
            true => Ok(self.towards(contract)),
            false => Err(self.not_deployed(contract)),
        }
    }

    /// Whether the run ledger lies at this address, or nothing.
    ///
    /// # Errors
    /// [`ChainError::NotRunLedger`], else what the node reports.
    pub(super) fn has_ledger(&self, address: Address) -> Result<bool, ChainError> {
        let code = self.code_at(address)?;
        let (expected, actual) = (keccak256(&artifact().deployed_bytecode), keccak256(&code));
        match code.is_empty() || actual == expected {
            true => Ok(!code.is_empty()),
            false => Err(ChainError::NotRunLedger { address, expected, actual }),
        }
    }

    /// The run ledger at this address, unchecked.
    pub(super) fn towards(self, contract: Address) -> Self {
        Self { contract, ..self }
    }

    /// Says what it would take; what a node does not tell is left out.
    fn not_deployed(&self, address: Address) -> ChainError {
        let request = json!([{"data": artifact().bytecode}]);
        let gas = call::<U64>(&*self.node, "eth_estimateGas", request).ok();
        let price = call::<U128>(&*self.node, "eth_gasPrice", json!([])).ok();
        let wei = gas.zip(price).map(|(gas, price)| {
            gas.to::<u128>().saturating_mul(price.to::<u128>().max(self.network.tip_floor))
        });
        let cost = wei.map(|wei| format!(", for about {}", self.network.amount(wei)));
        let faucet = self.network.faucet.as_ref().map(|url| format!(" (free at {url})"));
        ChainError::NotDeployed {
            address,
            chain: self.network.name.clone(),
            options: self.network.options(),
            terms: [cost, faucet].into_iter().flatten().collect(),
        }
    }

    /// What is known of the chain.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The chain's id.
    pub fn chain_id(&self) -> u64 {
        self.network.chain_id
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

    /// Hash of the first block: what tells chains with one id apart. While the node is silent, the one of before.
    pub(super) fn genesis(&self) -> Result<B256, ChainError> {
        let missing = || malformed("eth_getBlockByNumber", "a chain without a first block");
        match (self.block_hash(0), self.genesis) {
            (Err(error), Some(known)) if error.is_silence() => Ok(known),
            (asked, _) => asked?.ok_or_else(missing),
        }
    }

    pub(super) fn code_at(&self, address: Address) -> Result<Bytes, ChainError> {
        call(&*self.node, "eth_getCode", json!([address, "latest"]))
    }

    pub(super) fn node(&self) -> &dyn Node {
        &*self.node
    }

    /// Transactions of an account in the chain's blocks; the next one has this nonce.
    pub(super) fn nonce(&self, account: Address) -> Result<u64, ChainError> {
        call::<U64>(&*self.node, "eth_getTransactionCount", json!([account, "latest"]))
            .map(|nonce| nonce.to())
    }

    /// The hash of the block with this number; none when the chain is shorter.
    pub(super) fn block_hash(&self, number: u64) -> Result<Option<B256>, ChainError> {
        let block: Option<Block> =
            call(&*self.node, "eth_getBlockByNumber", json!([U64::from(number), false]))?;
        Ok(block.and_then(|block| block.hash))
    }

    /// Refuses to go on when the node speaks for another chain than at first.
    pub(super) fn check_chain(&self) -> Result<(), ChainError> {
        match chain_id(&*self.node)? {
            actual if actual == self.chain_id() => Ok(()),
            actual => Err(ChainError::WrongChain { expected: self.chain_id(), actual }),
        }
    }

    /// What this chain itself says about an anchor record: whether it holds the anchor, and its block's time, which
    /// is the claimed one unless it does. It has nothing to say of another chain's or another contract's record,
    /// of a block that it does not know yet, and of one that is not as deep as the network asks for.
    ///
    /// # Errors
    /// What the node reports.
    pub fn confirm(&self, claimed: &AnchorRecord) -> Result<(Standing, u64), ChainError> {
        let AnchorRecord { run, worker, lane, index, size, root, head_digest: digest, .. } = *claimed;
        if (claimed.chain_id, claimed.contract) != (self.chain_id(), self.contract) {
            return Ok((Standing::Unconfirmed, claimed.block_time));
        }
        let head = SignedHead { run, worker, lane, size, root, digest };
        let log = log_id(run, worker, lane);
        let latest = self.latest_block()?;
        if self.view(&IRunLedger::anchorAtCall { log, index })? != stored_value(&head) {
            let is_behind = latest < claimed.block_number
                && self.head(run, worker, lane)?.is_none_or(|h| h.count <= index);
            let standing = if is_behind { Standing::Unconfirmed } else { Standing::Denied };
            return Ok((standing, claimed.block_time));
        }
        let found = self.event_of(&head, Some(claimed.block_number))?;
        let depth = (latest + 1).saturating_sub(found.block_number);
        Ok(match depth >= self.network.confirmations {
            true => (Standing::Held, found.block_time),
            false => (Standing::Unconfirmed, claimed.block_time),
        })
    }

    /// The number of the block that holds an anchor, by the chain's own word: the record's is a stranger's.
    ///
    /// # Errors
    /// What the node reports.
    pub fn block_of(&self, claimed: &AnchorRecord) -> Result<u64, ChainError> {
        let AnchorRecord { run, worker, lane, size, root, head_digest: digest, .. } = *claimed;
        let head = SignedHead { run, worker, lane, size, root, digest };
        self.event_of(&head, Some(claimed.block_number)).map(|found| found.block_number)
    }

    /// The record of an anchor that the contract holds, with its proof where the node gives it.
    pub(super) fn anchored(&self, head: &SignedHead, near: Option<u64>) -> Result<AnchorRecord, ChainError> {
        self.event_of(head, near).map(|record| self.with_proof(record))
    }

    /// The record of an anchor that the contract holds, from the event of its time.
    fn event_of(&self, head: &SignedHead, near: Option<u64>) -> Result<AnchorRecord, ChainError> {
        let missing =
            || malformed("eth_getLogs", "the event of an anchor that the contract holds is missing");
        self.find_event(head, near)?.ok_or_else(missing)
    }

    /// The record of a head, if it was ever anchored; `near` is a block that is asked first.
    pub(super) fn find_event(
        &self,
        head: &SignedHead,
        near: Option<u64>,
    ) -> Result<Option<AnchorRecord>, ChainError> {
        // The block may be a stranger's word, which some nodes refuse to look up.
        match near.map(|block| self.events_in(head, block, block, &mut 1)) {
            None | Some(Ok(None) | Err(ChainError::Rpc { .. })) => {}
            Some(found) => return found,
        }
        self.events_in(head, 0, self.latest_block()?, &mut { MOST_SEARCHES })
    }

    /// Nodes refuse to look through many blocks at once, each with its own limit: then both halves
    /// are asked, the newer one first.
    fn events_in(
        &self,
        head: &SignedHead,
        first: u64,
        last: u64,
        left: &mut u32,
    ) -> Result<Option<AnchorRecord>, ChainError> {
        let too_few =
            || malformed("eth_getLogs", "it looks through too few blocks at once to find an old anchor");
        *left = left.checked_sub(1).ok_or_else(too_few)?;
        let topics = json!([IRunLedger::Anchored::SIGNATURE_HASH, log_id(head.run, head.worker, head.lane)]);
        let filter = json!([{"address": self.contract, "topics": topics, "fromBlock": U64::from(first),
            "toBlock": U64::from(last)}]);
        let events: Vec<Event> = match call(&*self.node, "eth_getLogs", filter) {
            Err(ChainError::Rpc { .. }) if first < last => {
                let middle = first + (last - first) / 2;
                let newer = self.events_in(head, middle + 1, last, left)?;
                return if newer.is_some() { Ok(newer) } else { self.events_in(head, first, middle, left) };
            }
            found => found?,
        };
        events.iter().rev().find_map(|event| self.record(head, event)).transpose()
    }

    /// All events of a contract in these blocks, oldest first; halves them as [`Client::find_event`] does.
    pub(super) fn logs(
        &self,
        address: Address,
        topics: &Value,
        first: u64,
        last: u64,
    ) -> Result<Vec<Event>, ChainError> {
        let (mut found, mut left, mut ranges) = (Vec::new(), MOST_SEARCHES, vec![(first, last)]);
        while let Some((first, last)) = ranges.pop() {
            let too_few = || malformed("eth_getLogs", "it looks through too few blocks at once");
            left = left.checked_sub(1).ok_or_else(too_few)?;
            let filter = json!([{"address": address, "topics": topics, "fromBlock": U64::from(first),
                "toBlock": U64::from(last)}]);
            match call::<Vec<Event>>(&*self.node, "eth_getLogs", filter) {
                Err(ChainError::Rpc { .. }) if first < last => {
                    let middle = first + (last - first) / 2;
                    ranges.extend([(middle + 1, last), (first, middle)]);
                }
                events => found.extend(events?),
            }
        }
        Ok(found)
    }

    /// The record of `event`, if it is the anchoring of `head`.
    fn record(&self, head: &SignedHead, event: &Event) -> Option<Result<AnchorRecord, ChainError>> {
        let log = log_id(head.run, head.worker, head.lane);
        let found = IRunLedger::Anchored::decode_raw_log(event.topics.iter().copied(), &event.data).ok()?;
        let same = event.address == self.contract && found.log == log;
        if !same || (found.size, found.root, found.headDigest) != (head.size, head.root, head.digest) {
            return None;
        }
        let block = call::<Block>(&*self.node, "eth_getBlockByHash", json!([event.block_hash, false]));
        Some(block.map(|block| AnchorRecord {
            chain_id: self.chain_id(),
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

    pub(super) fn view<C: SolCall>(&self, arguments: &C) -> Result<C::Return, ChainError> {
        let request = json!([{"to": self.contract, "data": Bytes::from(arguments.abi_encode())}, "latest"]);
        let answer: Bytes = call(&*self.node, "eth_call", request).map_err(explain_revert)?;
        C::abi_decode_returns(&answer).map_err(|error| malformed("eth_call", &error.to_string()))
    }

    /// What an account can pay, wei. A development chain gives it to whom it lacks.
    pub(super) fn balance(&self, account: Address, wanted: u128) -> Result<u128, ChainError> {
        let balance: U256 = call(&*self.node, "eth_getBalance", json!([account, "latest"]))?;
        let balance = balance.saturating_to::<u128>();
        if balance < wanted && self.network.is_development() {
            self.node.call("anvil_setBalance", json!([account, U256::from(ALLOWANCE)]))?;
            return Ok(ALLOWANCE);
        }
        Ok(balance)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) address: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Bytes,
    pub(super) block_number: U64,
    block_hash: B256,
    pub(super) transaction_hash: B256,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block {
    timestamp: U64,
    hash: Option<B256>,
    #[serde(default)]
    pub(super) base_fee_per_gas: U128,
}

pub(super) fn chain_id(node: &dyn Node) -> Result<u64, ChainError> {
    call::<U64>(node, "eth_chainId", json!([])).map(|id| id.to())
}

pub(super) fn call<T: DeserializeOwned>(
    node: &dyn Node,
    method: &str,
    params: Value,
) -> Result<T, ChainError> {
    let answer = node.call(method, params)?;
    serde_json::from_value(answer).map_err(|error| malformed(method, &error.to_string()))
}

fn malformed(method: &str, reason: &str) -> ChainError {
    ChainError::Malformed { method: method.into(), reason: reason.into() }
}
