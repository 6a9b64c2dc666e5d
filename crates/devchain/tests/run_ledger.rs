//! The run ledger's own rules, on the bytecode that is committed.

mod common;

use std::sync::Arc;

use alloy_primitives::{Address, B256, U64, address, keccak256};
use common::*;
use counterfoil::chain::{ChainError, Node, Payer, RpcError, SignedHead, artifact};
use counterfoil::evidence::AnchorRecord;
use counterfoil::receipt::Signer;
use counterfoil::verify::Standing;
use counterfoil_devchain::DevChain;
use serde_json::json;

fn registered(chain: &DevChain, owner: &counterfoil::receipt::LocalSigner) -> B256 {
    let run = registration(owner.address());
    let call = IRunLedger::registerCall {
        owner: run.owner,
        specification: run.specification,
        flags: run.flags,
        nonce: run.nonce,
    };
    assert!(succeeded(&send(chain, owner, &call)));
    assert_eq!(view(chain, Address::ZERO, &IRunLedger::ownerOfCall { run: run.run() }), Ok(owner.address()));
    run.run()
}

#[test]
fn a_run_is_registered_by_anybody_once_and_for_the_same_owner() {
    let chain = DevChain::in_memory();
    let (owner, stranger) = (funded(&chain, 1), funded(&chain, 2));
    let run = registration(owner.address());
    let mut call = IRunLedger::registerCall {
        owner: run.owner,
        specification: run.specification,
        flags: 0,
        nonce: run.nonce,
    };
    let first = send(&chain, &stranger, &call);
    assert_eq!(first["logs"][0]["topics"][1], json!(run.run()), "both sides compute one run id");
    let again = send(&chain, &owner, &call);
    assert!(succeeded(&again) && again["logs"] == json!([]), "an equal registration changes nothing");
    assert_eq!(view(&chain, Address::ZERO, &IRunLedger::ownerOfCall { run: run.run() }), Ok(owner.address()));

    for flags in [2, 3, u64::MAX] {
        call.flags = flags;
        let error: IRunLedger::UnsupportedFlags = refused_with(view(&chain, owner.address(), &call));
        assert_eq!(error.flags, flags, "append-only is the one promise that the contract keeps");
    }
    (call.flags, call.owner) = (0, Address::ZERO);
    refused_with::<IRunLedger::NoOwner>(view(&chain, owner.address(), &call));
}

#[test]
fn a_strangers_anchor_is_refused_until_the_worker_allows_it() {
    let chain = DevChain::in_memory();
    let (worker, stranger) = (funded(&chain, 1), funded(&chain, 2));
    let head = head(registered(&chain, &worker), worker.address(), 5);
    let call = IRunLedger::anchorCall { a: anchor_of(&head, 0) };
    let error: IRunLedger::NotAllowed = refused_with(view(&chain, stranger.address(), &call));
    assert_eq!(error.caller, stranger.address());
    assert!(!succeeded(&send(&chain, &stranger, &call)));

    let allow = |anchorer| IRunLedger::setAnchorerCall { run: head.run, lane: 0, anchorer };
    send(&chain, &worker, &allow(stranger.address()));
    refused_with::<IRunLedger::NotAllowed>(view(&chain, signer(3).address(), &call));
    assert!(succeeded(&send(&chain, &stranger, &call)));
    send(&chain, &worker, &allow(Address::ZERO));
    let next = IRunLedger::anchorCall { a: IRunLedger::Anchor { index: 1, size: 6, ..anchor_of(&head, 0) } };
    refused_with::<IRunLedger::NotAllowed>(view(&chain, stranger.address(), &next));
    assert!(succeeded(&send(&chain, &worker, &next)), "the anchorer's end is not the log's end");
}

