//! Reading signed transactions: legacy with a chain id (EIP-155) and dynamic fees (EIP-1559).

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_rlp::{Decodable, Encodable, Header};
use counterfoil::chain::DEVELOPMENT_CHAIN;
use counterfoil::receipt::{Signature, recover};
use revm::context::TxEnv;
use revm::context_interface::transaction::AccessList;

const DYNAMIC_FEE: u8 = 2;

/// A transaction whose signature was checked.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) hash: B256,
    pub(crate) sender: Address,
    pub(crate) kind: u8,
    pub(crate) nonce: u64,
    /// Highest price; of a legacy transaction the price.
    pub(crate) fee_cap: u128,
    pub(crate) tip_cap: Option<u128>,
    pub(crate) gas_limit: u64,
    pub(crate) to: TxKind,
    pub(crate) value: U256,
    pub(crate) data: Bytes,
    pub(crate) access_list: AccessList,
    pub(crate) parity: bool,
    pub(crate) r: U256,
    pub(crate) s: U256,
    pub(crate) raw: Bytes,
}

impl Transaction {
    /// Reads and checks the bytes that wallets send.
    pub(crate) fn decode(raw: &[u8]) -> Result<Self, String> {
        let (kind, mut rest) = match raw.first() {
            Some(&DYNAMIC_FEE) => (DYNAMIC_FEE, &raw[1..]),
            Some(first) if *first >= 0xc0 => (0, raw),
            Some(first) if *first < 0x80 => return Err(format!("transaction type {first} is not supported")),
            _ => return Err("these bytes are no transaction".into()),
        };
        let list = read(Header::decode_bytes(&mut rest, true))?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the transaction", rest.len()));
        }
        let mut transaction = if kind == DYNAMIC_FEE { Self::dynamic_fee(list) } else { Self::legacy(list) }?;
        (transaction.hash, transaction.raw) = (keccak256(raw), raw.to_vec().into());
        Ok(transaction)
    }

    fn dynamic_fee(list: &[u8]) -> Result<Self, String> {
        let fields = &mut &list[..];
        expect_chain(read(u64::decode(fields))?)?;
        let nonce = read(u64::decode(fields))?;
        let tip_cap = Some(read(u128::decode(fields))?);
        let fee_cap = read(u128::decode(fields))?;
        let mut transaction = Self::call(fields, DYNAMIC_FEE, nonce, fee_cap, tip_cap)?;
        transaction.access_list = read(AccessList::decode(fields))?;
        let unsigned = &list[..list.len() - fields.len()];
        transaction.parity = read(bool::decode(fields))?;
        transaction.signed(fields, &[&[DYNAMIC_FEE], &*list_of(unsigned)].concat())
    }

    fn legacy(list: &[u8]) -> Result<Self, String> {
        let fields = &mut &list[..];
        let nonce = read(u64::decode(fields))?;
        let price = read(u128::decode(fields))?;
        let mut transaction = Self::call(fields, 0, nonce, price, None)?;
        let mut unsigned = list[..list.len() - fields.len()].to_vec();
        // EIP-155: v = 35 + 2 * chain id + parity; the chain id and two zeros are signed with the rest.
        let v = read(u64::decode(fields))?
            .checked_sub(35)
            .ok_or("a signature without chain id is refused (EIP-155)")?;
        expect_chain(v / 2)?;
        transaction.parity = v % 2 == 1;
        for word in [DEVELOPMENT_CHAIN, 0, 0] {
            word.encode(&mut unsigned);
        }
        transaction.signed(fields, &list_of(&unsigned))
    }

    /// The fields that both kinds share, from the gas limit to the data.
    fn call(
        fields: &mut &[u8],
        kind: u8,
        nonce: u64,
        fee_cap: u128,
        tip_cap: Option<u128>,
    ) -> Result<Self, String> {
        Ok(Self {
            kind,
            nonce,
            fee_cap,
            tip_cap,
            gas_limit: read(u64::decode(fields))?,
            to: read(TxKind::decode(fields))?,
            value: read(U256::decode(fields))?,
            data: read(Bytes::decode(fields))?,
            hash: B256::ZERO,
            sender: Address::ZERO,
            access_list: AccessList::default(),
            parity: false,
            r: U256::ZERO,
            s: U256::ZERO,
            raw: Bytes::new(),
        })
    }

    fn signed(mut self, fields: &mut &[u8], unsigned: &[u8]) -> Result<Self, String> {
        (self.r, self.s) = (read(U256::decode(fields))?, read(U256::decode(fields))?);
        if !fields.is_empty() {
            return Err("the transaction has more fields than its type".into());
        }
        let mut signature = [0; 65];
        signature[..32].copy_from_slice(&self.r.to_be_bytes::<32>());
        signature[32..64].copy_from_slice(&self.s.to_be_bytes::<32>());
        signature[64] = 27 + u8::from(self.parity);
        self.sender =
            recover(keccak256(unsigned), &Signature(signature)).map_err(|error| error.to_string())?;
        Ok(self)
    }

    /// Wei per gas at this base fee.
    pub(crate) fn price(&self, base_fee: u64) -> u128 {
        let offered = self.tip_cap.map_or(self.fee_cap, |tip| tip.saturating_add(u128::from(base_fee)));
        offered.min(self.fee_cap)
    }

    /// What the EVM takes.
    pub(crate) fn environment(&self) -> TxEnv {
        TxEnv {
            tx_type: self.kind,
            caller: self.sender,
            gas_limit: self.gas_limit,
            gas_price: self.fee_cap,
            kind: self.to,
            value: self.value,
            data: self.data.clone(),
            nonce: self.nonce,
            chain_id: Some(DEVELOPMENT_CHAIN),
            access_list: self.access_list.clone(),
            gas_priority_fee: self.tip_cap,
            ..TxEnv::default()
        }
    }
}

fn read<T>(field: alloy_rlp::Result<T>) -> Result<T, String> {
    field.map_err(|error| format!("not a transaction: {error}"))
}

fn expect_chain(actual: u64) -> Result<(), String> {
    let wrong = || format!("signed for chain {actual}, this is chain {DEVELOPMENT_CHAIN}");
    (actual == DEVELOPMENT_CHAIN).then_some(()).ok_or_else(wrong)
}

fn list_of(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { list: true, payload_length: payload.len() }.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}
