//! Where a tree head gets its date: calls to the `RunLedger` contract on an EVM chain.
//!
//! Everything here talks to one [`Node`], so the embedded development chain and a real node are
//! reached by the same code, and the path that the tests take is the path that users take. An
//! [`AnchorRecord`](crate::evidence::AnchorRecord) only says where to look: what dates a receipt is
//! the chain a verifier chose.

mod call;
mod client;
mod contract;
mod error;
mod event_proof;
mod http;
mod interface;
mod network;
pub mod outbox;
mod run;
mod submit;
mod task;
mod transaction;

use serde_json::Value;

pub use call::{Called, Occurrence};
pub use client::{Client, HeadOnChain, SignedHead};
pub use contract::{Artifact, Registration, artifact};
pub use error::{ChainError, RpcError};
pub use http::HttpNode;
pub use interface::{Decoded, Fields, Interface, InterfaceError, embedded};
pub use network::{Network, Networks};
pub use run::anchor_lane;
pub use submit::{Payer, Submitter, deploy, why};
pub use task::Task;

pub use crate::verify::DEVELOPMENT_CHAIN;

/// Whoever answers JSON-RPC calls for a chain.
pub trait Node: Send + Sync {
    /// Calls `method` and returns its result.
    ///
    /// # Errors
    /// [`ChainError::Rpc`] when the node refuses, [`ChainError::Transport`] when it cannot be
    /// reached, [`ChainError::Malformed`] when its answer is no JSON-RPC.
    fn call(&self, method: &str, params: Value) -> Result<Value, ChainError>;
}
