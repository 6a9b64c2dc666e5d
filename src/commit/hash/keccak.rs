//! Keccak-256 of the leaves and nodes of 0G storage.

use super::{Domain, TreeHash};
use crate::primitives::keccak256;

/// 0G storage: Keccak-256 of a leaf, filled up with zeros to 256 bytes, and of `left || right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keccak256;

impl TreeHash for Keccak256 {
    const CHUNK: usize = 256;
    // 0G has no empty files.
    const EMPTY: [u8; 32] = [0; 32];

    fn hash(domain: Domain, messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
        match domain {
            Domain::Leaf => in_lanes::<256>(messages, hashes),
            Domain::Node => in_lanes::<64>(messages, hashes),
        }
    }
}

/// Hashes messages of `SIZE` bytes or fewer, which are filled up with zeros.
fn in_lanes<const SIZE: usize>(messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    #[cfg(target_arch = "x86_64")]
    let done = whole_groups::<SIZE>(messages, hashes);
    for (message, hash) in messages[done..].iter().zip(&mut hashes[done..]) {
        let mut filled = [0; SIZE];
        filled[..message.len()].copy_from_slice(message);
        *hash = keccak256(filled).0;
    }
}

/// Hashes the first messages of exactly `SIZE` bytes, as many as fill all lanes, and returns their
/// number. Only the last leaf of a file is shorter.
#[cfg(target_arch = "x86_64")]
fn whole_groups<const SIZE: usize>(messages: &[&[u8]], hashes: &mut [[u8; 32]]) -> usize {
    use super::keccak_avx512::{LANES, digest};
    use super::{Backend, all, sha256_avx512::Avx512};
    let mut done = 0;
    let Some(backend) = Avx512::detect().filter(|_| Backend::Avx512.allowed()) else { return done };
    for (group, found) in messages.as_chunks::<LANES>().0.iter().zip(hashes.as_chunks_mut().0) {
        let whole: [Option<&[u8; SIZE]>; LANES] = group.map(|message| message.try_into().ok());
        let Some(messages) = all(whole) else { break };
        digest(backend, &messages, found);
        done += LANES;
    }
    done
}
