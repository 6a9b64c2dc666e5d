//! What a transaction pays for its gas, and whether it may.

use alloy_primitives::U128;
use serde_json::json;

use super::{Outbox, Rule};
use crate::chain::client::{Block, call};
use crate::chain::transaction::Transaction;
use crate::chain::{ChainError, Client};

/// Wei per gas: to the block's maker, and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fees {
    pub(super) tip: u128,
    pub(super) cap: u128,
}

impl Fees {
    /// What the node suggests, but not below the network's floor; the cap leaves room for the base
    /// fee to double.
    pub(super) fn quote(client: &Client) -> Result<Fees, ChainError> {
        let node = client.node();
        // Not every node has a word on tips.
        let suggested = match call::<U128>(node, "eth_maxPriorityFeePerGas", json!([])) {
            Err(ChainError::Rpc { .. }) => 0,
            suggested => suggested?.to(),
        };
        let tip = suggested.max(client.network().tip_floor);
        let block: Block = call(node, "eth_getBlockByNumber", json!(["latest", false]))?;
        let cap = block.base_fee_per_gas.to::<u128>().saturating_mul(2).saturating_add(tip);
        Ok(Fees { tip, cap })
    }

    /// At least what replaces a transaction that pays so much: pools ask for a tenth more of both.
    pub(super) fn over(self, tip: u128, cap: u128) -> Fees {
        let more = |fee: u128| fee.saturating_add(fee.div_ceil(8)).max(fee.saturating_add(1));
        Fees { tip: self.tip.max(more(tip)), cap: self.cap.max(more(cap)) }
    }
}

impl Outbox {
    /// Why a transaction must not be signed, and what the user can do; the chain asks for `asked` wei per gas.
    pub(super) fn refusal(
        &self,
        number: usize,
        now: u64,
        transaction: &Transaction,
        asked: u128,
    ) -> Result<Option<(String, String)>, ChainError> {
        if !self.keeps(Rule::Budget) {
            return Ok(None);
        }
        let network = self.client.network();
        if transaction.fee_cap > network.fee_cap {
            let (cap, most) = (transaction.fee_cap, network.fee_cap);
            let (reason, until) = match asked > most {
                true => (format!("the chain asks for {asked} wei per gas"), "it costs less"),
                false => {
                    (format!("in no block yet, and a replacement pays {cap} wei per gas"), "a block takes it")
                }
            };
            let advice = format!("wait until {until}, or raise feeCap in networks.json");
            return Ok(Some((format!("{reason}, at most {most} are allowed"), advice)));
        }
        let others = self.submissions.iter().enumerate().filter(|(other, _)| *other != number);
        let own = &self.submissions[number];
        // A replacement takes the place of what it replaces.
        let replaced = own.in_flight().iter().map(|attempt| attempt.transaction.most()).max().unwrap_or(0);
        let own = own.reserved(now).saturating_sub(replaced);
        let spent = others.fold(own, |sum, (_, other)| sum.saturating_add(other.reserved(now)));
        let wanted = transaction.most().max(replaced);
        if spent.saturating_add(wanted) > network.budget {
            let [wanted, spent, budget] = [wanted, spent, network.budget].map(|wei| network.amount(wei));
            let reason = format!("it may cost {wanted}, and {spent} of {budget} are spent within 24 hours");
            return Ok(Some((reason, "wait a day, or raise budget in networks.json".into())));
        }
        self.poverty(transaction.most().saturating_add(transaction.value))
    }

    /// Why the account cannot spend so many wei, and what the user can do.
    pub(super) fn poverty(&self, wanted: u128) -> Result<Option<(String, String)>, ChainError> {
        let (account, network) = (self.account, self.client.network());
        let balance = self.client.balance(account, wanted)?;
        if balance >= wanted {
            return Ok(None);
        }
        let [balance, wanted] = [balance, wanted].map(|wei| network.amount(wei));
        let free = network.faucet.as_ref().map(|url| format!(", free at {url}")).unwrap_or_default();
        let reason = format!("the account {account} has {balance}, it may cost {wanted}");
        Ok(Some((reason, format!("pay {} to {account}{free}", network.currency))))
    }
}
