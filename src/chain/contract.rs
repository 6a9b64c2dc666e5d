//! The run ledger as committed: its interface, its code, and its errors in words.

use std::sync::LazyLock;

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolInterface, SolValue};
use serde::{Deserialize, Serialize};

use super::interface::reason;
use super::{ChainError, RpcError, SignedHead};
use crate::primitives::{Address, Digest, keccak256};
use crate::receipt::run_id;

#[allow(missing_docs, unreachable_pub, clippy::all)]
pub(super) mod abi {
    alloy_sol_types::sol!("contracts/src/interfaces/IRunLedger.sol");
}

use abi::IRunLedger::IRunLedgerErrors;

/// How nodes number an execution that reverted.
const REVERTED: i64 = 3;

/// What `make contracts` compiled, embedded with the library.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The compiler's full version.
    pub compiler: String,
    /// SHA-256 of each source file, in hex.
    pub sources: std::collections::BTreeMap<String, String>,
    /// Code that creates the contract.
    pub bytecode: Bytes,
    /// Code of the contract.
    pub deployed_bytecode: Bytes,
}

/// The embedded run ledger.
pub fn artifact() -> &'static Artifact {
    static ARTIFACT: LazyLock<Artifact> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../contracts/artifacts/RunLedger.json"))
            .expect("the artifact is committed")
    });
    &ARTIFACT
}

/// What makes a run known to the chain; its run id commits to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Address that signs the genesis receipt.
    pub owner: Address,
    /// SHA-256 of `spec.json`.
    pub specification: Digest,
    /// Promises the chain enforces: bit 0 asks for append-only logs.
    pub flags: u64,
    /// Chosen by the owner, so that equal runs have different ids.
    pub nonce: Digest,
}

impl Registration {
    /// The run id, docs/format.md section 4.
    pub fn run(&self) -> Digest {
        run_id(self.owner, self.specification, self.flags, self.nonce)
    }
}

/// What the contract stores for a head.
pub(super) fn stored_value(head: &SignedHead) -> Digest {
    keccak256((head.root, U256::from(head.size), head.digest).abi_encode())
}

/// Puts the contract's own reason in the place of a node's "execution reverted".
pub(super) fn explain_revert(error: ChainError) -> ChainError {
    let ChainError::Rpc { error: RpcError { data: Some(data), .. }, .. } = &error else { return error };
    let Some(bytes) = data.as_str().and_then(|text| text.parse::<Bytes>().ok()) else { return error };
    match IRunLedgerErrors::abi_decode(&bytes) {
        Ok(reason) => ChainError::Reverted { reason: describe(&reason) },
        Err(_) => error,
    }
}

/// As [`explain_revert`], of any contract: whatever reverts is a refusal, even without a reason.
pub(super) fn explain_refusal(error: ChainError) -> ChainError {
    let ChainError::Rpc { error: RpcError { code, message, data }, .. } = &error else { return error };
    let bytes = data.as_ref().and_then(|data| data.as_str()?.parse::<Bytes>().ok()).unwrap_or_default();
    let known = match IRunLedgerErrors::abi_decode(&bytes) {
        Ok(reason) => Some(describe(&reason)),
        Err(_) => reason(&bytes),
    };
    let is_revert = *code == REVERTED || message.to_lowercase().contains("revert");
    match known {
        Some(reason) => ChainError::Refused { reason },
        None if is_revert && bytes.is_empty() => ChainError::Refused { reason: "it names no reason".into() },
        None if is_revert => ChainError::Refused { reason: format!("an unknown error, {bytes}") },
        None => error,
    }
}

fn describe(error: &IRunLedgerErrors) -> String {
    match error {
        IRunLedgerErrors::NoOwner(_) => "a run needs an owner".into(),
        IRunLedgerErrors::UnsupportedFlags(e) => {
            format!("UnsupportedFlags: it cannot enforce the flags {:#x}", e.flags)
        }
        IRunLedgerErrors::NotRevocable(e) => {
            format!("NotRevocable: {} is neither the worker {} nor its key {}", e.caller, e.worker, e.key)
        }
        IRunLedgerErrors::UnknownRun(e) => format!("UnknownRun: nobody registered the run {}", e.run),
        IRunLedgerErrors::NotAllowed(e) => {
            format!("NotAllowed: {} is neither the worker of log {} nor its anchorer", e.caller, e.log)
        }
        IRunLedgerErrors::WrongIndex(e) => {
            format!("WrongIndex: the next anchor of log {} is {}, not {}", e.log, e.expected, e.actual)
        }
        IRunLedgerErrors::WrongSize(e) => {
            format!("WrongSize: {} receipts do not follow {} in log {}", e.actual, e.previous, e.log)
        }
        IRunLedgerErrors::ConsistencyProofRequired(e) => {
            format!("ConsistencyProofRequired: log {} is append-only, so this anchor needs a proof", e.log)
        }
        IRunLedgerErrors::NotPrevious(e) => {
            format!("NotPrevious: this is not the head at anchor {} of log {}", e.last, e.log)
        }
        IRunLedgerErrors::Inconsistent(e) => {
            format!("Inconsistent: {} receipts of log {} do not begin its {}", e.previous, e.log, e.actual)
        }
        IRunLedgerErrors::Expired(e) => {
            format!("Expired: the signed permission to anchor ended at {}", e.deadline)
        }
        IRunLedgerErrors::InvalidSignature(e) => {
            format!("InvalidSignature: {} did not sign this anchor for this contract and chain", e.signer)
        }
    }
}
