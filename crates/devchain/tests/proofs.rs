//! The contracts' proofs are those of the Rust core: whatever one accepts, the other accepts.

mod common;

use std::collections::HashMap;

use alloy_primitives::{Address, B256};
use common::{ask, deployed};
use counterfoil::commit::{Sha256, leaf_hash, merkle};
use counterfoil_devchain::DevChain;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use sha2::Digest;

alloy_sol_types::sol! {
    contract Batch {
        struct Inclusion { bytes32 root; uint64 size; bytes32 leaf; uint64 index; bytes32[] proof; }
        struct Consistency { uint64 previousSize; bytes32 previousRoot; uint64 size; bytes32 root; bytes32[] proof; }
        function includes(Inclusion[] calldata questions) external view returns (bool[] memory answers);
        function isConsistent(Consistency[] calldata questions) external view returns (bool[] memory answers);
    }
}
use Batch::{Consistency, Inclusion};

/// Largest tree of which every leaf and every earlier tree is asked for.
const ALL: u64 = 300;

/// The batch contract on a chain of its own; as many questions as fit a block go into one call.
struct Contract {
    chain: DevChain,
    address: Address,
}

impl Contract {
    fn new() -> Contract {
        let (chain, address) = deployed(include_str!("vectors/Rfc9162Batch.json"));
        Contract { chain, address }
    }

    /// Asks both sides; returns how many questions both said yes to.
    fn compare_inclusion(&self, questions: &[Inclusion]) -> usize {
        let mut accepted = 0;
        for questions in questions.chunks(1000) {
            let call = Batch::includesCall { questions: questions.to_vec() };
            let answers = ask(&self.chain, self.address, Address::ZERO, &call).expect("a view");
            for (q, answer) in questions.iter().zip(&answers) {
                let core = merkle::verify_inclusion::<Sha256>(&q.leaf, q.index, q.size, &q.proof, &q.root);
                assert_eq!(*answer, core.is_ok(), "leaf {} of {}: {core:?}", q.index, q.size);
            }
            accepted += answers.iter().filter(|answer| **answer).count();
        }
        accepted
    }

    /// As [`Contract::compare_inclusion`].
    fn compare_consistency(&self, questions: &[Consistency]) -> usize {
        let mut accepted = 0;
        for questions in questions.chunks(700) {
            let call = Batch::isConsistentCall { questions: questions.to_vec() };
            let answers = ask(&self.chain, self.address, Address::ZERO, &call).expect("a view");
            for (q, answer) in questions.iter().zip(&answers) {
                let (m, n) = (q.previousSize, q.size);
                let core = merkle::verify_consistency(m, n, &q.proof, &q.previousRoot, &q.root);
                assert_eq!(*answer, core.is_ok(), "{m} of {n}: {core:?}");
            }
            accepted += answers.iter().filter(|answer| **answer).count();
        }
        accepted
    }
}

/// Roots of runs of leaves, each computed once, and proofs by their definition.
struct Tree {
    roots: HashMap<(u64, u64), B256>,
}

impl Tree {
    fn root(&mut self, begin: u64, end: u64) -> B256 {
        if let Some(root) = self.roots.get(&(begin, end)) {
            return *root;
        }
        let root = if end - begin == 1 {
            leaf_hash(&begin.to_be_bytes())
        } else {
            let middle = begin + split(end - begin);
            node(&self.root(begin, middle), &self.root(middle, end))
        };
        self.roots.insert((begin, end), root);
        root
    }

    /// PATH(index, D[size]) of RFC 9162, 2.1.3.1.
    fn inclusion(&mut self, index: u64, size: u64) -> Vec<B256> {
        let (mut begin, mut end, mut proof) = (0, size, Vec::new());
        while end - begin > 1 {
            let middle = begin + split(end - begin);
            if index < middle {
                proof.push(self.root(middle, end));
                end = middle;
            } else {
                proof.push(self.root(begin, middle));
                begin = middle;
            }
        }
        proof.reverse();
        proof
    }

    /// PROOF(previous, D[size]) of RFC 9162, 2.1.4.1.
    fn consistency(&mut self, previous: u64, size: u64) -> Vec<B256> {
        let (mut begin, mut end, mut proof) = (0, size, Vec::new());
        while end > previous {
            let middle = begin + split(end - begin);
            if previous <= middle {
                proof.push(self.root(middle, end));
                end = middle;
            } else {
                proof.push(self.root(begin, middle));
                begin = middle;
            }
        }
        if begin != 0 {
            proof.push(self.root(begin, end));
        }
        proof.reverse();
        proof
    }
}

