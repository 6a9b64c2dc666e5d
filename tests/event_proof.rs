//! Anchors dated by a block that the verifier trusts, from a bundle whose head stands in a block of
//! 151 transactions that another implementation made. What another proof, record or block would
//! gain is tried byte by byte.

mod common;

use std::sync::Arc;

use common::{Run, integrity, read};
use counterfoil::evidence::{AnchorRecord, Bundle, EventProof};
use counterfoil::primitives::{Address, Digest, keccak256};
use counterfoil::verify::{Confirmed, Contents, Judgement, Requirement, Standing, Status, unconfirmed};

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

/// RLP of a list of encoded items.
fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    alloy_rlp::Header { list: true, payload_length: items.concat().len() }.encode(&mut bytes);
    [bytes, items.concat()].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    alloy_rlp::encode(bytes)
}

fn items(encoded: &[u8]) -> Vec<Vec<u8>> {
    match alloy_rlp::Header::decode_raw(&mut &encoded[..]).unwrap() {
        alloy_rlp::PayloadView::List(items) => items.into_iter().map(<[u8]>::to_vec).collect(),
        alloy_rlp::PayloadView::String(_) => panic!("no list"),
    }
}

/// A block that somebody makes up, with these fields changed: whether its own hash dates the anchor.
fn made_up(fields: &dyn Fn(&mut Vec<Vec<u8>>), nodes: &[Vec<u8>]) -> Result<(), String> {
    let mut record = record();
    let proof = record.proof.as_mut().unwrap();
    let mut header = items(&proof.header);
    if let Some(root) = nodes.first() {
        header[5] = text(keccak256(root).as_slice());
    }
    fields(&mut header);
    proof.header = list(&header).into();
    proof.nodes = nodes.iter().cloned().map(Into::into).collect();
    record.block_hash = keccak256(&proof.header);
    record.proof.as_ref().unwrap().check(&record).map_err(|refused| refused.part.to_string())
}

/// Whoever makes up a block chooses its nodes, so that their hashes stop nothing.
#[test]
fn made_up_nodes_are_refused_and_crash_nothing() {
    let proof = record().proof.unwrap();
    let nodes: Vec<Vec<u8>> = proof.nodes.iter().map(|node| node.to_vec()).collect();
    let receipt = items(nodes.last().unwrap())[1].clone();
    let key = alloy_rlp::encode(proof.position);
    let same = |_: &mut Vec<Vec<u8>>| {};
    let whole = [&[0x20], key.as_slice()].concat();
    let leaf = |prefix: &[u8], value: &[u8]| list(&[text(prefix), value.to_vec()]);
    assert_eq!(made_up(&same, &nodes), Ok(()));
    assert_eq!(made_up(&same, &[leaf(&whole, &receipt)]), Ok(()));
    let end = leaf(&[0x20], &receipt);
    let extension = |path: &[u8]| vec![leaf(path, &text(keccak256(&end).as_slice())), end.clone()];
    assert_eq!(made_up(&same, &extension(&[&[0x00], key.as_slice()].concat())), Ok(()));
    let short = leaf(&[0x31], &receipt);
    let long = vec![leaf(&[0x11; 33], &text(keccak256(&short).as_slice())), short];
    let mut branch = vec![text(&[]); 17];
    let through = |branch: &[Vec<u8>]| vec![list(branch), end.clone()];
    branch[usize::from(key[0] >> 4)] = text(&keccak256(&end)[1..]);
    for (what, nodes) in [
        ("a path longer than any key", long),
        ("no nodes", vec![]),
        ("a leaf before the path ends", vec![leaf(&[0x20], &receipt)]),
        ("a leaf behind the path's end", vec![leaf(&[whole.as_slice(), &[0]].concat(), &receipt)]),
        ("a leaf elsewhere", vec![leaf(&[0x20, key[0] ^ 1], &receipt)]),
        ("an extension elsewhere", extension(&[0x00, key[0] ^ 1])),
        ("a node of no kind", vec![leaf(&[&[0x40], key.as_slice()].concat(), &receipt)]),
        ("a node without a path", vec![leaf(&[], &receipt)]),
        ("a list of three", vec![list(&[text(&whole), receipt.clone(), text(&[])])]),
        ("a string", vec![text(&whole)]),
        ("bytes behind a node", vec![[leaf(&whole, &receipt), vec![0]].concat()]),
        ("a value that is a list", vec![leaf(&whole, &list(&[]))]),
        ("a hash of 31 bytes", through(&branch)),
        ("an empty branch", through(&vec![text(&[]); 17])),
        ("an extension without an end", vec![extension(&[&[0x00], key.as_slice()].concat())[0].clone()]),
        ("a node behind the leaf", vec![leaf(&whole, &receipt), end.clone()]),
    ] {
        assert!(made_up(&same, &nodes).is_err(), "{what}");
    }
}

