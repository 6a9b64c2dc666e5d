//! One submission's way: sign, send, look, replace, wait.

use alloy_primitives::{Bytes, U64, U256};
use serde::Deserialize;
use serde_json::json;

use super::fees::Fees;
use super::record::{Attempt, Event, Mined, Outcome, Submission};
use super::{Outbox, Rule};
use crate::chain::client::call;
use crate::chain::contract::explain_revert;
use crate::chain::task::Standing;
use crate::chain::transaction::Transaction;
use crate::chain::{ChainError, RpcError, Task};
use crate::primitives::{Digest, keccak256};

/// Seconds after which a transaction that no block took is sent again.
const REPEAT_AFTER: u64 = 15;
/// Seconds after which it is replaced by one that pays more.
const REPLACE_AFTER: u64 = 60;
/// Failed transactions of one submission after which it is given up.
const MOST_FAILURES: usize = 3;
/// The window of the budget, seconds.
const DAY: u64 = 86_400;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    status: U64,
    block_hash: Digest,
    block_number: U64,
    #[serde(default)]
    gas_used: U256,
    #[serde(default)]
    effective_gas_price: U256,
}

/// What a look at the chain found of a submission's transactions.
enum Found {
    /// One of them, in a block.
    Mined(Mined, bool),
    /// None, and the nonce is free.
    Missing,
    /// None, and the nonce is taken.
    Taken,
}

impl Outbox {
    /// Does the next thing for a submission.
    pub(super) fn step(&mut self, number: usize, now: u64, may_sign: bool) -> Result<(), ChainError> {
        if self.submissions[number].in_flight().is_empty() {
            if may_sign {
                return self.begin(number, now);
            }
            // What the chain says while an earlier transaction is open says nothing about this one.
            self.notes[number].taken = None;
            return Ok(());
        }
        match self.look(number, now)? {
            Found::Mined(mined, true) => self.mined(number, mined),
            Found::Mined(..) => self.failed(number),
            Found::Missing => self.missing(number, now),
            Found::Taken => self.taken(number),
        }
    }

    /// Nothing of this submission is under way: asks whether it is done, else signs a transaction.
    fn begin(&mut self, number: usize, now: u64) -> Result<(), ChainError> {
        let task = self.submissions[number].task.clone();
        let account = self.account;
        let Standing { is_done, size, to, data } = self.client_of(number).standing(&task, account)?;
        if size < self.anchored(number) {
            self.notes[number].says("the node does not know our last anchor yet");
            return Ok(());
        }
        if is_done && self.keeps(Rule::Idempotent) {
            return match self.is_settled(number)? {
                true => self.end(number, Outcome::Final(None)),
                false => Ok(()),
            };
        }
        let mut request = json!({"from": account, "data": data});
        if let Some(to) = to {
            request["to"] = json!(to);
        }
        let gas: U64 =
            call(self.client.node(), "eth_estimateGas", json!([request])).map_err(explain_revert)?;
        self.notes[number].taken = None;
        let fees = Fees::quote(&self.client)?;
        let nonce = match &task {
            Task::Fill { nonce } => *nonce,
            _ => self.next_nonce()?,
        };
        let transaction = Transaction {
            chain_id: self.client.chain_id(),
            nonce,
            tip: fees.tip,
            fee_cap: fees.cap,
            gas_limit: gas.to::<u64>().saturating_mul(6) / 5,
            to,
            data,
        };
        self.send(number, now, transaction)
    }

    /// Receipts below the largest head of this one's log that a block was seen to hold.
    fn anchored(&self, number: usize) -> u64 {
        let log = |of: &Submission| match of.task {
            Task::Anchor(head) => Some((of.contract, head.run, head.worker, head.lane, head.size)),
            _ => None,
        };
        let Some((contract, run, worker, lane, _)) = log(&self.submissions[number]) else { return 0 };
        let mined = self.submissions.iter().filter(|other| other.mined.is_some()).filter_map(log);
        let own = mined.filter(|other| (other.0, other.1, other.2, other.3) == (contract, run, worker, lane));
        own.map(|(.., size)| size).max().unwrap_or(0)
    }

    /// Latest on the chain, but behind everything that was signed: another process's pending
    /// transactions, or a node that lost ours, decide nothing.
    fn next_nonce(&self) -> Result<u64, ChainError> {
        if !self.keeps(Rule::OwnNonces) {
            let pending = json!([self.account, "pending"]);
            return call::<U64>(self.client.node(), "eth_getTransactionCount", pending)
                .map(|nonce| nonce.to());
        }
        let in_flight = self.submissions.iter().flat_map(|submission| submission.in_flight());
        let own = in_flight.map(|attempt| attempt.transaction.nonce + 1).max();
        Ok(self.client.nonce(self.account)?.max(own.unwrap_or(0)))
    }

