//! Trees over many runs of bytes at once, on all cores.
//!
//! The bytes are cut where a subtree of 1,024 leaves ends, and the pieces go through the pool in
//! batches of as many leaves: one piece of a large tensor, or many small tensors together, so that
//! the lanes of the processor stay full. Memory beside the input is one batch's hashes per thread
//! and some subtrees per batch.

use std::ops::Range;

use super::hash::{Domain, Sha256, TreeHash};
use super::merkle::CompactRange;
use crate::primitives::Digest;

/// Leaves of one batch; a power of two.
const BATCH: usize = 1024;
/// Below this many bytes the pool costs more than it saves.
#[cfg(feature = "io")]
const PARALLEL_FROM: u64 = 512 << 10;

/// Sees how many bytes are hashed, now and then, on the thread that asked for them; returns whether
/// to go on.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Bytes of a larger whole that begin at a leaf of its tree.
struct Piece<'a> {
    /// Which of the wholes.
    whole: usize,
    /// The leaf at which it begins.
    first: u64,
    bytes: &'a [u8],
}

impl Piece<'_> {
    fn leaves<H: TreeHash>(&self) -> usize {
        self.bytes.len().div_ceil(H::CHUNK)
    }
}

/// The root of one run of bytes.
pub fn bytes_root(data: &[u8]) -> Digest {
    roots(&[data])[0]
}

/// The root of each of these runs of bytes.
pub fn roots(tensors: &[&[u8]]) -> Vec<Digest> {
    watched_roots(tensors, &mut |_| true).expect("nobody stopped it")
}

/// The root of each of these runs of bytes, or none if the watch stopped the work.
pub fn watched_roots(tensors: &[&[u8]], watch: Watch<'_>) -> Option<Vec<Digest>> {
    let wholes: Vec<(u64, &[u8])> = tensors.iter().map(|bytes| (0, *bytes)).collect();
    Some(ranges::<Sha256>(&wholes, watch)?.iter().map(CompactRange::root).collect())
}

/// For each run of bytes, given with the leaf of its tree at which it begins: its subtrees. None if
/// the watch stopped the work.
pub fn ranges<H: TreeHash + Send>(wholes: &[(u64, &[u8])], watch: Watch<'_>) -> Option<Vec<CompactRange<H>>> {
    let mut batches: Vec<Vec<Piece<'_>>> = Vec::new();
    let mut room = 0;
    for (whole, &(mut first, mut rest)) in wholes.iter().enumerate() {
        while !rest.is_empty() {
            let until = BATCH - (first % BATCH as u64) as usize;
            let (bytes, behind) = rest.split_at(rest.len().min(until * H::CHUNK));
            let piece = Piece { whole, first, bytes };
            let leaves = piece.leaves::<H>();
            match batches.last_mut().filter(|_| leaves <= room) {
                Some(batch) => batch.push(piece),
                None => {
                    batches.push(vec![piece]);
                    room = BATCH;
                }
            }
            room -= leaves;
            (first, rest) = (first + leaves as u64, behind);
        }
    }
    let mut joined: Vec<CompactRange<H>> =
        wholes.iter().map(|(first, _)| CompactRange::from(*first)).collect();
    let hash = |index: u64| subtrees::<H>(&batches[index as usize]);
    let mut join = |index: u64, ranges: Vec<CompactRange<H>>| {
        for (piece, range) in batches[index as usize].iter().zip(ranges) {
            joined[piece.whole].extend(range);
        }
        Ok(())
    };
    let size = |index: u64| batches[index as usize].iter().map(|piece| piece.bytes.len() as u64).sum();
    in_rounds::<_, Stopped>(batches.len() as u64, size, hash, &mut join, watch).ok()?;
    Some(joined)
}

/// Why bytes that are read piece by piece have no tree.
#[derive(Debug)]
pub enum Halt {
    /// The watch said so.
    Stopped,
    /// Reading failed.
    Read(std::io::Error),
}

/// The ranges of `size` bytes, of which `read` yields those at a place, one for each 1,024 leaves: all
/// cores read and hash.
///
/// # Errors
/// [`Halt`].
pub fn read_ranges<H: TreeHash + Send>(
    size: u64,
    read: &(dyn Fn(&mut [u8], u64) -> std::io::Result<()> + Sync),
    watch: Watch<'_>,
) -> Result<Vec<CompactRange<H>>, Halt> {
    let step = (BATCH * H::CHUNK) as u64;
    let length = |index: u64| (size - index * step).min(step);
    let hash = |index: u64| {
        let mut bytes = vec![0; length(index) as usize];
        read(&mut bytes, index * step)?;
        Ok(subtrees(&[Piece { whole: 0, first: index * BATCH as u64, bytes: &bytes }]).remove(0))
    };
    let mut ranges = Vec::new();
    let mut keep = |_, range: std::io::Result<_>| range.map(|range| ranges.push(range)).map_err(Halt::Read);
    in_rounds(size.div_ceil(step), length, hash, &mut keep, watch)?;
    Ok(ranges)
}

