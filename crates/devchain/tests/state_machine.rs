//! The run ledger against a model of it in a few lines, over random sequences of calls.

mod common;

use std::collections::HashMap;

use alloy_primitives::{Address, B256, Bytes, U64, U256, address, keccak256};
use alloy_sol_types::{SolCall, SolError, SolValue};
use common::*;
use counterfoil::chain::Node;
use counterfoil::commit::{leaf_hash, merkle};
use counterfoil::receipt::{LocalSigner, Signer, log_id, run_id};
use counterfoil_devchain::DevChain;
use proptest::prelude::*;
use serde_json::json;

/// Everybody's leaves are these; whoever has another root has forked.
const LEAVES: u64 = 24;
const HUGE: u64 = 1 << 40;
const SPECIFICATION: B256 = B256::repeat_byte(2);

/// Two owners, who are workers, and a stranger.
fn accounts() -> [LocalSigner; 3] {
    [signer(1), signer(2), signer(3)]
}

/// What somebody does; small numbers name accounts.
#[derive(Clone, Debug)]
enum Action {
    Register { caller: usize, owner: usize, flags: u64 },
    SetAnchorer { caller: usize, owner: usize, flags: u64, anchorer: Option<usize> },
    Revoke { caller: usize, worker: usize, key: usize },
    Anchor(Anchoring),
}

#[derive(Clone, Debug)]
struct Anchoring {
    caller: usize,
    /// Signs, and a relayer sends, when it is there.
    signature: Option<Signature>,
    owner: usize,
    flags: u64,
    worker: usize,
    /// The next index and the last size, changed by these.
    index: Change,
    size: Change,
    is_fork: bool,
    /// None: with a proof exactly where there is a previous anchor.
    has_proof: Option<bool>,
}

#[derive(Clone, Debug)]
struct Signature {
    signer: usize,
    is_late: bool,
    chain: u64,
    contract: Address,
}

#[derive(Clone, Debug)]
enum Change {
    By(i64),
    To(u64),
}

impl Change {
    fn of(&self, value: u64) -> u64 {
        match self {
            Change::By(difference) => value.saturating_add_signed(*difference),
            Change::To(value) => *value,
        }
    }
}

fn actions() -> impl Strategy<Value = Action> {
    let account = || 0..3usize;
    let index = prop_oneof![6 => Just(Change::By(0)), 2 => (-2..2i64).prop_map(Change::By),
        1 => prop_oneof![Just(0), Just(u64::MAX)].prop_map(Change::To)];
    let size = prop_oneof![6 => (1..4i64).prop_map(Change::By), 2 => (-2..1i64).prop_map(Change::By),
        1 => prop_oneof![Just(0), Just(HUGE), Just(HUGE + 1), Just(u64::MAX)].prop_map(Change::To)];
    let elsewhere = address!("00000000000000000000000000000000000000ee");
    let signature = (
        prop::bool::weighted(0.1),
        prop_oneof![8 => Just(31337u64), 1 => Just(1)],
        prop_oneof![8 => Just(Address::ZERO), 1 => Just(elsewhere)],
    )
        .prop_map(|(is_late, chain, contract)| Signature { signer: 0, is_late, chain, contract });
    let anchoring = (
        prop::option::weighted(0.3, account()),
        prop::option::weighted(0.3, (prop::option::weighted(0.3, account()), signature)),
        0..2usize,
        0..2u64,
        0..2usize,
        index,
        size,
        prop::bool::weighted(0.1),
        prop::option::weighted(0.3, any::<bool>()),
    )
        .prop_map(|(caller, signature, owner, flags, worker, index, size, is_fork, has_proof)| {
            // Mostly the worker itself.
            let caller = caller.unwrap_or(worker);
            let signature =
                signature.map(|(signer, rest)| Signature { signer: signer.unwrap_or(worker), ..rest });
            Anchoring { caller, signature, owner, flags, worker, index, size, is_fork, has_proof }
        });
    prop_oneof![
        2 => (account(), 0..2usize, prop_oneof![8 => 0..2u64, 1 => Just(2), 1 => Just(u64::MAX)])
            .prop_map(|(caller, owner, flags)| Action::Register { caller, owner, flags }),
        1 => (account(), 0..2usize, 0..2u64, prop::option::of(account())).prop_map(
            |(caller, owner, flags, anchorer)| Action::SetAnchorer { caller, owner, flags, anchorer }),
        1 => (account(), account(), account())
            .prop_map(|(caller, worker, key)| Action::Revoke { caller, worker, key }),
        8 => anchoring.prop_map(Action::Anchor),
    ]
}

