//! What lies behind a signed digest.

use super::frame::{FieldOpening, Openable};
use crate::commit::{CommitError, Entry, State, roots};
use crate::primitives::{Digest, Report};

/// Why an opened field cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum OpeningError {
    /// The layout it refers to is not in the journal.
    #[error("its layout {layout} is missing")]
    NoLayout { layout: Digest },
    /// The state is not the one that was signed.
    #[error("it opens to {actual}, the receipt binds {expected}")]
    Digest { expected: Digest, actual: Digest },
    /// The payload does not have as many bytes as the layout demands.
    #[error("its payload has {actual} bytes, the layout demands {expected}")]
    Length { expected: u64, actual: u64 },
    /// Values are given for a tensor in blocks.
    #[error("it holds values, but one of its tensors is sharded")]
    ShardedValue,
    /// The entries make no state.
    #[error(transparent)]
    State(#[from] CommitError),
}

impl Report for OpeningError {
    fn code(&self) -> &'static str {
        "journal-corrupt"
    }
}

/// One opened field: the state behind its digest and, where it was kept, the state's bytes.
#[derive(Clone, Debug)]
pub struct Opened {
    /// How the field was stored.
    pub field: FieldOpening,
    /// Names, shapes and roots.
    pub state: State,
    /// Canonical bytes of each dense entry in order, when they were stored by value.
    pub values: Option<Vec<Vec<u8>>>,
}

impl Opened {
    /// Puts roots or values into the layout and compares the state with the signed digest.
    pub(super) fn new(
        field: &FieldOpening,
        layout: &[Entry],
        digest: Digest,
    ) -> Result<Opened, OpeningError> {
        let opened = Opened::unsigned(field, layout)?;
        let (state, blind) = (&opened.state, &field.blind);
        let commitment = blind.entry_key().map_or(state.commitment(), |key| state.blinded(key));
        let actual = commitment.digest(&blind.blind);
        match actual == digest {
            true => Ok(opened),
            false => Err(OpeningError::Digest { expected: digest, actual }),
        }
    }

    /// Puts roots or values into the layout; whether anybody signed the state is not looked at.
    pub(super) fn unsigned(field: &FieldOpening, layout: &[Entry]) -> Result<Opened, OpeningError> {
        let sizes: Vec<u64> = layout.iter().filter(|entry| entry.has_root()).map(Entry::size).collect();
        let expected = match field.content {
            Openable::Roots(_) => sizes.len() as u64 * 32,
            // No value gives a sharded entry its root.
            Openable::Values(_) if layout.iter().any(|entry| entry.has_root() && !entry.is_dense()) => {
                return Err(OpeningError::ShardedValue);
            }
            Openable::Values(_) => sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size)),
        };
        let (Openable::Roots(payload) | Openable::Values(payload)) = &field.content;
        if payload.len() as u64 != expected {
            return Err(OpeningError::Length { expected, actual: payload.len() as u64 });
        }
        let (found, values) = match &field.content {
            Openable::Roots(payload) => (payload.chunks_exact(32).map(Digest::from_slice).collect(), None),
            Openable::Values(payload) => {
                let mut rest = payload.as_slice();
                let mut next = |size: &u64| {
                    let (head, tail) = rest.split_at(*size as usize);
                    rest = tail;
                    head
                };
                let values: Vec<&[u8]> = sizes.iter().map(&mut next).collect();
                (roots(&values), Some(values.into_iter().map(<[u8]>::to_vec).collect()))
            }
        };
        let mut found = found.into_iter();
        let mut entries = layout.to_vec();
        for entry in &mut entries {
            if entry.has_root() {
                entry.set_root(found.next().expect("one root per tensor"));
            }
        }
        let state = State::new(entries)?;
        Ok(Opened { field: field.clone(), state, values })
    }
}
