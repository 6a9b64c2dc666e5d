//! Calls of any contract: read, send, create, and what happened.

use alloy_primitives::{B256, Bytes};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Event, call};
use super::contract::explain_refusal;
use super::interface::{Decoded, Fields, Interface, InterfaceError};
use super::outbox::{Mined, Outcome};
use super::task::FACTORY;
use super::{ChainError, Client, RpcError, Submitter, Task};
use crate::primitives::Address;

/// A call that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    /// Its transaction and block, and what it cost.
    pub mined: Mined,
    /// The contract that it created.
    pub created: Option<Address>,
}

/// An event of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The event's name.
    pub name: String,
    /// Its fields, in the order of its declaration.
    pub fields: Fields,
    /// Number of the block.
    pub block: u64,
    /// Hash of the transaction.
    pub transaction: B256,
}

#[derive(Deserialize)]
struct Logs {
    logs: Vec<Event>,
}

impl Client {
    /// What a function answers, by the latest block; nothing is sent.
    ///
    /// # Errors
    /// [`ChainError::Interface`] for arguments or an answer of other types, [`ChainError::Refused`] when the
    /// contract refuses, else what the node reports.
    pub fn read(
        &self,
        interface: &Interface,
        address: Address,
        function: &str,
        arguments: &[Value],
        sender: Option<Address>,
    ) -> Result<Decoded, ChainError> {
        let mut request = json!({"to": address, "data": interface.encode(function, arguments)?});
        if let Some(sender) = sender {
            request["from"] = json!(sender);
        }
        let answer = call::<Bytes>(self.node(), "eth_call", json!([request, "latest"]))
            .map_err(|error| explain_with(interface, error))?;
        if answer.is_empty() && self.code_at(address)?.is_empty() {
            let reason = format!("no contract lies at {address}");
            return Err(InterfaceError::Undecodable { what: function.into(), reason }.into());
        }
        Ok(interface.decode(function, arguments.len(), &answer)?)
    }

    /// The events of a contract in a block or later, oldest first, as far as the node has blocks; `indexed` says
    /// which values their indexed fields have.
    ///
    /// # Errors
    /// As of [`Client::read`].
    pub fn events(
        &self,
        interface: &Interface,
        address: Address,
        name: &str,
        first: u64,
        indexed: &Map<String, Value>,
    ) -> Result<Vec<Occurrence>, ChainError> {
        let topics = json!(interface.topics(name, indexed)?);
        let latest = self.latest_block()?;
        let events = match first <= latest {
            true => self.logs(address, &topics, first, latest)?,
            false => Vec::new(),
        };
        occurrences(interface, address, &events)
    }

    /// The events of a contract in one transaction.
    ///
    /// # Errors
    /// As of [`Client::read`].
    pub fn events_of(
        &self,
        interface: &Interface,
        address: Address,
        transaction: B256,
    ) -> Result<Vec<Occurrence>, ChainError> {
        let method = "eth_getTransactionReceipt";
        let receipt: Option<Logs> = call(self.node(), method, json!([transaction]))?;
        let missing = || ChainError::Malformed {
            method: method.into(),
            reason: format!("it does not know the transaction {transaction}, which is final"),
        };
        occurrences(interface, address, &receipt.ok_or_else(missing)?.logs)
    }
}

fn occurrences(
    interface: &Interface,
    address: Address,
    events: &[Event],
) -> Result<Vec<Occurrence>, ChainError> {
    let mut found = Vec::new();
    for event in events.iter().filter(|event| event.address == address) {
        if let Some((name, fields)) = interface.event(&event.topics, &event.data)? {
            let (block, transaction) = (event.block_number.to(), event.transaction_hash);
            found.push(Occurrence { name, fields, block, transaction });
        }
    }
    Ok(found)
}

/// The reason that this contract declares, else one that any known contract does.
fn explain_with(interface: &Interface, error: ChainError) -> ChainError {
    let ChainError::Rpc { error: RpcError { data: Some(data), .. }, .. } = &error else {
        return explain_refusal(error);
    };
    let bytes = data.as_str().and_then(|text| text.parse::<Bytes>().ok()).unwrap_or_default();
    match interface.refusal(&bytes) {
        Some(reason) => ChainError::Refused { reason },
        None => explain_refusal(error),
    }
}

impl Submitter<'_> {
    /// Calls a contract, or creates one without `to`, and waits until that is final. Two equal calls are two
    /// calls. What was written down is sent, by [`Submitter::resume`] or whatever is submitted next, even
    /// if this process dies or nobody waits any more: whoever then calls again sends it twice.
    ///
    /// # Errors
    /// [`ChainError::GivenUp`] when the contract refuses, with its reason, [`ChainError::Unfinished`] when
    /// it waits in the outbox, for the reason it names, else what the disk or the signer reports.
    pub fn call(
        &self,
        to: Option<Address>,
        value: u128,
        data: Bytes,
        what: String,
    ) -> Result<Called, ChainError> {
        let mut outbox = self.open()?;
        let number = self.submit(&mut outbox, Task::Call { to, value, data, what }, None)?;
        self.finish(&mut outbox, number, None)?;
        let submission = &outbox.submissions()[number];
        let created = submission.created(self.signer.address());
        match submission.outcome {
            Some(Outcome::Final(Some(mined))) => Ok(Called { mined, created }),
            _ => Err(ChainError::Unfinished { reason: outbox.why(number) }),
        }
    }

    /// Brings a contract to the chain. Where the usual factory is, its address follows from the code and the
    /// arguments, and one that lies there is not created again; elsewhere each call creates one.
    ///
    /// # Errors
    /// As of [`Submitter::call`], and [`ChainError::Interface`] for arguments of other types.
    pub fn create(&self, interface: &Interface, arguments: &[Value]) -> Result<Address, ChainError> {
        let (code, what) = (interface.creation(arguments)?, format!("deployment of {}", interface.name()));
        let nowhere = || ChainError::GivenUp { reason: format!("{what}: it created nothing") };
        if self.client.code_at(FACTORY)?.is_empty() {
            return self.call(None, 0, code, what.clone())?.created.ok_or_else(nowhere);
        }
        let address = FACTORY.create2_from_code(B256::ZERO, &code);
        if self.client.code_at(address)?.is_empty() {
            let data = [B256::ZERO.as_slice(), &code].concat().into();
            match self.call(Some(FACTORY), 0, data, what.clone()) {
                // It waited in the outbox already, and the factory creates nothing twice.
                Err(ChainError::GivenUp { .. }) if !self.client.code_at(address)?.is_empty() => {}
                called => drop(called?),
            }
            if self.client.code_at(address)?.is_empty() {
                return Err(nowhere());
            }
        }
        Ok(address)
    }
}