/// The selector of the expected error, or none.
type Verdict = Result<(), [u8; 4]>;

#[derive(Default)]
struct Log {
    anchorer: Address,
    is_append_only: bool,
    anchors: Vec<(u64, B256, B256)>,
}

/// What docs/format.md and the interface say, in the plainest words.
#[derive(Default)]
struct Model {
    runs: HashMap<B256, (Address, u64)>,
    logs: HashMap<B256, Log>,
    /// Block and time of each first revocation.
    revoked: HashMap<(Address, Address), (u64, u64)>,
}

impl Model {
    fn register(&mut self, run: B256, owner: Address, flags: u64) -> Verdict {
        if flags > 1 {
            return Err(IRunLedger::UnsupportedFlags::SELECTOR);
        }
        self.runs.insert(run, (owner, flags));
        Ok(())
    }

    fn revoke(&mut self, caller: Address, worker: Address, key: Address, now: (u64, u64)) -> Verdict {
        if caller != worker && caller != key {
            return Err(IRunLedger::NotRevocable::SELECTOR);
        }
        self.revoked.entry((worker, key)).or_insert(now);
        Ok(())
    }

    fn anchor(&mut self, by: Address, a: &IRunLedger::Anchor, has_proof: bool, proves: bool) -> Verdict {
        let run = self.runs.get(&a.run);
        let log = self.logs.entry(log_id(a.run, a.worker, a.lane)).or_default();
        if by != a.worker && by != log.anchorer {
            return Err(IRunLedger::NotAllowed::SELECTOR);
        }
        let next = log.anchors.len() as u64;
        let anchor = (a.size, a.root, a.headDigest);
        if a.index != next {
            let is_known = log.anchors.get(a.index as usize) == Some(&anchor);
            return is_known.then_some(()).ok_or(IRunLedger::WrongIndex::SELECTOR);
        }
        if a.size > HUGE || a.size <= log.anchors.last().map_or(0, |(size, ..)| *size) {
            return Err(IRunLedger::WrongSize::SELECTOR);
        }
        if next == 0 {
            let (_, flags) = run.ok_or(IRunLedger::UnknownRun::SELECTOR)?;
            if has_proof {
                return Err(IRunLedger::NotPrevious::SELECTOR);
            }
            log.is_append_only = *flags == 1;
        } else if log.is_append_only && !has_proof {
            return Err(IRunLedger::ConsistencyProofRequired::SELECTOR);
        } else if has_proof && !proves {
            return Err(IRunLedger::Inconsistent::SELECTOR);
        }
        log.anchors.push(anchor);
        Ok(())
    }
}

/// The contract, and the chain on which all of it happens.
struct Ledger {
    chain: DevChain,
    accounts: [LocalSigner; 3],
    leaves: Vec<B256>,
    model: Model,
}

impl Ledger {
    fn new() -> Ledger {
        let chain = DevChain::in_memory();
        (1..4).for_each(|seed| drop(funded(&chain, seed)));
        let leaves = (0..LEAVES).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        Ledger { chain, accounts: accounts(), leaves, model: Model::default() }
    }

    fn address(&self, account: usize) -> Address {
        self.accounts[account].address()
    }

    fn run(&self, owner: usize, flags: u64) -> B256 {
        run_id(self.address(owner), SPECIFICATION, flags, B256::ZERO)
    }

