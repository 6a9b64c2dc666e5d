//! Arguments of calls, from JSON.

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_json_abi::Param;
use alloy_primitives::{Address, B256, I256, U256, hex};
use serde_json::Value;

use super::InterfaceError;

/// A value that is not of its type; `path` leads to it within its argument.
pub(super) struct Misfit {
    pub(super) path: String,
    pub(super) expected: String,
    pub(super) actual: String,
}

impl Misfit {
    pub(super) fn of(self, function: &str, argument: &str) -> InterfaceError {
        let Misfit { path, expected, actual } = self;
        InterfaceError::Misfit {
            function: function.into(),
            argument: format!("{argument}{path}"),
            expected,
            actual,
        }
    }

    fn below(self, step: &str) -> Misfit {
        Misfit { path: format!("{step}{}", self.path), ..self }
    }
}

/// The value of this type that JSON describes; a tuple's components have names.
pub(super) fn fit(kind: &DynSolType, components: &[Param], given: &Value) -> Result<DynSolValue, Misfit> {
    let misfit = |expected: String| Misfit { path: String::new(), expected, actual: short(given) };
    let fitted = match kind {
        DynSolType::Bool => given.as_bool().map(DynSolValue::Bool),
        DynSolType::Uint(bits) => {
            let value = decimal(given).and_then(|text| U256::from_str_radix(&text, 10).ok());
            value.filter(|value| value.bit_len() <= *bits).map(|value| DynSolValue::Uint(value, *bits))
        }
        DynSolType::Int(bits) => {
            let value = decimal(given).and_then(|text| I256::from_dec_str(&text).ok());
            value.filter(|value| holds(*bits, *value)).map(|value| DynSolValue::Int(value, *bits))
        }
        DynSolType::FixedBytes(size) => bytes(given)
            .filter(|bytes| bytes.len() == *size)
            .map(|bytes| DynSolValue::FixedBytes(B256::right_padding_from(&bytes), *size)),
        DynSolType::Address => {
            let bytes = bytes(given).filter(|bytes| bytes.len() == 20);
            bytes.map(|bytes| DynSolValue::Address(Address::from_slice(&bytes)))
        }
        DynSolType::Function => {
            let bytes = bytes(given).filter(|bytes| bytes.len() == 24);
            bytes.map(|bytes| DynSolValue::Function(alloy_primitives::Function::from_slice(&bytes)))
        }
        DynSolType::Bytes => bytes(given).map(DynSolValue::Bytes),
        DynSolType::String => given.as_str().map(|text| DynSolValue::String(text.into())),
        DynSolType::Array(inner) => match given.as_array() {
            Some(items) => Some(DynSolValue::Array(fit_items(inner, components, items)?)),
            None => None,
        },
        DynSolType::FixedArray(inner, size) => match given.as_array().filter(|items| items.len() == *size) {
            Some(items) => Some(DynSolValue::FixedArray(fit_items(inner, components, items)?)),
            None => None,
        },
        DynSolType::Tuple(kinds) => {
            match items_of(components, given).filter(|items| items.len() == kinds.len()) {
                Some(items) => {
                    let fields = kinds.iter().zip(components).zip(items);
                    let fields = fields.map(|((kind, component), item)| {
                        let step = format!(".{}", component.name);
                        fit(kind, &component.components, item).map_err(|misfit| misfit.below(&step))
                    });
                    Some(DynSolValue::Tuple(fields.collect::<Result<_, _>>()?))
                }
                None => return Err(misfit(tuple_in_words(components))),
            }
        }
    };
    fitted.ok_or_else(|| misfit(in_words(kind)))
}

fn fit_items(kind: &DynSolType, components: &[Param], items: &[Value]) -> Result<Vec<DynSolValue>, Misfit> {
    let fitted = items.iter().enumerate().map(|(position, item)| {
        fit(kind, components, item).map_err(|misfit| misfit.below(&format!("[{position}]")))
    });
    fitted.collect()
}

/// A tuple's values in their order.
fn items_of<'a>(components: &[Param], given: &'a Value) -> Option<Vec<&'a Value>> {
    match given {
        Value::Array(items) => Some(items.iter().collect()),
        Value::Object(fields) if fields.len() == components.len() => {
            components.iter().map(|component| fields.get(&component.name)).collect()
        }
        _ => None,
    }
}

/// The digits of an integer, with at most a minus before them.
fn decimal(given: &Value) -> Option<String> {
    let text = match given {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    (!digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())).then_some(text)
}

pub(super) fn holds(bits: usize, value: I256) -> bool {
    let magnitude = if value.is_negative() { !value.into_raw() } else { value.into_raw() };
    magnitude.bit_len() < bits
}

fn bytes(given: &Value) -> Option<Vec<u8>> {
    hex::decode(given.as_str()?.strip_prefix("0x")?).ok()
}

fn in_words(kind: &DynSolType) -> String {
    match kind {
        DynSolType::Bool => "true or false".into(),
        DynSolType::Uint(bits) => format!("an integer from 0 to 2^{bits} - 1"),
        DynSolType::Int(bits) => format!("an integer from -2^{0} to 2^{0} - 1", bits - 1),
        DynSolType::FixedBytes(size) => format!("0x and {size} bytes in hexadecimal"),
        DynSolType::Address => "an address, 0x and 40 hexadecimal digits".into(),
        DynSolType::Bytes => "0x and bytes in hexadecimal".into(),
        DynSolType::String => "text".into(),
        DynSolType::FixedArray(_, size) => format!("a list of {size}"),
        DynSolType::Array(_) => "a list".into(),
        other => other.to_string(),
    }
}

fn tuple_in_words(components: &[Param]) -> String {
    let names: Vec<&str> = components.iter().map(|component| component.name.as_str()).collect();
    format!("a list of, or an object with, {}", names.join(", "))
}

fn short(given: &Value) -> String {
    const MOST: usize = 60;
    let text = given.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