#[test]
fn anchors_follow_each_other_and_grow() {
    let chain = DevChain::in_memory();
    let worker = funded(&chain, 1);
    let from = worker.address();
    let unknown = IRunLedger::anchorCall { a: anchor_of(&head(B256::ZERO, from, 1), 0) };
    refused_with::<IRunLedger::UnknownRun>(view(&chain, from, &unknown));

    let run = registered(&chain, &worker);
    let anchor = |size, index| IRunLedger::anchorCall { a: anchor_of(&head(run, from, size), index) };
    for size in [0, (1 << 40) + 1, u64::MAX] {
        refused_with::<IRunLedger::WrongSize>(view(&chain, from, &anchor(size, 0)));
    }
    for index in [1, u64::MAX] {
        refused_with::<IRunLedger::WrongIndex>(view(&chain, from, &anchor(5, index)));
    }
    let first = send(&chain, &worker, &anchor(5, 0));
    let second = send(&chain, &worker, &anchor(9, 1));
    assert!(succeeded(&first) && succeeded(&second));
    for size in [1, 8, 9] {
        let error: IRunLedger::WrongSize = refused_with(view(&chain, from, &anchor(size, 2)));
        assert_eq!((error.previous, error.actual), (9, size));
    }
    let other = IRunLedger::Anchor { root: B256::ZERO, ..anchor(9, 1).a };
    let error: IRunLedger::WrongIndex =
        refused_with(view(&chain, from, &IRunLedger::anchorCall { a: other }));
    assert_eq!((error.expected, error.actual), (2, 1), "an anchor is never replaced");

    let again = send(&chain, &worker, &anchor(5, 0));
    assert!(succeeded(&again) && again["logs"] == json!([]), "an equal anchor changes nothing");
    let log = log_of(&head(run, from, 9));
    let state = view(&chain, from, &IRunLedger::headCall { log }).unwrap();
    assert_eq!((state.count, state.size, state.anchorer), (2, 9, Address::ZERO));

    let (first, second, again) = (gas(&first), gas(&second), gas(&again));
    println!("gas: first anchor {first}, next anchor {second}, equal anchor {again}");
    assert!(second <= 57_000 && again <= 32_000, "gas of an anchor: {second}, repeated {again}");
    let last = send(&chain, &worker, &anchor(1 << 40, 2));
    assert!(succeeded(&last), "2^40 receipts are the most");
}

/// Whether `leaf` stands at `position` of the log's anchor `index`.
fn included(
    head: &SignedHead,
    index: u64,
    position: u64,
    leaf: &[u8],
    proof: Vec<B256>,
) -> IRunLedger::isIncludedCall {
    IRunLedger::isIncludedCall {
        log: log_of(head),
        index,
        anchored: IRunLedger::Head { size: head.size, root: head.root, headDigest: head.digest },
        leaf: leaf.to_vec().into(),
        leafIndex: position,
        proof,
    }
}

#[test]
fn inclusion_holds_for_the_leaf_its_index_and_its_path_alone() {
    let chain = DevChain::in_memory();
    let worker = funded(&chain, 1);
    let run = registered(&chain, &worker);
    let leaves: Vec<Vec<u8>> = (0..13u8).map(|n| vec![n; 97]).collect();
    for size in 1..=leaves.len() {
        let tree = &leaves[..size];
        let head = SignedHead { root: root(tree), ..head(run, worker.address(), size as u64) };
        let index = size as u64 - 1;
        assert!(succeeded(&send(&chain, &worker, &IRunLedger::anchorCall { a: anchor_of(&head, index) })));
        let question =
            |position: u64, leaf: &[u8], proof: Vec<B256>| included(&head, index, position, leaf, proof);
        let holds =
            |question: &IRunLedger::isIncludedCall| view(&chain, Address::ZERO, question).expect("a view");
        for (position, leaf) in tree.iter().enumerate() {
            let proof = path(position, tree);
            let right = question(position as u64, leaf, proof.clone());
            assert!(holds(&right), "leaf {position} of {size}");
            for wrong in (0..=size as u64 + 1).chain([u64::MAX]).filter(|wrong| *wrong != position as u64) {
                assert!(
                    !holds(&question(wrong, leaf, proof.clone())),
                    "leaf {position} of {size} at {wrong}"
                );
            }
            for extra in [B256::ZERO, head.root] {
                assert!(!holds(&question(position as u64, leaf, [proof.clone(), vec![extra]].concat())));
            }
            if let Some((_, short)) = proof.split_last() {
                assert!(!holds(&question(position as u64, leaf, short.to_vec())), "a short path");
            }
            assert!(!holds(&question(position as u64, &leaf[1..], proof)), "a leaf has 97 bytes");
            for (sizes, at) in [(head.size + 1, index), (head.size, index + 1)] {
                let anchored = IRunLedger::Head { size: sizes, ..right.anchored };
                let moved = IRunLedger::isIncludedCall { anchored, index: at, ..right.clone() };
                assert!(!holds(&moved), "a root belongs to one size and one anchor");
            }
        }
    }
}

