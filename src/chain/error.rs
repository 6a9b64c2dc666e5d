//! What can go wrong between a tree head and its date.

use serde_json::Value;

use super::InterfaceError;
use crate::journal::JournalError;
use crate::ledger::LedgerError;
use crate::primitives::{Address, Digest, Report};
use crate::receipt::SignError;

/// A node's refusal, as JSON-RPC 2.0 words it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// Number of the error; 3 is a revert, -32601 an unknown method.
    pub code: i64,
    /// What the node says.
    pub message: String,
    /// What it adds, the revert's bytes for instance.
    pub data: Option<Value>,
}

/// Why a call to a chain failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum ChainError {
    /// The node could not be reached or did not answer in time.
    #[error("{method}: the node cannot be reached: {reason}")]
    Transport { method: String, reason: String },
    /// The node answered with something else than the call promises.
    #[error("{method}: the node's answer makes no sense: {reason}")]
    Malformed { method: String, reason: String },
    /// The node refused the call.
    #[error("{method}: {error}")]
    Rpc { method: String, error: RpcError },
    /// The contract refused, for the reason it names.
    #[error("the run ledger refuses: {reason}")]
    Reverted { reason: String },
    /// Another contract refused, for the reason it names.
    #[error("the contract refuses: {reason}")]
    Refused { reason: String },
    /// Arguments or answers that are not of the contract's interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Nothing is sent to another chain than the one that was connected.
    #[error("connected to chain {expected}, the node now speaks for chain {actual}")]
    WrongChain { expected: u64, actual: u64 },
    /// Nothing lies where the run ledger should.
    #[error(
        "{address} on chain {chain} holds no run ledger; type: counterfoil chain deploy {options}{terms}"
    )]
    NotDeployed { address: Address, chain: String, options: String, terms: String },
    /// The address holds code that is not this version's run ledger.
    #[error(
        "{address} holds no run ledger of this version: its code hashes to {actual}, expected {expected}; \
         name another contract, or take this one out of networks.json and deploy"
    )]
    NotRunLedger { address: Address, expected: Digest, actual: Digest },
    /// A key that nobody chose for paying pays only on development chains.
    #[error(
        "no key was chosen to pay on chain {chain}: {address} only signs receipts unless it is passed as key"
    )]
    DeviceKeyRefused { address: Address, chain: u64 },
    /// Everybody has this key, so whatever it owns on a public chain can be taken.
    #[error("everybody has the key of {address}; it pays on development chains only, not on chain {chain}")]
    DevelopmentKeyRefused { address: Address, chain: u64 },
    /// The chain holds a larger head of this log, so this one can no longer be anchored.
    #[error(
        "the chain holds a head of {actual} receipts, this one has {expected}: continue the newer record"
    )]
    Behind { expected: u64, actual: u64 },
    /// The chain holds another head of the same size: two histories of one log.
    #[error(
        "the chain holds another head of {size} receipts: {actual}, expected {expected}; there are two histories"
    )]
    OtherHistory { size: u64, expected: Digest, actual: Digest },
    /// The outbox has one writer at a time.
    #[error("another process submits for {account} right now; nothing was written down, try again later")]
    Busy { account: Address },
    /// Nobody waits for it any more.
    #[error("interrupted; what was begun waits in the outbox")]
    Interrupted,
    /// A submission waits in the outbox.
    #[error("nothing is lost, it waits in the outbox: {reason}")]
    Unfinished { reason: String },
    /// A submission can never be done.
    #[error("{reason}")]
    GivenUp { reason: String },
    /// Neither a network with a node nor a node's address.
    #[error("{name:?} is no network: use one of {known}, or a node's http:// or https:// address")]
    NoSuchNetwork { name: String, known: String },
    /// The user's table of networks cannot be read.
    #[error("{path}: {detail}")]
    Networks { path: String, detail: String },
    /// The journal of an outbox says what no outbox writes.
    #[error("{path} is no journal of an outbox: {detail}")]
    Outbox { path: String, detail: String },
    /// The outbox could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The lane has no signed tree head yet.
    #[error("{worker} lane {lane} has no tree head yet: close the run, or ask it for its tree_head()")]
    NoHead { worker: Address, lane: u32 },
    /// The folder holds no genesis receipt, so its run cannot be registered.
    #[error("{folder} holds no genesis receipt of the run")]
    NoGenesis { folder: String },
    /// The run folder could not be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The key did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl ChainError {
    /// Whether the node said nothing, or nothing that makes sense: another time it may.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, ChainError::Transport { .. } | ChainError::Malformed { .. } | ChainError::Rpc { .. })
    }
}

impl Report for ChainError {
    fn code(&self) -> &'static str {
        match self {
            ChainError::DeviceKeyRefused { .. }
            | ChainError::DevelopmentKeyRefused { .. }
            | ChainError::Sign(_) => "key",
            ChainError::Unfinished { .. } | ChainError::Interrupted => "unfinished",
            ChainError::Busy { .. } => "locked",
            ChainError::Networks { .. } | ChainError::NoSuchNetwork { .. } => "invalid-input",
            ChainError::NoHead { .. } | ChainError::NoGenesis { .. } => "not-found",
            ChainError::Interface(error) => error.code(),
            ChainError::Ledger(error) => error.code(),
            ChainError::Journal(error) => error.code(),
            ChainError::Outbox { .. } => "journal-corrupt",
            _ => "chain",
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            ChainError::WrongChain { expected, .. } | ChainError::Behind { expected, .. } => {
                Some(expected.to_string())
            }
            ChainError::NotRunLedger { expected, .. } | ChainError::OtherHistory { expected, .. } => {
                Some(expected.to_string())
            }
            ChainError::Interface(error) => error.expected(),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            ChainError::WrongChain { actual, .. } | ChainError::Behind { actual, .. } => {
                Some(actual.to_string())
            }
            ChainError::NotRunLedger { actual, .. } | ChainError::OtherHistory { actual, .. } => {
                Some(actual.to_string())
            }
            ChainError::Interface(error) => error.actual(),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            ChainError::Transport { method, .. }
            | ChainError::Malformed { method, .. }
            | ChainError::Rpc { method, .. } => Some(method.clone()),
            ChainError::NotRunLedger { address, .. } | ChainError::NotDeployed { address, .. } => {
                Some(address.to_string())
            }
            ChainError::NoHead { worker, lane } => Some(format!("{worker} lane {lane}")),
            ChainError::NoGenesis { folder } => Some(folder.clone()),
            ChainError::Interface(error) => error.place(),
            ChainError::Ledger(error) => error.place(),
            ChainError::Journal(error) => error.place(),
            ChainError::Outbox { path, .. } | ChainError::Networks { path, .. } => Some(path.clone()),
            _ => None,
        }
    }
}
