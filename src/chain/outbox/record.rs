//! What is written down of submissions, and what follows from it after a crash.

use alloy_primitives::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::Task;
use crate::chain::transaction::Transaction;
use crate::primitives::{Address, Digest};
use crate::receipt::log_id;

/// The window of the budget, seconds.
const DAY: u64 = 86_400;

/// One frame of an outbox's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Event {
    /// Something is to be done by this contract; an anchor's record belongs into this run folder.
    Intent { number: usize, task: Task, contract: Address, folder: Option<String> },
    /// These bytes may leave the machine, from now on and for ever.
    Signed { number: usize, attempt: Attempt },
    /// A block holds one of the transactions.
    Mined { number: usize, mined: Mined },
    /// The block is no longer part of the chain, even if it was thought to be final.
    Undone { number: usize },
    /// Another transaction took the nonce, or this one failed: what was signed can do nothing more.
    Spent { number: usize },
    /// Nothing is left to do.
    Ended { number: usize, outcome: Outcome },
}

/// A signed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attempt {
    pub(super) transaction: Transaction,
    pub(super) raw: Bytes,
    pub(super) hash: Digest,
    /// Unix seconds.
    pub(super) time: u64,
}

/// Where a transaction stands on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mined {
    /// Hash of the transaction.
    pub transaction: Digest,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: Digest,
    /// What it cost, wei.
    pub cost: u128,
    /// Unix seconds at which it was first seen there.
    pub seen: u64,
}

/// How a submission ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The chain has it, as deep as the network asks for; the transaction is one of ours, if given.
    Final(Option<Mined>),
    /// A larger head of the same log stands for it.
    Superseded,
    /// It cannot be done.
    Failed(String),
}

/// Something that shall be done on the chain, and how far it is.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What.
    pub task: Task,
    /// The run ledger.
    pub(super) contract: Address,
    /// The run folder that wants an anchor's record.
    pub(super) folder: Option<String>,
    /// Where one of its transactions was last seen in a block.
    pub mined: Option<Mined>,
    /// How it ended; none while it has not.
    pub outcome: Option<Outcome>,
    /// All that was signed, by time. Those before `live` can do nothing more.
    pub(super) attempts: Vec<Attempt>,
    pub(super) live: usize,
}

impl Submission {
    /// Hashes of all transactions that were signed for it.
    pub fn transactions(&self) -> impl Iterator<Item = Digest> {
        self.attempts.iter().map(|attempt| attempt.hash)
    }

    /// Where the contract lies that its final transaction created itself (EIP-161: by sender and nonce).
    pub(crate) fn created(&self, account: Address) -> Option<Address> {
        let Some(Outcome::Final(Some(mined))) = self.outcome else { return None };
        let final_one = self.attempts.iter().find(|attempt| attempt.hash == mined.transaction)?;
        let is_creation = final_one.transaction.to.is_none();
        is_creation.then(|| account.create(final_one.transaction.nonce))
    }

    /// The transactions of which one may still be mined: one nonce, the last one pays most.
    pub(super) fn in_flight(&self) -> &[Attempt] {
        &self.attempts[self.live..]
    }

    /// The log that an anchor belongs to, and how many receipts of it.
    pub(super) fn log(&self) -> Option<((Address, Digest), u64)> {
        let Task::Anchor(head) = self.task else { return None };
        Some(((self.contract, log_id(head.run, head.worker, head.lane)), head.size))
    }

    /// What its transactions cost within a day of `now`, or may still cost, wei: what was signed long ago can be
    /// mined now, and a clock that was far ahead says nothing about today.
    pub(super) fn reserved(&self, now: u64) -> u128 {
        let is_recent = |time: u64| time.abs_diff(now) <= DAY;
        let seen = self.mined.and_then(|mined| {
            let own = self.attempts.iter().find(|attempt| attempt.hash == mined.transaction)?;
            Some((own.transaction.nonce, mined))
        });
        let mut most = std::collections::BTreeMap::<u64, u128>::new();
        for (number, Attempt { transaction, time, .. }) in self.attempts.iter().enumerate() {
            // One nonce costs once.
            let mined = seen.filter(|(nonce, _)| *nonce == transaction.nonce).map(|(_, mined)| mined);
            let may_cost = number >= self.live && self.outcome.is_none();
            if may_cost || is_recent(*time) || mined.is_some_and(|mined| is_recent(mined.seen)) {
                let known = most.entry(transaction.nonce).or_default();
                *known = mined.map_or(transaction.most().max(*known), |mined| mined.cost);
            }
        }
        most.values().fold(0, |sum, cost| sum.saturating_add(*cost))
    }
}

/// What the events say, in their order.
///
/// # Errors
/// What does not follow.
pub(super) fn replay(frames: &[Vec<u8>]) -> Result<Vec<Submission>, String> {
    let mut known = Vec::new();
    for frame in frames {
        let event = serde_json::from_slice(frame).map_err(|error| error.to_string())?;
        apply(&mut known, event)?;
    }
    Ok(known)
}

pub(super) fn apply(known: &mut Vec<Submission>, event: Event) -> Result<(), String> {
    let (number, event) = match event {
        Event::Intent { number, task, contract, folder } if number == known.len() => {
            let (mined, outcome, attempts) = (None, None, Vec::new());
            known.push(Submission { task, contract, folder, mined, outcome, attempts, live: 0 });
            return Ok(());
        }
        Event::Intent { number, .. } => return Err(format!("submission {number} out of order")),
        Event::Signed { number, .. }
        | Event::Mined { number, .. }
        | Event::Undone { number }
        | Event::Spent { number }
        | Event::Ended { number, .. } => (number, event),
    };
    let submission = known.get_mut(number).ok_or_else(|| format!("there is no submission {number}"))?;
    match event {
        Event::Intent { .. } => {}
        Event::Signed { attempt, .. } => submission.attempts.push(attempt),
        Event::Mined { mined, .. } => submission.mined = Some(mined),
        Event::Undone { .. } => (submission.mined, submission.outcome) = (None, None),
        Event::Spent { .. } => {
            submission.live = submission.attempts.len();
            submission.mined = None;
        }
        Event::Ended { outcome, .. } => submission.outcome = Some(outcome),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal of before there were values cannot be read, or more wei than 64 bits hold cannot.
    #[test]
    fn old_transactions_carry_nothing_and_new_ones_any_value() {
        let old = r#"{"chainId":1,"nonce":2,"tip":3,"feeCap":4,"gasLimit":5,"to":null,"data":"0x"}"#;
        let transaction: Transaction = serde_json::from_str(old).unwrap();
        assert_eq!(transaction.value, 0);
        let (to, data, what) = (Some(Address::ZERO), Bytes::from([1]), "a gift".to_owned());
        let task = Task::Call { to, value: u128::MAX, data, what };
        let contract = Address::ZERO;
        let intent = Event::Intent { number: 0, task: task.clone(), contract, folder: None };
        let frame = serde_json::to_vec(&intent).unwrap();
        let attempt = Attempt {
            transaction: Transaction { value: u128::MAX, ..transaction },
            raw: Bytes::new(),
            hash: Digest::ZERO,
            time: 0,
        };
        let signed = serde_json::to_vec(&Event::Signed { number: 0, attempt: attempt.clone() }).unwrap();
        let known = replay(&[frame, signed]).unwrap();
        assert_eq!((&known[0].task, &known[0].attempts[..]), (&task, &[attempt][..]));
    }
}
