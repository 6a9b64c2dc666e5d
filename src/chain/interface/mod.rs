//! The interface of any contract, as its compiler wrote it down: calls, answers, events and refusals.

mod arguments;
mod artifacts;
mod value;

use alloy_dyn_abi::{DynSolType, DynSolValue, JsonAbiExt, Specifier};
use alloy_json_abi::{Event, Function, JsonAbi, Param};
use alloy_primitives::{B256, Bytes, Selector, keccak256};
use serde::Deserialize;
use serde_json::Value;

use crate::primitives::Report;
use arguments::{Misfit, fit};
pub use artifacts::embedded;
pub(super) use artifacts::reason;
pub use value::Decoded;
use value::{Field, decode};

/// Why something is no call, no answer or no event of a contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum InterfaceError {
    /// The document does not describe a contract.
    #[error("this is no contract's artifact: {reason}")]
    NotArtifact { reason: String },
    /// The contract has nothing of this name.
    #[error("{contract} has no {kind} {name}; it has {known}")]
    Unknown { contract: String, kind: &'static str, name: String, known: String },
    /// Several functions have this name and as many arguments.
    #[error("{name} names several functions, use one of {known}")]
    Ambiguous { name: String, known: String },
    /// A function takes another number of arguments.
    #[error("{function} takes {expected} arguments, {actual} were given")]
    Count { function: String, expected: usize, actual: usize },
    /// A value is not of the type of its argument.
    #[error("{function}: {argument} is {expected}, not {actual}")]
    Misfit { function: String, argument: String, expected: String, actual: String },
    /// Bytes that a node gave are not of the type that the interface promises.
    #[error("{what}: the bytes are not of the declared type: {reason}")]
    Undecodable { what: String, reason: String },
}

impl Report for InterfaceError {
    fn code(&self) -> &'static str {
        match self {
            InterfaceError::Undecodable { .. } => "chain",
            _ => "invalid-input",
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            InterfaceError::Unknown { known, .. } | InterfaceError::Ambiguous { known, .. } => {
                Some(known.clone())
            }
            InterfaceError::Count { expected, .. } => Some(expected.to_string()),
            InterfaceError::Misfit { expected, .. } => Some(expected.clone()),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            InterfaceError::Unknown { name, .. } => Some(name.clone()),
            InterfaceError::Count { actual, .. } => Some(actual.to_string()),
            InterfaceError::Misfit { actual, .. } => Some(actual.clone()),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            InterfaceError::Count { function, .. } => Some(function.clone()),
            InterfaceError::Misfit { function, argument, .. } => Some(format!("{function}: {argument}")),
            InterfaceError::Undecodable { what, .. } => Some(what.clone()),
            _ => None,
        }
    }
}

/// Values by name, in the order of their declaration.
pub type Fields = Vec<(String, Decoded)>;

/// What a contract's artifact says of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Interface {
    #[serde(default = "nameless", alias = "contractName")]
    contract: String,
    abi: JsonAbi,
    #[serde(default)]
    bytecode: Bytes,
}

fn nameless() -> String {
    "contract".into()
}

impl Interface {
    /// Reads an artifact: a JSON object with `abi`, and `contract` and `bytecode` where it can be created.
    ///
    /// # Errors
    /// [`InterfaceError::NotArtifact`].
    pub fn parse(artifact: &str) -> Result<Interface, InterfaceError> {
        serde_json::from_str(artifact)
            .map_err(|error| InterfaceError::NotArtifact { reason: error.to_string() })
    }

    /// The contract's name.
    pub fn name(&self) -> &str {
        &self.contract
    }

    /// The data of a call. Integers are JSON integers or decimal strings, bytes and addresses `0x` and hexadecimal
    /// digits, tuples arrays or objects by component name. Of overloaded functions `function` is the signature.
    ///
    /// # Errors
    /// [`InterfaceError`], which names function, argument and what is expected.
    pub fn encode(&self, function: &str, arguments: &[Value]) -> Result<Bytes, InterfaceError> {
        let function = self.function(function, Some(arguments.len()))?;
        let values = fit_all(&function.signature(), &function.inputs, arguments)?;
        let data = function.abi_encode_input(&values);
        Ok(data.expect("every value was made for its type").into())
    }

