//! Counterfoil turns training into evidence: commitments to tensors, signed receipts of steps,
//! append-only ledgers of receipts, and checks of all of them.
//!
//! The modules stand in one order and never look back: [`primitives`] < [`sortition`], [`tensor`] < [`update`] <
//! [`commit`] < [`receipt`] < [`evidence`] < [`verify`] are pure; [`journal`] < [`keys`] < [`files`] < [`ledger`] <
//! [`chain`], [`storage`] < [`audit`] touch files, clocks and sockets and need the feature `io`. `docs/format.md` in the
//! repository is the normative description of every byte written here.

pub mod commit;
pub mod evidence;
pub mod primitives;
pub mod receipt;
pub mod sortition;
pub mod tensor;
pub mod update;
pub mod verify;

#[cfg(feature = "io")]
pub mod audit;
#[cfg(feature = "io")]
pub mod chain;
#[cfg(feature = "io")]
pub mod files;
#[cfg(feature = "io")]
pub mod journal;
#[cfg(feature = "io")]
pub mod keys;
#[cfg(feature = "io")]
pub mod ledger;
#[cfg(feature = "io")]
pub mod storage;