/// A turn, a length or a border that is wrong for one size or index up to 300.
#[test]
fn inclusion_is_the_cores_for_every_leaf_of_every_small_tree() {
    let (contract, mut tree, mut questions) = (Contract::new(), Tree { roots: HashMap::new() }, Vec::new());
    for size in 1..=ALL {
        let root = tree.root(0, size);
        for index in 0..size {
            let (leaf, proof) = (tree.root(index, index + 1), tree.inclusion(index, size));
            questions.push(Inclusion { root, size, leaf, index, proof });
        }
    }
    assert_eq!(contract.compare_inclusion(&questions) as u64, ALL * (ALL + 1) / 2);
}

/// The same for growing trees.
#[test]
fn consistency_is_the_cores_for_every_pair_of_small_trees() {
    let (contract, mut tree, mut questions) = (Contract::new(), Tree { roots: HashMap::new() }, Vec::new());
    for size in 1..=ALL {
        for previous in 1..=size {
            questions.push(Consistency {
                previousSize: previous,
                previousRoot: tree.root(0, previous),
                size,
                root: tree.root(0, size),
                proof: tree.consistency(previous, size),
            });
        }
    }
    assert_eq!(contract.compare_consistency(&questions) as u64, ALL * (ALL + 1) / 2);
}

fn node(left: &B256, right: &B256) -> B256 {
    B256::from(<[u8; 32]>::from(sha2::Sha256::digest([&[1], left.as_slice(), right.as_slice()].concat())))
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// A subtree of which nobody needs the leaves.
fn subtree(seed: u64, place: u64, size: u64) -> B256 {
    leaf_hash(&[seed, place, size].map(u64::to_be_bytes).concat())
}

/// PATH of RFC 9162, 2.1.3.1, of a tree of any size, made from its top.
fn inclusion(seed: u64, index: u64, size: u64) -> Inclusion {
    fn climb(seed: u64, leaf: B256, index: u64, size: u64, proof: &mut Vec<B256>) -> B256 {
        if size == 1 {
            return leaf;
        }
        let (left, sibling) = (split(size), subtree(seed, index, size));
        let root = if index < left {
            node(&climb(seed, leaf, index, left, proof), &sibling)
        } else {
            node(&sibling, &climb(seed, leaf, index - left, size - left, proof))
        };
        proof.push(sibling);
        root
    }
    let (leaf, mut proof) = (subtree(seed, 0, 0), Vec::new());
    let root = climb(seed, leaf, index, size, &mut proof);
    Inclusion { root, size, leaf, index, proof }
}

/// SUBPROOF of RFC 9162, 2.1.4.1, of trees of any sizes, made from their top.
fn consistency(seed: u64, previous: u64, size: u64) -> Consistency {
    fn grow(seed: u64, m: u64, n: u64, is_whole: bool, proof: &mut Vec<B256>) -> (B256, B256) {
        let other = subtree(seed, m, n);
        if m == n {
            if !is_whole {
                proof.push(other);
            }
            return (other, other);
        }
        let left = split(n);
        let roots = if m <= left {
            let (old, new) = grow(seed, m, left, is_whole, proof);
            (old, node(&new, &other))
        } else {
            let (old, new) = grow(seed, m - left, n - left, false, proof);
            (node(&other, &old), node(&other, &new))
        };
        proof.push(other);
        roots
    }
    let mut proof = Vec::new();
    let (previous_root, root) = grow(seed, previous, size, true, &mut proof);
    Consistency { previousSize: previous, previousRoot: previous_root, size, root, proof }
}

/// What a liar may try, each with its name.
fn inclusion_lies(honest: &Inclusion, place: usize) -> Vec<(&'static str, Inclusion)> {
    let longer = [&honest.proof[..], &[honest.root]].concat();
    let with_proof = |proof: Vec<B256>| Inclusion { proof, ..honest.clone() };
    let mut lies = vec![
        ("the next index", Inclusion { index: honest.index.wrapping_add(1), ..honest.clone() }),
        ("the index's last bit", Inclusion { index: honest.index ^ 1, ..honest.clone() }),
        ("an index beyond the tree", Inclusion { index: honest.size, ..honest.clone() }),
        ("another size", Inclusion { size: honest.size * 2, ..honest.clone() }),
        ("no size", Inclusion { size: 0, ..honest.clone() }),
        ("another root", Inclusion { root: B256::ZERO, ..honest.clone() }),
        ("a longer proof", with_proof(longer)),
    ];
    if let Some((sibling, rest)) = honest.proof.split_first() {
        let first = match honest.index % 2 {
            0 if honest.index + 1 != honest.size => node(&honest.leaf, sibling),
            _ => node(sibling, &honest.leaf),
        };
        let inner =
            Inclusion { leaf: first, index: honest.index / 2, proof: rest.to_vec(), ..honest.clone() };
        lies.push(("an inner node for a leaf", inner));
        lies.push(("a shorter proof", with_proof(honest.proof[..honest.proof.len() - 1].to_vec())));
        lies.extend(rotated(&honest.proof, place).map(|proof| ("swapped siblings", with_proof(proof))));
    }
    lies
}

/// The hashes in another order; none when that changes nothing.
fn rotated(proof: &[B256], place: usize) -> Option<Vec<B256>> {
    let mut rotated = proof.to_vec();
    rotated.rotate_left((1 + place % proof.len()) % proof.len());
    (rotated != proof).then_some(rotated)
}

fn consistency_lies(honest: &Consistency, place: usize) -> Vec<(&'static str, Consistency)> {
    let with_proof = |proof: Vec<B256>| Consistency { proof, ..honest.clone() };
    let mut lies = vec![
        ("from nothing", Consistency { previousSize: 0, ..honest.clone() }),
        ("another previous root", Consistency { previousRoot: B256::ZERO, ..honest.clone() }),
        ("another root", Consistency { root: B256::ZERO, ..honest.clone() }),
        ("a longer proof", with_proof([&honest.proof[..], &[honest.root]].concat())),
    ];
    if !honest.proof.is_empty() {
        let (size, previous) = (honest.previousSize, honest.size);
        lies.push(("the sizes swapped", Consistency { size, previousSize: previous, ..honest.clone() }));
        lies.push(("a shorter proof", with_proof(honest.proof[..honest.proof.len() - 1].to_vec())));
        lies.push(("a proof without its first", with_proof(honest.proof[1..].to_vec())));
        lies.extend(rotated(&honest.proof, place).map(|proof| ("swapped hashes", with_proof(proof))));
    }
    lies
}

/// Sizes up to 2^40, mostly near powers of two, where the shapes change.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..=1u64 << 40,
        (0..=40u32, -3..=3i64)
            .prop_map(|(power, offset)| (1i64 << power).saturating_add(offset).max(1) as u64)
    ]
    .prop_map(|size| size.min(1 << 40))
}

