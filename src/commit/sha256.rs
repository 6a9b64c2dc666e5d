//! SHA-256 of tree leaves and nodes: the hot loop of the library.
//!
//! A leaf is the prefix byte, 1,024 bytes of data and padding: exactly 17 blocks. The prefix shifts
//! the data by one byte, so the 15 blocks in the middle lie in the data as they are; only the first
//! and the last are put together. Calling the compression function on them directly saves the
//! copying and bookkeeping of a general hasher, which costs a third of the time at this leaf size.

use sha2::block_api::compress256;

use crate::primitives::Digest;

/// Bytes of data under one leaf.
pub const CHUNK: usize = 1024;

/// Something that hashes many leaves and nodes; faster ones come beside the portable one.
pub(super) trait Backend: Sync {
    /// Appends the leaf hash of each [`CHUNK`] of `data`, the last of which may be shorter.
    fn leaves(&self, data: &[u8], hashes: &mut Vec<Digest>);
    /// Replaces each pair by its parent; a last node without partner moves up as it is.
    fn parents(&self, level: &mut Vec<Digest>);
}

/// The sha2 crate's compression function, which uses the processor's SHA instructions itself.
pub(super) struct Sha2;

const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const BLOCK: usize = 64;

/// The digest after these runs of blocks.
fn compress(runs: &[&[[u8; BLOCK]]]) -> Digest {
    let mut state = INITIAL;
    for blocks in runs {
        compress256(&mut state, blocks);
    }
    let mut digest = Digest::ZERO;
    for (bytes, word) in digest.0.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

impl Backend for Sha2 {
    fn leaves(&self, data: &[u8], hashes: &mut Vec<Digest>) {
        let (mut first, mut last) = ([[0; BLOCK]], [[0; BLOCK]]);
        last[0][1] = 0x80;
        last[0][BLOCK - 8..].copy_from_slice(&(8 * (1 + CHUNK as u64)).to_be_bytes());
        let (chunks, rest) = data.as_chunks::<CHUNK>();
        for chunk in chunks {
            first[0][1..].copy_from_slice(&chunk[..BLOCK - 1]);
            last[0][0] = chunk[CHUNK - 1];
            let (middle, _) = chunk[BLOCK - 1..CHUNK - 1].as_chunks::<BLOCK>();
            hashes.push(compress(&[&first, middle, &last]));
        }
        if !rest.is_empty() {
            hashes.push(leaf_hash(rest));
        }
    }

    fn parents(&self, level: &mut Vec<Digest>) {
        let mut blocks = [[0; BLOCK]; 2];
        blocks[0][0] = 1;
        blocks[1][1] = 0x80;
        blocks[1][BLOCK - 8..].copy_from_slice(&(8 * 65u64).to_be_bytes());
        let pairs = level.len() / 2;
        for pair in 0..pairs {
            let bytes = blocks.as_flattened_mut();
            bytes[1..33].copy_from_slice(&level[2 * pair].0);
            bytes[33..65].copy_from_slice(&level[2 * pair + 1].0);
            level[pair] = compress(&[&blocks]);
        }
        if level.len() % 2 == 1 {
            level[pairs] = level[level.len() - 1];
        }
        level.truncate(level.len().div_ceil(2));
    }
}

/// The hash of a leaf of any length: `SHA-256(0x00 || leaf)`.
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    crate::primitives::sha256(&[&[0], leaf])
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    crate::primitives::sha256(&[&[1], left.as_slice(), right.as_slice()])
}

/// The root above these leaf hashes; the empty list's root is `SHA-256("")`.
///
/// Joining neighbours level by level and lifting a last node without partner gives the tree of
/// RFC 9162, whose left subtree is always the largest full one.
pub(super) fn root_of(backend: &dyn Backend, mut level: Vec<Digest>) -> Digest {
    if level.is_empty() {
        return crate::primitives::sha256(&[]);
    }
    while level.len() > 1 {
        backend.parents(&mut level);
    }
    level[0]
}
