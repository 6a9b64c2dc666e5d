//! Proofs against trees that are known: whatever is accepted is true.

use std::sync::LazyLock;

use counterfoil::commit::{Keccak256, Sha256, leaf_hash, merkle};
use counterfoil::primitives::Digest;
use counterfoil::storage::{self, SEGMENT, StorageRoot};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

fn leaves(count: u64) -> Vec<Digest> {
    (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

/// The proof, with changes that the input chooses.
fn changed(input: &mut Unstructured, mut proof: Vec<Digest>) -> Result<Vec<Digest>> {
    for _ in 0..input.int_in_range(0..=3)? {
        let place = input.int_in_range(0..=proof.len())?;
        match input.int_in_range(0..=3)? {
            0 => proof.insert(place, Digest::new(input.arbitrary()?)),
            1 if place < proof.len() => proof[place] = Digest::new(input.arbitrary()?),
            2 if place < proof.len() => drop(proof.remove(place)),
            3 if place < proof.len() => {
                proof[place].0[input.int_in_range(0..=31)?] ^= input.arbitrary::<u8>()?
            }
            _ => {}
        }
    }
    Ok(proof)
}

pub fn inclusion(bytes: &[u8]) {
    let _ = try_inclusion(Unstructured::new(bytes));
}

fn try_inclusion(mut input: Unstructured) -> Result<()> {
    let leaves = leaves(input.int_in_range(1..=70)?);
    let (size, root) = (leaves.len() as u64, merkle::root(&leaves));
    let place = input.int_in_range(0..=size - 1)?;
    let proof = merkle::inclusion_proof::<Sha256>(&leaves, place).expect("the index lies inside");
    let leaf = leaves[place as usize];
    assert_eq!(merkle::verify_inclusion::<Sha256>(&leaf, place, size, &proof, &root), Ok(()));
    let proof = changed(&mut input, proof)?;
    let index = input.int_in_range(0..=size)?;
    if merkle::verify_inclusion::<Sha256>(&leaf, index, size, &proof, &root).is_ok() {
        assert_eq!(index, place, "a leaf verifies where it does not stand");
    }
    // Any numbers at all: refused or not, but answered.
    let (index, size) = (input.arbitrary()?, input.arbitrary()?);
    let _ = merkle::verify_inclusion::<Keccak256>(&leaf, index, size, &proof, &root);
    Ok(())
}

pub fn consistency(bytes: &[u8]) {
    let _ = try_consistency(Unstructured::new(bytes));
}

fn try_consistency(mut input: Unstructured) -> Result<()> {
    let leaves = leaves(input.int_in_range(1..=70)?);
    let (n, root) = (leaves.len() as u64, merkle::root(&leaves));
    let m = input.int_in_range(1..=n)?;
    let old = merkle::root(&leaves[..m as usize]);
    let proof = merkle::consistency_proof(&leaves, m).expect("0 < m <= n");
    assert_eq!(merkle::verify_consistency(m, n, &proof, &old, &root), Ok(()));
    let proof = changed(&mut input, proof)?;
    let claimed = match input.arbitrary()? {
        true => Digest::new(input.arbitrary()?),
        false => merkle::root(&leaves[..input.int_in_range(0..=leaves.len())?]),
    };
    if merkle::verify_consistency(m, n, &proof, &claimed, &root).is_ok() {
        assert_eq!(claimed, old, "another tree passes for a prefix");
    }
    let (m, n) = (input.arbitrary()?, input.arbitrary()?);
    let _ = merkle::verify_consistency(m, n, &proof, &claimed, &root);
    Ok(())
}

pub fn tree_seeds() -> Vec<Vec<u8>> {
    // A count, a place, changes; the numbers are taken modulo what is possible.
    [[0u8; 40], [12; 40], [64; 40], [255; 40], [37; 40]].map(|seed| seed.to_vec()).to_vec()
}

/// Two whole segments and a part of a third.
static FILE: LazyLock<(Vec<u8>, StorageRoot)> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..2 * SEGMENT as u32 + 700).map(|index| (index >> 8) as u8).collect();
    let root = StorageRoot::of_bytes(&bytes, &mut |_| true).expect("not empty").expect("no watch stops it");
    (bytes, root)
});

pub fn storage(bytes: &[u8]) {
    let _ = try_storage(Unstructured::new(bytes));
}

fn try_storage(mut input: Unstructured) -> Result<()> {
    let (file, known) = &*FILE;
    // The last segment is short, and hashed quickly.
    let place = if input.ratio(1, 50)? { input.int_in_range(0..=1)? } else { 2u64 };
    let (lemma, mut path) = known.segment_proof(place).expect("there are three segments");
    let lemma = changed(&mut input, lemma)?;
    for _ in 0..input.int_in_range(0..=2)? {
        match input.int_in_range(0..=2)? {
            0 => path.push(input.arbitrary()?),
            1 => drop(path.pop()),
            _ => path.iter_mut().for_each(|turn| *turn = !*turn),
        }
    }
    let begin = place as usize * SEGMENT;
    let original = &file[begin..file.len().min(begin + SEGMENT)];
    let mut segment = original.to_vec();
    if input.arbitrary()? {
        let at = input.int_in_range(0..=segment.len() - 1)?;
        segment[at] ^= input.arbitrary::<u8>()?;
    }
    let (index, length) = match input.arbitrary()? {
        true => (place, known.length),
        false => (input.arbitrary()?, input.arbitrary()?),
    };
    let answer = storage::verify_segment(&segment, index, (&lemma, &path), &known.root, length);
    if answer.is_ok() && length == known.length {
        assert!(index == place && segment == original, "bytes verify that are not the file's");
    }
    let _ = storage::verify_segment(input.bytes(input.len())?, index, (&[], &[]), &known.root, length);
    Ok(())
}

pub fn storage_seeds() -> Vec<Vec<u8>> {
    [[0u8; 64], [1; 64], [2; 64], [255; 64]].map(|seed| seed.to_vec()).to_vec()
}
