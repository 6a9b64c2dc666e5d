//! Keccak-256 of the leaves and nodes of 0G storage.

use super::{Backend, Domain, TreeHash};

/// 0G storage: Keccak-256 of a leaf, filled up with zeros to 256 bytes, and of `left || right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keccak256;

/// Bytes that one permutation absorbs.
pub(super) const RATE: usize = 136;
/// Words of a block.
pub(super) const WORDS: usize = RATE / 8;

impl TreeHash for Keccak256 {
    const CHUNK: usize = 256;
    // 0G has no empty files.
    const EMPTY: [u8; 32] = [0; 32];

    fn hash(domain: Domain, messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
        match domain {
            Domain::Leaf => in_lanes::<256, 2>(messages, hashes),
            Domain::Node => in_lanes::<64, 1>(messages, hashes),
        }
    }
}

/// Hashes messages of `SIZE` bytes, filled up with zeros, that make `BLOCKS` blocks.
fn in_lanes<const SIZE: usize, const BLOCKS: usize>(messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if let Some(backend) = super::sha256_avx512::Avx512::detect().filter(|_| Backend::Avx512.allowed()) {
        use super::keccak_avx512::{LANES, digest};
        for (group, found) in messages.as_chunks().0.iter().zip(hashes.as_chunks_mut().0) {
            digest(backend, &group.map(padded::<SIZE, BLOCKS>), found);
        }
        done = messages.len() - messages.len() % LANES;
    }
    for (message, hash) in messages[done..].iter().zip(&mut hashes[done..]) {
        let mut filled = [0; SIZE];
        filled[..message.len()].copy_from_slice(message);
        *hash = crate::primitives::keccak256(filled).0;
    }
}

/// The message as the blocks that Keccak absorbs, with the padding of Ethereum's Keccak-256.
#[cfg(target_arch = "x86_64")]
fn padded<const SIZE: usize, const BLOCKS: usize>(message: &[u8]) -> [[u8; RATE]; BLOCKS] {
    let mut blocks = [[0; RATE]; BLOCKS];
    let bytes = blocks.as_flattened_mut();
    bytes[..message.len()].copy_from_slice(message);
    bytes[SIZE] ^= 0x01;
    bytes[BLOCKS * RATE - 1] ^= 0x80;
    blocks
}
