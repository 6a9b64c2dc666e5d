//! Fingerprints: short sketches of float tensors, by which the distance of two is judged without their bytes.
//!
//! `docs/format.md`, section 17. All sums are of integers, so any order and any number of threads gives the same bits.

use std::collections::BTreeMap;

use super::engine::for_all;
use super::entry::{Content, Entry};
use crate::primitives::{Digest, Report, sha256};
use crate::tensor::TensorError;

/// Independent rows of a sketch.
pub const ROWS: usize = 4;
/// Buckets of a row.
pub const BUCKETS: usize = 64;
/// Tensors with fewer elements share the unit [`POOL`].
pub const OWN_UNIT_FROM: u64 = 4096;
/// The unit of all small tensors.
pub const POOL: &str = "pool";

/// Rows of buckets, sums in units of 2^-48.
pub type Sketch = [[i64; BUCKETS]; ROWS];

/// Elements of one unit of value.
const SCALE: f64 = (1u64 << 48) as f64;
/// Counters of Philox that are computed side by side: with fewer, the compiler finds no vectors in them.
const LANES: usize = 16;
/// Elements for which these counters make a word each.
const BLOCK: usize = 4 * LANES;
/// Elements that one thread takes at a time; a multiple of `BLOCK`.
const PIECE: usize = 1 << 16;

/// Why tensors have no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum FingerprintError {
    /// The elements are no floating-point numbers of 16, 32 or 64 bits.
    #[error(
        "tensor {name:?} has dtype {dtype}, of which there is no fingerprint; leave it out or convert it"
    )]
    Dtype { name: String, dtype: &'static str },
    /// The tensor is in blocks, whose places in the whole this sketch does not follow.
    #[error("tensor {name:?} is sharded, and only whole tensors have a fingerprint")]
    Sharded { name: String },
    /// Other bytes than the entry speaks of.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Report for FingerprintError {
    fn code(&self) -> &'static str {
        match self {
            FingerprintError::Dtype { .. } => "unsupported-dtype",
            FingerprintError::Sharded { .. } => "invalid-input",
            FingerprintError::Tensor(error) => error.code(),
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            FingerprintError::Dtype { .. } => Some("BF16 F16 F32 F64".into()),
            FingerprintError::Sharded { .. } => Some("a whole tensor".into()),
            FingerprintError::Tensor(error) => error.expected(),
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            FingerprintError::Dtype { dtype, .. } => Some((*dtype).into()),
            FingerprintError::Sharded { .. } => Some("sharded".into()),
            FingerprintError::Tensor(error) => error.actual(),
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            FingerprintError::Dtype { name, .. } | FingerprintError::Sharded { name } => Some(name.clone()),
            FingerprintError::Tensor(error) => error.place(),
        }
    }
}

/// The sketch of each unit of these entries with their canonical bytes. Absent entries and aliases add nothing.
///
/// # Errors
/// [`FingerprintError`].
pub fn fingerprint(
    tensors: &[(&Entry, &[u8])],
    key: &Digest,
) -> Result<BTreeMap<String, Sketch>, FingerprintError> {
    let mut pieces = Vec::new();
    let mut size = 0;
    for &(entry, bytes) in tensors {
        let name = || entry.name.clone();
        let (dtype, expected) = match &entry.content {
            Content::Dense { dtype, size, .. } => (*dtype, *size),
            Content::Sharded { .. } => return Err(FingerprintError::Sharded { name: name() }),
            Content::Absent | Content::Alias { .. } => continue,
        };
        let Some((add, width)) = summing(dtype) else {
            return Err(FingerprintError::Dtype { name: name(), dtype });
        };
        let actual = bytes.len() as u64;
        if actual != expected {
            return Err(TensorError::Length { name: name(), expected, actual }.into());
        }
        size += actual;
        let is_small = expected / (width as u64) < OWN_UNIT_FROM;
        let unit = if is_small { POOL.into() } else { format!("tensor/{}", entry.name) };
        let key = philox_key(key, &entry.name);
        // A tensor without elements has its unit too.
        let parts = bytes.chunks(PIECE * width).chain(bytes.is_empty().then_some(bytes));
        pieces.extend(parts.enumerate().map(|(index, part)| (unit.clone(), add, part, index, key)));
    }
    let sketches =
        for_all(&pieces, size, |(_, add, part, index, key)| add(part, (index * PIECE) as u64, *key));
    let mut units = BTreeMap::new();
    for ((unit, ..), sketch) in pieces.into_iter().zip(sketches) {
        let sum: &mut Sketch = units.entry(unit).or_insert([[0; BUCKETS]; ROWS]);
        for (sum, more) in sum.as_flattened_mut().iter_mut().zip(sketch.as_flattened()) {
            *sum = sum.wrapping_add(*more);
        }
    }
    Ok(units)
}

