//! One submission's way: sign, send, look, replace, wait.

use alloy_primitives::{Bytes, U64, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fees::Fees;
use super::record::{Attempt, Event, Mined, Outcome};
use super::{Outbox, Rule, Sent};
use crate::chain::client::call;
use crate::chain::contract::{explain_refusal, explain_revert};
use crate::chain::task::Standing;
use crate::chain::transaction::Transaction;
use crate::chain::{ChainError, RpcError, Task};
use crate::primitives::{Address, Digest, keccak256};

/// Seconds after which a transaction that no block took is sent again.
const REPEAT_AFTER: u64 = 15;
/// Seconds after which it is replaced by one that pays more, if so many blocks did not take it meanwhile: what a
/// halted chain does not take is not too cheap.
const REPLACE_AFTER: u64 = 60;
const REPLACE_BLOCKS: u64 = 3;
/// Failed transactions of one submission after which it is given up.
const MOST_FAILURES: usize = 3;
/// How nodes say that they have these bytes, or a block had them.
const WAS_SENT: [&str; 3] = ["already known", "already imported", "nonce too low"];

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
    Mined(Mined),
    /// One of them, in a block, where the contract refused it.
    Failed(Mined),
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
            Found::Mined(mined) => self.mined(number, mined),
            Found::Failed(mined) => self.failed(number, mined),
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
        let value = task.value();
        // Who cannot pay the value gets no estimate, and nodes have many words for that.
        if value > 0
            && let Some((reason, advice)) = self.poverty(value)?
        {
            self.notes[number].says(reason);
            self.notes[number].advice = Some(advice);
            return Ok(());
        }
        let request = request(account, to, value, &data);
        let gas: U64 =
            call(self.client.node(), "eth_estimateGas", json!([request])).map_err(explain(&task))?;
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
            value,
            data,
        };
        self.send(number, now, transaction, fees.cap)
    }

    /// Receipts below the largest head of this one's log that a block was seen to hold.
    fn anchored(&self, number: usize) -> u64 {
        let Some((own, _)) = self.submissions[number].log() else { return 0 };
        let mined =
            self.submissions.iter().filter(|other| other.mined.is_some()).filter_map(|other| other.log());
        mined.filter(|(log, _)| *log == own).map(|(_, size)| size).max().unwrap_or(0)
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

    /// Signs, writes down, and sends; the chain asks for `asked` wei per gas.
    fn send(
        &mut self,
        number: usize,
        now: u64,
        transaction: Transaction,
        asked: u128,
    ) -> Result<(), ChainError> {
        if let Some((reason, advice)) = self.refusal(number, now, &transaction, asked)? {
            self.notes[number].says(reason);
            self.notes[number].advice = Some(advice);
            return Ok(());
        }
        let Some(signer) = self.signer.clone() else {
            self.notes[number].says("nothing speaks against sending it now");
            self.notes[number].advice = Some("let it go on".into());
            return Ok(());
        };
        let latest = self.client.latest_block()?;
        let raw = Bytes::from(transaction.sign(&*signer)?);
        let attempt = Attempt { transaction, hash: keccak256(&raw), raw, time: now };
        self.notes[number].sent = None;
        if !self.keeps(Rule::DurableFirst) {
            self.broadcast(number, now, latest, &attempt);
            return self.write(Event::Signed { number, attempt });
        }
        self.write(Event::Signed { number, attempt: attempt.clone() })?;
        self.broadcast(number, now, latest, &attempt);
        Ok(())
    }

    /// Sends bytes that are written down. Every answer but one is as good as the next look at the chain.
    fn broadcast(&mut self, number: usize, now: u64, latest: u64, attempt: &Attempt) {
        let note = &mut self.notes[number];
        if self.signer.is_none() {
            note.says("it was signed and is in no block");
            note.advice = Some("let it go on".into());
            return;
        }
        let answer = call::<Digest>(self.client.node(), "eth_sendRawTransaction", json!([attempt.raw]));
        let sent = note.sent.unwrap_or(Sent { first: now, last: now, block: latest });
        note.sent = Some(Sent { last: now, ..sent });
        let has_it = |message: &str| WAS_SENT.iter().any(|words| message.to_lowercase().contains(words));
        note.says(match answer {
            Err(ChainError::Rpc { error: RpcError { message, .. }, .. }) if !has_it(&message) => {
                format!("the node did not take the transaction: {message}")
            }
            Ok(_) | Err(ChainError::Rpc { .. }) => {
                format!("transaction {} was sent and is in no block yet", attempt.hash)
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
                return Ok(match receipt.status == U64::from(1) {
                    true => Found::Mined(mined),
                    false => Found::Failed(mined),
                });
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
        match self.is_deep(number, &mined, "mined")? {
            true => self.end(number, Outcome::Final(Some(mined))),
            false => Ok(()),
        }
    }

    /// Whether the block of a transaction is on the chain, as deep as the network asks for.
    fn is_deep(&mut self, number: usize, mined: &Mined, event: &str) -> Result<bool, ChainError> {
        let confirmations = self.client.network().confirmations;
        let depth = self.client.latest_block()?.saturating_sub(mined.block_number) + 1;
        let note = &mut self.notes[number];
        note.depth = depth;
        note.says(format!("{event} in block {}, {depth} of {confirmations} blocks deep", mined.block_number));
        if !self.keeps(Rule::Confirmations) {
            return Ok(true);
        }
        if depth < confirmations {
            return Ok(false);
        }
        let is_there = self.client.block_hash(mined.block_number)? == Some(mined.block_hash);
        if !is_there {
            self.notes[number].says("its block is no longer on the chain");
        }
        Ok(is_there)
    }

    /// The contract refused what it would have taken when it was asked: something came in between. Whoever
    /// believed it at once would pay twice when the block is taken back.
    fn failed(&mut self, number: usize, mined: Mined) -> Result<(), ChainError> {
        self.notes[number].taken = None;
        if self.submissions[number].mined.is_some() {
            self.undo(number)?;
        }
        if !self.is_deep(number, &mined, "failed")? {
            return Ok(());
        }
        let complaint = self.complaint(number, mined.transaction)?;
        self.write(Event::Spent { number })?;
        let note = &mut self.notes[number];
        note.failures += 1;
        note.says(format!("its transaction {} failed: {complaint}", mined.transaction));
        if note.failures < MOST_FAILURES {
            return Ok(());
        }
        let reason =
            format!("{MOST_FAILURES} transactions failed in their blocks; the last one: {complaint}");
        self.end(number, Outcome::Failed(reason))
    }

    /// What speaks against a transaction that failed. No receipt says why, so it is asked again as a call.
    fn complaint(&self, number: usize, hash: Digest) -> Result<String, ChainError> {
        let known = self.submissions[number].attempts.iter().find(|attempt| attempt.hash == hash);
        let Transaction { to, value, data, gas_limit, .. } = &known.expect("one of ours").transaction;
        let mut request = request(self.account, *to, *value, data);
        request["gas"] = json!(U64::from(*gas_limit));
        let asked = call::<Bytes>(self.client.node(), "eth_call", json!([request, "latest"]));
        match asked.map_err(explain(&self.submissions[number].task)) {
            Ok(_) => Ok("something came in between; it would succeed by now".into()),
            Err(
                error @ (ChainError::Reverted { .. } | ChainError::Refused { .. } | ChainError::Rpc { .. }),
            ) => Ok(error.to_string()),
            Err(error) => Err(error),
        }
    }

    /// No block holds it and its nonce is free: it is sent again, later with more to pay.
    fn missing(&mut self, number: usize, now: u64) -> Result<(), ChainError> {
        self.notes[number].taken = None;
        if self.submissions[number].mined.is_some() {
            self.undo(number)?;
        }
        let latest = self.client.latest_block()?;
        let last = self.submissions[number].in_flight().last().expect("the caller looked").clone();
        let is_passed_over = self.notes[number].sent.is_some_and(|sent| {
            is_due(REPLACE_AFTER, sent.first, now) && latest.saturating_sub(sent.block) >= REPLACE_BLOCKS
        });
        if is_passed_over && !self.waits_for_others(last.transaction.nonce)? {
            return self.replace(number, now, latest, &last);
        }
        if self.notes[number].sent.is_none_or(|sent| is_due(REPEAT_AFTER, sent.last, now)) {
            if !self.keeps(Rule::SameBytes) {
                self.write(Event::Spent { number })?;
                return self.begin(number, now);
            }
            self.broadcast(number, now, latest, &last);
        }
        if let Some((nonce, _)) = self.gap.filter(|(nonce, _)| *nonce < last.transaction.nonce) {
            self.notes[number].detail = format!("it waits for the nonce {nonce}, which nothing here has");
        }
        Ok(())
    }

    /// Whether an earlier nonce is still open, so that paying more would change nothing.
    fn waits_for_others(&self, nonce: u64) -> Result<bool, ChainError> {
        Ok(self.client.nonce(self.account)? < nonce)
    }

    fn replace(&mut self, number: usize, now: u64, latest: u64, last: &Attempt) -> Result<(), ChainError> {
        let old = &last.transaction;
        let quote = Fees::quote(&self.client)?;
        let fees = match self.keeps(Rule::Replacement) {
            true => quote.over(old.tip, old.fee_cap),
            false => quote,
        };
        self.send(number, now, Transaction { tip: fees.tip, fee_cap: fees.cap, ..old.clone() }, quote.cap)?;
        if self.signer.is_some() && self.notes[number].advice.is_some() {
            // What was signed stays valid while its replacement would cost too much.
            let paused = self.notes[number].clone();
            self.broadcast(number, now, latest, last);
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
        let note = &mut self.notes[number];
        note.depth = depth;
        note.says(format!("another transaction did this or took its nonce, {depth} of {wanted} blocks ago"));
        Ok(depth >= wanted)
    }
}

/// The call that a transaction makes, as nodes are asked about it.
fn request(from: Address, to: Option<Address>, value: u128, data: &Bytes) -> Value {
    let mut request = json!({"from": from, "data": data});
    if let Some(to) = to {
        request["to"] = json!(to);
    }
    if value > 0 {
        request["value"] = json!(U256::from(value));
    }
    request
}

/// Who knows why a task was refused.
fn explain(task: &Task) -> fn(ChainError) -> ChainError {
    match task {
        Task::Call { .. } => explain_refusal,
        _ => explain_revert,
    }
}

/// Whether so many seconds have passed; a clock that was ahead since then has nothing to say.
fn is_due(after: u64, since: u64, now: u64) -> bool {
    now.checked_sub(since).is_none_or(|waited| waited >= after)
}