#[test]
fn made_up_headers_and_receipts_are_refused() {
    let proof = record().proof.unwrap();
    let nodes: Vec<Vec<u8>> = proof.nodes.iter().map(|node| node.to_vec()).collect();
    for (what, part, change) in [
        ("eleven fields", "header", &(|h: &mut Vec<Vec<u8>>| h.truncate(11)) as &dyn Fn(&mut Vec<Vec<u8>>)),
        ("no fields", "header", &|h| h.clear()),
        ("a number of nine bytes", "header", &|h| h[8] = text(&[1; 9])),
        ("a number that is a list", "header", &|h| h[11] = list(&[])),
        ("another number", "blockNumber", &|h| h[8] = text(&[77])),
        ("another time", "blockTime", &|h| h[11] = text(&[77])),
        ("a root of 33 bytes", "header", &|h| h[5] = text(&[1; 33])),
        ("a list and more", "header", &|h| h.last_mut().unwrap().push(0x81)),
    ] {
        assert_eq!(made_up(change, &nodes), Err(part.to_string()), "{what}");
    }
    let key = [&[0x20], alloy_rlp::encode(proof.position).as_slice()].concat();
    let encoded = alloy_rlp::Header::decode_bytes(&mut items(nodes.last().unwrap())[1].as_slice(), false)
        .unwrap()
        .to_vec();
    let fields = items(&encoded[1..]);
    for (what, receipt) in [
        ("three fields", list(&fields[..3])),
        ("five fields", list(&[fields.clone(), vec![text(&[])]].concat())),
        ("no events", list(&[&fields[..3], &[list(&[])]].concat())),
        ("events that are none", list(&[&fields[..3], &[list(&[text(&[1])])]].concat())),
        ("a string", text(&[9; 60])),
        ("nothing", vec![]),
        ("bytes behind it", [encoded.clone(), vec![0]].concat()),
    ] {
        let nodes = [list(&[text(&key), text(&receipt)])];
        assert!(made_up(&|_| {}, &nodes).is_err(), "{what}");
    }
    // Receipts of the first kind of transactions have no type.
    assert_eq!(made_up(&|_| {}, &[list(&[text(&key), text(&encoded[1..])])]), Ok(()));
}

/// A chain that was asked knows better than a block whose contract nobody looked at.
#[test]
fn a_trusted_block_dates_nothing_that_a_chain_denies() {
    let bytes = bundle();
    let bundle = Bundle::open(Arc::new(bytes.clone()), bytes.len() as u64).unwrap();
    let contents = Contents::of_bundle(&bundle).unwrap();
    let denied = |number, record: &AnchorRecord| Confirmed {
        standing: Standing::Denied,
        ..unconfirmed(number, record)
    };
    let verdict = contents.verify(&trusting(&[record().block_hash]), &denied, &|_| None, &|_| None);
    assert_eq!((verdict.status, verdict.time.covered), (Status::Undecided, 0));
    assert!(verdict.time.line.starts_with("none: "), "{}", verdict.time.line);
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