/// A shift or a number of bits that only a large tree shows; a lie that only one side refuses.
#[test]
fn proofs_of_large_trees_are_the_cores_and_lies_are_refused() {
    let contract = Contract::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut honest, mut lies) = (Vec::new(), Vec::new());
    let (mut grown, mut grown_lies) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let case = (size(), any::<u64>(), any::<u64>(), 0..64usize);
        let (size, choice, seed, place) = case.new_tree(&mut runner).expect("any numbers").current();
        let question = inclusion(seed, choice % size, size);
        lies.extend(inclusion_lies(&question, place));
        honest.push(question);
        let question = consistency(seed, 1 + choice % size, size);
        grown_lies.extend(consistency_lies(&question, place));
        grown.push(question);
    }
    assert_eq!(contract.compare_inclusion(&honest), honest.len());
    assert_eq!(contract.compare_consistency(&grown), grown.len());
    for (name, lie) in &lies {
        let core = merkle::verify_inclusion::<Sha256>(&lie.leaf, lie.index, lie.size, &lie.proof, &lie.root);
        assert!(core.is_err(), "{name}: leaf {} of {}", lie.index, lie.size);
    }
    let lies: Vec<Inclusion> = lies.into_iter().map(|(_, lie)| lie).collect();
    assert_eq!(contract.compare_inclusion(&lies), 0);
    for (name, lie) in &grown_lies {
        let (m, n) = (lie.previousSize, lie.size);
        let core = merkle::verify_consistency(m, n, &lie.proof, &lie.previousRoot, &lie.root);
        assert!(core.is_err(), "{name}: {m} of {n}");
    }
    let lies: Vec<Consistency> = grown_lies.into_iter().map(|(_, lie)| lie).collect();
    assert_eq!(contract.compare_consistency(&lies), 0);
}
