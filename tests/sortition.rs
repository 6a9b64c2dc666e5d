//! Draws by weight against vectors that Python made with another Keccak.

use counterfoil::primitives::{Digest, Report};
use counterfoil::sortition::{SortitionError, draw, number, winner};
use proptest::prelude::*;
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Another domain, another width of the slot, or an off-by-one at the edge of a weight.
#[test]
fn draws_are_those_of_the_vectors() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vectors/sortition.json")).unwrap();
    assert_eq!(cases.len(), 51);
    for case in &cases {
        let beacon: Digest = text(&case["beacon"]).parse().unwrap();
        let slot: u64 = text(&case["slot"]).parse().unwrap();
        let weights: Vec<u128> =
            case["weights"].as_array().unwrap().iter().map(|weight| text(weight).parse().unwrap()).collect();
        let drawn = number(&beacon, slot, weights.iter().sum()).unwrap();
        assert_eq!(drawn.to_string(), text(&case["number"]), "{case}");
        assert_eq!(draw(&beacon, slot, &weights).unwrap() as u64, case["winner"].as_u64().unwrap(), "{case}");
    }
}

/// A number on an edge that falls to the weight before it, or to a weight of zero.
#[test]
fn an_edge_belongs_to_the_next_weight_above_zero() {
    let sums = [0, 3, 3, 7, 7];
    let drawn: Vec<usize> = (0..7).map(|number| winner(&sums, number).unwrap()).collect();
    assert_eq!(drawn, [1, 1, 1, 3, 3, 3, 3]);
}

/// A remainder by zero, a position behind the roll, or a sum that wraps.
#[test]
fn what_cannot_be_drawn_is_refused() {
    assert_eq!(number(&Digest::ZERO, 0, 0), Err(SortitionError::NoWeight));
    assert_eq!(winner(&[], 0), Err(SortitionError::NoWeight));
    assert_eq!(winner(&[0, 0], 0), Err(SortitionError::NoWeight));
    let behind = SortitionError::BehindAll { number: 5, total: 5 };
    assert_eq!(winner(&[2, 5], 5), Err(behind.clone()));
    assert_eq!((behind.expected(), behind.actual()), (Some("a number below 5".into()), Some("5".into())));
    assert_eq!(draw(&Digest::ZERO, 0, &[0]), Err(SortitionError::NoWeight));
    let heavy = draw(&Digest::ZERO, 0, &[u128::MAX, 1]).unwrap_err();
    assert_eq!(heavy.place(), Some("weights[1]".into()));
    assert_eq!(draw(&Digest::ZERO, 0, &[u128::MAX]), Ok(0));
}

proptest! {
    /// A search that is not the first position above the number.
    #[test]
    fn the_winner_is_the_first_above_the_number(weights in prop::collection::vec(0_u128..5, 1..30), at in 0_u128..200) {
        let sums: Vec<u128> = weights.iter().scan(0, |sum, weight| { *sum += weight; Some(*sum) }).collect();
        match winner(&sums, at) {
            Ok(found) => prop_assert_eq!(Some(found), sums.iter().position(|sum| *sum > at)),
            Err(_) => prop_assert!(sums.iter().all(|sum| *sum <= at)),
        }
    }
}
