//! What a tensor is to this library: a name, a dtype tag, a shape, and canonical bytes.

use crate::primitives::Report;

/// Longest name of a tensor, bytes of UTF-8.
pub const MAX_NAME: usize = 1024;
/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 64;

/// Element types with a canonical encoding: safetensors' tags and element sizes in bytes.
pub const DTYPES: [(&str, u64); 17] = [
    ("BOOL", 1),
    ("U8", 1),
    ("I8", 1),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("F8_E8M0", 1),
    ("I16", 2),
    ("U16", 2),
    ("F16", 2),
    ("BF16", 2),
    ("I32", 4),
    ("U32", 4),
    ("F32", 4),
    ("I64", 8),
    ("U64", 8),
    ("F64", 8),
    ("C64", 8),
];

/// Why a description of a tensor was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum TensorError {
    /// The dtype has no safetensors tag of whole bytes.
    #[error(
        "tensor {name:?} has dtype {dtype}, which has no canonical encoding; convert it to one of counterfoil.DTYPES"
    )]
    UnsupportedDtype { name: String, dtype: String },
    /// The name is empty, too long or holds control characters.
    #[error("{name:?} cannot name a tensor: {reason}")]
    Name { name: String, reason: &'static str },
    /// More than [`MAX_DIMENSIONS`] dimensions, or more than 2^64 - 1 bytes.
    #[error("tensor {name:?} has an impossible shape: {reason}")]
    Shape { name: String, reason: &'static str },
    /// The bytes given are not as many as dtype and shape demand.
    #[error("tensor {name:?} needs {expected} bytes by its dtype and shape, found {actual}")]
    Length { name: String, expected: u64, actual: u64 },
}

impl Report for TensorError {
    fn code(&self) -> &'static str {
        match self {
            TensorError::UnsupportedDtype { .. } => "unsupported-dtype",
            _ => "invalid-input",
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            TensorError::Length { expected, .. } => Some(expected.to_string()),
            TensorError::UnsupportedDtype { .. } => Some(DTYPES.map(|(tag, _)| tag).join(" ")),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            TensorError::Length { actual, .. } => Some(actual.to_string()),
            TensorError::UnsupportedDtype { dtype, .. } => Some(dtype.clone()),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            TensorError::UnsupportedDtype { name, .. }
            | TensorError::Name { name, .. }
            | TensorError::Shape { name, .. }
            | TensorError::Length { name, .. } => Some(name.clone()),
        }
    }
}

/// Checks a tensor's name.
///
/// # Errors
/// [`TensorError::Name`] with the rule that is broken.
pub fn check_name(name: &str) -> Result<(), TensorError> {
    let refused = |reason| Err(TensorError::Name { name: name.chars().take(80).collect(), reason });
    if name.is_empty() {
        return refused("it is empty");
    }
    if name.len() > MAX_NAME {
        return refused("it is longer than 1,024 bytes");
    }
    let has_control = match name.is_ascii() {
        true => name.bytes().any(|byte| byte.is_ascii_control()),
        false => name.chars().any(char::is_control),
    };
    if has_control {
        return refused("it holds a control character");
    }
    Ok(())
}

/// The dtype's tag, and the number of canonical bytes of a tensor of this dtype and shape.
///
/// # Errors
/// [`TensorError::UnsupportedDtype`] and [`TensorError::Shape`].
pub fn measure(name: &str, dtype: &str, shape: &[u64]) -> Result<(&'static str, u64), TensorError> {
    let Some((tag, item)) = DTYPES.iter().find(|(tag, _)| *tag == dtype) else {
        return Err(TensorError::UnsupportedDtype { name: name.into(), dtype: dtype.into() });
    };
    if shape.len() > MAX_DIMENSIONS {
        return Err(TensorError::Shape { name: name.into(), reason: "more than 64 dimensions" });
    }
    if shape.contains(&0) {
        return Ok((tag, 0));
    }
    let size = shape.iter().try_fold(*item, |size, extent| size.checked_mul(*extent));
    let size =
        size.ok_or(TensorError::Shape { name: name.into(), reason: "its size does not fit 64 bits" })?;
    Ok((tag, size))
}