/// The sketch of a tensor's elements from this index on, a multiple of `BLOCK`.
type Summing = fn(&[u8], u64, [u32; 2]) -> Sketch;

/// What sums elements of this dtype, and their width in bytes; none for what is no such float.
fn summing(dtype: &str) -> Option<(Summing, usize)> {
    Some(match dtype {
        "BF16" => (|bytes, first, key| sketch(bytes, first, key, from_bf16), 2),
        "F16" => (|bytes, first, key| sketch(bytes, first, key, from_f16), 2),
        "F32" => (|bytes, first, key| sketch(bytes, first, key, |bytes| f32::from_le_bytes(bytes).into()), 4),
        "F64" => (|bytes, first, key| sketch(bytes, first, key, f64::from_le_bytes), 8),
        _ => return None,
    })
}

fn from_bf16(bytes: [u8; 2]) -> f64 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16).into()
}

/// Without arithmetic on subnormal numbers, which a process may have told its processor to take for zero.
fn from_f16(bytes: [u8; 2]) -> f64 {
    let bits = u16::from_le_bytes(bytes);
    let (exponent, fraction) = (u64::from(bits >> 10 & 0x1f), u64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction as f64 / (1u64 << 24) as f64,
        0x1f => f64::from_bits(0x7ff << 52 | fraction << 42),
        _ => f64::from_bits((exponent + 1008) << 52 | fraction << 42),
    };
    magnitude.copysign(if bits >> 15 == 0 { 1.0 } else { -1.0 })
}

#[inline(always)]
fn sketch<const WIDTH: usize>(
    bytes: &[u8],
    first: u64,
    key: [u32; 2],
    decode: impl Fn([u8; WIDTH]) -> f64,
) -> Sketch {
    let (whole, rest) = bytes.as_chunks::<WIDTH>().0.as_chunks::<BLOCK>();
    // Zeros add nothing.
    let mut last = [[0; WIDTH]; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    // A sum for each value of a row's byte: its sign and bucket are looked at once, in the end.
    let mut sums = [[0i64; 256]; ROWS];
    for (index, block) in whole.iter().chain((!rest.is_empty()).then_some(&last)).enumerate() {
        let words = words(first / 4 + (index * LANES) as u64, key);
        let mut scaled = [0.0; BLOCK];
        for (scaled, element) in scaled.iter_mut().zip(block) {
            *scaled = decode(*element) * SCALE;
        }
        let fixed = fixed(&scaled);
        for (index, fixed) in fixed.into_iter().enumerate() {
            let word = words[index & 3][index >> 2].to_le_bytes();
            for (sums, byte) in sums.iter_mut().zip(word) {
                let sum = &mut sums[usize::from(byte)];
                *sum = sum.wrapping_add(fixed);
            }
        }
    }
    let mut sketch = [[0i64; BUCKETS]; ROWS];
    for (row, sums) in sketch.iter_mut().zip(&sums) {
        for (byte, sum) in sums.iter().enumerate() {
            let bucket = &mut row[byte % BUCKETS];
            *bucket = if byte < 0x80 { bucket.wrapping_add(*sum) } else { bucket.wrapping_sub(*sum) };
        }
    }
    sketch
}

/// Rounds halves to even, saturates, and takes NaN for the smallest number.
#[inline(always)]
fn fixed(scaled: &[f64; BLOCK]) -> [i64; BLOCK] {
    /// From here on doubles are the integers, to which one below 2^51 is rounded by being added.
    const INTEGERS: f64 = 1.5 * (1u64 << 52) as f64;
    const SMALL: f64 = (1u64 << 51) as f64;
    if scaled.iter().fold(true, |small, value| small & (value.abs() < SMALL)) {
        return scaled.map(|value| (value + INTEGERS).to_bits().wrapping_sub(INTEGERS.to_bits()) as i64);
    }
    scaled.map(|value| if value.is_nan() { i64::MIN } else { value.round_ties_even() as i64 })
}

/// The key of the generator for one tensor.
fn philox_key(key: &Digest, name: &str) -> [u32; 2] {
    let hash = sha256(&[b"counterfoil.fingerprint.v1", key.as_slice(), name.as_bytes()]);
    [0, 4].map(|at| u32::from_le_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]))
}

