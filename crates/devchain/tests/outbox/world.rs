//! A chain with a pool, empty blocks, rising fees and reorganisations, behind a node that fails in
//! every way that nodes fail. Execution is the development chain's; blocks and answers are made here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloy_primitives::{Address, B256, Bytes, U64, U128, U256, keccak256};
use alloy_rlp::{Decodable, PayloadView};
use counterfoil::chain::{ChainError, Node, RpcError};
use counterfoil_devchain::DevChain;
use serde_json::{Value, json};

const GWEI: u128 = 1_000_000_000;
pub(crate) const TIP_FLOOR: u64 = 2_000_000_000;
/// Blocks that a lagging replica is behind.
const LAG: usize = 3;

/// Everything that goes wrong, but for what only the rule of own nonces would meet.
pub(crate) const FAULTS: [&str; 17] = [
    "busy (429)",
    "dropped transaction",
    "empty block",
    "fee spike",
    "foreign transaction",
    "foreign transaction taken back",
    "killed after a call",
    "killed before a call",
    "lagging replica",
    "lost answer",
    "malformed answer",
    "node of another chain",
    "reorganisation",
    "reorganisation of what was final",
    "time-out after it was taken",
    "unreachable",
    "wrong chain id",
];

/// What unwinds when the process is killed.
pub(crate) struct Killed;

/// Numbers that a seed decides.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

/// A transaction as pools see it.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) raw: Bytes,
    pub(crate) hash: B256,
    pub(crate) nonce: u64,
    tip: u128,
    pub(crate) cap: u128,
    /// Wei that it cost, once mined.
    pub(crate) cost: u128,
}

impl Sent {
    fn read(raw: &Bytes) -> Sent {
        let is_typed = raw[0] == 2;
        let PayloadView::List(fields) =
            alloy_rlp::Header::decode_raw(&mut &raw[usize::from(is_typed)..]).unwrap()
        else {
            panic!("no transaction")
        };
        let number = |field: usize| u128::decode(&mut &fields[field][..]).unwrap();
        let (nonce, tip, cap) = match is_typed {
            true => (number(1), number(2), number(3)),
            false => (number(0), number(1), number(1)),
        };
        Sent { raw: raw.clone(), hash: keccak256(raw), nonce: nonce as u64, tip, cap, cost: 0 }
    }
}

struct Block {
    hash: B256,
    sent: Vec<Sent>,
}

pub(crate) struct World {
    dice: Dice,
    account: Address,
    blocks: Vec<Block>,
    pub(crate) pool: BTreeMap<u64, Sent>,
    dev: DevChain,
    /// What a lagging replica knows.
    old: DevChain,
    base_fee: u128,
    forks: u64,
    pub(crate) is_faulty: bool,
    pub(crate) is_killing: bool,
    pub(crate) fired: BTreeMap<&'static str, u64>,
    /// Foreign transactions that a reorganisation took away for ever.
    pub(crate) vanished: u64,
    /// Whether the node's address leads to another chain, by its last word or since the last block.
    is_elsewhere: bool,
    /// Transactions that came meanwhile.
    pub(crate) leaked: u64,
    /// Blocks that no reorganisation reaches.
    settled: usize,
    /// A block that will be taken back when the chain is so long.
    doomed: Option<(usize, usize)>,
}

/// The node that the outbox talks to.
pub(crate) struct Faulty(pub(crate) Mutex<World>);

impl Faulty {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn chain_of(account: Address, sent: impl Iterator<Item = Sent>) -> DevChain {
    let dev = DevChain::in_memory();
    dev.call("anvil_setBalance", json!([account, U256::from(1000 * 10u128.pow(18))])).unwrap();
    for each in sent {
        dev.call("eth_sendRawTransaction", json!([each.raw])).unwrap();
    }
    dev
}

impl World {
    pub(crate) fn new(seed: u64, account: Address) -> World {
        let mut world = World {
            dice: Dice(seed | 1),
            account,
            blocks: Vec::new(),
            pool: BTreeMap::new(),
            dev: chain_of(account, std::iter::empty()),
            old: chain_of(account, std::iter::empty()),
            base_fee: GWEI,
            forks: 0,
            is_faulty: true,
            is_killing: true,
            fired: BTreeMap::new(),
            vanished: 0,
            is_elsewhere: false,
            leaked: 0,
            settled: 1,
            doomed: None,
        };
        world.mine(false);
        world
    }

    /// Every transaction in the chain's blocks.
    pub(crate) fn mined(&self) -> impl Iterator<Item = &Sent> {
        self.blocks.iter().flat_map(|block| &block.sent)
    }

    pub(crate) fn dev(&self) -> &DevChain {
        &self.dev
    }

    pub(crate) fn balance(&self, account: Address) -> U256 {
        serde_json::from_value(self.dev.call("eth_getBalance", json!([account, "latest"])).unwrap()).unwrap()
    }