    /// Signs, writes down, and sends.
    fn send(&mut self, number: usize, now: u64, transaction: Transaction) -> Result<(), ChainError> {
        if let Some((reason, advice)) = self.refusal(number, now, &transaction)? {
            self.notes[number].says(reason);
            self.notes[number].advice = Some(advice);
            return Ok(());
        }
        let Some(signer) = self.signer.clone() else {
            self.notes[number].says("nothing speaks against sending it now");
            self.notes[number].advice = Some("let it go on".into());
            return Ok(());
        };
        self.client.check_chain()?;
        let raw = Bytes::from(transaction.sign(&*signer)?);
        let attempt = Attempt { transaction, hash: keccak256(&raw), raw: raw.clone(), time: now };
        if !self.keeps(Rule::DurableFirst) {
            self.broadcast(number, now, &raw);
            return self.write(Event::Signed { number, attempt });
        }
        self.write(Event::Signed { number, attempt })?;
        self.broadcast(number, now, &raw);
        Ok(())
    }

    /// Why a transaction must not be signed, and what the user can do.
    fn refusal(
        &self,
        number: usize,
        now: u64,
        transaction: &Transaction,
    ) -> Result<Option<(String, String)>, ChainError> {
        if !self.keeps(Rule::Budget) {
            return Ok(None);
        }
        let network = self.client.network();
        if transaction.fee_cap > network.fee_cap {
            let (asked, most) = (transaction.fee_cap, network.fee_cap);
            let reason = format!("the chain asks for {asked} wei per gas, at most {most} are allowed");
            return Ok(Some((reason, "wait until it costs less, or raise feeCap in networks.json".into())));
        }
        let from = now.saturating_sub(DAY);
        let others = self.submissions.iter().enumerate().filter(|(other, _)| *other != number);
        let own = &self.submissions[number];
        // A replacement takes the place of what it replaces.
        let replaced = own.in_flight().iter().map(|attempt| attempt.transaction.most()).max().unwrap_or(0);
        let own = own.reserved(from).saturating_sub(replaced);
        let spent = others.fold(own, |sum, (_, other)| sum.saturating_add(other.reserved(from)));
        let wanted = transaction.most().max(replaced);
        if spent.saturating_add(wanted) > network.budget {
            let [wanted, spent, budget] = [wanted, spent, network.budget].map(|wei| network.amount(wei));
            let reason = format!("it may cost {wanted}, and {spent} of {budget} are spent within 24 hours");
            return Ok(Some((reason, "wait a day, or raise budget in networks.json".into())));
        }
        let balance = self.client.balance(self.account, transaction.most())?;
        if balance < transaction.most() {
            let [balance, wanted] = [balance, transaction.most()].map(|wei| network.amount(wei));
            let free = network.faucet.as_ref().map(|url| format!(", free at {url}")).unwrap_or_default();
            let account = self.account;
            let reason = format!("the account {account} has {balance}, it may cost {wanted}");
            return Ok(Some((reason, format!("pay {} to {account}{free}", network.currency))));
        }
        Ok(None)
    }

    /// Sends bytes that are written down. Every answer but one is as good as the next look at the chain.
    fn broadcast(&mut self, number: usize, now: u64, raw: &Bytes) {
        if self.signer.is_none() {
            self.notes[number].says("it was signed and is in no block");
            self.notes[number].advice = Some("let it go on".into());
            return;
        }
        let answer = call::<Digest>(self.client.node(), "eth_sendRawTransaction", json!([raw]));
        let note = &mut self.notes[number];
        note.sent = Some(now);
        note.says(match answer {
            Ok(hash) => format!("transaction {hash} was sent and is in no block yet"),
            Err(ChainError::Rpc { error: RpcError { message, .. }, .. }) => {
                format!("the node did not take the transaction: {message}")
            }
            Err(error) => error.to_string(),
        });
    }

    /// Looks for any of the transactions that may have been mined.
    fn look(&self, number: usize, now: u64) -> Result<Found, ChainError> {
        let in_flight = self.submissions[number].in_flight();
        // Asked first: a block that comes between the two answers must not look like another's.
        let next = self.client.nonce(self.account)?;
        let known = if self.keeps(Rule::Replacement) { in_flight } else { &in_flight[in_flight.len() - 1..] };
        for attempt in known {
            let found: Option<Receipt> =
                call(self.client.node(), "eth_getTransactionReceipt", json!([attempt.hash]))?;
            if let Some(receipt) = found {
                let cost = receipt.gas_used.saturating_mul(receipt.effective_gas_price);
                let mined = Mined {
                    transaction: attempt.hash,
                    block_number: receipt.block_number.to(),
                    block_hash: receipt.block_hash,
                    cost: cost.saturating_to(),
                    seen: now,
                };
                return Ok(Found::Mined(mined, receipt.status == U64::from(1)));
            }
        }
        let taken = next > in_flight[0].transaction.nonce;
        Ok(if taken { Found::Taken } else { Found::Missing })
    }

