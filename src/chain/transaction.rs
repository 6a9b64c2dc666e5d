//! EIP-1559 transactions, signed by whoever implements [`Signer`].

use alloy_primitives::{Bytes, TxKind, U256};
use alloy_rlp::Encodable;
use serde::{Deserialize, Serialize};

use super::ChainError;
use crate::primitives::{Address, Digest, keccak256};
use crate::receipt::Signer;

const TYPE: u8 = 2;

/// A call, or a contract's creation, that is paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
    pub(super) chain_id: u64,
    pub(super) nonce: u64,
    pub(super) tip: u128,
    pub(super) fee_cap: u128,
    pub(super) gas_limit: u64,
    /// None creates a contract.
    pub(super) to: Option<Address>,
    /// Wei that the receiver gets; older journals have none.
    #[serde(default)]
    pub(super) value: u128,
    pub(super) data: Bytes,
}

impl Transaction {
    /// The most that it can cost in fees, wei.
    pub(super) fn most(&self) -> u128 {
        self.fee_cap.saturating_mul(self.gas_limit.into())
    }

    /// The raw bytes that `eth_sendRawTransaction` takes.
    pub(super) fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>, ChainError> {
        let (to, no_access_list) = (self.to.map_or(TxKind::Create, TxKind::Call), Vec::<U256>::new());
        let mut fields: Vec<&dyn Encodable> =
            vec![&self.chain_id, &self.nonce, &self.tip, &self.fee_cap, &self.gas_limit, &to];
        fields.extend([&self.value as &dyn Encodable, &self.data, &no_access_list]);
        let signature = signer.sign(signing_digest(&fields))?.0;
        let parity = u64::from(signature[64] - 27);
        let (r, s) = (U256::from_be_slice(&signature[..32]), U256::from_be_slice(&signature[32..64]));
        fields.extend([&parity as &dyn Encodable, &r, &s]);
        Ok(encode(&fields))
    }
}

fn signing_digest(fields: &[&dyn Encodable]) -> Digest {
    keccak256(encode(fields))
}

fn encode(fields: &[&dyn Encodable]) -> Vec<u8> {
    let mut bytes = vec![TYPE];
    alloy_rlp::encode_list::<&dyn Encodable, dyn Encodable>(fields, &mut bytes);
    bytes
}
