//! Hashing many short messages at once: the hot loop of the library.
//!
//! Leaves and nodes of a tree are independent messages, so a processor can hash one in each lane of
//! its vector registers. That is all that happens here; trees are built above.

mod keccak;
mod sha256;

#[cfg(target_arch = "x86_64")]
mod keccak_avx512;
#[cfg(target_arch = "x86_64")]
mod sha256_avx512;
#[cfg(target_arch = "x86_64")]
mod sha256_ni;

use std::sync::atomic::{AtomicU8, Ordering};

pub use keccak::Keccak256;
pub use sha256::Sha256;

/// What a message is in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The contents of a leaf.
    Leaf,
    /// Two hashes, left and right.
    Node,
}

/// A hash function as trees use it.
pub trait TreeHash {
    /// Bytes under one leaf of a tree over bytes.
    const CHUNK: usize;

    /// The root of the tree without leaves.
    const EMPTY: [u8; 32];

    /// Writes the hash of each message; both slices have one length.
    fn hash(domain: Domain, messages: &[&[u8]], hashes: &mut [[u8; 32]]);
}

/// Which instructions of the processor hash. The hashes are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// 512-bit registers: sixteen lanes of SHA-256, eight of Keccak.
    Avx512 = 1,
    /// The SHA-256 instructions of x86-64, four messages at a time.
    ShaNi,
    /// The sha2 and alloy crates, the first with the SHA-256 instructions of aarch64.
    Portable,
}

/// The backend that a test demands, or 0: faster ones are then not used.
static FORCED: AtomicU8 = AtomicU8::new(0);

impl Backend {
    /// Those that this processor has, the fastest first.
    pub fn available() -> Vec<Backend> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [
            sha256_avx512::Avx512::detect().map(|_| Backend::Avx512),
            sha256_ni::ShaNi::detect().map(|_| Backend::ShaNi),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = [None];
        vectors.into_iter().flatten().chain([Backend::Portable]).collect()
    }

    /// Its name in messages and benchmarks.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Avx512 => "avx512",
            Backend::ShaNi => "sha-ni",
            Backend::Portable => "portable",
        }
    }

    /// Makes this backend hash everything from now on, or the fastest again; for tests and
    /// benchmarks. What does not fill its lanes goes to the slower ones as always.
    pub fn force(backend: Option<Backend>) {
        FORCED.store(backend.map_or(0, |backend| backend as u8), Ordering::Relaxed);
    }

    /// Whether this backend may be used now.
    #[cfg(target_arch = "x86_64")]
    fn allowed(self) -> bool {
        self as u8 >= FORCED.load(Ordering::Relaxed)
    }
}

/// The values, if all of them are there.
#[cfg(target_arch = "x86_64")]
#[inline]
fn all<T, const N: usize>(values: [Option<T>; N]) -> Option<[T; N]> {
    values.iter().all(Option::is_some).then(|| values.map(|value| value.expect("all are there")))
}