/// The contract cannot know whether a worker signed the size that belongs to its root.
#[test]
fn a_lie_about_the_size_opens_no_other_path_length() {
    let chain = DevChain::in_memory();
    let worker = funded(&chain, 1);
    let run = registered(&chain, &worker);
    let leaves: Vec<Vec<u8>> = (0..13u8).map(|n| vec![n; 97]).collect();
    for claimed in 1..=13 {
        let head = SignedHead { root: root(&leaves), ..head(run, worker.address(), claimed) };
        let index = claimed - 1;
        assert!(succeeded(&send(&chain, &worker, &IRunLedger::anchorCall { a: anchor_of(&head, index) })));
        for (position, leaf) in leaves.iter().enumerate() {
            let proof = path(position, &leaves);
            for asked in 0..claimed {
                let exact = path(asked as usize, &leaves[..claimed as usize]).len();
                let question = included(&head, index, asked, leaf, proof.clone());
                let holds = view(&chain, Address::ZERO, &question).expect("a view");
                assert!(proof.len() == exact || !holds, "leaf {position} of 13 as {asked} of {claimed}");
            }
        }
    }
}

#[test]
fn only_leaves_of_97_bytes_are_receipts() {
    let chain = DevChain::in_memory();
    let worker = funded(&chain, 1);
    let run = registered(&chain, &worker);
    for (index, length) in [0, 64, 96, 97, 98].into_iter().enumerate() {
        // A worker can put anything into its tree.
        let leaves = vec![vec![5; length]; index + 1];
        let head = SignedHead { root: root(&leaves), ..head(run, worker.address(), index as u64 + 1) };
        assert!(succeeded(&send(
            &chain,
            &worker,
            &IRunLedger::anchorCall { a: anchor_of(&head, index as u64) }
        )));
        let question = included(&head, index as u64, 0, &leaves[0], path(0, &leaves));
        assert_eq!(view(&chain, Address::ZERO, &question), Ok(length == 97), "{length} bytes");
    }
}

#[test]
fn a_deep_proof_stays_cheap() {
    let chain = DevChain::in_memory();
    let worker = funded(&chain, 1);
    let run = registered(&chain, &worker);
    // Twenty levels: the leaf at 0 of 2^20, beside siblings of which nobody needs the leaves.
    let leaf = vec![5; 97];
    let proof: Vec<B256> = (0..20u8).map(B256::repeat_byte).collect();
    let node = |left: B256, right: &B256| {
        use sha2::{Digest, Sha256};
        B256::from(<[u8; 32]>::from(Sha256::digest([&[1], left.as_slice(), right.as_slice()].concat())))
    };
    let top = proof.iter().fold(root(std::slice::from_ref(&leaf)), node);
    let head = SignedHead { root: top, ..head(run, worker.address(), 1 << 20) };
    assert!(succeeded(&send(&chain, &worker, &IRunLedger::anchorCall { a: anchor_of(&head, 0) })));
    let question = included(&head, 0, 0, &leaf, proof);
    assert_eq!(view(&chain, Address::ZERO, &question), Ok(true));
    let used = gas(&send(&chain, &worker, &question));
    println!("gas: inclusion at 20 levels {used}");
    assert!(used <= 46_000, "{used}");
}

