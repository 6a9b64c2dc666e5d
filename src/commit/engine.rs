//! Trees over many runs of bytes at once, on all cores.
//!
//! The bytes are cut where a subtree of 1,024 leaves ends, and the pieces go through the pool in
//! batches of as many leaves: one piece of a large tensor, or many small tensors together, so that
//! the lanes of the processor stay full. Memory beside the input is one batch's hashes per thread
//! and some subtrees per batch.

use super::hash::{Domain, Sha256, TreeHash};
use super::merkle::CompactRange;
use crate::primitives::Digest;

/// Leaves of one batch; a power of two.
const BATCH: usize = 1024;
/// Below this many bytes the pool costs more than it saves.
#[cfg(feature = "io")]
const PARALLEL_FROM: usize = 512 << 10;

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
    let size = |batch: &Vec<Piece<'_>>| batch.iter().map(|piece| piece.bytes.len()).sum();
    let done = in_parallel(&batches, size, |batch| subtrees::<H>(batch), watch)?;
    let mut joined: Vec<CompactRange<H>> =
        wholes.iter().map(|(first, _)| CompactRange::from(*first)).collect();
    for (piece, range) in batches.iter().flatten().zip(done.into_iter().flatten()) {
        joined[piece.whole].extend(range);
    }
    Some(joined)
}

/// Why bytes that are read piece by piece have no tree.
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
    let starts: Vec<u64> = (0..size.div_ceil(step)).map(|batch| batch * step).collect();
    let length = |start: &u64| (size - start).min(step) as usize;
    let work = |start: &u64| {
        let mut bytes = vec![0; length(start)];
        read(&mut bytes, *start)?;
        let piece = Piece { whole: 0, first: start / H::CHUNK as u64, bytes: &bytes };
        Ok(subtrees(&[piece]).remove(0))
    };
    let done = in_parallel(&starts, length, work, watch).ok_or(Halt::Stopped)?;
    done.into_iter().collect::<std::io::Result<_>>().map_err(Halt::Read)
}

/// The subtrees over each piece. All levels of all pieces are hashed together.
fn subtrees<H: TreeHash>(pieces: &[Piece<'_>]) -> Vec<CompactRange<H>> {
    let chunks: Vec<&[u8]> = pieces.iter().flat_map(|piece| piece.bytes.chunks(H::CHUNK)).collect();
    let mut hashes = vec![[0; 32]; chunks.len()];
    H::hash(Domain::Leaf, &chunks, &mut hashes);
    CompactRange::over(pieces.iter().map(|piece| (piece.first, piece.leaves::<H>())), hashes)
}

/// The results for all items, in their order, or none if the watch stopped the work.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    size: impl Fn(&T) -> usize + Sync,
    work: impl Fn(&T) -> R + Sync,
    watch: Watch<'_>,
) -> Option<Vec<R>> {
    #[cfg(feature = "io")]
    if items.len() > 1
        && items.iter().map(&size).sum::<usize>() >= PARALLEL_FROM
        && let Some(pool) = pool::current()
    {
        return pool::run(&pool, items, size, work, watch);
    }
    let (mut results, mut done, mut seen) = (Vec::with_capacity(items.len()), 0, 0);
    for item in items {
        results.push(work(item));
        done += size(item) as u64;
        // A tenth of a second on the slowest processors.
        if done - seen >= 32 << 20 {
            seen = done;
            if !watch(done) {
                return None;
            }
        }
    }
    Some(results)
}

#[cfg(feature = "io")]
mod pool {
    //! The threads that hash, started again in a process that was forked.
    //!
    //! A forked child inherits the pool's memory but none of its threads, and would wait for them
    //! for ever; so the pool belongs to the process that built it. The child also inherits the lock
    //! in whatever state it was, so nobody here waits for it: without a pool the caller hashes alone.

    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, RwLock, mpsc};
    use std::time::Duration;

    use rayon::prelude::*;
    use rayon::{ThreadPool, ThreadPoolBuilder};

    use super::Watch;

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
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let builder = ThreadPoolBuilder::new().num_threads(threads);
            let pool = builder.thread_name(|index| format!("counterfoil-hash-{index}")).build().ok()?;
            // Dropping the parent's pool in a child would wait for threads that do not exist.
            std::mem::forget(slot.replace((process, Arc::new(pool))));
        }
        own(&slot)
    }

    /// The pool works while this thread watches.
    pub(super) fn run<T: Sync, R: Send>(
        pool: &ThreadPool,
        items: &[T],
        size: impl Fn(&T) -> usize + Sync,
        work: impl Fn(&T) -> R + Sync,
        watch: Watch<'_>,
    ) -> Option<Vec<R>> {
        let (done, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let one = |item: &T| {
            let result = (!stopped.load(Ordering::Relaxed)).then(|| work(item))?;
            done.fetch_add(size(item) as u64, Ordering::Relaxed);
            Some(result)
        };
        pool.in_place_scope(|scope| {
            scope.spawn(|_| drop(sender.send(items.par_iter().map(one).collect())));
            loop {
                match receiver.recv_timeout(Duration::from_millis(50)) {
                    Ok(results) => return results,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // Once it stopped the work, it hears no more of it.
                        if !stopped.load(Ordering::Relaxed) && !watch(done.load(Ordering::Relaxed)) {
                            stopped.store(true, Ordering::Relaxed);
                        }
                    }
                    // The work panicked, and the scope passes that on.
                    Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                }
            }
        })
    }
}
