//! The body of a receipt: one 32-byte word a field, and the EIP-712 digest over them.

use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::schema::{Field, Kind, WordType};
use crate::primitives::{Address, Digest, Report, keccak256};

/// Why bytes are no body of a kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum ReceiptError {
    /// The body does not have one word per field.
    #[error("a {kind} receipt has {expected} bytes, found {actual}")]
    Length { kind: &'static str, expected: usize, actual: usize },
    /// A word holds more than its field's type can.
    #[error("field {field} of a {kind} receipt does not fit its type {expected}")]
    Range { kind: &'static str, field: &'static str, expected: String },
    /// A value of another type was given for a field, or for a field that does not exist.
    #[error("a {kind} receipt has no field {field} that takes this value")]
    Field { kind: &'static str, field: String },
    /// A document is no typed data of a receipt or another statement of Counterfoil's.
    #[error("this is no typed data of Counterfoil's: {detail}")]
    Document { detail: String },
    /// A notice does not say what its type says.
    #[error("the notice of a {kind} is not the one of its type")]
    Notice { kind: &'static str },
}

impl Report for ReceiptError {
    fn code(&self) -> &'static str {
        "invalid-input"
    }

    fn place(&self) -> Option<String> {
        match self {
            ReceiptError::Length { kind, .. } | ReceiptError::Notice { kind } => Some((*kind).into()),
            ReceiptError::Range { kind, field, .. } => Some(format!("{kind}.{field}")),
            ReceiptError::Field { kind, field } => Some(format!("{kind}.{field}")),
            ReceiptError::Document { .. } => None,
        }
    }
}

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// An unsigned number.
    Unsigned(u64),
    /// An address.
    Address(Address),
    /// 32 bytes.
    Digest(Digest),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Unsigned(number)
    }
}

impl From<Address> for Value {
    fn from(address: Address) -> Self {
        Value::Address(address)
    }
}

impl From<Digest> for Value {
    fn from(digest: Digest) -> Self {
        Value::Digest(digest)
    }
}

/// A decoded body; every field fits its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    kind: &'static Kind,
    words: Vec<Digest>,
}

impl Body {
    /// A body whose named fields have these values and whose other fields are zero.
    ///
    /// # Errors
    /// [`ReceiptError::Field`] for an unknown field or a value of another type,
    /// [`ReceiptError::Range`] for a number that is too large.
    pub fn new(kind: &'static Kind, values: &[(&str, Value)]) -> Result<Body, ReceiptError> {
        let blank = |field: &Field| match field.word {
            WordType::Notice(text) => keccak256(text),
            _ => Digest::ZERO,
        };
        let mut words: Vec<Digest> = kind.all_fields().map(blank).collect();
        for (name, value) in values {
            let unknown = || ReceiptError::Field { kind: kind.name, field: (*name).into() };
            let (index, field) =
                kind.all_fields().enumerate().find(|(_, field)| field.name == *name).ok_or_else(unknown)?;
            words[index] = match (field.word, value) {
                (WordType::Unsigned(_), Value::Unsigned(number)) => {
                    Digest::left_padding_from(&number.to_be_bytes())
                }
                (WordType::Address, Value::Address(address)) => address.into_word(),
                (WordType::Bytes32, Value::Digest(digest)) => *digest,
                _ => return Err(unknown()),
            };
        }
        let body = Body { kind, words };
        body.check_ranges()?;
        Ok(body)
    }

    /// Reads a body from its words.
    ///
    /// # Errors
    /// [`ReceiptError::Length`] and [`ReceiptError::Range`].
    pub fn decode(kind: &'static Kind, bytes: &[u8]) -> Result<Body, ReceiptError> {
        let expected = kind.all_fields().count() * 32;
        if bytes.len() != expected {
            return Err(ReceiptError::Length { kind: kind.name, expected, actual: bytes.len() });
        }
        let body = Body { kind, words: bytes.chunks_exact(32).map(Digest::from_slice).collect() };
        body.check_ranges()?;
        Ok(body)
    }

    fn check_ranges(&self) -> Result<(), ReceiptError> {
        for (field, word) in self.kind.all_fields().zip(&self.words) {
            let width = match field.word {
                WordType::Unsigned(bits) => usize::from(bits / 8),
                WordType::Address => 20,
                WordType::Bytes32 => 32,
                WordType::Notice(text) if *word == keccak256(text) => 32,
                WordType::Notice(_) => return Err(ReceiptError::Notice { kind: self.kind.name }),
            };
            if word[..32 - width].iter().any(|byte| *byte != 0) {
                let expected = field.word.solidity();
                return Err(ReceiptError::Range { kind: self.kind.name, field: field.name, expected });
            }
        }
        Ok(())
    }

