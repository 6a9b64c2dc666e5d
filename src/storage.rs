//! Roots and segment proofs of 0G storage.
//!
//! A file is cut into chunks of 256 bytes, the last one filled up with zeros, and some chunks of
//! zeros follow. The tree over them has RFC 9162's shape, Keccak-256 and no prefixes. A root does not
//! bind the length of the file: the two belong together.

use std::path::Path;

use crate::commit::merkle::{self, CompactRange, ProofError};
use crate::commit::{Keccak256, TreeHash, Watch, ranges};
use crate::files::{self, FileError};
use crate::primitives::{Digest, Report};

/// Bytes of a chunk.
pub const CHUNK: u64 = Keccak256::CHUNK as u64;
/// Chunks of a segment, the unit of upload and of proofs.
const SEGMENT_CHUNKS: u64 = 1024;
/// Bytes of a segment.
pub const SEGMENT: usize = (SEGMENT_CHUNKS * CHUNK) as usize;

/// Why there is no root, or a proof was refused.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// 0G has no empty files.
    #[error("0G storage takes no empty file")]
    Empty,
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A segment or its proof does not lead to the root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl Report for StorageError {
    fn code(&self) -> &'static str {
        match self {
            StorageError::Empty => "invalid-input",
            StorageError::File(error) => error.code(),
            StorageError::Proof(error) => error.code(),
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            StorageError::Empty => Some("at least one byte".into()),
            StorageError::File(error) => error.expected(),
            StorageError::Proof(error) => error.expected(),
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            StorageError::Empty => None,
            StorageError::File(error) => error.actual(),
            StorageError::Proof(error) => error.actual(),
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            StorageError::Empty => None,
            StorageError::File(error) => error.place(),
            StorageError::Proof(error) => error.place(),
        }
    }
}

/// Chunks of the tree over a file of this length, with those of zeros at its end: up to the next
/// multiple of a sixteenth of the next power of two.
pub fn padded_chunks(length: u64) -> u64 {
    let chunks = length.div_ceil(CHUNK);
    chunks.next_multiple_of((chunks.next_power_of_two() / 16).max(1))
}

/// What 0G storage knows a file by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StorageRoot {
    /// Root of the tree.
    pub root: Digest,
    /// Bytes of the file.
    pub length: u64,
    /// The largest full subtrees that tile the tree, as they are submitted on chain: height and
    /// root, the largest first.
    pub nodes: Vec<(u32, Digest)>,
    segments: Vec<Digest>,
}

impl StorageRoot {
    /// The root of these bytes; none if the watch stopped the work.
    ///
    /// # Errors
    /// [`StorageError::Empty`].
    pub fn of_bytes(bytes: &[u8], watch: Watch<'_>) -> Result<Option<StorageRoot>, StorageError> {
        let place = |(index, segment)| (index as u64 * SEGMENT_CHUNKS, segment);
        let segments: Vec<(u64, &[u8])> = bytes.chunks(SEGMENT).enumerate().map(place).collect();
        let Some(ranges) = ranges(&segments, watch) else { return Ok(None) };
        StorageRoot::new(bytes.len() as u64, ranges).map(Some)
    }

    /// The root of a file; none if the watch stopped the work.
    ///
    /// # Errors
    /// [`StorageError::Empty`] and [`StorageError::File`].
    pub fn of_file(path: &Path, watch: Watch<'_>) -> Result<Option<StorageRoot>, StorageError> {
        let Some((length, ranges)) = files::ranges(path, watch)? else { return Ok(None) };
        StorageRoot::new(length, ranges).map(Some)
    }