/// The generator's output for `LANES` counters from this one on.
#[inline(always)]
fn words(counter: u64, key: [u32; 2]) -> [[u32; LANES]; 4] {
    let counters: [u64; LANES] = std::array::from_fn(|lane| counter + lane as u64);
    let (low, high) =
        (counters.map(|counter| counter as u32), counters.map(|counter| (counter >> 32) as u32));
    philox([low, high, [0; LANES], [0; LANES]], key)
}

/// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11).
#[inline(always)]
fn philox(mut counter: [[u32; LANES]; 4], mut key: [u32; 2]) -> [[u32; LANES]; 4] {
    let product = |factor: u32, word: u32| u64::from(factor) * u64::from(word);
    for _ in 0..10 {
        let mut next = [[0; LANES]; 4];
        for lane in 0..LANES {
            let first = product(0xd251_1f53, counter[0][lane]);
            let second = product(0xcd9e_8d57, counter[2][lane]);
            next[0][lane] = (second >> 32) as u32 ^ counter[1][lane] ^ key[0];
            next[1][lane] = second as u32;
            next[2][lane] = (first >> 32) as u32 ^ counter[3][lane] ^ key[1];
            next[3][lane] = first as u32;
        }
        counter = next;
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_lane(counter: [u32; 4], key: [u32; 2], expected: [u32; 4]) {
        assert_eq!(philox(counter.map(|word| [word; LANES]), key), expected.map(|word| [word; LANES]));
    }

    /// A wrong constant, round or order of words gives other numbers than Random123's kat_vectors.
    #[test]
    fn philox_gives_the_known_answers() {
        every_lane([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        every_lane([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        every_lane(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    /// A counter that wraps at 2^32 would repeat the words of the first elements in a tensor of 2^34.
    #[test]
    fn counters_pass_32_bits() {
        let border = words((1 << 32) - 1, [5, 6]);
        let alone =
            |low: u32, high: u32| philox([[low; LANES], [high; LANES], [0; LANES], [0; LANES]], [5, 6]);
        for (lane, expected) in [(0, alone(u32::MAX, 0)), (1, alone(0, 1)), (2, alone(1, 1))] {
            assert_eq!(border.map(|word| word[lane]), expected.map(|word| word[0]));
        }
    }

    /// Every half-precision number, subnormal ones among them, is its own value and no neighbour's.
    #[test]
    fn halves_are_read_exactly() {
        let mut previous = -1.0;
        for bits in 0..0x7c00u16 {
            let value = from_f16(bits.to_le_bytes());
            assert!(value > previous);
            assert_eq!(from_f16((bits | 0x8000).to_le_bytes()).to_bits(), (-value).to_bits());
            previous = value;
        }
        assert_eq!(
            [0x0001, 0x0400, 0x3c00, 0x7bff].map(|bits: u16| from_f16(bits.to_le_bytes())),
            [1.0 / (1 << 24) as f64, 1.0 / (1 << 14) as f64, 1.0, 65504.0]
        );
        assert_eq!(from_f16(0x7c00u16.to_le_bytes()), f64::INFINITY);
        assert!(from_f16(0x7c01u16.to_le_bytes()).is_nan());
    }

    /// Rounding to even on both paths, at the border between them, and what leaves the range.
    #[test]
    fn fixed_point_rounds_to_even_and_saturates() {
        let half = (1u64 << 50) as f64 + 0.5;
        let mut values = [0.0; BLOCK];
        values[..8].copy_from_slice(&[0.5, 1.5, -0.5, -2.5, half, half + 1.0, -half, -0.0]);
        let expected = [0, 2, 0, -2, 1 << 50, (1 << 50) + 2, -(1 << 50), 0];
        assert_eq!(fixed(&values)[..8], expected);
        let wide = (1u64 << 63) as f64;
        values[8..16].copy_from_slice(&[
            wide,
            -wide,
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            1e300,
            -1e300,
            half,
        ]);
        let (most, least) = (i64::MAX, i64::MIN);
        assert_eq!(fixed(&values)[..8], expected);
        assert_eq!(fixed(&values)[8..16], [most, least, least, least, most, most, least, 1 << 50]);
    }
}
