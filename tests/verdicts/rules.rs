//! Random logs against the rules of the format, read off their bodies once more.

use std::collections::BTreeMap;

use crate::builder::*;
use crate::judged::*;
use counterfoil::commit::merkle::CompactRange;
use counterfoil::evidence::Frame;
use counterfoil::primitives::{Digest, sha256};
use counterfoil::receipt::schema::Kind;
use counterfoil::receipt::{Body, Value};
use counterfoil::verify::Status;
use proptest::prelude::*;

/// One receipt of a random log: what it says, and what its author changed in it.
#[derive(Clone, Debug)]
struct Random {
    kind: usize,
    step: i64,
    every: (u32, u32, u32),
    drops: bool,
    skipped: bool,
    other_weights: bool,
    header: Option<(usize, u64)>,
}

fn random() -> impl Strategy<Value = Random> {
    let rarely = |weight: f64| prop::bool::weighted(weight);
    (
        prop_oneof![6 => Just(0usize), 3 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4)],
        prop_oneof![12 => Just(0i64), 1 => Just(1), 1 => Just(-1)],
        (0u32..3, 0u32..4, 0u32..4),
        rarely(0.05),
        rarely(0.1),
        rarely(0.05),
        prop::option::weighted(0.03, (0usize..5, 0u64..3)),
    )
        .prop_map(|(kind, step, every, drops, skipped, other_weights, header)| Random {
            kind,
            step,
            every,
            drops,
            skipped,
            other_weights,
            header,
        })
}

const HEADER_WORDS: [&str; 5] = ["schema", "lane", "sequence", "run", "previous"];

/// The draft of a random receipt, when `last` steps were recorded.
fn drafted(random: &Random, last: u64) -> Draft {
    let shifted = |number: u64| number.saturating_add_signed(random.step);
    let other = Field::new("parameters", Form::Roots, &[("w", &[0xee])]);
    let mut draft = match random.kind {
        0 => {
            let draft =
                step(last + 1).with("step", shifted(last + 1)).with("flags", u64::from(random.skipped));
            if random.drops { draft.without("gradients").without("parameters") } else { draft }
        }
        1 if random.drops => checkpoint(last).without("parameters").with("step", shifted(last)),
        1 if random.other_weights => checkpoint(last).field(other).with("step", shifted(last)),
        1 => checkpoint(last).with("step", shifted(last)),
        2 => resume(shifted(last)),
        3 => close(shifted(last)),
        _ => {
            let (gradients, parameters, checkpoint) = random.every;
            let cadences = [
                ("gradientsEvery", u64::from(gradients)),
                ("parametersEvery", u64::from(parameters)),
                ("checkpointEvery", u64::from(checkpoint)),
            ];
            policy(shifted(last + 1), &cadences)
        }
    };
    if let Some((which, value)) = random.header {
        let name = HEADER_WORDS[which];
        draft = match which {
            0..=2 => draft.with(name, value),
            _ => draft.with(name, Digest::repeat_byte(value as u8)),
        };
    }
    draft
}