    /// The kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// `encodeData` without the type hash.
    pub fn encode(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.0).collect()
    }

    /// The fields in order, with their values.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, Value)> {
        self.kind.all_fields().zip(&self.words).map(|(field, word)| {
            let value = match field.word {
                WordType::Unsigned(_) => {
                    Value::Unsigned(u64::from_be_bytes(word.0[24..].try_into().expect("8 bytes")))
                }
                WordType::Address => Value::Address(Address::from_word(*word)),
                WordType::Bytes32 | WordType::Notice(_) => Value::Digest(*word),
            };
            (field, value)
        })
    }

    fn value(&self, name: &str) -> Value {
        let found = self.fields().find(|(field, _)| field.name == name);
        found.unwrap_or_else(|| panic!("{} has no field {name}", self.kind.name)).1
    }

    /// A number of this body; asking for a field that its kind lacks is a mistake of the program.
    pub fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Unsigned(number) => number,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// An address of this body.
    pub fn address(&self, name: &str) -> Address {
        match self.value(name) {
            Value::Address(address) => address,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// 32 bytes of this body.
    pub fn bytes32(&self, name: &str) -> Digest {
        match self.value(name) {
            Value::Digest(digest) => digest,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Hash of the EIP-712 type.
    pub fn type_hash(&self) -> Digest {
        self.kind.type_hash()
    }

    /// The digest that is signed.
    ///
    /// # Source
    /// EIP-712, "encode(domainSeparator, message)".
    pub fn digest(&self) -> Digest {
        let structure = keccak256([self.kind.type_hash().as_slice(), &self.encode()].concat());
        keccak256([&[0x19, 0x01], domain_separator().as_slice(), structure.as_slice()].concat())
    }
}

/// The EIP-712 domain of every receipt and tree head.
pub fn domain_separator() -> Digest {
    static SEPARATOR: LazyLock<Digest> = LazyLock::new(|| {
        let words = [
            keccak256("EIP712Domain(string name,string version,bytes32 salt)"),
            keccak256("Counterfoil"),
            keccak256("1"),
            keccak256("counterfoil.receipts.v1"),
        ];
        keccak256(words.map(|word| word.0).concat())
    });
    *SEPARATOR
}

/// The message as wallets and `eth_signTypedData_v4` take it; numbers as decimal strings.
pub fn typed_data(body: &Body) -> String {
    let member = |name: &str, word: &str| json!({ "name": name, "type": word });
    let members: Vec<Json> =
        body.kind().all_fields().map(|field| member(field.name, &field.word.solidity())).collect();
    let message = body.fields().map(|(field, value)| {
        let text = match (field.word, value) {
            (WordType::Notice(text), _) => text.into(),
            (_, Value::Unsigned(number)) => number.to_string(),
            (_, Value::Address(address)) => address.to_checksum(None),
            (_, Value::Digest(digest)) => digest.to_string(),
        };
        format!("{}:{}", json!(field.name), json!(text))
    });
    let types = json!({
        "EIP712Domain": [member("name", "string"), member("version", "string"), member("salt", "bytes32")],
        body.kind().type_name: members,
    });
    let domain = json!({
        "name": "Counterfoil", "version": "1", "salt": keccak256("counterfoil.receipts.v1").to_string(),
    });
    // Wallets show the fields as they come, and serde_json would sort them.
    let message = message.collect::<Vec<_>>().join(",");
    let name = json!(body.kind().type_name);
    format!(r#"{{"types":{types},"primaryType":{name},"domain":{domain},"message":{{{message}}}}}"#)
}

/// The body of a typed-data document that [`typed_data`] would write just so.
///
/// # Errors
/// [`ReceiptError::Document`] for any other document.
pub fn from_typed_data(document: &Json) -> Result<Body, ReceiptError> {
    let refused = |detail: &str| ReceiptError::Document { detail: detail.into() };
    let name = document["primaryType"].as_str().ok_or_else(|| refused("it has no primaryType"))?;
    let kind =
        Kind::from_type_name(name).ok_or_else(|| refused("its primaryType is none of Counterfoil's"))?;
    let mut values = Vec::new();
    for field in kind.all_fields() {
        let missing = || refused(&format!("its {} is missing, or no {}", field.name, field.word.solidity()));
        let text = document["message"][field.name].as_str().ok_or_else(missing)?;
        let parsed = match field.word {
            WordType::Notice(_) => continue,
            WordType::Unsigned(_) => text.parse().ok().map(Value::Unsigned),
            WordType::Address => text.parse().ok().map(Value::Address),
            WordType::Bytes32 => text.parse().ok().map(Value::Digest),
        };
        values.push((field.name, parsed.ok_or_else(missing)?));
    }
    let body = Body::new(kind, &values)?;
    let written: Json = serde_json::from_str(&typed_data(&body)).expect("typed data is JSON");
    match written == *document {
        true => Ok(body),
        false => Err(refused("it is not written in the one way")),
    }
}
