//! Every backend, every division and every file gives the tree that a few plain lines give.
//!
//! `make sanitize` runs these under AddressSanitizer, which sees a load beside a buffer.

use std::io::Write;

use counterfoil::commit::merkle::CompactRange;
use counterfoil::commit::{
    Backend, CHUNK, Domain, Halt, Keccak256, Sha256, Shard, TreeHash, bytes_root, merge_shards, read_ranges,
    roots,
};
use counterfoil::primitives::{Digest, keccak256, sha256};
use counterfoil::storage::{SEGMENT, StorageRoot, padded_chunks, verify_segment};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// RFC 9162, section 2.1.1, as it is written there.
fn reference(leaves: &[Digest], node: fn(Digest, Digest) -> Digest) -> Digest {
    match leaves {
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node(reference(left, node), reference(right, node))
        }
    }
}

fn sha256_reference(data: &[u8]) -> Digest {
    let leaves: Vec<Digest> = data.chunks(CHUNK).map(|chunk| sha256(&[&[0], chunk])).collect();
    match leaves.is_empty() {
        true => sha256(&[]),
        false => reference(&leaves, |left, right| sha256(&[&[1], left.as_slice(), right.as_slice()])),
    }
}

fn keccak_reference(data: &[u8]) -> Digest {
    let mut leaves: Vec<Digest> = Vec::new();
    for chunk in data.chunks(256) {
        let mut filled = [0; 256];
        filled[..chunk.len()].copy_from_slice(chunk);
        leaves.push(keccak256(filled));
    }
    leaves.resize(padded_chunks(data.len() as u64) as usize, keccak256([0; 256]));
    reference(&leaves, |left, right| keccak256([left.0, right.0].as_flattened()))
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(next).collect()
}

/// What a message shorter or longer than a lane expects would break: lengths at every block border,
/// all in one call, so that lanes of one group end at different blocks.
#[test]
fn every_backend_hashes_messages_of_every_length() {
    let noise = noise(3000);
    let messages: Vec<&[u8]> = (0..1400).map(|length| &noise[length % 67..length % 67 + length]).collect();
    for backend in Backend::available() {
        Backend::force(Some(backend));
        for (domain, prefix) in [(Domain::Leaf, 0), (Domain::Node, 1)] {
            let mut hashes = vec![[0; 32]; messages.len()];
            Sha256::hash(domain, &messages, &mut hashes);
            for (message, hash) in messages.iter().zip(&hashes) {
                assert_eq!(*hash, sha256(&[&[prefix], message]).0, "{backend:?}, {} bytes", message.len());
            }
        }
        // Sixteen messages of one length that is not a leaf's.
        for length in [1023, 1025, 1030, 1087, 1088] {
            let mut hashes = [[0; 32]; 16];
            Sha256::hash(Domain::Leaf, &[&noise[..length]; 16], &mut hashes);
            assert_eq!(hashes, [sha256(&[&[0], &noise[..length]]).0; 16], "{backend:?}, {length} bytes");
        }
    }
    Backend::force(None);
}

/// A backend that mixes up lanes, levels or tails gives another root at some size or alignment.
#[test]
fn every_backend_gives_the_reference_roots() {
    let noise = noise(80_000);
    let cases = (0..64usize, prop_oneof![0..3000usize, 0..70_000usize], any::<bool>());
    for backend in Backend::available() {
        Backend::force(Some(backend));
        let run = |(offset, size, whole): (usize, usize, bool)| {
            let size = if whole { size / CHUNK * CHUNK } else { size };
            // A buffer of its own, so that a sanitizer sees its ends.
            let data = noise[offset..offset + size].to_vec();
            prop_assert_eq!(bytes_root(&data), sha256_reference(&data));
            if size > 0 {
                let found = StorageRoot::of_bytes(&data, &mut |_| true).unwrap().unwrap();
                prop_assert_eq!(found.root, keccak_reference(&data));
            }
            Ok(())
        };
        TestRunner::new(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 5000 }))
            .run(&cases, run)
            .unwrap();
    }
    Backend::force(None);
}

/// Small tensors share batches: one must not get the leaves of its neighbour.
#[test]
fn tensors_hashed_together_keep_their_own_roots() {
    let noise = noise(60_000);
    let cases = prop::collection::vec(
        (0..40_000usize, prop_oneof![0..40usize, 0..1100usize, 0..20_000usize]),
        0..300,
    );
    let run = |sizes: Vec<(usize, usize)>| {
        let tensors: Vec<&[u8]> = sizes.iter().map(|(start, size)| &noise[*start..start + size]).collect();
        let expected: Vec<Digest> = tensors.iter().map(|data| sha256_reference(data)).collect();
        prop_assert_eq!(roots(&tensors), expected);
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(24)).run(&cases, run).unwrap();
}