/// The rules of `docs/format.md` for the log of a [`Run`], read off its bodies once more.
fn lawful(run: Digest, bodies: &[(Body, Digest)]) -> bool {
    let number = |body: &Body, name: &str| body.unsigned(name);
    let kinds: Vec<&str> = bodies.iter().map(|(body, _)| body.kind().name).collect();
    let steps_before = |at: usize| -> u64 {
        (0..at).fold(0, |last, before| match kinds[before] {
            "step" => last + 1,
            "resume" => number(&bodies[before].0, "step"),
            _ => last,
        })
    };
    let in_force = |at: usize, step: u64, cadence: &str, floor: u64| {
        let policies = bodies[..at].iter().filter(|(body, _)| body.kind().name == "policy");
        let mut begun = policies.filter(|(body, _)| number(body, "firstStep") <= step);
        begun.next_back().map_or(floor, |(body, _)| number(body, cadence))
    };
    let is_due = |every: u64, step: u64| every > 0 && step.checked_rem(every) == Some(0);
    let names = |at: usize, name: &str| bodies[at].0.bytes32(name) != Digest::ZERO;
    let follows = |at: usize| {
        let (body, _) = &bodies[at];
        let previous = at.checked_sub(1).map_or(Digest::ZERO, |before| bodies[before].1);
        number(body, "schema") == 1
            && number(body, "lane") == 0
            && number(body, "sequence") == at as u64
            && body.bytes32("run") == run
            && body.bytes32("previous") == previous
    };
    // The receipts between a step and the one at hand.
    let since_step = |at: usize| {
        let begin = kinds[..at].iter().rposition(|kind| *kind == "step").map_or(0, |index| index + 1);
        begin..at
    };
    let holds = |at: usize| {
        let (body, _) = &bodies[at];
        let last = steps_before(at);
        let after_close = kinds[at - 1] == "close" && kinds[at] != "resume";
        let rule = match kinds[at] {
            "step" => {
                let step = number(body, "step");
                let skipped = number(body, "flags") & 1 == 1;
                let gradients = is_due(in_force(at, step, "gradientsEvery", 1), step);
                let parameters = is_due(in_force(at, step, "parametersEvery", 2), step);
                let saved = since_step(at).any(|index| {
                    kinds[index] == "resume" || (kinds[index] == "checkpoint" && names(index, "parameters"))
                });
                step == last + 1
                    && (!gradients || skipped || names(at, "gradients"))
                    && (!parameters || names(at, "parameters"))
                    && (last == 0 || saved || !is_due(in_force(at, last, "checkpointEvery", 2), last))
            }
            "checkpoint" | "close" => number(body, "step") == last,
            "resume" => number(body, "step") <= last,
            "policy" => {
                let no_sparser = |name: &str, floor: u64| (1..=floor).contains(&number(body, name));
                number(body, "firstStep") > last
                    && no_sparser("gradientsEvery", 1)
                    && no_sparser("parametersEvery", 2)
                    && no_sparser("checkpointEvery", 2)
            }
            _ => false,
        };
        rule && !after_close
    };
    (0..bodies.len()).all(follows) && (2..bodies.len()).all(holds)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever a worker signs: the verdict is that of the rules.
    #[test]
    fn a_verdict_is_that_of_the_rules_whatever_was_signed(script in prop::collection::vec(random(), 1..9)) {
        let (mut last, mut run) = (0, Run::of([]));
        let mut state_holds = true;
        // The opened parameters that the next checkpoint is compared with, and those of earlier checkpoints.
        let (mut compared, mut known) = (None, BTreeMap::new());
        for random in &script {
            let draft = drafted(random, last);
            let parameters = draft.fields.iter().find(|field| field.name == "parameters");
            let parameters = parameters.map(|field| field.values.clone());
            match draft.kind.name {
                "step" => {
                    last += 1;
                    known.extend(parameters.clone().map(|parameters| (last, parameters)));
                    compared = parameters;
                }
                "resume" => {
                    let step = draft.words.iter().find(|(name, _)| *name == "step").map(|(_, value)| *value);
                    let Some(Value::Unsigned(step)) = step else { unreachable!() };
                    known.retain(|at, _| *at <= step);
                    compared = known.get(&step).cloned().or(compared.filter(|_| step == last));
                    last = step.min(last);
                }
                "checkpoint" => {
                    if let (Some(ours), Some(theirs)) = (&compared, &parameters) {
                        state_holds &= ours == theirs;
                    }
                    known.extend(parameters.map(|parameters| (last, parameters)));
                }
                _ => {}
            }
            run.items().push(draft.item());
        }
        let built = run.build();
        let bodies: Vec<(Body, Digest)> = built.logs[0]
            .receipts()
            .map(|receipt| {
                let kind = Kind::from_number(receipt.kind).unwrap();
                (Body::decode(kind, &receipt.body).unwrap(), receipt.digest)
            })
            .collect();
        let verdict = built.verdict();
        let expected = state_holds && lawful(built.run, &bodies);
        prop_assert_eq!(verdict.integrity.intact, expected, "{:?}", verdict.integrity.broken);
        prop_assert_eq!(verdict.status == Status::Refuted, !expected);
        if expected {
            prop_assert_eq!(verdict.status == Status::Verified, last > 0);
        }
    }

    /// A range of withheld receipts is read as it was written, wherever it lies.
    #[test]
    fn a_range_of_withheld_receipts_has_one_encoding(begin in 0u64..70, count in 1u64..70) {
        let mut range = <CompactRange>::from(begin);
        (0..count).for_each(|number| range.push(sha256(&[&number.to_be_bytes()])));
        let payload = Frame::Withheld(range.clone()).encode();
        let decoded = Frame::decode(&payload);
        prop_assert_eq!(decoded, Ok(Frame::Withheld(range)));
        let longer = [payload.as_slice(), &[0; 32]].concat();
        prop_assert!(Frame::decode(&longer).is_err());
        prop_assert!(Frame::decode(&payload[..payload.len() - 32]).is_err());
    }
}
