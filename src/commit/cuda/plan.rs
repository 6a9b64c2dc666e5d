//! The launches that turn tensors into roots.

use crate::commit::{CHUNK, bytes_root};
use crate::primitives::Digest;

/// Chunks that a block of the kernel turns into one digest, as in `reduce.cu`.
const CHUNKS: u64 = 256;
/// Bytes of a digest, and of a segment in the kernel's table.
const DIGEST: u64 = 32;
const SEGMENT: u64 = 24;

/// One launch of the kernel: its number of blocks and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks of 256 threads.
    pub blocks: u32,
    /// Device address of the table of its segments.
    pub segments: u64,
    /// Segments in the table.
    pub count: u32,
    /// 0 when the segments hold leaves, 1 when they hold digests.
    pub domain: u32,
    /// Device address of the digests, one for each block.
    pub digests: u64,
}

/// A run of bytes for each tensor that has any: the tensor, later its digests.
struct Level {
    lengths: Vec<u64>,
    /// The block at which each run's blocks begin.
    first_blocks: Vec<u64>,
    blocks: u64,
}

/// The launches for the tensors on one device, and the memory that they share: the table of all
/// segments, which the caller copies there, and behind it the digests of each launch, the roots last.
pub struct Plan {
    lengths: Vec<u64>,
    levels: Vec<Level>,
}

impl Plan {
    /// The plan for tensors of so many bytes; none for more than a launch can take, half a petabyte.
    pub fn new(lengths: &[u64]) -> Option<Plan> {
        let (mut runs, mut chunk, mut levels) = (Vec::new(), CHUNK as u64, Vec::new());
        runs.extend(lengths.iter().copied().filter(|length| *length > 0));
        while !runs.is_empty() {
            let owned: Vec<u64> = runs.iter().map(|length| length.div_ceil(CHUNKS * chunk)).collect();
            let (mut blocks, mut first_blocks) = (0, Vec::with_capacity(owned.len()));
            for own in &owned {
                first_blocks.push(blocks);
                blocks += own;
            }
            levels.push(Level { lengths: runs, first_blocks, blocks });
            let is_last = owned.iter().all(|own| *own == 1);
            runs = owned.iter().filter(|_| !is_last).map(|own| DIGEST * own).collect();
            chunk = 2 * DIGEST;
        }
        let fits = levels.iter().all(|level: &Level| level.blocks <= i32::MAX as u64);
        fits.then(|| Plan { lengths: lengths.to_vec(), levels })
    }

    fn table_size(&self) -> u64 {
        let segments: usize = self.levels.iter().map(|level| level.lengths.len()).sum();
        (SEGMENT * segments as u64).next_multiple_of(DIGEST)
    }

    /// Bytes of device memory that the launches need; its address must be a multiple of 32.
    pub fn size(&self) -> u64 {
        self.table_size() + self.levels.iter().map(|level| DIGEST * level.blocks).sum::<u64>()
    }

    /// The launches, in their order, and the table at the beginning of this memory that they read, for
    /// tensors at these device addresses.
    pub fn launches(&self, tensors: &[u64], memory: u64) -> (Vec<u8>, Vec<Launch>) {
        let (mut table, mut launches) = (Vec::new(), Vec::new());
        let held = tensors.iter().zip(&self.lengths).filter(|(_, length)| **length > 0);
        let mut addresses: Vec<u64> = held.map(|(address, _)| *address).collect();
        let mut digests = memory + self.table_size();
        for (level, domain) in self.levels.iter().zip([0].into_iter().chain(std::iter::repeat(1))) {
            let segments = memory + table.len() as u64;
            for (address, (length, first)) in
                addresses.iter().zip(level.lengths.iter().zip(&level.first_blocks))
            {
                table.extend([*address, *length, *first].iter().flat_map(|word| word.to_ne_bytes()));
            }
            let (blocks, count) = (level.blocks as u32, level.lengths.len() as u32);
            launches.push(Launch { blocks, segments, count, domain, digests });
            addresses = level.first_blocks.iter().map(|first| digests + DIGEST * first).collect();
            digests += DIGEST * level.blocks;
        }
        (table, launches)
    }

    /// Where the roots lie, counted from the end of the memory, and so how many bytes they are.
    pub fn roots_size(&self) -> u64 {
        self.levels.last().map_or(0, |level| DIGEST * level.blocks)
    }

    /// The root of each tensor, from the last bytes of the memory.
    pub fn roots(&self, bytes: &[u8]) -> Vec<Digest> {
        let mut found = bytes.chunks_exact(DIGEST as usize).map(Digest::from_slice);
        let root = |length: &u64| match length {
            0 => bytes_root(&[]),
            _ => found.next().expect("a root for each tensor with bytes"),
        };
        self.lengths.iter().map(root).collect()
    }
}