    /// The code that creates the contract with these arguments.
    ///
    /// # Errors
    /// As of [`Interface::encode`], and [`InterfaceError::NotArtifact`] without code.
    pub fn creation(&self, arguments: &[Value]) -> Result<Bytes, InterfaceError> {
        if self.bytecode.is_empty() {
            return Err(InterfaceError::NotArtifact { reason: "it has no bytecode to create it".into() });
        }
        let inputs: &[Param] = self.abi.constructor.as_ref().map_or(&[], |constructor| &constructor.inputs);
        let values = fit_all(&format!("{}.constructor", self.contract), inputs, arguments)?;
        Ok([&self.bytecode[..], &DynSolValue::Tuple(values).abi_encode_params()].concat().into())
    }

    /// What a function's answer says: its only value, or all by name.
    ///
    /// # Errors
    /// [`InterfaceError::Undecodable`] for bytes of another type, which a node may send.
    pub fn decode(&self, function: &str, arguments: usize, data: &[u8]) -> Result<Decoded, InterfaceError> {
        let function = self.function(function, Some(arguments))?;
        let mut fields = read(&function.signature(), &function.outputs, data)?;
        match fields.len() {
            1 => Ok(fields.remove(0).1),
            _ => Ok(Decoded::Struct(fields)),
        }
    }

    /// An event's name and fields; none if the contract declares no such event. Of an indexed field that does not
    /// fit into a word the chain keeps the hash alone.
    ///
    /// # Errors
    /// [`InterfaceError::Undecodable`] for bytes of another type, which a node may send.
    pub fn event(&self, topics: &[B256], data: &[u8]) -> Result<Option<(String, Fields)>, InterfaceError> {
        let Some((first, indexed)) = topics.split_first() else { return Ok(None) };
        // An event of another contract can have this signature and other topics.
        let is_it = |event: &&Event| {
            event.selector() == *first && event.num_topics() == topics.len() && !event.anonymous
        };
        let Some(event) = self.abi.events().find(is_it) else { return Ok(None) };
        let undecodable =
            |reason| InterfaceError::Undecodable { what: format!("event {}", event.name), reason };
        let types = event.inputs.iter().map(|input| input.resolve()).collect::<Result<Vec<_>, _>>();
        let types = types.map_err(|error| InterfaceError::NotArtifact { reason: error.to_string() })?;
        let inputs = event.inputs.iter().zip(&types);
        let field = |input: &alloy_json_abi::EventParam, kind: &DynSolType| Field {
            name: input.name.clone(),
            kind: kind.clone(),
            components: input.components.clone(),
        };
        let body: Vec<Field> =
            inputs.clone().filter(|(input, _)| !input.indexed).map(|(i, kind)| field(i, kind)).collect();
        let mut body = decode(&body, data).map_err(undecodable)?.into_iter();
        let mut indexed = indexed.iter();
        let mut fields = Vec::with_capacity(types.len());
        for (position, (input, kind)) in inputs.enumerate() {
            fields.push(match input.indexed {
                false => body.next().expect("as many as are not indexed"),
                true => {
                    let topic = indexed.next().expect("they were counted");
                    let kind = if is_word(kind) { kind.clone() } else { DynSolType::FixedBytes(32) };
                    let (_, value) =
                        decode(&[field(input, &kind)], topic.as_slice()).map_err(undecodable)?.remove(0);
                    (value::name_or_position(&input.name, position), value)
                }
            });
        }
        Ok(Some((event.name.clone(), fields)))
    }

