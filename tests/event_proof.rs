//! Anchors dated by a block that the verifier trusts, from a bundle whose head stands in a block of
//! 151 transactions that another implementation made. What another proof, record or block would
//! gain is tried byte by byte.

mod common;

use std::sync::Arc;

use common::{Run, integrity, read};
use counterfoil::evidence::{AnchorRecord, Bundle, EventProof};
use counterfoil::primitives::{Address, Digest};
use counterfoil::verify::{
    Confirmed, Contents, Judgement, Requirement, Standing, Status, bundle_object_root, unconfirmed,
};

fn record() -> AnchorRecord {
    serde_json::from_str(include_str!("vectors/anchored.json")).unwrap()
}

fn bundle() -> Vec<u8> {
    include_bytes!("vectors/anchored.counterfoil").to_vec()
}

fn trusting(blocks: &[Digest]) -> Judgement {
    let require = Requirement { time: true, ..Requirement::default() };
    Judgement { require, trusted_blocks: blocks.to_vec(), ..integrity() }
}

#[test]
fn a_trusted_block_dates_every_receipt_without_a_network() {
    let record = record();
    let verdict = read(&bundle(), &trusting(&[Digest::ZERO, record.block_hash])).unwrap();
    assert_eq!(verdict.status, Status::Verified, "{verdict:?}");
    assert_eq!((verdict.time.covered, verdict.time.receipts), (5, 5));
    assert!(verdict.time.line.starts_with("all 5 receipts existed by 20"), "{}", verdict.time.line);
    let chain = format!("on the trusted block {} of chain {}", record.block_hash, record.chain_id);
    assert!(verdict.time.line.ends_with(&chain), "{}", verdict.time.line);
    // The contract may be the worker's own and hold a second head of this size.
    assert!(verdict.integrity.line.ends_with("split view: not excluded"), "{}", verdict.integrity.line);
}

#[test]
fn another_block_dates_nothing() {
    let verdict = read(&bundle(), &trusting(&[Digest::repeat_byte(1)])).unwrap();
    assert_eq!(verdict.status, Status::Undecided);
    assert!(verdict.time.line.contains("unconfirmed"), "{}", verdict.time.line);
}

#[test]
fn a_record_that_describes_another_event_is_refused() {
    let record = record();
    let proof = record.proof.clone().unwrap();
    assert_eq!(proof.check(&record), Ok(()));
    for (part, changed) in [
        ("blockHash", AnchorRecord { block_hash: Digest::ZERO, ..record.clone() }),
        ("blockNumber", AnchorRecord { block_number: record.block_number + 1, ..record.clone() }),
        ("blockTime", AnchorRecord { block_time: record.block_time - 1, ..record.clone() }),
        ("event", AnchorRecord { contract: Address::ZERO, ..record.clone() }),
        ("event", AnchorRecord { run: Digest::ZERO, ..record.clone() }),
        ("event", AnchorRecord { worker: Address::ZERO, ..record.clone() }),
        ("event", AnchorRecord { lane: 1, ..record.clone() }),
        ("event", AnchorRecord { index: 0, ..record.clone() }),
        ("event", AnchorRecord { size: 6, ..record.clone() }),
        ("event", AnchorRecord { root: Digest::ZERO, ..record.clone() }),
        ("event", AnchorRecord { head_digest: Digest::ZERO, ..record.clone() }),
    ] {
        let refused = proof.check(&changed).unwrap_err();
        assert_eq!(refused.part, part, "{refused}");
    }
}

#[test]
fn no_byte_of_a_proof_is_free() {
    let record = record();
    let proof = record.proof.clone().unwrap();
    let refuses = |changed: EventProof| changed.check(&record).is_err();
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes.into()
    };
    for at in 0..proof.header.len() {
        assert!(refuses(EventProof { header: flipped(&proof.header, at), ..proof.clone() }), "header {at}");
    }
    for (number, node) in proof.nodes.iter().enumerate() {
        for at in 0..node.len() {
            let mut nodes = proof.nodes.clone();
            nodes[number] = flipped(node, at);
            assert!(refuses(EventProof { nodes, ..proof.clone() }), "node {number} byte {at}");
        }
        let mut nodes = proof.nodes.clone();
        nodes.remove(number);
        assert!(refuses(EventProof { nodes, ..proof.clone() }), "without node {number}");
        let mut nodes = proof.nodes.clone();
        nodes.insert(number, node.clone());
        assert!(refuses(EventProof { nodes, ..proof.clone() }), "node {number} twice");
    }
    for position in (0..200).filter(|position| *position != proof.position) {
        assert!(refuses(EventProof { position, ..proof.clone() }), "position {position}");
    }
    for end in 0..proof.header.len() {
        assert!(refuses(EventProof { header: proof.header.slice(..end), ..proof.clone() }), "cut at {end}");
    }
}

#[test]
fn the_proof_of_another_run_dates_nothing() {
    let record = record();
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.close(0);
    run.sign_head();
    run.anchor(record.block_time);
    let AnchorRecord { contract, block_hash, block_number, ref proof, .. } = record;
    let own = run.anchors[0].clone();
    run.anchors[0] = AnchorRecord { contract, block_hash, block_number, proof: proof.clone(), ..own };
    for judgement in [integrity(), trusting(&[block_hash])] {
        let verdict = read(&run.bundle(), &judgement).unwrap();
        assert_eq!(verdict.status, Status::Refuted);
        assert_eq!(verdict.integrity.broken[0].edge, "anchor 0.json: proof: event");
        assert_eq!(verdict.time.covered, 0);
    }
}

/// The bug: a trusted block takes the place of what a chain said that was asked.
#[test]
fn what_a_chain_said_counts_before_a_trusted_block() {
    let bytes = bundle();
    let opened = Bundle::open(Arc::new(bytes.clone()), bytes.len() as u64).unwrap();
    let judged = |standing: Standing| {
        let said = |record: &AnchorRecord| Confirmed { standing, development: false, ..unconfirmed(record) };
        let contents = Contents::of_bundle(&opened).unwrap();
        let judgement = trusting(&[record().block_hash]);
        contents.verify(&judgement, &said, &|tensor| bundle_object_root(&opened, tensor))
    };
    let held = judged(Standing::Held);
    assert!(held.integrity.split_view.starts_with("excluded by "), "{}", held.integrity.line);
    let denied = judged(Standing::Denied);
    assert_eq!((denied.status, denied.time.covered), (Status::Undecided, 0));
}
