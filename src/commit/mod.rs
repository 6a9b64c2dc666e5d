//! Commitments: short values that bind bytes and named tensors, and openings of their parts.
//!
//! `docs/format.md`, sections 1 to 3 and 17, describes every byte.

#[cfg(feature = "io")]
pub mod cuda;
mod engine;
mod entry;
pub mod fingerprint;
mod hash;
pub mod merkle;
mod opening;
mod shard;

pub(crate) use engine::for_all;
pub use engine::{Halt, Watch, bytes_root, ranges, read_ranges, roots, watched_roots};
pub use entry::{Content, Entry};
pub use hash::{Backend, Domain, Keccak256, Sha256, TreeHash};
pub use merkle::{ProofError, leaf_hash};
pub use opening::{ChunkOpening, EntryOpening, Opening};
pub use shard::{Block, Shard, ShardError, merge_shards};

use crate::primitives::{Digest, HmacKey, Report, Truncated, sha256 as sha256_of};
use crate::tensor::{TensorError, check_name};

/// Bytes under one leaf of a tensor's tree.
pub const CHUNK: usize = Sha256::CHUNK;
/// Most entries of one state.
pub const MAX_ENTRIES: usize = 1 << 20;

/// Why named tensors make no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum CommitError {
    /// One tensor's description is refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Two tensors have one name.
    #[error("the name {name:?} is used twice in one state")]
    DuplicateName { name: String },
    /// An alias whose target is missing, not dense, or not smaller than its own name.
    #[error(
        "{name:?} cannot be an alias of {target:?}: the target must be a dense tensor of this state with a smaller name"
    )]
    Alias { name: String, target: String },
    /// Shards or blocks that are no division of their tensor.
    #[error("{name:?}: {detail}")]
    Parts { name: String, detail: String },
    /// More than [`MAX_ENTRIES`] tensors or more than 2^64 - 1 bytes.
    #[error("{count} tensors are too many or too large for one state")]
    TooLarge { count: usize },
    /// Encoded bytes that are no Entry.
    #[error("these bytes are no entry of a state: {detail}")]
    Encoding { detail: String },
}

impl From<Truncated> for CommitError {
    fn from(error: Truncated) -> Self {
        CommitError::Encoding { detail: error.to_string() }
    }
}

impl Report for CommitError {
    fn code(&self) -> &'static str {
        match self {
            CommitError::Tensor(error) => error.code(),
            _ => "invalid-input",
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            CommitError::Tensor(error) => error.expected(),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            CommitError::Tensor(error) => error.actual(),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            CommitError::Tensor(error) => error.place(),
            CommitError::DuplicateName { name }
            | CommitError::Alias { name, .. }
            | CommitError::Parts { name, .. } => Some(name.clone()),
            _ => None,
        }
    }
}

/// What was committed to; decides which tree its root belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitmentKind {
    /// The chunks of one run of bytes.
    Bytes = 1,
    /// The entries of named tensors.
    State = 2,
}

impl CommitmentKind {
    /// The identifier that the signed digest binds.
    pub fn algorithm(self) -> &'static str {
        match self {
            CommitmentKind::Bytes => "tensor/sha256-rfc9162/1024",
            CommitmentKind::State => "state/sha256-rfc9162",
        }
    }
}

/// A root with all that gives it one meaning: what was hashed, how many leaves, how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// What was committed to.
    pub kind: CommitmentKind,
    /// Chunks of bytes, or entries of a state.
    pub count: u64,
    /// Bytes in all.
    pub size: u64,
    /// Root of the tree.
    pub root: Digest,
}

impl Commitment {
    /// The 32 bytes that a receipt signs; `blind` is zero for public values.
    pub fn digest(&self, blind: &Digest) -> Digest {
        sha256_of(&[
            b"counterfoil.commitment.v1",
            sha256_of(&[self.kind.algorithm().as_bytes()]).as_slice(),
            &[self.kind as u8],
            &self.count.to_be_bytes(),
            &self.size.to_be_bytes(),
            self.root.as_slice(),
            blind.as_slice(),
        ])
    }

    /// The commitment to one run of bytes.
    pub fn of_bytes(data: &[u8]) -> Commitment {
        Commitment::of_root(bytes_root(data), data.len() as u64)
    }

    /// The commitment to bytes whose root is known.
    pub fn of_root(root: Digest, size: u64) -> Commitment {
        Commitment { kind: CommitmentKind::Bytes, count: size.div_ceil(CHUNK as u64), size, root }
    }
}

/// Named tensors in canonical order, each by its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    entries: Vec<Entry>,
    commitment: Commitment,
}

impl State {
    /// Sorts and checks the entries and computes the state's root.
    ///
    /// # Errors
    /// [`CommitError::DuplicateName`], [`CommitError::Alias`], [`CommitError::Tensor`] for a bad
    /// name, [`CommitError::TooLarge`].
    pub fn new(mut entries: Vec<Entry>) -> Result<State, CommitError> {
        let too_large = CommitError::TooLarge { count: entries.len() };
        if entries.len() > MAX_ENTRIES {
            return Err(too_large);
        }
        entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(CommitError::DuplicateName { name: pair[0].name.clone() });
        }
        for entry in &entries {
            check_name(&entry.name)?;
            if let Content::Alias { target } = &entry.content {
                let found = entries.binary_search_by(|other| other.name.as_bytes().cmp(target.as_bytes()));
                let is_dense = found.is_ok_and(|index| entries[index].is_dense());
                if !is_dense || target.as_bytes() >= entry.name.as_bytes() {
                    return Err(CommitError::Alias { name: entry.name.clone(), target: target.clone() });
                }
            }
        }
        let size =
            entries.iter().try_fold(0u64, |sum, entry| sum.checked_add(entry.size())).ok_or(too_large)?;
        let commitment = Commitment {
            kind: CommitmentKind::State,
            count: entries.len() as u64,
            size,
            root: merkle::root(&entry_hashes(&entries, None)),
        };
        Ok(State { entries, commitment })
    }

    /// The entries, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The plain commitment, comparable between runs.
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// The commitment whose entries carry blinded roots, for a private field.
    pub fn blinded(&self, entry_key: &Digest) -> Commitment {
        Commitment { root: merkle::root(&entry_hashes(&self.entries, Some(entry_key))), ..self.commitment }
    }

    /// The first entry, in the order of names, in which two states differ: its name and what each
    /// of them holds there.
    pub fn first_difference<'a>(&'a self, other: &'a State) -> Option<Difference<'a>> {
        let (mut ours, mut theirs) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.name.as_bytes().cmp(b.name.as_bytes()),
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            if our != their {
                let name = our.or(their).map(|entry| entry.name.as_str()).unwrap_or_default();
                return Some((name, our, their));
            }
        }
    }
}

/// The leaves of a state: the hashes of its encoded entries.
fn entry_hashes(entries: &[Entry], entry_key: Option<&Digest>) -> Vec<Digest> {
    let entry_key = entry_key.map(|key| HmacKey::new(&key.0));
    let hash = |entries: &&[Entry]| {
        let encode = |entry: &Entry| entry.encode_for(entry_key.as_ref());
        merkle::leaf_hashes(&entries.iter().map(encode).collect::<Vec<_>>())
    };
    let batches: Vec<&[Entry]> = entries.chunks(512).collect();
    // Encoding and hashing an entry takes as long as hashing a few hundred bytes.
    engine::for_all(&batches, (entries.len() as u64) << 8, hash).into_iter().flatten().collect()
}

/// A name, and the entries that two states hold under it.
pub type Difference<'a> = (&'a str, Option<&'a Entry>, Option<&'a Entry>);