    /// Somebody did this before, so long ago that every replica knows.
    pub(crate) fn begin_with(&mut self, raw: &Bytes) {
        let sent = Sent::read(raw);
        self.pool.insert(sent.nonce, sent);
        self.mine(true);
        (0..=LAG).for_each(|_| self.mine(false));
        self.settled = self.blocks.len();
    }

    pub(crate) fn fire(&mut self, fault: &'static str, chance: u64) -> bool {
        let fires = self.is_faulty && self.dice.one_in(chance);
        *self.fired.entry(fault).or_default() += u64::from(fires);
        fires
    }

    fn count(&self, dev: &DevChain) -> u64 {
        let count = dev.call("eth_getTransactionCount", json!([self.account, "latest"])).unwrap();
        serde_json::from_value::<U64>(count).unwrap().to()
    }

    /// Time passes: a block, a higher fee, a lost transaction, another history.
    pub(crate) fn tick(&mut self, foreign: &dyn Fn(&DevChain, u64) -> Bytes) {
        let shallow = 1 + self.dice.below(5) as usize;
        if self.fire("reorganisation", 25) {
            self.reorganise(shallow);
        }
        if self.fire("reorganisation of what was final", 300) {
            self.reorganise(shallow + 10);
        }
        if let Some((block, _)) = self.doomed.take_if(|(_, length)| *length <= self.blocks.len()) {
            *self.fired.entry("foreign transaction taken back").or_default() += 1;
            self.reorganise(self.blocks.len().saturating_sub(block));
        }
        if self.fire("dropped transaction", 12) {
            let lost = self.pool.pop_last();
            self.vanished += u64::from(lost.is_some_and(|(_, sent)| sent.raw[0] != 2));
        }
        if self.fire("foreign transaction", 30) {
            let raw = foreign(&self.dev, self.count(&self.dev));
            let sent = Sent::read(&raw);
            self.pool.insert(sent.nonce, sent);
            self.doomed = self.dice.one_in(2).then_some((self.blocks.len(), self.blocks.len() + 3));
        }
        self.base_fee = (self.base_fee * 7 / 8).max(GWEI);
        if self.fire("fee spike", 15) {
            self.base_fee = 20 * GWEI;
        }
        self.is_elsewhere = self.fire("node of another chain", 20);
        let empty = self.fire("empty block", 4);
        self.mine(!empty);
    }

    /// The transaction that a block takes next, if it pays enough.
    fn next_payer(&mut self) -> Option<Sent> {
        let next = self.count(&self.dev);
        self.pool.retain(|nonce, _| *nonce >= next);
        self.pool.get(&next).filter(|sent| sent.cap >= self.base_fee + GWEI).cloned()
    }

    pub(crate) fn mine(&mut self, takes: bool) {
        let mut block = Block { hash: B256::ZERO, sent: Vec::new() };
        while let Some(mut sent) = self.next_payer().filter(|_| takes) {
            let hash = self.dev.call("eth_sendRawTransaction", json!([sent.raw])).unwrap();
            let receipt = self.dev.call("eth_getTransactionReceipt", json!([hash])).unwrap();
            let gas: U128 = serde_json::from_value(receipt["gasUsed"].clone()).unwrap();
            sent.cost = gas.to::<u128>() * sent.cap.min(self.base_fee + sent.tip);
            self.pool.remove(&sent.nonce);
            block.sent.push(sent);
        }
        block.hash = keccak256([self.blocks.len() as u64, self.forks].map(u64::to_be_bytes).concat());
        self.blocks.push(block);
        if let Some(seen) = self.blocks.len().checked_sub(1 + LAG) {
            for sent in &self.blocks[seen].sent {
                self.old.call("eth_sendRawTransaction", json!([sent.raw])).unwrap();
            }
        }
    }

    /// The last blocks are replaced by empty ones; what they held is back in the pool, or lost.
    pub(crate) fn reorganise(&mut self, depth: usize) {
        let depth = depth.min(self.blocks.len() - self.settled);
        let gone = self.blocks.split_off(self.blocks.len() - depth);
        self.forks += 1;
        for sent in gone.into_iter().flat_map(|block| block.sent) {
            if self.dice.one_in(if sent.raw[0] == 2 { 2 } else { 6 }) {
                self.pool.entry(sent.nonce).or_insert(sent);
            } else if sent.raw[0] != 2 {
                self.vanished += 1;
            }
        }
        let seen = self.blocks.len().saturating_sub(LAG);
        self.dev = chain_of(self.account, self.mined().cloned());
        self.old = chain_of(self.account, self.blocks[..seen].iter().flat_map(|block| block.sent.clone()));
        (0..=depth).for_each(|_| self.mine(false));
    }

    fn refuse(code: i64, message: &str) -> Result<Value, ChainError> {
        let error = RpcError { code, message: message.into(), data: None };
        Err(ChainError::Rpc { method: "the double".into(), error })
    }