    /// The topics that `eth_getLogs` takes for an event with these indexed fields.
    ///
    /// # Errors
    /// [`InterfaceError`], which names the event and the field.
    pub fn topics(
        &self,
        event: &str,
        indexed: &serde_json::Map<String, Value>,
    ) -> Result<Vec<Option<B256>>, InterfaceError> {
        let is_it = |known: &&Event| known.name == event || known.signature() == event;
        let known = self.abi.events().find(is_it).ok_or_else(|| {
            self.unknown("event", event, self.abi.events().map(|known| known.signature()).collect())
        })?;
        let fields: Vec<_> = known.inputs.iter().filter(|input| input.indexed).collect();
        if let Some(name) = indexed.keys().find(|name| fields.iter().all(|field| field.name != **name)) {
            let names = fields.iter().map(|field| field.name.clone()).collect();
            return Err(self.unknown("indexed field", &format!("{event}.{name}"), names));
        }
        let mut topics = vec![Some(known.selector())];
        for field in fields {
            let Some(given) = indexed.get(&field.name) else {
                topics.push(None);
                continue;
            };
            let kind =
                field.resolve().map_err(|error| InterfaceError::NotArtifact { reason: error.to_string() })?;
            let value = fit(&kind, &field.components, given)
                .map_err(|misfit| misfit.of(&known.signature(), &field.name))?;
            topics.push(Some(match &value {
                DynSolValue::String(text) => keccak256(text),
                DynSolValue::Bytes(bytes) => keccak256(bytes),
                value => value.as_word().ok_or_else(|| {
                    let (expected, actual) = ("a value of one word".to_owned(), kind.to_string());
                    Misfit { path: String::new(), expected, actual }.of(&known.signature(), &field.name)
                })?,
            }));
        }
        Ok(topics)
    }

    /// The reason with which the contract refused, as `Name(field: value, ...)`; none if it declares no such error.
    pub fn refusal(&self, data: &[u8]) -> Option<String> {
        let (selector, body) = data.split_at_checked(4)?;
        let error = self.abi.errors().find(|error| error.selector() == Selector::from_slice(selector))?;
        let fields = read(&error.name, &error.inputs, body).ok()?;
        Some(format!("{}{}", error.name, Decoded::Struct(fields)))
    }

    fn function(&self, name: &str, count: Option<usize>) -> Result<&Function, InterfaceError> {
        let named = |function: &&Function| function.name == name || function.signature() == name;
        let known: Vec<&Function> = self.abi.functions().filter(named).collect();
        let fits = |function: &&&Function| count.is_none_or(|count| function.inputs.len() == count);
        let signatures = |known: &[&Function]| known.iter().map(|each| each.signature()).collect::<Vec<_>>();
        match (known.iter().filter(fits).collect::<Vec<_>>().as_slice(), known.as_slice()) {
            ([one], _) => Ok(one),
            ([], []) => {
                let all: Vec<&Function> = self.abi.functions().collect();
                Err(self.unknown("function", name, signatures(&all)))
            }
            ([], [one]) => Err(InterfaceError::Count {
                function: one.signature(),
                expected: one.inputs.len(),
                actual: count.unwrap_or_default(),
            }),
            _ => Err(InterfaceError::Ambiguous { name: name.into(), known: signatures(&known).join(", ") }),
        }
    }

    fn unknown(&self, kind: &'static str, name: &str, known: Vec<String>) -> InterfaceError {
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        InterfaceError::Unknown { contract: self.contract.clone(), kind, name: name.into(), known }
    }
}

/// Whether a topic holds such a value itself.
fn is_word(kind: &DynSolType) -> bool {
    !matches!(
        kind,
        DynSolType::Bytes
            | DynSolType::String
            | DynSolType::Array(_)
            | DynSolType::FixedArray(..)
            | DynSolType::Tuple(_)
    )
}

fn fit_all(function: &str, inputs: &[Param], given: &[Value]) -> Result<Vec<DynSolValue>, InterfaceError> {
    if inputs.len() != given.len() {
        let (expected, actual) = (inputs.len(), given.len());
        return Err(InterfaceError::Count { function: function.into(), expected, actual });
    }
    let fitted = inputs.iter().zip(given).enumerate().map(|(position, (input, given))| {
        let kind =
            input.resolve().map_err(|error| InterfaceError::NotArtifact { reason: error.to_string() })?;
        let name = value::name_or_position(&input.name, position);
        fit(&kind, &input.components, given).map_err(|misfit| misfit.of(function, &name))
    });
    fitted.collect()
}

fn read(what: &str, params: &[Param], data: &[u8]) -> Result<Fields, InterfaceError> {
    let fields = params.iter().map(|param| {
        let kind =
            param.resolve().map_err(|error| InterfaceError::NotArtifact { reason: error.to_string() })?;
        Ok(Field { name: param.name.clone(), kind, components: param.components.clone() })
    });
    let fields = fields.collect::<Result<Vec<_>, InterfaceError>>()?;
    decode(&fields, data).map_err(|reason| InterfaceError::Undecodable { what: what.into(), reason })
}
