//! What a transaction pays for its gas.

use alloy_primitives::U128;
use serde_json::json;

use crate::chain::client::{Block, call};
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