#[test]
fn the_client_registers_anchors_and_repeats_without_harm() {
    let chain = Arc::new(DevChain::in_memory());
    let worker = Arc::new(signer(9));
    let run = registration(worker.address());
    let client = connect(chain.clone(), None).unwrap();
    let first = head(run.run(), worker.address(), 3);
    assert_eq!(client.head(first.run, first.worker, 0).unwrap(), None);
    let record = anchor(&client, &first, &run, Payer::Device(worker.clone())).unwrap();
    assert_eq!((record.index, record.size, record.block_number, record.chain_id), (0, 3, 2, 31337));
    let blocks = chain.call("eth_blockNumber", json!([])).unwrap();
    assert_eq!(anchor(&client, &first, &run, Payer::Device(worker.clone())).unwrap(), record);
    assert_eq!(chain.call("eth_blockNumber", json!([])).unwrap(), blocks, "a repetition sends nothing");

    let second =
        anchor(&client, &head(first.run, first.worker, 8), &run, Payer::Chosen(worker.clone())).unwrap();
    assert_eq!((second.index, second.block_number), (1, 3));
    assert_eq!(anchor(&client, &first, &run, Payer::Device(worker.clone())).unwrap(), record);
    let behind = anchor(&client, &head(first.run, first.worker, 4), &run, Payer::Device(worker.clone()));
    assert!(matches!(behind, Err(ChainError::Behind { expected: 4, actual: 8 })), "{behind:?}");
    let fork = SignedHead { root: B256::ZERO, ..head(first.run, first.worker, 8) };
    let fork = anchor(&client, &fork, &run, Payer::Device(worker.clone()));
    assert!(matches!(fork, Err(ChainError::OtherHistory { size: 8, .. })), "{fork:?}");
    let foreign =
        anchor(&client, &head(first.run, first.worker, 9), &run, Payer::Chosen(Arc::new(signer(4))));
    assert!(
        matches!(&foreign, Err(ChainError::GivenUp { reason }) if reason.contains("NotAllowed")),
        "{foreign:?}"
    );

    let proof = record.proof.as_ref().expect("a development chain's blocks are those of Ethereum");
    assert_eq!(proof.check(&record), Ok(()));
    let record = AnchorRecord { proof: None, ..record };
    let time = record.block_time;
    assert_eq!(client.confirm(&record).unwrap(), (Standing::Held, time), "the chain itself knows the record");
    let lie = AnchorRecord { block_time: 1, ..record.clone() };
    assert_eq!(
        client.confirm(&lie).unwrap(),
        (Standing::Held, time),
        "its own time counts, not the claimed one"
    );
    for changed in [
        AnchorRecord { index: 1, ..record.clone() },
        AnchorRecord { size: 4, ..record.clone() },
        AnchorRecord { root: B256::ZERO, ..record.clone() },
        AnchorRecord { lane: 1, ..record.clone() },
    ] {
        assert_eq!(client.confirm(&changed).unwrap(), (Standing::Denied, time), "{changed:?}");
    }
    for unknown in [
        AnchorRecord { chain_id: 1, ..record.clone() },
        AnchorRecord { contract: Address::ZERO, ..record.clone() },
        AnchorRecord { block_number: 99, index: 2, ..record.clone() },
    ] {
        assert_eq!(client.confirm(&unknown).unwrap(), (Standing::Unconfirmed, time), "{unknown:?}");
    }

    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(json["chainId"], "31337", "64-bit numbers are decimal strings");
    assert_eq!(json["headDigest"], json!(first.digest));
    assert_eq!(serde_json::from_value::<AnchorRecord>(json).unwrap(), record);
}

/// A node that looks through two blocks at once, as public ones limit it.
struct Narrow(DevChain);

