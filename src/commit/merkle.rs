//! Inclusion and consistency proofs, and trees that grow (RFC 9162, section 2.1).
//!
//! A proof is only meaningful together with the tree's size: the same three siblings can verify at
//! many (index, size) pairs. Every function here therefore takes both, and a proof must have
//! exactly the length that they determine.

use std::marker::PhantomData;

use super::hash::{Domain, Sha256, TreeHash};
use crate::primitives::{Digest, Reader, Report, Truncated};

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
    root_of::<Sha256>(hashes)
}

fn root_of<H: TreeHash>(hashes: &[Digest]) -> Digest {
    let hashes: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
    CompactRange::<H>::over([(0, hashes.len())].into_iter(), hashes)[0].root()
}

/// The largest power of two below `size`, which is at least 2.
pub(super) fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The siblings on the way from leaf `index` up to the root (2.1.3.1).
///
/// # Errors
/// [`ProofError::IndexOutOfRange`].
pub fn inclusion_proof<H: TreeHash>(hashes: &[Digest], index: u64) -> Result<Vec<Digest>, ProofError> {
    let size = hashes.len() as u64;
    if index >= size {
        return Err(ProofError::IndexOutOfRange { index, size });
    }
    let (mut range, mut index, mut proof) = (hashes, index, Vec::new());
    while range.len() > 1 {
        let (left, right) = range.split_at(split(range.len() as u64) as usize);
        if index < left.len() as u64 {
            proof.push(root_of::<H>(right));
            range = left;
        } else {
            proof.push(root_of::<H>(left));
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
pub fn verify_inclusion<H: TreeHash>(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutOfRange { index, size });
    }
    let turns = right_turns(index, size);
    if proof.len() != turns.len() {
        return Err(ProofError::WrongLength { expected: turns.len(), actual: proof.len() });
    }
    let actual = turns.zip(proof).fold(*leaf, |hash, (is_right, sibling)| {
        if is_right { pair::<H>(sibling, &hash) } else { pair::<H>(&hash, sibling) }
    });
    same_root(root, actual)
}

/// Whether each node on the way up from leaf `index`, which lies below `size`, is a right child.
pub(crate) fn right_turns(index: u64, size: u64) -> impl ExactSizeIterator<Item = bool> {
    // From the top: whether the leaf lies right of each split on its way.
    let (mut position, mut extent, mut sides) = (index, size, Vec::new());
    while extent > 1 {
        let left = split(extent);
        let is_right = position >= left;
        sides.push(is_right);
        (position, extent) = if is_right { (position - left, extent - left) } else { (position, left) };
    }
    sides.into_iter().rev()
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

/// Some consecutive leaves of a tree, by the roots of the largest full subtrees that tile them.
///
/// One that begins at leaf 0 is a tree that can grow; neighbours join to one range, so a tree can be
/// hashed in parts, in any order, by anyone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompactRange<H = Sha256> {
    begin: u64,
    end: u64,
    /// From left to right, each with its height.
    subtrees: Vec<(u32, Digest)>,
    hash: PhantomData<H>,
}

impl<H> Default for CompactRange<H> {
    fn default() -> Self {
        CompactRange::from(0)
    }
}

impl<H> From<u64> for CompactRange<H> {
    /// No leaves yet, the next one has this index.
    fn from(begin: u64) -> Self {
        CompactRange { begin, end: begin, subtrees: Vec::new(), hash: PhantomData }
    }
}

impl<H: TreeHash> CompactRange<H> {
    /// The index behind the last leaf; for a tree from leaf 0 its size.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// The index of the first leaf.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// Number of leaves.
    pub fn count(&self) -> u64 {
        self.end - self.begin
    }

    /// Appends the subtrees' roots, from left to right; their heights follow from begin and count.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.subtrees.iter().flat_map(|(_, root)| root.0));
    }

    /// Reads what [`CompactRange::write`] wrote of the leaves from `begin` to before `end`.
    pub(crate) fn read(reader: &mut Reader<'_>, begin: u64, end: u64) -> Result<Self, Truncated> {
        let mut range = CompactRange::from(begin);
        while range.end < end {
            // The largest subtree that may begin here and does not reach beyond the end.
            let height = range.end.trailing_zeros().min((end - range.end).ilog2());
            range.append(height, reader.digest()?);
        }
        Ok(range)
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        self.append(0, leaf);
    }

    /// Appends a full subtree of `2^height` leaves, of which the range's end is a multiple.
    pub(crate) fn append(&mut self, mut height: u32, mut root: Digest) {
        debug_assert_eq!(self.end % (1 << height), 0);
        self.end += 1 << height;
        while let Some((_, left)) =
            self.subtrees.pop_if(|(left, _)| *left == height && self.end.trailing_zeros() > height)
        {
            root = pair::<H>(&left, &root);
            height += 1;
        }
        self.subtrees.push((height, root));
    }

    /// Appends the range that begins where this one ends.
    pub(crate) fn extend(&mut self, next: CompactRange<H>) {
        debug_assert_eq!(self.end, next.begin);
        if self.subtrees.is_empty() {
            *self = next;
            return;
        }
        for (height, root) in next.subtrees {
            self.append(height, root);
        }
    }

    /// The tree over ranges that follow each other, the first from leaf 0.
    pub fn joined(ranges: impl IntoIterator<Item = CompactRange<H>>) -> CompactRange<H> {
        let mut whole = CompactRange::default();
        ranges.into_iter().for_each(|range| whole.extend(range));
        whole
    }

    /// The range from leaf 0 over the chunks of some bytes.
    pub fn of_bytes(bytes: &[u8]) -> CompactRange<H> {
        let chunks: Vec<&[u8]> = bytes.chunks(H::CHUNK).collect();
        let mut hashes = vec![[0; 32]; chunks.len()];
        H::hash(Domain::Leaf, &chunks, &mut hashes);
        CompactRange::over([(0, hashes.len())].into_iter(), hashes).remove(0)
    }

    #[cfg(feature = "io")]
    /// The subtrees from left to right, each with its height.
    pub(crate) fn subtrees(&self) -> &[(u32, Digest)] {
        &self.subtrees
    }

    /// The root of the tree over these leaves alone, the first of which stands where a subtree for
    /// all of them could begin.
    pub fn root(&self) -> Digest {
        let joined = self.subtrees.iter().rev().map(|(_, root)| *root);
        joined.reduce(|right, left| pair::<H>(&left, &right)).unwrap_or(H::EMPTY.into())
    }

    /// The ranges over runs of leaves, each given by its first index and its length, whose hashes
    /// follow each other. Every level of all runs is hashed together.
    pub(crate) fn over(
        runs: impl Iterator<Item = (u64, usize)>,
        mut hashes: Vec<[u8; 32]>,
    ) -> Vec<CompactRange<H>> {
        struct Run {
            first: u64,
            count: usize,
        }
        let mut runs: Vec<Run> = runs.map(|(first, count)| Run { first, count }).collect();
        let range =
            |run: &Run| CompactRange { end: run.first + run.count as u64, ..CompactRange::from(run.first) };
        let mut ranges: Vec<CompactRange<H>> = runs.iter().map(range).collect();
        let mut right: Vec<Vec<(u32, Digest)>> = vec![Vec::new(); runs.len()];
        for height in 0.. {
            let (mut pairs, mut rest): (Vec<&[u8]>, _) = (Vec::with_capacity(hashes.len() / 2), &hashes[..]);
            for ((run, range), right) in runs.iter_mut().zip(&mut ranges).zip(&mut right) {
                let (mut level, behind) = rest.split_at(run.count);
                rest = behind;
                // A node whose sibling lies outside stays as it is: on the left a right child, on
                // the right a left child.
                if run.first % 2 == 1
                    && let Some((node, others)) = level.split_first()
                {
                    range.subtrees.push((height, node.into()));
                    level = others;
                }
                if level.len() % 2 == 1
                    && let Some((node, others)) = level.split_last()
                {
                    right.push((height, node.into()));
                    level = others;
                }
                pairs.extend(level.as_flattened().chunks_exact(64));
                *run = Run { first: run.first.div_ceil(2), count: level.len() / 2 };
            }
            if pairs.is_empty() {
                break;
            }
            let mut parents = vec![[0; 32]; pairs.len()];
            H::hash(Domain::Node, &pairs, &mut parents);
            hashes = parents;
        }
        for (range, mut right) in ranges.iter_mut().zip(right) {
            right.reverse();
            match range.subtrees.is_empty() {
                true => range.subtrees = right,
                false => range.subtrees.append(&mut right),
            }
        }
        ranges
    }
}

/// The hash above two others.
pub(crate) fn pair<H: TreeHash>(left: &Digest, right: &Digest) -> Digest {
    let mut hash = [[0; 32]];
    H::hash(Domain::Node, &[[left.0, right.0].as_flattened()], &mut hash);
    hash[0].into()
}

/// `SHA-256(0x01 || left || right)`.
fn node_hash(left: &Digest, right: &Digest) -> Digest {
    pair::<Sha256>(left, right)
}

/// The hashes of these leaves, of any length: `SHA-256(0x00 || leaf)`.
pub fn leaf_hashes(leaves: &[impl AsRef<[u8]>]) -> Vec<Digest> {
    let messages: Vec<&[u8]> = leaves.iter().map(AsRef::as_ref).collect();
    let mut hashes = vec![[0; 32]; messages.len()];
    Sha256::hash(Domain::Leaf, &messages, &mut hashes);
    hashes.into_iter().map(Digest::from).collect()
}

/// The hash of one leaf.
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    leaf_hashes(&[leaf])[0]
}
