//! Contracts of any interface for Python.

use counterfoil::chain::{ChainError, Decoded, Interface as Core, Occurrence, Submitter, embedded};
use counterfoil::primitives::Address;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList};
use serde_json::Value;

use crate::chain::{Chain, json, outboxes, payer, wait};
use crate::gateway::{address, enter, error};
use crate::keys::Key;

/// What a final call left: transaction, block, cost, events, and the contract it created.
type Sent<'py> = (String, u64, u128, Bound<'py, PyList>);

/// What a contract's artifact says of it.
#[pyclass(frozen, module = "counterfoil._native", name = "Interface")]
pub(crate) struct Interface(Core);

#[pymethods]
impl Interface {
    #[new]
    fn new(py: Python<'_>, artifact: &str) -> PyResult<Self> {
        enter(py, || Core::parse(artifact).map_err(ChainError::from)).map(Interface)
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The data of a call; the arguments are a JSON list.
    fn encode<'py>(&self, py: Python<'py>, function: &str, arguments: &str) -> PyResult<Bound<'py, PyBytes>> {
        let arguments = list(py, arguments)?;
        let data = enter(py, || self.0.encode(function, &arguments).map_err(ChainError::from))?;
        Ok(PyBytes::new(py, &data))
    }

    /// What the answer of a function with so many arguments says.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        arguments: usize,
        data: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let value = enter(py, || self.0.decode(function, arguments, data).map_err(ChainError::from))?;
        plain(py, value)
    }

    /// An event's name and fields; None if the contract declares no such event.
    fn event<'py>(
        &self,
        py: Python<'py>,
        topics: Vec<String>,
        data: &[u8],
    ) -> PyResult<Option<(String, Bound<'py, PyAny>)>> {
        let read = topics.iter().map(|topic| topic.parse()).collect::<Result<Vec<_>, _>>();
        let topics = read.map_err(|_| invalid(py, "a topic is 0x and 32 bytes in hexadecimal"))?;
        let found = enter(py, || self.0.event(&topics, data).map_err(ChainError::from))?;
        found.map(|(name, fields)| Ok((name, plain(py, Decoded::Struct(fields))?))).transpose()
    }

    /// The contract's reason in words; None if it declares no such error.
    fn refusal(&self, py: Python<'_>, data: &[u8]) -> PyResult<Option<String>> {
        enter(py, || Ok::<_, ChainError>(self.0.refusal(data)))
    }

    /// What a function answers, by the latest block.
    fn read<'py>(
        &self,
        py: Python<'py>,
        chain: &Chain,
        contract: &str,
        function: String,
        arguments: &str,
        sender: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (contract, arguments) = (address(py, contract)?, list(py, arguments)?);
        let sender = sender.map(|text| address(py, text)).transpose()?;
        let (client, interface) = (chain.client.clone(), self.0.clone());
        let value = wait(py, move |_| client.read(&interface, contract, &function, &arguments, sender))?;
        plain(py, value)
    }

    /// Calls a function and waits until that is final.
    #[allow(clippy::too_many_arguments, reason = "each is one of Python's")]
    fn send<'py>(
        &self,
        py: Python<'py>,
        chain: &Chain,
        contract: &str,
        function: String,
        arguments: &str,
        value: u128,
        key: &Key,
        chosen: bool,
    ) -> PyResult<Sent<'py>> {
        let (contract, arguments) = (address(py, contract)?, list(py, arguments)?);
        let (client, interface, payer) = (chain.client.clone(), self.0.clone(), payer(key, chosen));
        let (called, events) = wait(py, move |stop| {
            let data = interface.encode(&function, &arguments)?;
            let what = format!("{}.{}", interface.name(), function.split('(').next().unwrap_or_default());
            let outboxes = outboxes()?;
            let submitter = Submitter::new(client.clone(), payer, &outboxes, stop)?;
            let called = submitter.call(Some(contract), value, data, what)?;
            let events = client.events_of(&interface, contract, called.mined.transaction)?;
            Ok((called, events))
        })?;
        let mined = called.mined;
        Ok((mined.transaction.to_string(), mined.block_number, mined.cost, all(py, events)?))
    }

    /// The events of a contract in a block or later.
    fn events<'py>(
        &self,
        py: Python<'py>,
        chain: &Chain,
        contract: &str,
        name: String,
        first: u64,
        indexed: &str,
    ) -> PyResult<Bound<'py, PyList>> {
        let contract = address(py, contract)?;
        let Value::Object(indexed) = json(py, indexed)? else {
            return Err(invalid(py, "indexed fields are an object"));
        };
        let (client, interface) = (chain.client.clone(), self.0.clone());
        let events = wait(py, move |_| client.events(&interface, contract, &name, first, &indexed))?;
        all(py, events)
    }

    /// Brings a contract to the chain; returns its address.
    fn create(
        &self,
        py: Python<'_>,
        chain: &Chain,
        arguments: &str,
        key: &Key,
        chosen: bool,
    ) -> PyResult<String> {
        let arguments = list(py, arguments)?;
        let (client, interface, payer) = (chain.client.clone(), self.0.clone(), payer(key, chosen));
        let created = wait(py, move |stop| {
            Submitter::new(client, payer, &outboxes()?, stop)?.create(&interface, &arguments)
        })?;
        Ok(created.to_checksum(None))
    }
}

/// The artifact's JSON of a contract that comes with the library.
#[pyfunction]
fn artifact(py: Python<'_>, name: &str) -> PyResult<&'static str> {
    embedded(name).ok_or_else(|| {
        error(py, "not-found", &format!("no contract {name:?} comes with the library"), [None, None, None])
    })
}

fn all<'py>(py: Python<'py>, events: Vec<Occurrence>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for Occurrence { name, fields, block, transaction } in events {
        let event = PyDict::new(py);
        event.set_item("name", name)?;
        event.set_item("block", block)?;
        event.set_item("transaction", transaction.to_string())?;
        event.set_item("fields", plain(py, Decoded::Struct(fields))?)?;
        list.append(event)?;
    }
    Ok(list)
}

/// A value as Python has it; a function without results answers None.
fn plain(py: Python<'_>, value: Decoded) -> PyResult<Bound<'_, PyAny>> {
    let integer = |decimal: String| py.get_type::<PyInt>().call1((decimal,));
    Ok(match value {
        Decoded::Bool(value) => value.into_pyobject(py)?.to_owned().into_any(),
        Decoded::Unsigned(value) => integer(value.to_string())?,
        Decoded::Signed(value) => integer(value.to_string())?,
        Decoded::Address(value) => checksummed(value).into_pyobject(py)?.into_any(),
        Decoded::Bytes(value) => PyBytes::new(py, &value).into_any(),
        Decoded::Text(value) => value.into_pyobject(py)?.into_any(),
        Decoded::List(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(plain(py, value)?)?;
            }
            list.into_any()
        }
        Decoded::Struct(fields) => {
            let fields_by_name = PyDict::new(py);
            for (name, value) in fields {
                fields_by_name.set_item(name, plain(py, value)?)?;
            }
            fields_by_name.into_any()
        }
    })
}

fn checksummed(address: Address) -> String {
    address.to_checksum(None)
}

fn list(py: Python<'_>, arguments: &str) -> PyResult<Vec<Value>> {
    match json(py, arguments)? {
        Value::Array(arguments) => Ok(arguments),
        _ => Err(invalid(py, "arguments are a list")),
    }
}

fn invalid(py: Python<'_>, message: &str) -> PyErr {
    error(py, "invalid-input", message, [None, None, None])
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(artifact, module)?)?;
    module.add_class::<Interface>()
}