impl Node for Narrow {
    fn call(&self, method: &str, params: serde_json::Value) -> Result<serde_json::Value, ChainError> {
        let block = |name: &str| serde_json::from_value::<U64>(params[0][name].clone()).unwrap();
        if method == "eth_getLogs" && block("toBlock") - block("fromBlock") > U64::from(1) {
            let error = RpcError { code: -32000, message: "too many blocks".into(), data: None };
            return Err(ChainError::Rpc { method: method.into(), error });
        }
        self.0.call(method, params)
    }
}

/// Public nodes refuse a search from the first block to the last, and an old anchor would be lost.
#[test]
fn an_old_anchor_is_found_through_nodes_that_look_through_few_blocks() {
    let chain = Arc::new(Narrow(DevChain::in_memory()));
    let worker = Arc::new(signer(9));
    let run = registration(worker.address());
    let client = connect(chain.clone(), None).unwrap();
    let payer = Payer::Device(worker.clone());
    let records: Vec<_> = (1..=9)
        .map(|size| anchor(&client, &head(run.run(), worker.address(), size), &run, payer.clone()).unwrap())
        .collect();
    for record in &records {
        let found = anchor(&client, &head(run.run(), worker.address(), record.size), &run, payer.clone());
        assert_eq!(&found.unwrap(), record);
    }
    let nowhere = client.confirm(&AnchorRecord { block_number: 1, proof: None, ..records[4].clone() });
    assert_eq!(nowhere.unwrap(), (Standing::Held, records[4].block_time));
}

/// Another chain's node: the dev chain with the chain id of a real one.
struct Elsewhere(DevChain);

impl Node for Elsewhere {
    fn call(&self, method: &str, params: serde_json::Value) -> Result<serde_json::Value, ChainError> {
        if method == "eth_chainId" { Ok(json!("0x1")) } else { self.0.call(method, params) }
    }
}

#[test]
fn the_device_key_spends_nothing_on_other_chains() {
    let chain = Arc::new(Elsewhere(DevChain::in_memory()));
    let worker = Arc::new(signer(9));
    let run = registration(worker.address());
    let nothing = connect(chain.clone(), Some(Address::ZERO));
    assert!(matches!(nothing, Err(ChainError::NotDeployed { .. })));
    let code = creation_code(include_str!("../../../contracts/artifacts/Openings.json"));
    let other = deploy(&chain.0, &funded(&chain.0, 1), &code);
    assert!(matches!(connect(chain.clone(), Some(other)), Err(ChainError::NotRunLedger { .. })));
    let client = connect(chain.clone(), Some(chain.0.contract())).unwrap();
    let refused = anchor(&client, &head(run.run(), worker.address(), 3), &run, Payer::Device(worker.clone()));
    assert!(matches!(refused, Err(ChainError::DeviceKeyRefused { chain: 1, .. })), "{refused:?}");
}

#[test]
fn the_artifact_belongs_to_the_sources() {
    let contracts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts");
    for (name, expected) in &artifact().sources {
        use sha2::{Digest, Sha256};
        let source = std::fs::read(contracts.join(name)).unwrap();
        let actual = alloy_primitives::hex::encode(Sha256::digest(source));
        assert_eq!(&actual, expected, "{name} changed after the contracts were built: run `make contracts`");
    }
    assert_eq!(artifact().sources.len(), 5);
}

#[test]
fn the_creation_code_leaves_the_code_that_genesis_holds() {
    let chain = DevChain::in_memory();
    let created = chain.call("eth_call", json!([{"data": artifact().bytecode}, "latest"])).unwrap();
    assert_eq!(created, json!(artifact().deployed_bytecode));
    let code = chain.call("eth_getCode", json!([chain.contract()])).unwrap();
    assert_eq!(code, created);
    // EIP-1014 by hand: keccak256(0xff || factory || salt || keccak256(creation code)).
    let factory = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
    let hash = keccak256(&artifact().bytecode);
    let digest = keccak256([&[0xff], factory.as_slice(), B256::ZERO.as_slice(), hash.as_slice()].concat());
    assert_eq!(chain.contract(), Address::from_slice(&digest[12..]));
    assert_eq!(chain.call("eth_chainId", json!([])).unwrap(), json!(U64::from(31337)));
}