/// More than one batch and the pool: batches joined in another order than the bytes' are seen.
#[test]
fn large_tensors_and_files_have_the_reference_root() {
    let noise = noise((5 << 20) + 4321);
    assert_eq!(bytes_root(&noise), sha256_reference(&noise));
    assert_eq!(StorageRoot::of_bytes(&noise, &mut |_| true).unwrap().unwrap().root, keccak_reference(&noise));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&noise).unwrap();
    let (size, found) = counterfoil::files::ranges::<Sha256>(file.path(), &mut |_| true).unwrap().unwrap();
    assert_eq!((size, CompactRange::joined(found).root()), (noise.len() as u64, bytes_root(&noise)));
}

#[test]
fn the_watch_stops_the_work_and_errors_of_reading_come_through() {
    let mut calls = 0;
    let mut watch = |done| {
        calls += 1;
        assert!(done > 0);
        false
    };
    let stopped = read_ranges::<Sha256>(1 << 50, &|_, _| Ok(()), &mut watch);
    assert!(matches!(stopped, Err(Halt::Stopped)));
    assert_eq!(calls, 1, "a watch that said no is not asked again");
    let broken = |_: &mut [u8], offset| match offset {
        0 => Ok(()),
        _ => Err(std::io::Error::other("a bad sector")),
    };
    let found = read_ranges::<Sha256>(10 << 20, &broken, &mut |_| true);
    assert!(matches!(found, Err(Halt::Read(error)) if error.to_string() == "a bad sector"));
    // A size that nothing has must not be allocated for.
    assert!(matches!(read_ranges::<Sha256>(u64::MAX, &broken, &mut |_| true), Err(Halt::Read(_))));
}

/// Shards cut anywhere, also inside one chunk, in any order, through their encoding.
#[test]
fn random_divisions_give_one_root() {
    let noise = noise(20_000);
    let cases = (0..20_000usize, prop::collection::vec(0..20_000usize, 0..12), any::<u64>());
    let run = |(size, mut cuts, order): (usize, Vec<usize>, u64)| {
        let data = &noise[..size];
        cuts.retain(|cut| *cut <= size);
        cuts.extend([0, size]);
        cuts.sort_unstable();
        let shard = |pair: &[usize]| {
            let shard = Shard::new(&data[pair[0]..pair[1]], pair[0] as u64, &mut |_| true).unwrap().unwrap();
            assert_eq!(Shard::decode(&shard.encode()).as_ref(), Ok(&shard));
            shard
        };
        let mut shards: Vec<Shard> = cuts.windows(2).map(shard).collect();
        let count = shards.len();
        shards.rotate_left(order as usize % count);
        let merged = merge_shards(&shards).unwrap();
        prop_assert_eq!((merged.root, merged.size), (sha256_reference(data), size as u64));
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(500)).run(&cases, run).unwrap();
}

/// The parser of shards gets anything, above all encodings with some bytes changed.
#[test]
fn no_bytes_crash_the_shard_parser() {
    let whole = Shard::new(&noise(5000), 700, &mut |_| true).unwrap().unwrap().encode();
    let cases = (prop::collection::vec((0..whole.len(), any::<u8>()), 0..6), 0..=whole.len());
    let run = |(changes, length): (Vec<(usize, u8)>, usize)| {
        let mut bytes = whole.clone();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        bytes.truncate(length);
        if let Ok(shard) = Shard::decode(&bytes) {
            prop_assert_eq!(shard.encode(), bytes);
            let _ = merge_shards(&[shard]);
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(2000)).run(&cases, run).unwrap();
}

#[test]
fn every_segment_is_proved_and_no_other() {
    let noise = noise(9 * SEGMENT + 77);
    let whole = StorageRoot::of_bytes(&noise, &mut |_| true).unwrap().unwrap();
    for (index, segment) in noise.chunks(SEGMENT).enumerate() {
        let (lemma, path) = whole.segment_proof(index as u64).unwrap();
        for claimed in 0..11 {
            let found = verify_segment(segment, claimed, (&lemma, &path), &whole.root, whole.length);
            assert_eq!(found.is_ok(), claimed == index as u64, "segment {index} at {claimed}: {found:?}");
        }
    }
}

/// An implementer who mixes up the hashes' roles would give an empty 0G tree a root.
#[test]
fn an_empty_file_has_no_storage_root() {
    assert!(StorageRoot::of_bytes(&[], &mut |_| true).is_err());
    assert_eq!(Keccak256::CHUNK, 256);
}