    /// From the chunks of each segment.
    fn new(length: u64, mut ranges: Vec<CompactRange<Keccak256>>) -> Result<StorageRoot, StorageError> {
        if length == 0 {
            return Err(StorageError::Empty);
        }
        let (padded, zeros) = (padded_chunks(length), zeros());
        for segment in 0..padded.div_ceil(SEGMENT_CHUNKS) {
            let begin = segment * SEGMENT_CHUNKS;
            if segment as usize == ranges.len() {
                ranges.push(CompactRange::from(begin));
            }
            fill(&mut ranges[segment as usize], padded.min(begin + SEGMENT_CHUNKS), &zeros);
        }
        let segments = ranges.iter().map(CompactRange::root).collect();
        let whole = CompactRange::joined(ranges);
        Ok(StorageRoot { root: whole.root(), length, nodes: whole.subtrees().to_vec(), segments })
    }

    /// The roots of the tree's segments of 1,024 chunks; the last one may be smaller.
    pub fn segments(&self) -> &[Digest] {
        &self.segments
    }

    /// The proof of a segment as 0G's nodes exchange it: the hashes from the segment's root over the
    /// siblings to the file's root (one hash if they are the same), and for each sibling whether it
    /// stands on the right.
    ///
    /// # Errors
    /// [`StorageError::Proof`] when there is no such segment.
    pub fn segment_proof(&self, index: u64) -> Result<(Vec<Digest>, Vec<bool>), StorageError> {
        let siblings = merkle::inclusion_proof::<Keccak256>(&self.segments, index)?;
        let path = merkle::right_turns(index, self.segments.len() as u64).map(|is_right| !is_right).collect();
        let mut lemma = vec![self.segments[index as usize]];
        if self.segments.len() > 1 {
            lemma.extend(siblings);
            lemma.push(self.root);
        }
        Ok((lemma, path))
    }
}

/// Roots of full subtrees over chunks of zeros, by height up to that of a segment.
fn zeros() -> [Digest; 11] {
    let mut roots = [CompactRange::<Keccak256>::of_bytes(&[0]).root(); 11];
    for height in 1..roots.len() {
        roots[height] = merkle::pair::<Keccak256>(&roots[height - 1], &roots[height - 1]);
    }
    roots
}

/// Appends chunks of zeros up to this end, inside one segment.
fn fill(range: &mut CompactRange<Keccak256>, end: u64, zeros: &[Digest; 11]) {
    while range.size() < end {
        let height = range.size().trailing_zeros().min((end - range.size()).ilog2());
        range.append(height, zeros[height as usize]);
    }
}

/// Checks a segment of a file against the file's root and length.
///
/// # Errors
/// [`ProofError`] naming the first thing that does not fit.
pub fn verify_segment(
    segment: &[u8],
    index: u64,
    (lemma, path): (&[Digest], &[bool]),
    root: &Digest,
    length: u64,
) -> Result<(), ProofError> {
    let (padded, count) = (padded_chunks(length), length.div_ceil(SEGMENT as u64));
    if index >= count {
        return Err(ProofError::IndexOutOfRange { index, size: count });
    }
    let refused = |detail: String| Err(ProofError::Opening { detail });
    let expected = (length - index * SEGMENT as u64).min(SEGMENT as u64);
    if segment.len() as u64 != expected {
        return refused(format!("segment {index} has {} bytes, expected {expected}", segment.len()));
    }
    let segments = padded.div_ceil(SEGMENT_CHUNKS);
    let turns: Vec<bool> = merkle::right_turns(index, segments).collect();
    if path.len() != turns.len() || path.iter().zip(&turns).any(|(left, right)| left == right) {
        return refused(format!("the path is not that of segment {index} of {segments}"));
    }
    let mut range = CompactRange::<Keccak256>::of_bytes(segment);
    fill(&mut range, (padded - index * SEGMENT_CHUNKS).min(SEGMENT_CHUNKS), &zeros());
    let own = range.root();
    let siblings = match lemma {
        [only] if path.is_empty() && *only == own => &[][..],
        [first, siblings @ .., last] if !path.is_empty() && *first == own && last == root => siblings,
        _ => return refused("the proof's first or last hash is not that of the segment or the file".into()),
    };
    merkle::verify_inclusion::<Keccak256>(&own, index, segments, siblings, root)
}
