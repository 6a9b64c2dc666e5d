//! Where two tensors of one dtype and shape first differ, and by how much.

use crate::commit::CHUNK;
use crate::tensor::{TensorError, measure};

/// The first element in which two tensors differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Element {
    /// The chunk of 1,024 canonical bytes in which it begins.
    pub chunk: u64,
    /// Its place, outermost dimension first.
    pub index: Vec<u64>,
    /// Our value: decimal, and of floats the raw bits; of eight-bit floats the bits alone.
    pub ours: String,
    /// Their value.
    pub theirs: String,
    /// Numbers of this dtype from one value to the other, when both are finite and of one sign.
    pub ulps: Option<u64>,
    /// Elements that differ in their bits, this one among them.
    pub differing: u64,
}

/// Compares canonical bytes of two tensors; none when they are equal.
///
/// # Errors
/// [`TensorError`] when dtype or shape are refused, or do not demand so many bytes.
pub fn first_element(
    dtype: &str,
    shape: &[u64],
    ours: &[u8],
    theirs: &[u8],
) -> Result<Option<Element>, TensorError> {
    let (tag, expected) = measure("", dtype, shape)?;
    for actual in [ours, theirs].map(|bytes| bytes.len() as u64) {
        if actual != expected {
            return Err(TensorError::Length { name: String::new(), expected, actual });
        }
    }
    // A chunk holds whole elements of every dtype; equal chunks are passed over as blocks of memory.
    let item = item_size(tag);
    let (mut first, mut differing) = (None, 0);
    for (chunk, (ours, theirs)) in ours.chunks(CHUNK).zip(theirs.chunks(CHUNK)).enumerate() {
        if ours == theirs {
            continue;
        }
        let pairs = ours.chunks_exact(item).zip(theirs.chunks_exact(item)).enumerate();
        for (place, pair) in pairs.filter(|(_, (ours, theirs))| ours != theirs) {
            differing += 1;
            first.get_or_insert((chunk, chunk * (CHUNK / item) + place, pair));
        }
    }
    Ok(first.map(|(chunk, position, (ours, theirs))| {
        let [our_text, their_text] = [ours, theirs].map(|bytes| match float_bits(tag, bytes) {
            Some(_) if tag == "C64" => {
                format!("{} ({} {})", value_text(tag, bytes), hex(&bytes[..4]), hex(&bytes[4..]))
            }
            Some(_) => format!("{} ({})", value_text(tag, bytes), hex(bytes)),
            None => value_text(tag, bytes),
        });
        Element {
            chunk: chunk as u64,
            index: unravel(position as u64, shape),
            ours: our_text,
            theirs: their_text,
            ulps: ulps(tag, ours, theirs),
            differing,
        }
    }))
}

fn item_size(tag: &str) -> usize {
    let known = crate::tensor::DTYPES.iter().find(|(known, _)| *known == tag);
    known.map_or(1, |(_, item)| *item as usize)
}

fn unravel(mut position: u64, shape: &[u64]) -> Vec<u64> {
    let mut index: Vec<u64> = shape.iter().map(|_| 0).collect();
    for (place, extent) in index.iter_mut().zip(shape).rev() {
        (*place, position) = (position % extent, position / extent);
    }
    index
}

/// One element in words: of floats the shortest decimal that reads back to the same number.
pub(super) fn value_text(tag: &str, bytes: &[u8]) -> String {
    let unsigned = bits(bytes);
    match tag {
        "BOOL" if unsigned < 2 => (unsigned == 1).to_string(),
        "BOOL" | "U8" | "U16" | "U32" | "U64" => unsigned.to_string(),
        "I8" => (unsigned as i8).to_string(),
        "I16" => (unsigned as i16).to_string(),
        "I32" => (unsigned as i32).to_string(),
        "I64" => (unsigned as i64).to_string(),
        "F16" => format!("{:?}", widened(unsigned as u16)),
        "BF16" => format!("{:?}", f32::from_bits((unsigned as u32) << 16)),
        "F32" => format!("{:?}", f32::from_bits(unsigned as u32)),
        "F64" => format!("{:?}", f64::from_bits(unsigned)),
        "C64" => {
            let [real, imaginary] = [unsigned as u32, (unsigned >> 32) as u32].map(f32::from_bits);
            format!("{real:?}{imaginary:+?}j")
        }
        _ => hex(bytes),
    }
}

/// Little-endian bytes of at most eight as a number.
fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn hex(bytes: &[u8]) -> String {
    format!("{:#0width$x}", bits(bytes), width = 2 + 2 * bytes.len())
}

/// The number that a half-precision float is.
fn widened(half: u16) -> f32 {
    let (exponent, fraction) = (half >> 10 & 0x1f, u32::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => fraction as f32 * 2f32.powi(-24),
        0x1f => f32::from_bits(0xff << 23 | fraction << 13),
        _ => f32::from_bits((u32::from(exponent) + 127 - 15) << 23 | fraction << 13),
    };
    if half >> 15 == 1 { -magnitude } else { magnitude }
}

/// Sign and magnitude of a float's bits, and the magnitude of infinity; none for other dtypes.
fn float_bits(tag: &str, bytes: &[u8]) -> Option<(bool, u64, u64)> {
    let (width, infinity) = match tag {
        "F16" => (16, 0x7c00),
        "BF16" => (16, 0x7f80),
        "F32" => (32, 0x7f80_0000),
        "F64" => (64, 0x7ff0_0000_0000_0000),
        // Two numbers, whose bits are shown and have no one distance.
        "C64" => (64, 0),
        _ => return None,
    };
    let sign = 1u64 << (width - 1);
    Some((bits(bytes) & sign != 0, bits(bytes) & !sign, infinity))
}

fn ulps(tag: &str, ours: &[u8], theirs: &[u8]) -> Option<u64> {
    let ((our_sign, our, infinity), (their_sign, their, _)) =
        (float_bits(tag, ours)?, float_bits(tag, theirs)?);
    (our_sign == their_sign && our.max(their) < infinity).then(|| our.abs_diff(their))
}
