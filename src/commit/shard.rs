//! Tensors whose bytes lie in parts on several workers, hashed where they are.
//!
//! A [`Shard`] is a run of a tensor's bytes: neighbours merge to the root of the whole. A [`Block`]
//! is a box of a tensor whose bytes are scattered over the whole, so that no chunk of it belongs to
//! one worker: its root is that of the box alone, and the list of all boxes stands for the tensor.

use super::engine::{Watch, ranges};
use super::hash::Sha256;
use super::merkle::CompactRange;
use super::{CHUNK, Commitment, leaf_hash};
use crate::primitives::{Digest, Reader, Report, Truncated, sha256};

const TAG: &[u8; 20] = b"counterfoil.shard.v1";
/// Most blocks of one tensor.
pub(super) const MAX_BLOCKS: usize = 4096;

/// Why parts make no whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum ShardError {
    /// Bytes that no shard encodes to.
    #[error("these bytes are no shard: {detail}")]
    Encoding { detail: String },
    /// A shard would reach beyond 2^64 - 1 bytes.
    #[error("{size} bytes at byte {offset} reach beyond 2^64 - 1 bytes")]
    TooLarge { offset: u64, size: u64 },
    /// No shard covers some bytes, or two cover the same ones.
    #[error(
        "the shards do not tile the whole: one should begin at byte {expected}, the next begins at {actual}"
    )]
    Gap { expected: u64, actual: u64 },
    /// A block that is no box of the tensor, or boxes that do not tile it.
    #[error("these blocks are no division of a tensor of shape {shape:?}: {detail}")]
    Blocks { shape: Vec<u64>, detail: String },
}

impl From<Truncated> for ShardError {
    fn from(error: Truncated) -> Self {
        ShardError::Encoding { detail: error.to_string() }
    }
}

impl Report for ShardError {
    fn code(&self) -> &'static str {
        "invalid-input"
    }

    fn expected(&self) -> Option<String> {
        match self {
            ShardError::Gap { expected, .. } => Some(format!("byte {expected}")),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            ShardError::Gap { actual, .. } => Some(format!("byte {actual}")),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            ShardError::Gap { expected, actual } => Some(format!("byte {}", expected.min(actual))),
            _ => None,
        }
    }
}

/// The hash of a run of a tensor's bytes, from which neighbours make the whole.
///
/// Bytes of chunks that lie in the run as a whole are hashed; those of the two chunks that reach
/// across its ends, at most 1,023 on each side, are kept as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    offset: u64,
    size: u64,
    /// Bytes before the first chunk that begins here, or all if none begins.
    head: Vec<u8>,
    chunks: CompactRange<Sha256>,
    /// Bytes behind the last whole chunk.
    tail: Vec<u8>,
}

/// Where the chunks of the bytes from `offset` begin and end; none when no chunk begins in them or
/// at their end.
fn whole_chunks(offset: u64, size: u64) -> Result<Option<(u64, u64)>, ShardError> {
    let end = offset.checked_add(size).ok_or(ShardError::TooLarge { offset, size })?;
    let (first, last) = (offset.div_ceil(CHUNK as u64), end / CHUNK as u64);
    Ok((first <= last).then_some((first, last)))
}

impl Shard {
    /// Hashes the bytes of a tensor that begin at this offset; none if the watch stopped the work.
    ///
    /// # Errors
    /// [`ShardError::TooLarge`].
    pub fn new(data: &[u8], offset: u64, watch: Watch<'_>) -> Result<Option<Shard>, ShardError> {
        let size = data.len() as u64;
        let Some((first, last)) = whole_chunks(offset, size)? else {
            let (head, chunks, tail) = (data.to_vec(), CompactRange::default(), Vec::new());
            return Ok(Some(Shard { offset, size, head, chunks, tail }));
        };
        let (head, rest) = data.split_at((first * CHUNK as u64 - offset) as usize);
        let (whole, tail) = rest.split_at((last - first) as usize * CHUNK);
        let Some(mut chunks) = ranges(&[(first, whole)], watch) else { return Ok(None) };
        let (head, tail) = (head.to_vec(), tail.to_vec());
        Ok(Some(Shard { offset, size, head, chunks: chunks.remove(0), tail }))
    }