    /// Sends the call and compares with what the model expects, down to the error's selector.
    fn expect<C: SolCall>(&self, caller: usize, call: &C, expected: Verdict) -> Result<(), TestCaseError> {
        let asked = view(&self.chain, self.address(caller), call)
            .map(drop)
            .map_err(|data: Bytes| <[u8; 4]>::try_from(&data[..4]).expect("a selector"));
        prop_assert_eq!(asked, expected, "{}", C::SIGNATURE);
        prop_assert_eq!(succeeded(&send(&self.chain, &self.accounts[caller], call)), expected.is_ok());
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action.clone() {
            Action::Register { caller, owner, flags } => {
                let (run, address) = (self.run(owner, flags), self.address(owner));
                let call = IRunLedger::registerCall {
                    owner: address,
                    specification: SPECIFICATION,
                    flags,
                    nonce: B256::ZERO,
                };
                let expected = self.model.register(run, address, flags);
                self.expect(caller, &call, expected)
            }
            Action::SetAnchorer { caller, owner, flags, anchorer } => {
                let (run, worker) = (self.run(owner, flags), self.address(caller));
                let anchorer = anchorer.map_or(Address::ZERO, |account| self.address(account));
                self.model.logs.entry(log_id(run, worker, 0)).or_default().anchorer = anchorer;
                self.expect(caller, &IRunLedger::setAnchorerCall { run, lane: 0, anchorer }, Ok(()))
            }
            Action::Revoke { caller, worker, key } => {
                let (by, worker, key) = (self.address(caller), self.address(worker), self.address(key));
                let call = IRunLedger::revokeCall { worker, key };
                let is_allowed = by == worker || by == key;
                let refused = Err(IRunLedger::NotRevocable::SELECTOR);
                self.expect(caller, &call, if is_allowed { Ok(()) } else { refused })?;
                let block =
                    self.chain.call("eth_getBlockByNumber", json!(["latest", false])).expect("a block");
                let number =
                    |name: &str| serde_json::from_value::<U64>(block[name].clone()).expect("a number").to();
                let revoked = self.model.revoke(by, worker, key, (number("number"), number("timestamp")));
                prop_assert_eq!(revoked.is_ok(), is_allowed);
                Ok(())
            }
            Action::Anchor(anchoring) => self.anchor(&anchoring),
        }
    }

    fn anchor(&mut self, anchoring: &Anchoring) -> Result<(), TestCaseError> {
        let (run, worker) = (self.run(anchoring.owner, anchoring.flags), self.address(anchoring.worker));
        let known = self.model.logs.get(&log_id(run, worker, 0)).map_or(&[][..], |log| &log.anchors);
        let last = known.last().copied().unwrap_or_default();
        let (index, size) = (anchoring.index.of(known.len() as u64), anchoring.size.of(last.0));
        // A repetition of an old index mostly repeats the old anchor.
        let old = known.get(index as usize).filter(|_| !anchoring.is_fork);
        let is_honest = (1..=LEAVES).contains(&size) && !anchoring.is_fork;
        let root = match is_honest {
            true => merkle::root(&self.leaves[..size as usize]),
            false => keccak256((U256::from(size), "fork").abi_encode()),
        };
        let (size, root, head_digest) = old.copied().unwrap_or((size, root, keccak256(size.to_be_bytes())));
        let a = IRunLedger::Anchor { run, worker, lane: 0, index, size, headDigest: head_digest, root };
        let previous = IRunLedger::Head { size: last.0, root: last.1, headDigest: last.2 };
        // Honest trees prove their growth; others try with some tree's proof.
        let from = last.0.clamp(1, LEAVES - 1);
        let to = size.clamp(from + 1, LEAVES);
        let has_proof = anchoring.has_proof.unwrap_or(last.0 != 0);
        let proof = match has_proof {
            true => merkle::consistency_proof(&self.leaves[..to as usize], from).expect("it grows"),
            false => Vec::new(),
        };
        let proves = merkle::verify_consistency(last.0, size, &proof, &last.1, &root).is_ok();
        let Some(signature) = &anchoring.signature else {
            let expected = self.model.anchor(self.address(anchoring.caller), &a, has_proof, proves);
            return match has_proof {
                true => {
                    let call = IRunLedger::anchorWithConsistencyProofCall { a, previous, proof };
                    self.expect(anchoring.caller, &call, expected)
                }
                false => self.expect(anchoring.caller, &IRunLedger::anchorCall { a }, expected),
            };
        };
        let by = self.address(signature.signer);
        let deadline = if signature.is_late { 1 } else { u64::MAX };
        let contract = match signature.contract {
            Address::ZERO => self.chain.contract(),
            elsewhere => elsewhere,
        };
        let digest = anchor_digest(&a, deadline, signature.chain, contract);
        let expected = if signature.is_late {
            Err(IRunLedger::Expired::SELECTOR)
        } else if (signature.chain, contract) != (31337, self.chain.contract()) {
            Err(IRunLedger::InvalidSignature::SELECTOR)
        } else {
            self.model.anchor(by, &a, has_proof, proves)
        };
        let signed = self.accounts[signature.signer].sign(digest).expect("a local key signs");
        let call = IRunLedger::anchorBySigCall {
            a,
            previous,
            proof,
            signer: by,
            deadline,
            signature: signed.0.to_vec().into(),
        };
        self.expect(anchoring.caller, &call, expected)
    }

