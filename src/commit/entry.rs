//! The leaf of a state: a named tensor, its absence, or its identity with another one.

use super::CommitError;
use super::shard::{Block, blocks_root};
use crate::primitives::{Digest, HmacKey, Reader, sha256};
use crate::tensor::{check_name, measure};

const TAG: &[u8; 20] = b"counterfoil.entry.v1";

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tensor by its dtype, shape, canonical size in bytes and root.
    Dense {
        /// A tag of [`crate::tensor::DTYPES`].
        dtype: &'static str,
        /// Extents, outermost first.
        shape: Vec<u64>,
        /// Canonical bytes.
        size: u64,
        /// Root over the canonical bytes.
        root: Digest,
    },
    /// A tensor in blocks, each hashed alone; not comparable with the whole.
    Sharded {
        /// A tag of [`crate::tensor::DTYPES`].
        dtype: &'static str,
        /// Extents of the whole.
        shape: Vec<u64>,
        /// Canonical bytes of the whole.
        size: u64,
        /// The hash of the blocks' places and roots.
        root: Digest,
    },
    /// Nothing: a gradient that is None.
    Absent,
    /// The same storage as another tensor of the state (tied weights).
    Alias {
        /// Name of the dense entry.
        target: String,
    },
}

/// A name and what stands under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in its state.
    pub name: String,
    /// What stands there.
    pub content: Content,
}

impl Entry {
    /// A dense entry whose size follows from dtype and shape.
    ///
    /// # Errors
    /// [`CommitError::Tensor`] when dtype, shape or name are refused.
    pub fn dense(name: &str, dtype: &str, shape: &[u64], root: Digest) -> Result<Entry, CommitError> {
        check_name(name)?;
        let (dtype, size) = measure(name, dtype, shape)?;
        let content = Content::Dense { dtype, shape: shape.into(), size, root };
        Ok(Entry { name: name.into(), content })
    }

    /// An entry of a tensor in blocks, in any order.
    ///
    /// # Errors
    /// [`CommitError::Tensor`] when dtype, shape or name are refused; [`CommitError::Parts`] when
    /// the blocks are no division of the shape.
    pub fn sharded(name: &str, dtype: &str, shape: &[u64], blocks: &[Block]) -> Result<Entry, CommitError> {
        check_name(name)?;
        let (dtype, size) = measure(name, dtype, shape)?;
        let root = blocks_root(shape, blocks)
            .map_err(|error| CommitError::Parts { name: name.into(), detail: error.to_string() })?;
        let content = Content::Sharded { dtype, shape: shape.into(), size, root };
        Ok(Entry { name: name.into(), content })
    }

    /// Whether the entry's root is that of a tensor's canonical bytes.
    pub fn is_dense(&self) -> bool {
        matches!(self.content, Content::Dense { .. })
    }

    /// Whether the entry stands for a tensor with a root, dense or sharded.
    pub fn has_root(&self) -> bool {
        matches!(self.content, Content::Dense { .. } | Content::Sharded { .. })
    }

    /// The entry with a root of zero, as a layout holds it.
    pub(crate) fn without_root(&self) -> Entry {
        let mut entry = self.clone();
        entry.set_root(Digest::ZERO);
        entry
    }

    /// Gives a tensor's entry this root.
    pub fn set_root(&mut self, new: Digest) {
        if let Content::Dense { root, .. } | Content::Sharded { root, .. } = &mut self.content {
            *root = new;
        }
    }

    /// The tensor's dtype and shape; none unless the entry has a root.
    pub(crate) fn measured(&self) -> Option<(&'static str, &[u64])> {
        match &self.content {
            Content::Dense { dtype, shape, .. } | Content::Sharded { dtype, shape, .. } => {
                Some((dtype, shape))
            }
            _ => None,
        }
    }

    /// Canonical bytes of the tensor; 0 unless the entry has a root.
    pub fn size(&self) -> u64 {
        match self.content {
            Content::Dense { size, .. } | Content::Sharded { size, .. } => size,
            _ => 0,
        }
    }

    /// Root of the tensor; zero if the entry has none.
    pub fn root(&self) -> Digest {
        match self.content {
            Content::Dense { root, .. } | Content::Sharded { root, .. } => root,
            _ => Digest::ZERO,
        }
    }

