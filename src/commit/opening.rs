//! Openings: showing one tensor of a state, or one chunk of a tensor, against a signed digest.

use serde::{Deserialize, Serialize};

use super::entry::blinded_root;
use super::{
    CHUNK, Commitment, CommitmentKind, Entry, ProofError, Sha256, State, bytes_root, entry_hashes, leaf_hash,
    merkle,
};
use crate::primitives::{Digest, HmacKey};

/// One part of what a commitment binds, with the hashes that lead to the commitment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The commitment that the signed digest was made from.
    pub commitment: Commitment,
    /// The tensor's entry; none when the commitment is one to bytes.
    pub entry: Option<EntryOpening>,
    /// The chunk; none when the tensor is opened as a whole.
    pub chunk: Option<ChunkOpening>,
}

/// One entry of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryOpening {
    /// Position among the entries, sorted by name.
    pub index: u64,
    /// The encoded entry, as hashed.
    pub entry: alloy_primitives::Bytes,
    /// `HMAC(entry key, name)` when the entry is blinded.
    pub blind: Option<Digest>,
    /// The tensor's root, zero for an entry without one.
    pub root: Digest,
    /// Siblings up to the state's root.
    pub proof: Vec<Digest>,
}

/// One chunk of a run of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkOpening {
    /// Position: the chunk begins at byte 1,024 x index.
    pub index: u64,
    /// Its bytes.
    pub bytes: alloy_primitives::Bytes,
    /// Siblings up to the root of the bytes.
    pub proof: Vec<Digest>,
}

fn refused(detail: impl Into<String>) -> ProofError {
    ProofError::Opening { detail: detail.into() }
}

impl ChunkOpening {
    /// Opens chunk `index` of `data`.
    ///
    /// # Errors
    /// [`ProofError::IndexOutOfRange`].
    pub fn new(data: &[u8], index: u64) -> Result<ChunkOpening, ProofError> {
        let mut size = data.len().div_ceil(CHUNK) as u64;
        if index >= size {
            return Err(ProofError::IndexOutOfRange { index, size });
        }
        // From the top: the bytes that a sibling stands for are hashed on all cores.
        let (mut bytes, mut position, mut proof) = (data, index, Vec::new());
        while size > 1 {
            let left = merkle::split(size);
            let (before, behind) = bytes.split_at(left as usize * CHUNK);
            let is_right = position >= left;
            proof.push(bytes_root(if is_right { before } else { behind }));
            (bytes, position, size) =
                if is_right { (behind, position - left, size - left) } else { (before, position, left) };
        }
        proof.reverse();
        Ok(ChunkOpening { index, bytes: bytes.to_vec().into(), proof })
    }

    /// Checks the chunk against the root of bytes of this size.
    ///
    /// # Errors
    /// [`ProofError`] naming the first thing that does not fit.
    pub fn verify(&self, size: u64, root: &Digest) -> Result<(), ProofError> {
        let count = size.div_ceil(CHUNK as u64);
        if self.index >= count {
            return Err(ProofError::IndexOutOfRange { index: self.index, size: count });
        }
        let expected = (size - self.index * CHUNK as u64).min(CHUNK as u64);
        if self.bytes.len() as u64 != expected {
            return Err(refused(format!(
                "chunk {} has {} bytes, expected {expected}",
                self.index,
                self.bytes.len()
            )));
        }
        merkle::verify_inclusion::<Sha256>(&leaf_hash(&self.bytes), self.index, count, &self.proof, root)
    }
}

impl State {
    /// Opens the entry of this name; with the field's entry key when the signed state is blinded.
    ///
    /// # Errors
    /// [`ProofError::Opening`] when the state has no such entry.
    pub fn prove(&self, name: &str, entry_key: Option<&Digest>) -> Result<Opening, ProofError> {
        let index = self.entries().iter().position(|entry| entry.name == name);
        let index = index.ok_or_else(|| refused(format!("the state has no entry {name:?}")))?;
        let leaves = entry_hashes(self.entries(), entry_key);
        let entry = &self.entries()[index];
        Ok(Opening {
            commitment: entry_key.map_or(self.commitment(), |key| self.blinded(key)),
            entry: Some(EntryOpening {
                index: index as u64,
                entry: entry.encode(entry_key).into(),
                blind: entry_key.map(|key| entry.entry_blind(&HmacKey::new(&key.0))),
                root: entry.root(),
                proof: merkle::inclusion_proof::<Sha256>(&leaves, index as u64)?,
            }),
            chunk: None,
        })
    }
}

impl Opening {
    /// Checks the opening against a signed digest and the blind it was made with (zero if public).
    /// Returns the opened entry of a state.
    ///
    /// # Errors
    /// [`ProofError`] naming the first thing that does not fit.
    pub fn verify(&self, digest: &Digest, blind: &Digest) -> Result<Option<Entry>, ProofError> {
        let actual = self.commitment.digest(blind);
        if actual != *digest {
            return Err(ProofError::RootMismatch { expected: *digest, actual });
        }
        match (self.commitment.kind, &self.entry, &self.chunk) {
            (CommitmentKind::Bytes, None, Some(chunk)) => {
                chunk.verify(self.commitment.size, &self.commitment.root)?;
                Ok(None)
            }
            (CommitmentKind::State, Some(opened), chunk) => {
                let entry = opened.verify(&self.commitment)?;
                if let Some(chunk) = chunk {
                    if !entry.is_dense() {
                        return Err(refused("a chunk is opened of an entry that is not dense"));
                    }
                    chunk.verify(entry.size(), &entry.root())?;
                }
                Ok(Some(entry))
            }
            _ => Err(refused("its parts do not belong to this kind of commitment")),
        }
    }
}

impl EntryOpening {
    fn verify(&self, commitment: &Commitment) -> Result<Entry, ProofError> {
        let leaf = leaf_hash(&self.entry);
        merkle::verify_inclusion::<Sha256>(
            &leaf,
            self.index,
            commitment.count,
            &self.proof,
            &commitment.root,
        )?;
        let (mut entry, is_blinded, stored) =
            Entry::decode(&self.entry).map_err(|error| refused(error.to_string()))?;
        let expected = match (is_blinded, &self.blind) {
            (false, None) => self.root,
            (true, Some(blind)) => blinded_root(blind, &self.root),
            _ => return Err(refused("a blind is given for a plain entry, or missing for a blinded one")),
        };
        if stored != expected {
            return Err(ProofError::RootMismatch { expected: stored, actual: expected });
        }
        if !entry.has_root() && self.root != Digest::ZERO {
            return Err(refused("a root is given for an entry without one"));
        }
        entry.set_root(self.root);
        Ok(entry)
    }
}
