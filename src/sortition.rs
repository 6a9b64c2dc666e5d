//! Who is drawn: a number from a beacon, and the weight in which it falls.
//!
//! A contract draws the same way, so whoever has the beacon and the weights can tell a wrong draw.
//! Nothing here makes the draw fair: the weights must be settled before anybody knows the beacon,
//! or whoever joins later chooses the weights by it.

use std::sync::LazyLock;

use alloy_primitives::U256;

use crate::primitives::{Digest, Report, keccak256};

static DOMAIN: LazyLock<Digest> = LazyLock::new(|| keccak256("counterfoil.sortition.v1"));

/// Why nobody is drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum SortitionError {
    /// No weight is above zero.
    #[error("nobody can be drawn: all weights together are 0")]
    NoWeight,
    /// The weights up to this position do not fit 128 bits.
    #[error("the weights up to position {index} are 2^128 or more together")]
    TooHeavy { index: usize },
    /// The number lies behind all weights.
    #[error("the number {number} is not below the weights' sum, {total}")]
    BehindAll { number: u128, total: u128 },
}

impl Report for SortitionError {
    fn code(&self) -> &'static str {
        "invalid-input"
    }

    fn expected(&self) -> Option<String> {
        Some(match self {
            SortitionError::NoWeight => "a weight above 0".to_owned(),
            SortitionError::TooHeavy { .. } => "a sum below 2^128".to_owned(),
            SortitionError::BehindAll { total, .. } => format!("a number below {total}"),
        })
    }

    fn actual(&self) -> Option<String> {
        match self {
            SortitionError::NoWeight => Some("0".to_owned()),
            SortitionError::TooHeavy { .. } => None,
            SortitionError::BehindAll { number, .. } => Some(number.to_string()),
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            SortitionError::TooHeavy { index } => Some(format!("weights[{index}]")),
            _ => None,
        }
    }
}

/// The number below `total` that a beacon gives to a slot:
/// `uint256(keccak256(abi.encode(keccak256("counterfoil.sortition.v1"), beacon, slot))) mod total`,
/// of the types bytes32, bytes32 and uint64.
///
/// Small numbers are likelier than large ones by less than `total / 2^256`, under 2^-128.
///
/// # Errors
/// [`SortitionError::NoWeight`] when `total` is 0.
pub fn number(beacon: &Digest, slot: u64, total: u128) -> Result<u128, SortitionError> {
    if total == 0 {
        return Err(SortitionError::NoWeight);
    }
    let slot = U256::from(slot).to_be_bytes::<32>();
    let word = keccak256([DOMAIN.as_slice(), beacon.as_slice(), &slot].concat());
    Ok((U256::from_be_bytes(word.0) % U256::from(total)).to())
}

/// The smallest position whose cumulative weight is above `number`; a weight of zero never has it.
///
/// `cumulative` holds the sums of the weights up to each position, so it never decreases.
///
/// # Errors
/// [`SortitionError::NoWeight`] when the sums are none or 0, [`SortitionError::BehindAll`] when `number` is not below
/// the last of them.
pub fn winner(cumulative: &[u128], number: u128) -> Result<usize, SortitionError> {
    match cumulative.last().copied().unwrap_or(0) {
        0 => Err(SortitionError::NoWeight),
        total if number >= total => Err(SortitionError::BehindAll { number, total }),
        _ => Ok(cumulative.partition_point(|sum| *sum <= number)),
    }
}

/// The position that a beacon draws for a slot, each as likely as its share of the weights.
///
/// # Errors
/// [`SortitionError::NoWeight`] when no weight is above 0, [`SortitionError::TooHeavy`] when the sum does not fit.
pub fn draw(beacon: &Digest, slot: u64, weights: &[u128]) -> Result<usize, SortitionError> {
    let mut total = 0_u128;
    let mut cumulative = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        total = total.checked_add(*weight).ok_or(SortitionError::TooHeavy { index })?;
        cumulative.push(total);
    }
    winner(&cumulative, number(beacon, slot, total)?)
}