    /// What an opening of this entry reveals about the entry key, and about no other entry.
    pub(super) fn entry_blind(&self, entry_key: &HmacKey) -> Digest {
        entry_key.code(&[self.name.as_bytes()])
    }

    /// The leaf's bytes, with the root blinded when there is an entry key.
    pub fn encode(&self, entry_key: Option<&Digest>) -> Vec<u8> {
        self.encode_for(entry_key.map(|key| HmacKey::new(&key.0)).as_ref())
    }

    pub(super) fn encode_for(&self, entry_key: Option<&HmacKey>) -> Vec<u8> {
        let root = entry_key.map_or(self.root(), |key| blinded_root(&self.entry_blind(key), &self.root()));
        self.encode_with(entry_key.is_some(), root)
    }

    pub(super) fn encode_with(&self, is_blinded: bool, root: Digest) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        self.encode_into(&mut bytes, is_blinded, root);
        bytes
    }

    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>, is_blinded: bool, root: Digest) {
        let (kind, dtype, shape, target): (u8, &str, &[u64], &str) = match &self.content {
            Content::Dense { dtype, shape, .. } => (0, dtype, shape, ""),
            Content::Absent => (1, "", &[], ""),
            Content::Alias { target } => (2, "", &[], target),
            Content::Sharded { dtype, shape, .. } => (4, dtype, shape, ""),
        };
        bytes.extend_from_slice(TAG);
        bytes.extend_from_slice(&[kind, u8::from(is_blinded)]);
        bytes.extend_from_slice(&(self.name.len() as u16).to_be_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.push(dtype.len() as u8);
        bytes.extend_from_slice(dtype.as_bytes());
        bytes.push(shape.len() as u8);
        for extent in shape {
            bytes.extend_from_slice(&extent.to_be_bytes());
        }
        bytes.extend_from_slice(&self.size().to_be_bytes());
        bytes.extend_from_slice(root.as_slice());
        bytes.extend_from_slice(&(target.len() as u16).to_be_bytes());
        bytes.extend_from_slice(target.as_bytes());
    }

    /// Parses a leaf; also returns whether its root is blinded, and the root as it stands there.
    ///
    /// # Errors
    /// [`CommitError::Encoding`] for anything that [`Entry::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<(Entry, bool, Digest), CommitError> {
        let refused = |detail: &str| Err(CommitError::Encoding { detail: detail.into() });
        let mut reader = Reader::new(bytes);
        if reader.take(TAG.len())? != TAG {
            return refused("the tag is not counterfoil.entry.v1");
        }
        let (kind, is_blinded) = (reader.u8()?, reader.u8()? == 1);
        let name_length = reader.u16()?.into();
        let name = String::from_utf8_lossy(reader.take(name_length)?).into_owned();
        check_name(&name)?;
        let dtype_length = reader.u8()?.into();
        let dtype = String::from_utf8_lossy(reader.take(dtype_length)?).into_owned();
        let dimensions = reader.u8()?;
        let shape = (0..dimensions).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        // The byte length follows from dtype and shape.
        reader.u64()?;
        let root = reader.digest()?;
        let target_length = reader.u16()?.into();
        let target = String::from_utf8_lossy(reader.take(target_length)?).into_owned();
        let content = match kind {
            0 => {
                let (dtype, size) = measure(&name, &dtype, &shape)?;
                Content::Dense { dtype, shape, size, root }
            }
            1 => Content::Absent,
            2 => Content::Alias { target },
            4 => {
                let (dtype, size) = measure(&name, &dtype, &shape)?;
                Content::Sharded { dtype, shape, size, root }
            }
            _ => return refused("its kind is not implemented"),
        };
        let entry = Entry { name, content };
        // One entry has one encoding: sizes, flags and fields that do not belong are caught here.
        if (!is_blinded && root != entry.root()) || entry.encode_with(is_blinded, root) != bytes {
            return refused("not in canonical form");
        }
        Ok((entry, is_blinded, root))
    }
}

/// A tensor's root as it stands in a blinded entry.
pub(super) fn blinded_root(entry_blind: &Digest, root: &Digest) -> Digest {
    sha256(&[b"counterfoil.blinded-root.v1", entry_blind.as_slice(), root.as_slice()])
}
