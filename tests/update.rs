//! Steps of optimisers against those of torch, whose bits `tests/vectors/updates.py` recorded.

use std::collections::BTreeMap;

use counterfoil::update::{Before, Kernels, Real, Rule, UpdateError, update};
use proptest::prelude::*;
use serde_json::Value;

fn bytes(value: &Value) -> Vec<u8> {
    alloy_primitives::hex::decode(value.as_str().unwrap()).unwrap()
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap()
}

fn rule(case: &Value) -> Rule {
    let flag = |key: &str| case[key].as_bool().unwrap();
    let (lr, weight_decay, maximize) = (number(case, "lr"), number(case, "weight_decay"), flag("maximize"));
    match case["betas"].as_array() {
        None => Rule::Sgd {
            lr,
            momentum: number(case, "momentum"),
            dampening: number(case, "dampening"),
            weight_decay,
            nesterov: flag("nesterov"),
            maximize,
        },
        Some(betas) => Rule::Adam {
            lr,
            betas: [betas[0].as_f64().unwrap(), betas[1].as_f64().unwrap()],
            eps: number(case, "eps"),
            weight_decay,
            amsgrad: flag("amsgrad"),
            maximize,
            decoupled: flag("decoupled"),
        },
    }
}

/// One step of a case with these kernels: how many elements are not torch's, and the parameter.
fn differing(case: &Value, kernels: Kernels, recorded: &[u8]) -> (u64, Vec<u8>) {
    let real = Real::of(if case["dtype"] == "float32" { "F32" } else { "F64" }).unwrap();
    let held: BTreeMap<String, Vec<u8>> = case["before"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, each)| (key.clone(), bytes(&each[1])))
        .collect();
    let steps = held.get("step").map_or(0.0, |step| Real::Single.doubles(step)[0]);
    let (parameter, gradient) = (bytes(&case["parameter"]), bytes(&case["gradient"]));
    let before = Before {
        real,
        parameter: &parameter,
        gradient: &gradient,
        state: held
            .iter()
            .filter(|(key, _)| *key != "step")
            .map(|(key, each)| (key.as_str(), each.as_slice()))
            .collect(),
        steps: (Real::Single, steps),
    };
    let made = update(&rule(case), kernels, &before, Some(recorded)).unwrap();
    let expected = case["after"].as_object().unwrap();
    assert_eq!(made.state.len(), expected.len(), "{case}");
    let state = made.state.iter().map(|(key, each)| {
        let kept = if *key == "step" { Real::Single } else { real };
        kept.differing(each, &bytes(&expected[*key]))
    });
    (state.sum::<u64>() + made.differing.unwrap(), made.parameter)
}

/// A rounding more or less in any operation, a scalar computed in another order, or a beta's power that is off.
#[test]
fn steps_are_those_of_torch() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vectors/updates.json")).unwrap();
    assert_eq!(cases.len(), 2 * 6 * 2 * 4);
    let mut confused = 0;
    for case in &cases {
        let (own, other) = match case["kernels"].as_str().unwrap() {
            "DEFAULT" => (Kernels::Plain, Kernels::Contracted),
            _ => (Kernels::Contracted, Kernels::Plain),
        };
        let recorded = bytes(&case["parameter_after"]);
        assert_eq!(differing(case, own, &recorded).0, 0, "{case}");
        confused += u64::from(differing(case, other, &recorded).0 == 0);
    }
    assert!(confused < cases.len() as u64 / 4, "{confused} cases do not tell the two kinds of kernels apart");
}

/// A square root that is taken for exact, or whose neighbours excuse more than one unit in the last place of it.
#[test]
fn neighbours_of_a_square_root_excuse_no_other_update() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vectors/updates.json")).unwrap();
    let cases = cases.iter().filter(|case| case["kernels"] != "DEFAULT" && case["setting"] == "adamw");
    let mut rounded = 0;
    for case in cases {
        let recorded = bytes(&case["parameter_after"]);
        rounded += u64::from(differing(case, Kernels::Contracted, &recorded).1 != recorded);
        for (factor, key) in [(1.0001, "lr"), (1.001, "weight_decay")] {
            let mut lie = case.clone();
            lie[key] = (number(case, key) * factor).into();
            assert!(differing(&lie, Kernels::Contracted, &recorded).0 > 0, "{key} {case}");
        }
        let mut flipped = recorded.clone();
        flipped[2] ^= 1;
        assert_eq!(differing(case, Kernels::Contracted, &flipped).0, 1, "{case}");
    }
    assert!(rounded > 0, "no case in which torch's square root is not the nearest number");
}