    /// Everything that can be asked.
    fn compare(&self) -> Result<(), TestCaseError> {
        for (run, (owner, _)) in &self.model.runs {
            prop_assert_eq!(
                view(&self.chain, Address::ZERO, &IRunLedger::ownerOfCall { run: *run }),
                Ok(*owner)
            );
        }
        for (log, model) in &self.model.logs {
            let head = view(&self.chain, Address::ZERO, &IRunLedger::headCall { log: *log }).expect("a view");
            let size = model.anchors.last().map_or(0, |(size, ..)| *size);
            let count = model.anchors.len() as u64;
            prop_assert_eq!((head.count, head.size, head.anchorer), (count, size, model.anchorer));
            for index in 0..=count {
                let stored = model.anchors.get(index as usize).map_or(B256::ZERO, |(size, root, digest)| {
                    keccak256((*root, U256::from(*size), *digest).abi_encode())
                });
                let call = IRunLedger::anchorAtCall { log: *log, index };
                prop_assert_eq!(view(&self.chain, Address::ZERO, &call), Ok(stored));
            }
        }
        for (worker, key) in self.accounts.iter().flat_map(|a| self.accounts.iter().map(move |b| (a, b))) {
            let (worker, key) = (worker.address(), key.address());
            let call = IRunLedger::revocationCall { worker, key };
            let answer = view(&self.chain, Address::ZERO, &call).expect("a view");
            // A second revocation that moved the first one would make what a thief signed count for longer.
            let first = self.model.revoked.get(&(worker, key)).copied().unwrap_or_default();
            prop_assert_eq!((answer.blockNumber, answer.time), first);
        }
        Ok(())
    }
}

/// EIP-712, written down from the standard.
fn anchor_digest(a: &IRunLedger::Anchor, deadline: u64, chain: u64, contract: Address) -> B256 {
    let domain = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
    let domain = (keccak256(domain), keccak256("Counterfoil"), keccak256("1"), U256::from(chain), contract);
    let name =
        "AnchorV1(bytes32 log,uint64 index,uint64 size,bytes32 headDigest,bytes32 root,uint64 deadline)";
    let log = log_id(a.run, a.worker, a.lane);
    let message = (keccak256(name), log, a.index, a.size, a.headDigest, a.root, deadline);
    let hashes = [keccak256(domain.abi_encode()), keccak256(message.abi_encode())];
    keccak256([&[0x19, 1], hashes[0].as_slice(), hashes[1].as_slice()].concat())
}

/// A call that the contract takes and the model refuses, or refuses for another reason, or after which it says
/// something else.
#[test]
fn the_contract_does_what_the_model_says() {
    let config = ProptestConfig {
        cases: 96,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let taken = std::cell::Cell::new(0);
    proptest!(config, |(actions in prop::collection::vec(actions(), 1..64))| {
        let mut ledger = Ledger::new();
        for action in &actions {
            ledger.act(action)?;
            ledger.compare()?;
        }
        taken.set(taken.get() + ledger.model.logs.values().map(|log| log.anchors.len()).sum::<usize>());
    });
    println!("{} anchors were taken", taken.get());
    assert!(taken.get() >= 96, "sequences that anchor nothing show nothing: {}", taken.get());
}

/// The order of a block does not matter: whoever registers first registers the same.
#[test]
fn nobody_registers_a_run_for_itself() {
    let mut ledger = Ledger::new();
    ledger.act(&Action::Register { caller: 2, owner: 0, flags: 1 }).expect("a stranger may");
    ledger.act(&Action::Register { caller: 0, owner: 0, flags: 1 }).expect("the owner finds it done");
    ledger.compare().expect("it is the owner's");
    let blocks = ledger.chain.call("eth_blockNumber", json!([])).expect("a number");
    assert_eq!(blocks, "0x2");
}
