//! Values that contracts answer with, from bytes that any node may have made up.
//!
//! `alloy-dyn-abi` copies a text as often as offsets lead to it, so that a few megabytes can ask for terabytes,
//! and takes words that are too large for their type. Here every byte belongs to one value at most, as in all
//! that compilers write.

use alloy_dyn_abi::DynSolType;
use alloy_json_abi::Param;
use alloy_primitives::{Address, I256, U256, hex};

use super::arguments::holds;

const WORD: usize = 32;

/// A value of any of the types that contracts have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// `bool`.
    Bool(bool),
    /// `uint8` to `uint256`.
    Unsigned(U256),
    /// `int8` to `int256`.
    Signed(I256),
    /// `address`.
    Address(Address),
    /// `bytes`, `bytes1` to `bytes32` and `function`.
    Bytes(Vec<u8>),
    /// `string`.
    Text(String),
    /// An array.
    List(Vec<Decoded>),
    /// A tuple: its components by name, by position where they have none.
    Struct(Vec<(String, Decoded)>),
}

impl std::fmt::Display for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Decoded::Bool(value) => write!(f, "{value}"),
            Decoded::Unsigned(value) => write!(f, "{value}"),
            Decoded::Signed(value) => write!(f, "{value}"),
            Decoded::Address(value) => write!(f, "{value}"),
            Decoded::Bytes(value) => write!(f, "{}", hex::encode_prefixed(value)),
            // A node's text must not look like the program's own.
            Decoded::Text(value) => write!(f, "{value:?}"),
            Decoded::List(values) => {
                let texts: Vec<String> = values.iter().map(Decoded::to_string).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Decoded::Struct(fields) => {
                let texts: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                write!(f, "({})", texts.join(", "))
            }
        }
    }
}

/// What is expected next.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: DynSolType,
    pub(super) components: Vec<Param>,
}

pub(super) fn name_or_position(name: &str, position: usize) -> String {
    if name.is_empty() { position.to_string() } else { name.into() }
}

/// The values in these bytes.
pub(super) fn decode(fields: &[Field], data: &[u8]) -> Result<Vec<(String, Decoded)>, String> {
    let mut reader = Reader { data, left: data.len() };
    let kinds = fields.iter().map(|field| (&field.kind, &field.components[..]));
    let values = reader.sequence(0, kinds)?;
    let names = fields.iter().enumerate().map(|(position, field)| name_or_position(&field.name, position));
    Ok(names.zip(values).collect())
}

struct Reader<'a> {
    data: &'a [u8],
    /// Bytes that may still be given to values.
    left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, at: usize, size: usize) -> Result<&'a [u8], String> {
        let end = at.checked_add(size);
        let bytes = end.and_then(|end| self.data.get(at..end)).ok_or("they end too early")?;
        self.left = self.left.checked_sub(size).ok_or("two values share bytes")?;
        Ok(bytes)
    }

    fn word(&mut self, at: usize) -> Result<U256, String> {
        self.take(at, WORD).map(U256::from_be_slice)
    }

    /// A number of bytes or items, or an offset.
    fn size(&mut self, at: usize) -> Result<usize, String> {
        let size = self.word(at)?;
        let within = usize::try_from(size).ok().filter(|size| *size <= self.data.len());
        within.ok_or_else(|| format!("they name {size} bytes or items, and are {}", self.data.len()))
    }

    /// What stands from `base` on: static values themselves, and offsets from there to all others.
    fn sequence<'k>(
        &mut self,
        base: usize,
        kinds: impl Iterator<Item = (&'k DynSolType, &'k [Param])>,
    ) -> Result<Vec<Decoded>, String> {
        let (mut values, mut at) = (Vec::new(), base);
        for (kind, components) in kinds {
            let place = match kind.is_dynamic() {
                true => base.saturating_add(self.size(at)?),
                false => at,
            };
            values.push(self.value(kind, components, place)?);
            at = at.saturating_add(head(kind));
        }
        Ok(values)
    }

    fn items(
        &mut self,
        kind: &DynSolType,
        components: &[Param],
        count: usize,
        base: usize,
    ) -> Result<Decoded, String> {
        // Items of no size would be free, however many are named.
        if count > 0 && (head(kind) == 0 || count.saturating_mul(head(kind)) > self.left) {
            return Err(format!("{count} items do not fit into them"));
        }
        self.sequence(base, std::iter::repeat_n((kind, components), count)).map(Decoded::List)
    }

    fn value(&mut self, kind: &DynSolType, components: &[Param], at: usize) -> Result<Decoded, String> {
        let unfit = |word: U256| format!("{word:#x} is no {kind}");
        Ok(match kind {
            DynSolType::Array(inner) => {
                let count = self.size(at)?;
                self.items(inner, components, count, at + WORD)?
            }
            DynSolType::FixedArray(inner, count) => self.items(inner, components, *count, at)?,
            DynSolType::Tuple(kinds) => {
                let parts = kinds.iter().zip(components.iter().map(|each| &each.components[..]));
                let values = self.sequence(at, parts)?;
                let names = components.iter().enumerate().map(|(n, each)| name_or_position(&each.name, n));
                Decoded::Struct(names.zip(values).collect())
            }
            DynSolType::Bytes => {
                let size = self.size(at)?;
                Decoded::Bytes(self.take(at + WORD, size)?.to_vec())
            }
            DynSolType::String => {
                let size = self.size(at)?;
                let text = str::from_utf8(self.take(at + WORD, size)?).map_err(|error| error.to_string())?;
                Decoded::Text(text.into())
            }
            DynSolType::Bool => match self.word(at)? {
                word if word <= U256::from(1) => Decoded::Bool(!word.is_zero()),
                word => return Err(unfit(word)),
            },
            DynSolType::Uint(bits) => match self.word(at)? {
                word if word.bit_len() <= *bits => Decoded::Unsigned(word),
                word => return Err(unfit(word)),
            },
            DynSolType::Int(bits) => match self.word(at)? {
                word if holds(*bits, I256::from_raw(word)) => Decoded::Signed(I256::from_raw(word)),
                word => return Err(unfit(word)),
            },
            DynSolType::Address => match self.word(at)? {
                word if word.bit_len() <= 160 => Decoded::Address(Address::from_word(word.into())),
                word => return Err(unfit(word)),
            },
            DynSolType::FixedBytes(size) => self.left_aligned(*size, kind, at)?,
            DynSolType::Function => self.left_aligned(24, kind, at)?,
        })
    }

    fn left_aligned(&mut self, size: usize, kind: &DynSolType, at: usize) -> Result<Decoded, String> {
        let (value, padding) = self.take(at, WORD)?.split_at(size);
        match padding.iter().all(|byte| *byte == 0) {
            true => Ok(Decoded::Bytes(value.to_vec())),
            false => Err(format!("{} is no {kind}", hex::encode_prefixed([value, padding].concat()))),
        }
    }
}

/// Bytes that a value takes of the sequence it is in.
fn head(kind: &DynSolType) -> usize {
    match kind {
        kind if kind.is_dynamic() => WORD,
        DynSolType::FixedArray(inner, count) => head(inner).saturating_mul(*count),
        DynSolType::Tuple(kinds) => kinds.iter().fold(0, |sum: usize, kind| sum.saturating_add(head(kind))),
        _ => WORD,
    }
}