    fn take(&mut self, raw: &Bytes) -> Result<Value, ChainError> {
        let sent = Sent::read(raw);
        if self.is_elsewhere {
            self.leaked += 1;
            return World::refuse(-32000, "invalid chain id for signer");
        }
        if self.mined().any(|mined| mined.hash == sent.hash)
            || self.pool.values().any(|p| p.hash == sent.hash)
        {
            return World::refuse(-32000, "already known");
        }
        if sent.nonce < self.count(&self.dev) {
            return World::refuse(-32000, "nonce too low");
        }
        if sent.tip < TIP_FLOOR.into() {
            return World::refuse(-32000, "transaction underpriced: tip needed 2000000000");
        }
        if let Some(other) = self.pool.get(&sent.nonce) {
            let enough = |new: u128, old: u128| new * 10 >= old * 11;
            if !enough(sent.tip, other.tip) || !enough(sent.cap, other.cap) {
                return World::refuse(-32000, "replacement transaction underpriced");
            }
        }
        let hash = sent.hash;
        let replaced = self.pool.insert(sent.nonce, sent);
        self.vanished += u64::from(replaced.is_some_and(|other| other.raw[0] != 2));
        Ok(json!(hash))
    }

    fn answer(&mut self, method: &str, params: Value) -> Result<Value, ChainError> {
        let lags = method != "eth_sendRawTransaction" && self.fire("lagging replica", 8);
        let seen = self.blocks.len() - if lags { LAG.min(self.blocks.len() - 1) } else { 0 };
        let blocks = &self.blocks[..seen];
        let block = |number: usize| {
            blocks.get(number).map(|block| {
                json!({"number": U64::from(number), "hash": block.hash, "timestamp": U64::from(number), "baseFeePerGas": U128::from(self.base_fee), "extra": {"of": "0G"}})
            })
        };
        let dev = if lags { &self.old } else { &self.dev };
        match method {
            "eth_sendRawTransaction" => self.take(&serde_json::from_value(params[0].clone()).unwrap()),
            "eth_chainId" => {
                self.is_elsewhere = self.fire("wrong chain id", 40);
                Ok(json!(U64::from(if self.is_elsewhere { 1u64 } else { 31_337 })))
            }
            "eth_blockNumber" => Ok(json!(U64::from(seen - 1))),
            "eth_maxPriorityFeePerGas" => Ok(json!("0x1")),
            "eth_getBlockByNumber" if params[0] == "latest" => Ok(json!(block(seen - 1))),
            "eth_getBlockByNumber" => {
                Ok(json!(block(serde_json::from_value::<U64>(params[0].clone()).unwrap().to::<usize>())))
            }
            "eth_getTransactionReceipt" => {
                let hash: B256 = serde_json::from_value(params[0].clone()).unwrap();
                let found = blocks.iter().enumerate().find_map(|(number, block)| {
                    block.sent.iter().find(|sent| sent.hash == hash).map(|sent| (number, block, sent))
                });
                let Some((number, block, sent)) = found else { return Ok(Value::Null) };
                let mut receipt = self.dev.call(method, params)?;
                receipt["blockNumber"] = json!(U64::from(number));
                receipt["blockHash"] = json!(block.hash);
                let gas: U128 = serde_json::from_value(receipt["gasUsed"].clone()).unwrap();
                receipt["effectiveGasPrice"] = json!(U128::from(sent.cost / gas.to::<u128>()));
                Ok(receipt)
            }
            "eth_getTransactionCount" if params[1] == "pending" => {
                let ahead = self.fire("phantom pending", 3);
                let pending = self.count(&self.dev) + self.pool.len() as u64 + u64::from(ahead);
                Ok(json!(U64::from(pending)))
            }
            _ => dev.call(method, params),
        }
    }
}

impl Node for Faulty {
    fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        let mut world = self.world();
        let unreachable =
            |reason: &str| Err(ChainError::Transport { method: method.into(), reason: reason.into() });
        if world.fire("busy (429)", 40) {
            return World::refuse(429, "too many requests");
        }
        if world.fire("unreachable", 40) {
            return unreachable("connection refused");
        }
        if world.is_killing && world.fire("killed before a call", 150) {
            drop(world);
            std::panic::panic_any(Killed);
        }
        let answer = world.answer(method, params);
        if world.is_killing && world.fire("killed after a call", 150) {
            drop(world);
            std::panic::panic_any(Killed);
        }
        if method == "eth_sendRawTransaction" && world.fire("time-out after it was taken", 6) {
            return unreachable("timed out");
        }
        if world.fire("lost answer", 40) {
            return unreachable("connection reset");
        }
        if world.fire("malformed answer", 60) {
            return Err(ChainError::Malformed { method: method.into(), reason: "no JSON".into() });
        }
        answer
    }
}
