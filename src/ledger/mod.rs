//! A worker's ledger: signs receipts, links them, and writes them so that none is lost.
//!
//! One [`Ledger`] writes one lane. Whatever leaves this module was durable before: receipts are read
//! back from the journal after a flush, and a tree head covers flushed receipts only. A crash in
//! between can therefore never make an honest worker sign two receipts of one sequence number.

mod erase;
mod folder;
mod progress;
mod writer;

use crate::evidence::{BundleError, FrameError};
use crate::journal::JournalError;
use crate::keys::KeyError;
use crate::primitives::{Address, Report};
use crate::receipt::{ReceiptError, SignError};
use crate::verify::SpecificationError;

pub use erase::Erased;
pub use folder::{RunFolder, RunSettings};
pub use writer::{CloseReason, Field, Ledger, Session};

/// Why a ledger was not opened or a receipt not written.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum LedgerError {
    /// The folder holds something already.
    #[error("{path} is not empty; pass another folder, or open the run in it to continue it")]
    Exists { path: String },
    /// The folder holds no run, or not this lane of it.
    #[error("{path} does not exist: there is no such run, or no such lane of it")]
    NotFound { path: String },
    /// The lane was closed.
    #[error("this lane is closed; open the run again to continue it")]
    Closed,
    /// The run's files contradict each other.
    #[error("{place}: {detail}; verify the run to see what was changed")]
    Damaged { place: String, detail: String },
    /// An anchor covers more receipts than the journal holds, so that receipts were lost.
    #[error(
        "an anchor covers {anchored} receipts, the journal holds {found}; continue in a new lane (Run.join)"
    )]
    BehindAnchor { anchored: u64, found: u64 },
    /// More receipts have left this device than the journal holds: it is an older copy.
    #[error(
        "{released} receipts of this lane have left this device, this copy of the run holds {found}; writing it would \
         sign a second history. Continue the newest copy, or take a new lane (Run.join)"
    )]
    OlderCopy { released: u64, found: u64 },
    /// The key may not sign in this lane.
    #[error("{key} may not sign in this lane: {detail}")]
    NotDelegated { key: Address, detail: String },
    /// The step is not the next one.
    #[error("step {actual} cannot follow: the next step is {expected}")]
    Step { expected: u64, actual: u64 },
    /// The policy in force demands a field that was not given.
    #[error("step {step} must commit {field}: the policy demands it every {every} steps")]
    Due { step: u64, field: &'static str, every: u32 },
    /// A policy reaches back or goes below the floor.
    #[error("this policy is refused: {detail}")]
    Policy { detail: String },
    /// An object or field is too large to be stored.
    #[error("{what} has {actual} bytes, at most {expected} can be stored")]
    TooLarge { what: String, expected: u64, actual: u64 },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A key is missing or refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The signer failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A value does not fit its field.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The specification is refused.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
    /// A frame of the journal is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl LedgerError {
    fn inner(&self) -> Option<&dyn Report> {
        match self {
            LedgerError::Journal(error) => Some(error),
            LedgerError::Key(error) => Some(error),
            LedgerError::Sign(error) => Some(error),
            LedgerError::Receipt(error) => Some(error),
            LedgerError::Specification(error) => Some(error),
            LedgerError::Frame(error) => Some(error),
            LedgerError::Bundle(error) => Some(error),
            _ => None,
        }
    }
}

impl Report for LedgerError {
    fn code(&self) -> &'static str {
        match self {
            LedgerError::Exists { .. } => "exists",
            LedgerError::NotFound { .. } => "not-found",
            LedgerError::Closed => "closed",
            LedgerError::NotDelegated { .. } => "key",
            LedgerError::Damaged { .. }
            | LedgerError::BehindAnchor { .. }
            | LedgerError::OlderCopy { .. } => "journal-corrupt",
            other => other.inner().map_or("invalid-input", Report::code),
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            LedgerError::Step { expected, .. } | LedgerError::TooLarge { expected, .. } => {
                Some(expected.to_string())
            }
            LedgerError::BehindAnchor { anchored: expected, .. }
            | LedgerError::OlderCopy { released: expected, .. } => Some(expected.to_string()),
            other => other.inner().and_then(Report::expected),
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            LedgerError::Step { actual, .. } | LedgerError::TooLarge { actual, .. } => {
                Some(actual.to_string())
            }
            LedgerError::BehindAnchor { found, .. } | LedgerError::OlderCopy { found, .. } => {
                Some(found.to_string())
            }
            other => other.inner().and_then(Report::actual),
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            LedgerError::Exists { path } | LedgerError::NotFound { path } => Some(path.clone()),
            LedgerError::Damaged { place, .. } => Some(place.clone()),
            LedgerError::Due { field, .. } => Some((*field).into()),
            LedgerError::NotDelegated { key, .. } => Some(key.to_string()),
            other => other.inner().and_then(Report::place),
        }
    }
}