/// The subtrees over each piece. All levels of all pieces are hashed together.
fn subtrees<H: TreeHash>(pieces: &[Piece<'_>]) -> Vec<CompactRange<H>> {
    let chunks: Vec<&[u8]> = pieces.iter().flat_map(|piece| piece.bytes.chunks(H::CHUNK)).collect();
    let mut hashes = vec![[0; 32]; chunks.len()];
    H::hash(Domain::Leaf, &chunks, &mut hashes);
    CompactRange::over(pieces.iter().map(|piece| (piece.first, piece.leaves::<H>())), hashes)
}

/// How many threads hash, asked of the system once: the answer takes it some microseconds.
fn cores() -> u64 {
    #[cfg(feature = "io")]
    {
        static CORES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
        *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from) as u64)
    }
    #[cfg(not(feature = "io"))]
    1
}

/// The results for these items, computed on all cores when they are worth it: `size` bytes in all.
pub(crate) fn for_all<T: Sync, R: Send>(items: &[T], size: u64, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    on_all_cores(0..items.len() as u64, size, |index| work(&items[index as usize]))
}

/// The watch said no.
struct Stopped;

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Self {
        Halt::Stopped
    }
}

/// Batches that a core hashes in the longest rounds.
#[cfg(feature = "io")]
const LONGEST: u64 = 32;

/// Does the work for all indexes below `count` and keeps the results in their order.
///
/// All cores work, in rounds: between them others who hash get their turn, the caller watches, and a
/// process that was forked meanwhile finds its own pool. Rounds become longer while they are short in
/// time: a slow disk must not make the caller wait.
fn in_rounds<R: Send, E: From<Stopped>>(
    count: u64,
    size: impl Fn(u64) -> u64,
    work: impl Fn(u64) -> R + Sync,
    keep: &mut dyn FnMut(u64, R) -> Result<(), E>,
    watch: Watch<'_>,
) -> Result<(), E> {
    #[cfg_attr(not(feature = "io"), allow(unused_mut, reason = "there are no clocks without it"))]
    let mut batches = 2;
    let (mut next, mut done) = (0, 0);
    while next < count {
        let round = next..count.min(next + batches * cores());
        next = round.end;
        let bytes = round.clone().map(&size).sum();
        done += bytes;
        #[cfg(feature = "io")]
        let start = std::time::Instant::now();
        for (index, result) in round.clone().zip(on_all_cores(round, bytes, &work)) {
            keep(index, result)?;
        }
        #[cfg(feature = "io")]
        match start.elapsed().as_millis() {
            0..10 => batches = LONGEST.min(2 * batches),
            10..40 => {}
            40.. => batches = 1.max(batches / 2),
        }
        if next < count && !watch(done) {
            return Err(Stopped.into());
        }
    }
    Ok(())
}

#[cfg_attr(not(feature = "io"), allow(unused_variables, reason = "without threads size decides nothing"))]
fn on_all_cores<R: Send>(round: Range<u64>, size: u64, work: impl Fn(u64) -> R + Sync) -> Vec<R> {
    #[cfg(feature = "io")]
    if round.end - round.start > 1
        && size >= PARALLEL_FROM
        && let Some(pool) = pool::current()
    {
        use rayon::prelude::*;
        return pool.install(|| round.into_par_iter().map(&work).collect());
    }
    round.map(work).collect()
}

#[cfg(feature = "io")]
mod pool {
    //! The threads that hash, started again in a process that was forked.
    //!
    //! A forked child inherits the pool's memory but none of its threads, and would wait for them
    //! for ever; so the pool belongs to the process that built it. The child also inherits the lock
    //! in whatever state it was, so nobody here waits for it: without a pool the caller hashes alone.

    use std::sync::{Arc, RwLock};

    use rayon::{ThreadPool, ThreadPoolBuilder};

    type Owned = Option<(u32, Arc<ThreadPool>)>;
    static POOL: RwLock<Owned> = RwLock::new(None);

    pub(super) fn current() -> Option<Arc<ThreadPool>> {
        let process = std::process::id();
        let own =
            |slot: &Owned| slot.as_ref().filter(|(owner, _)| *owner == process).map(|(_, pool)| pool.clone());
        if let Some(pool) = own(&*POOL.try_read().ok()?) {
            return Some(pool);
        }
        let mut slot = POOL.try_write().ok()?;
        if own(&slot).is_none() {
            let builder = ThreadPoolBuilder::new().num_threads(super::cores() as usize);
            let pool = builder.thread_name(|index| format!("counterfoil-hash-{index}")).build().ok()?;
            // Dropping the parent's pool in a child would wait for threads that do not exist.
            std::mem::forget(slot.replace((process, Arc::new(pool))));
        }
        own(&slot)
    }
}
