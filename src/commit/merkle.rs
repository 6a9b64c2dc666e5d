//! Inclusion and consistency proofs, and trees that grow (RFC 9162, section 2.1).
//!
//! A proof is only meaningful together with the tree's size: the same three siblings can verify at
//! many (index, size) pairs. Every function here therefore takes both, and a proof must have
//! exactly the length that they determine.

use super::sha256::{Sha2, node_hash, root_of};
use crate::primitives::{Digest, Report};

/// Why a proof was refused or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum ProofError {
    /// The leaf's position lies outside the tree.
    #[error("leaf index {index} is outside a tree of {size} leaves")]
    IndexOutOfRange { index: u64, size: u64 },
    /// Consistency is defined for 0 < m <= n only.
    #[error("a consistency proof needs 0 < m <= n, found m = {m}, n = {n}")]
    Sizes { m: u64, n: u64 },
    /// The proof has the wrong number of hashes for these positions and sizes.
    #[error("this proof must have {expected} hashes, found {actual}")]
    WrongLength { expected: usize, actual: usize },
    /// The hashes lead to another root.
    #[error("the proof leads to root {actual}, expected {expected}")]
    RootMismatch { expected: Digest, actual: Digest },
    /// An opening holds something else than it claims.
    #[error("the opening is refused: {detail}")]
    Opening { detail: String },
}

impl Report for ProofError {
    fn code(&self) -> &'static str {
        "proof"
    }

    fn expected(&self) -> Option<String> {
        match self {
            ProofError::WrongLength { expected, .. } => Some(expected.to_string()),
            ProofError::RootMismatch { expected, .. } => Some(expected.to_string()),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            ProofError::WrongLength { actual, .. } => Some(actual.to_string()),
            ProofError::RootMismatch { actual, .. } => Some(actual.to_string()),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            ProofError::IndexOutOfRange { index, size } => Some(format!("leaf {index} of {size}")),
            ProofError::Sizes { m, n } => Some(format!("sizes {m} and {n}")),
            _ => None,
        }
    }
}

/// The root of the tree over `hashes`, which are leaf hashes.
pub fn root(hashes: &[Digest]) -> Digest {
    root_of(&Sha2, hashes.to_vec())
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The siblings on the way from leaf `index` up to the root (2.1.3.1).
///
/// # Errors
/// [`ProofError::IndexOutOfRange`].
pub fn inclusion_proof(hashes: &[Digest], index: u64) -> Result<Vec<Digest>, ProofError> {
    let size = hashes.len() as u64;
    if index >= size {
        return Err(ProofError::IndexOutOfRange { index, size });
    }
    let (mut range, mut index, mut proof) = (hashes, index, Vec::new());
    while range.len() > 1 {
        let (left, right) = range.split_at(split(range.len() as u64) as usize);
        if index < left.len() as u64 {
            proof.push(root(right));
            range = left;
        } else {
            proof.push(root(left));
            index -= left.len() as u64;
            range = right;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the leaf hash stands at `index` in the tree of `size` leaves with this root (2.1.3.2).
///
/// # Errors
/// [`ProofError::IndexOutOfRange`], [`ProofError::WrongLength`], [`ProofError::RootMismatch`].
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutOfRange { index, size });
    }
    // From the top: whether the leaf lies right of each split on its way.
    let (mut position, mut extent, mut sides) = (index, size, Vec::new());
    while extent > 1 {
        let left = split(extent);
        let is_right = position >= left;
        sides.push(is_right);
        (position, extent) = if is_right { (position - left, extent - left) } else { (position, left) };
    }
    if proof.len() != sides.len() {
        return Err(ProofError::WrongLength { expected: sides.len(), actual: proof.len() });
    }
    let actual = sides.iter().rev().zip(proof).fold(*leaf, |hash, (is_right, sibling)| {
        if *is_right { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) }
    });
    same_root(root, actual)
}

fn same_root(expected: &Digest, actual: Digest) -> Result<(), ProofError> {
    if actual != *expected {
        return Err(ProofError::RootMismatch { expected: *expected, actual });
    }
    Ok(())
}

/// The hashes that show the tree of the first `m` leaves to be a prefix of this one (2.1.4.1).
///
/// # Errors
/// [`ProofError::Sizes`] unless `0 < m <= n`.
pub fn consistency_proof(hashes: &[Digest], m: u64) -> Result<Vec<Digest>, ProofError> {
    let n = hashes.len() as u64;
    if m == 0 || m > n {
        return Err(ProofError::Sizes { m, n });
    }
    let (mut range, mut m, mut whole, mut proof) = (hashes, m, true, Vec::new());
    while m < range.len() as u64 {
        let (left, right) = range.split_at(split(range.len() as u64) as usize);
        if m <= left.len() as u64 {
            proof.push(root(right));
            range = left;
        } else {
            proof.push(root(left));
            m -= left.len() as u64;
            range = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root(range));
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the tree (m, `root_m`) is a prefix of the tree (n, `root_n`) (2.1.4.2).
///
/// # Errors
/// [`ProofError::Sizes`], [`ProofError::WrongLength`], [`ProofError::RootMismatch`].
pub fn verify_consistency(
    m: u64,
    n: u64,
    proof: &[Digest],
    root_m: &Digest,
    root_n: &Digest,
) -> Result<(), ProofError> {
    if m == 0 || m > n {
        return Err(ProofError::Sizes { m, n });
    }
    // From the top: the splits at which the edge of the first tree lies to the right, or not.
    let (mut edge, mut extent, mut sides) = (m, n, Vec::new());
    while edge < extent {
        let left = split(extent);
        let is_right = edge > left;
        sides.push(is_right);
        (edge, extent) = if is_right { (edge - left, extent - left) } else { (edge, left) };
    }
    // The subtree at the edge is the whole first tree, or its hash is the proof's first element.
    let is_whole = !sides.contains(&true);
    let expected = sides.len() + usize::from(!is_whole);
    if proof.len() != expected {
        return Err(ProofError::WrongLength { expected, actual: proof.len() });
    }
    let (start, siblings) = if is_whole { (*root_m, proof) } else { (proof[0], &proof[1..]) };
    let (mut old, mut new) = (start, start);
    for (is_right, sibling) in sides.iter().rev().zip(siblings) {
        if *is_right {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
        } else {
            new = node_hash(&new, sibling);
        }
    }
    same_root(root_m, old)?;
    same_root(root_n, new)
}

/// A tree that grows leaf by leaf and keeps only the roots of its full subtrees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    subtrees: Vec<Digest>,
}

impl CompactRange {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.subtrees.pop().expect("one full subtree per set bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// The root of the tree as it stands.
    pub fn root(&self) -> Digest {
        let joined = self.subtrees.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        joined.unwrap_or_else(|| root(&[]))
    }
}