    /// A block holds it: final when it lies deep enough on the chain that counts.
    fn mined(&mut self, number: usize, mined: Mined) -> Result<(), ChainError> {
        self.notes[number].taken = None;
        let known = self.submissions[number].mined;
        if known.is_none_or(|known| Mined { seen: known.seen, ..mined } != known) {
            self.write(Event::Mined { number, mined })?;
        }
        let confirmations = self.client.network().confirmations;
        let depth = self.client.latest_block()?.saturating_sub(mined.block_number) + 1;
        self.notes[number]
            .says(format!("mined in block {}, {depth} of {confirmations} blocks deep", mined.block_number));
        if self.keeps(Rule::Confirmations) {
            if depth < confirmations {
                return Ok(());
            }
            if self.client.block_hash(mined.block_number)? != Some(mined.block_hash) {
                self.notes[number].says("its block is no longer on the chain");
                return Ok(());
            }
        }
        self.end(number, Outcome::Final(Some(mined)))
    }

    /// The contract refused what it would have taken when it was asked: something came in between.
    fn failed(&mut self, number: usize) -> Result<(), ChainError> {
        self.write(Event::Spent { number })?;
        self.notes[number].failures += 1;
        if self.notes[number].failures < MOST_FAILURES {
            return Ok(());
        }
        self.end(number, Outcome::Failed(format!("{MOST_FAILURES} transactions failed in their blocks")))
    }

    /// No block holds it and its nonce is free: it is sent again, later with more to pay.
    fn missing(&mut self, number: usize, now: u64) -> Result<(), ChainError> {
        self.notes[number].taken = None;
        if self.submissions[number].mined.is_some() {
            self.write(Event::Undone { number })?;
            self.notes[number].sent = None;
        }
        let last = self.submissions[number].in_flight().last().expect("the caller looked").clone();
        let is_due =
            |after: u64, since: Option<u64>| since.is_none_or(|since| now >= since.saturating_add(after));
        if is_due(REPLACE_AFTER, Some(last.time)) && !self.waits_for_others(last.transaction.nonce)? {
            return self.replace(number, now, &last);
        }
        if is_due(REPEAT_AFTER, self.notes[number].sent) {
            if !self.keeps(Rule::SameBytes) {
                self.write(Event::Spent { number })?;
                return self.begin(number, now);
            }
            self.broadcast(number, now, &last.raw);
        }
        Ok(())
    }

    /// Whether an earlier nonce is still open, so that paying more would change nothing.
    fn waits_for_others(&self, nonce: u64) -> Result<bool, ChainError> {
        Ok(self.client.nonce(self.account)? < nonce)
    }

    fn replace(&mut self, number: usize, now: u64, last: &Attempt) -> Result<(), ChainError> {
        let old = &last.transaction;
        let mut fees = Fees::quote(&self.client)?;
        if self.keeps(Rule::Replacement) {
            fees = fees.over(old.tip, old.fee_cap);
        }
        self.send(number, now, Transaction { tip: fees.tip, fee_cap: fees.cap, ..old.clone() })?;
        if self.signer.is_some() && self.notes[number].advice.is_some() {
            // What was signed stays valid while its replacement would cost too much.
            let paused = self.notes[number].clone();
            self.broadcast(number, now, &last.raw);
            let sent = self.notes[number].sent;
            self.notes[number] = super::Note { sent, ..paused };
        }
        Ok(())
    }

    /// Its nonce is taken and no receipt is known: by a node that lags behind, or by a foreign transaction.
    fn taken(&mut self, number: usize) -> Result<(), ChainError> {
        if !self.keeps(Rule::ForeignNonce) {
            return Ok(());
        }
        match self.is_settled(number)? {
            true => self.write(Event::Spent { number }),
            false => Ok(()),
        }
    }

    /// Whether what was seen for the first time some blocks ago is as deep as the network asks for.
    pub(super) fn is_settled(&mut self, number: usize) -> Result<bool, ChainError> {
        let latest = self.client.latest_block()?;
        let since = *self.notes[number].taken.get_or_insert(latest);
        let depth = latest.saturating_sub(since) + 1;
        let wanted = self.client.network().confirmations;
        self.notes[number]
            .says(format!("another transaction did this or took its nonce, {depth} of {wanted} blocks ago"));
        Ok(depth >= wanted)
    }
}
