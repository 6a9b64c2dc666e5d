//! Roots of many runs of bytes at once, on all cores.
//!
//! The bytes are cut into slabs of 1 MiB, each a full subtree of 1,024 leaves; slabs of all tensors
//! go through the pool in one pass, and their roots are joined afterwards. Memory beside the input
//! is one slab's leaves per thread.

use std::io::Read;

use super::sha256::{Backend, CHUNK, Sha2, root_of};
use crate::primitives::Digest;

const SLAB: usize = CHUNK << 10;
/// Below this many bytes the pool costs more than it saves.
#[cfg(feature = "io")]
const PARALLEL_FROM: usize = 256 << 10;
const READ_SLABS: usize = 16;

fn slab_root(slab: &[u8]) -> Digest {
    let mut leaves = Vec::with_capacity(slab.len().div_ceil(CHUNK));
    Sha2.leaves(slab, &mut leaves);
    root_of(&Sha2, leaves)
}

/// The root of one run of bytes.
pub fn bytes_root(data: &[u8]) -> Digest {
    roots(&[data])[0]
}

/// The root of each of these runs of bytes.
pub fn roots(tensors: &[&[u8]]) -> Vec<Digest> {
    let slabs: Vec<&[u8]> = tensors.iter().flat_map(|tensor| tensor.chunks(SLAB)).collect();
    let mut done = slab_roots(&slabs).into_iter();
    let joined = tensors.iter().map(|tensor| {
        let own = done.by_ref().take(tensor.len().div_ceil(SLAB)).collect();
        root_of(&Sha2, own)
    });
    joined.collect()
}

fn slab_roots(slabs: &[&[u8]]) -> Vec<Digest> {
    #[cfg(feature = "io")]
    if slabs.iter().map(|slab| slab.len()).sum::<usize>() >= PARALLEL_FROM
        && let Some(pool) = pool::current()
    {
        use rayon::prelude::*;
        return pool.install(|| slabs.par_iter().map(|slab| slab_root(slab)).collect());
    }
    slabs.iter().map(|slab| slab_root(slab)).collect()
}

/// The root and the size of everything a reader yields, in constant memory but for 32 bytes a MiB.
///
/// # Errors
/// What the reader reports.
pub fn reader_root(mut reader: impl Read) -> std::io::Result<(Digest, u64)> {
    let (mut joined, mut size, mut buffer) = (Vec::new(), 0, vec![0; READ_SLABS * SLAB]);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let slabs: Vec<&[u8]> = buffer[..filled].chunks(SLAB).collect();
        joined.extend(slab_roots(&slabs));
        size += filled as u64;
        if filled < buffer.len() {
            return Ok((root_of(&Sha2, joined), size));
        }
    }
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
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let builder = ThreadPoolBuilder::new().num_threads(threads);
            let pool = builder.thread_name(|index| format!("counterfoil-hash-{index}")).build().ok()?;
            // Dropping the parent's pool in a child would wait for threads that do not exist.
            std::mem::forget(slot.replace((process, Arc::new(pool))));
        }
        own(&slot)
    }
}