/// An honest NaN that is refuted for its bits, or a number that passes for a NaN.
#[test]
fn nans_are_equal_and_nothing_else_is_one() {
    let of = |bits: u32| bits.to_le_bytes();
    assert_eq!(Real::Single.differing(&of(0x7fc0_0000), &of(0xffc0_0001)), 0);
    assert_eq!(Real::Single.differing(&of(0x7fc0_0000), &of(0x7f80_0000)), 1);
    assert_eq!(Real::Single.differing(&of(0), &of(0x8000_0000)), 1);
    assert_eq!(Real::Single.differing(&[0; 8], &[0; 4]), 1);
}

/// A state or number that torch does not step with, taken for one that it does.
#[test]
fn what_torch_does_not_step_with_is_refused() {
    let (tensor, short) = ([0; 8], [0; 4]);
    let rule = |betas| Rule::Adam {
        lr: 0.1,
        betas,
        eps: 1e-8,
        weight_decay: 0.0,
        amsgrad: true,
        maximize: false,
        decoupled: true,
    };
    let before = |state: &[(&'static str, &'static [u8])], steps| Before {
        real: Real::Single,
        parameter: &tensor,
        gradient: &tensor,
        state: state.iter().copied().collect(),
        steps: (Real::Single, steps),
    };
    let made = |rule: &Rule, before: &Before<'_>| update(rule, Kernels::Contracted, before, None).err();
    let usual = rule([0.9, 0.999]);
    assert_eq!(made(&usual, &before(&[], 0.0)), None);
    let incomplete: &[(&'static str, &'static [u8])] = &[("exp_avg", &[0; 8]), ("exp_avg_sq", &[0; 8])];
    assert_eq!(made(&usual, &before(incomplete, 0.0)), Some(UpdateError::State));
    assert_eq!(made(&usual, &before(&[("exp_avg", &[0; 4])], 0.0)), Some(UpdateError::Sizes));
    assert_eq!(made(&usual, &Before { gradient: &short, ..before(&[], 0.0) }), Some(UpdateError::Sizes));
    for steps in [0.5, -1.0, f64::NAN, f64::INFINITY, 1e30] {
        assert_eq!(made(&usual, &before(&[], steps)), Some(UpdateError::Range), "{steps}");
    }
    for betas in [[1.0, 0.9], [0.9, 1.5], [-0.1, 0.9], [0.9, f64::NAN], [1.0 - 1e-17, 0.9]] {
        assert_eq!(made(&rule(betas), &before(&[], 0.0)), Some(UpdateError::Range), "{betas:?}");
    }
}

proptest! {
    /// A panic of the verifier at numbers that a hostile record chose.
    #[test]
    fn no_numbers_panic(
        words in prop::collection::vec(any::<u64>(), 12),
        numbers in prop::collection::vec(any::<f64>(), 6),
        flags in prop::collection::vec(any::<bool>(), 4),
        steps in any::<f64>(),
        single in any::<bool>(),
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let real = if single { Real::Single } else { Real::Double };
        let [lr, first, second, eps, weight_decay, _] = numbers[..] else { unreachable!() };
        let rule = match flags[0] {
            true => Rule::Sgd {
                lr, momentum: first, dampening: second, weight_decay, nesterov: flags[1], maximize: flags[2],
            },
            false => Rule::Adam {
                lr, betas: [first, second], eps, weight_decay, amsgrad: flags[1], maximize: flags[2],
                decoupled: flags[3],
            },
        };
        let parts: Vec<&[u8]> = bytes.chunks(16).collect();
        let keys = ["momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
        let state = keys.into_iter().zip(parts[2..].iter().copied()).collect();
        let before = Before { real, parameter: parts[0], gradient: parts[1], state, steps: (real, steps) };
        let _ = update(&rule, Kernels::Plain, &before, Some(parts[0]));
    }
}