    /// The first byte's place in the whole.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `"counterfoil.shard.v1" || offset || size || head || subtrees || tail`: all lengths follow from
    /// offset and size.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [&TAG[..], &self.offset.to_be_bytes(), &self.size.to_be_bytes(), &self.head].concat();
        self.chunks.write(&mut bytes);
        bytes.extend(&self.tail);
        bytes
    }

    /// Parses what [`Shard::encode`] wrote.
    ///
    /// # Errors
    /// [`ShardError::Encoding`] and [`ShardError::TooLarge`].
    pub fn decode(bytes: &[u8]) -> Result<Shard, ShardError> {
        let mut reader = Reader::new(bytes);
        if reader.take(TAG.len())? != TAG {
            return Err(ShardError::Encoding { detail: "the tag is not counterfoil.shard.v1".into() });
        }
        let (offset, size) = (reader.u64()?, reader.u64()?);
        let mut shard =
            Shard { offset, size, head: Vec::new(), chunks: CompactRange::default(), tail: Vec::new() };
        match whole_chunks(offset, size)? {
            None => shard.head = reader.take(size as usize)?.to_vec(),
            Some((first, last)) => {
                shard.head = reader.take((first * CHUNK as u64 - offset) as usize)?.to_vec();
                shard.chunks = CompactRange::read(&mut reader, first, last)?;
                shard.tail = reader.take((offset + size - last * CHUNK as u64) as usize)?.to_vec();
            }
        }
        if !reader.is_empty() {
            return Err(ShardError::Encoding { detail: format!("{} bytes follow it", reader.rest().len()) });
        }
        Ok(shard)
    }

    /// The shard of both runs of bytes; `next` begins where this one ends.
    fn merge(mut self, next: &Shard) -> Result<Shard, ShardError> {
        let (expected, actual) = (self.offset + self.size, next.offset);
        if expected != actual {
            return Err(ShardError::Gap { expected, actual });
        }
        let size = self.size + next.size;
        let begins = whole_chunks(self.offset, self.size)?.is_some();
        let edge = if begins { &mut self.tail } else { &mut self.head };
        edge.extend(&next.head);
        if whole_chunks(next.offset, next.size)?.is_some() {
            // The next one's chunks begin where the chunk across the border is complete.
            if !begins {
                self.chunks = next.chunks.clone();
            } else {
                if !self.tail.is_empty() {
                    self.chunks.push(leaf_hash(&self.tail));
                }
                self.chunks.extend(next.chunks.clone());
            }
            self.tail.clone_from(&next.tail);
        }
        Ok(Shard { size, ..self })
    }
}

/// The commitment to the whole whose shards these are, in any order.
///
/// # Errors
/// [`ShardError::Gap`] unless they tile it from its first byte, and [`ShardError::TooLarge`].
pub fn merge_shards(shards: &[Shard]) -> Result<Commitment, ShardError> {
    let mut sorted: Vec<&Shard> = shards.iter().collect();
    sorted.sort_by_key(|shard| (shard.offset, shard.size));
    let start =
        Shard { offset: 0, size: 0, head: Vec::new(), chunks: CompactRange::default(), tail: Vec::new() };
    let mut whole = sorted.into_iter().try_fold(start, Shard::merge)?;
    if !whole.tail.is_empty() {
        whole.chunks.push(leaf_hash(&whole.tail));
    }
    Ok(Commitment::of_root(whole.chunks.root(), whole.size))
}

/// A box of a tensor, hashed alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first element's index in each dimension of the whole.
    pub offset: Vec<u64>,
    /// Its extents.
    pub shape: Vec<u64>,
    /// Root over its own canonical bytes.
    pub root: Digest,
}

impl Block {
    fn overlaps(&self, other: &Block) -> bool {
        let sides = self.offset.iter().zip(&self.shape).zip(other.offset.iter().zip(&other.shape));
        sides.into_iter().all(|((a, n), (b, m))| *a < b + m && *b < a + n)
    }

    fn lies_in(&self, shape: &[u64]) -> bool {
        let sides = self.offset.iter().zip(&self.shape).zip(shape);
        let inside = |((offset, extent), whole): ((&u64, &u64), &u64)| {
            *extent > 0 && offset.checked_add(*extent).is_some_and(|end| end <= *whole)
        };
        self.offset.len() == shape.len() && self.shape.len() == shape.len() && sides.into_iter().all(inside)
    }
}

/// What stands for the root of a tensor of this shape that is divided into these blocks.
///
/// # Errors
/// [`ShardError::Blocks`] unless every element lies in exactly one of 1 to 4,096 blocks.
pub(super) fn blocks_root(shape: &[u64], blocks: &[Block]) -> Result<Digest, ShardError> {
    let refused = |detail: String| Err(ShardError::Blocks { shape: shape.into(), detail });
    if blocks.is_empty() || blocks.len() > MAX_BLOCKS {
        return refused(format!("{} blocks, expected 1 to {MAX_BLOCKS}", blocks.len()));
    }
    if let Some(Block { offset, shape: extents, .. }) = blocks.iter().find(|block| !block.lies_in(shape)) {
        return refused(format!(
            "{extents:?} at {offset:?} is empty, reaches outside or has other dimensions"
        ));
    }
    let mut sorted: Vec<&Block> = blocks.iter().collect();
    sorted.sort_by(|a, b| a.offset.cmp(&b.offset));
    for (index, block) in sorted.iter().enumerate() {
        if let Some(other) = sorted[..index].iter().find(|other| other.overlaps(block)) {
            return refused(format!("the blocks at {:?} and {:?} overlap", other.offset, block.offset));
        }
    }
    // Disjoint boxes inside the whole cover it when they have as many elements.
    let elements = |shape: &[u64]| shape.iter().map(|extent| u128::from(*extent)).product::<u128>();
    let covered: u128 = sorted.iter().map(|block| elements(&block.shape)).sum();
    if covered != elements(shape) {
        return refused(format!("they cover {covered} of {} elements", elements(shape)));
    }
    let mut bytes = (sorted.len() as u32).to_be_bytes().to_vec();
    for block in sorted {
        bytes.extend(block.offset.iter().chain(&block.shape).flat_map(|number| number.to_be_bytes()));
        bytes.extend(block.root.0);
    }
    Ok(sha256(&[b"counterfoil.sharded.v1", &bytes]))
}
