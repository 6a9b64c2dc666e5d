//! What can be asked of a chain, and whether it has it already.

use alloy_primitives::{B256, Bytes, address};
use alloy_sol_types::SolCall;
use serde::{Deserialize, Serialize};

use super::contract::abi::IRunLedger;
use super::contract::{artifact, stored_value};
use super::{ChainError, Client, HeadOnChain, Registration, SignedHead};
use crate::primitives::{Address, Digest, keccak256};
use crate::receipt::log_id;

/// The factory that lies at this address on most chains; it deploys with CREATE2 (EIP-1014), so that
/// code gets the same address everywhere.
pub(super) const FACTORY: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");

/// One transaction's purpose. Each but a call can be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// The run ledger comes to a chain that has none.
    Deploy {
        /// keccak256 of the code that creates it.
        code: Digest,
    },
    /// A run becomes known.
    Register(Registration),
    /// A tree head is recorded.
    Anchor(SignedHead),
    /// A key signs for a worker no more.
    Revoke {
        /// For whom it signed.
        worker: Address,
        /// The key.
        key: Address,
    },
    /// Nothing: a transfer of nothing to oneself, which takes a nonce that later transactions wait for.
    Fill {
        /// The nonce.
        nonce: u64,
    },
    /// Any call of any contract. The chain cannot say that it is done, so two equal ones are two calls; each is
    /// sent until one transaction of one nonce is final.
    Call {
        /// None creates a contract.
        to: Option<Address>,
        /// Wei.
        value: u128,
        /// The function and its arguments, or the code that creates a contract.
        data: Bytes,
        /// What people read, the contract and the function for instance.
        what: String,
    },
}

/// The call that does a task, or repeats it without harm where it is done.
pub(super) struct Standing {
    pub(super) is_done: bool,
    /// Receipts below the last head that the chain holds of an anchor's log.
    pub(super) size: u64,
    /// None creates a contract.
    pub(super) to: Option<Address>,
    pub(super) data: Bytes,
}

impl Task {
    /// Deploys this version's run ledger.
    pub(super) fn deploy() -> Task {
        Task::Deploy { code: keccak256(&artifact().bytecode) }
    }

    /// Wei that its transaction carries.
    pub(super) fn value(&self) -> u128 {
        match self {
            Task::Call { value, .. } => *value,
            _ => 0,
        }
    }

    /// Whether asking for it twice asks for two.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self, Task::Call { .. })
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Task::Deploy { .. } => write!(f, "deployment of the run ledger"),
            Task::Register(run) => write!(f, "registration of the run {}", run.run()),
            Task::Anchor(SignedHead { run, worker, lane, size, .. }) => {
                write!(f, "anchor of {size} receipts of {worker} lane {lane} in the run {run}")
            }
            Task::Revoke { worker, key } => write!(f, "revocation of the key {key} of {worker}"),
            Task::Fill { nonce } => write!(f, "filler of the nonce {nonce}"),
            Task::Call { what, .. } => write!(f, "{what}"),
        }
    }
}

/// Where the factory puts this version's run ledger.
pub(super) fn usual_address() -> Address {
    FACTORY.create2_from_code(B256::ZERO, &artifact().bytecode)
}

impl Client {
    /// Asks the chain whether a task is done.
    ///
    /// # Errors
    /// [`ChainError::Behind`], [`ChainError::OtherHistory`] or [`ChainError::NotRunLedger`] when it can never be
    /// done, else what the node reports.
    pub(super) fn standing(&self, task: &Task, account: Address) -> Result<Standing, ChainError> {
        let (mut size, mut to) = (0, Some(self.contract()));
        let (is_done, data) = match task {
            Task::Deploy { code: wanted } => {
                let code = &artifact().bytecode;
                if keccak256(code) != *wanted {
                    return Err(ChainError::Reverted { reason: "another version of it was wanted".into() });
                }
                let has_factory = !self.code_at(FACTORY)?.is_empty();
                to = has_factory.then_some(FACTORY);
                let data = if has_factory { [B256::ZERO.as_slice(), code].concat() } else { code.to_vec() };
                (self.has_ledger(self.contract())?, data)
            }
            Task::Register(run) => {
                let Registration { owner, specification, flags, nonce } = *run;
                let is_known = !self.view(&IRunLedger::ownerOfCall { run: run.run() })?.is_zero();
                (is_known, IRunLedger::registerCall { owner, specification, flags, nonce }.abi_encode())
            }
            Task::Anchor(head) => {
                let known = self.head(head.run, head.worker, head.lane)?;
                size = known.map_or(0, |last| last.size);
                let last = known.filter(|last| last.size >= head.size);
                if let Some(last) = last {
                    self.same_head(head, last)?;
                }
                let next = known.map_or(0, |last| last.count);
                let index = next - u64::from(last.is_some());
                (last.is_some(), IRunLedger::anchorCall { a: head.at(index) }.abi_encode())
            }
            Task::Revoke { worker, key } => {
                let is_known = self.revocation(*worker, *key)?.is_some();
                (is_known, IRunLedger::revokeCall { worker: *worker, key: *key }.abi_encode())
            }
            Task::Fill { nonce } => {
                to = Some(account);
                (self.nonce(account)? > *nonce, Vec::new())
            }
            Task::Call { to: receiver, data, .. } => {
                to = *receiver;
                (false, data.to_vec())
            }
        };
        Ok(Standing { is_done, size, to, data: data.into() })
    }

    /// Whether the chain, whose last head is at least of this size, holds this one.
    fn same_head(&self, head: &SignedHead, last: HeadOnChain) -> Result<(), ChainError> {
        let (log, index) = (log_id(head.run, head.worker, head.lane), last.count - 1);
        if last.size > head.size {
            let behind = ChainError::Behind { expected: head.size, actual: last.size };
            return self.find_event(head, None)?.map(|_| ()).ok_or(behind);
        }
        let (expected, actual) = (stored_value(head), self.view(&IRunLedger::anchorAtCall { log, index })?);
        match actual == expected {
            true => Ok(()),
            false => Err(ChainError::OtherHistory { size: head.size, expected, actual }),
        }
    }
}
