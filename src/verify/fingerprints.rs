//! Sketches of steps' gradients, computed again where the gradients are stored.
//!
//! Whoever signs a wrong one for a step of their own lies. Anybody else can join a run and write what they like: that
//! is noted, and refutes nothing.

use super::stated::{Named, Place, Stated};
use super::states::{body_of, opened_state};
use super::{Evidence, Findings};
use crate::commit::fingerprint::{BUCKETS, ROWS, fingerprint};
use crate::commit::{Entry, State, bytes_root};
use crate::primitives::{Digest, sha256};
use crate::receipt::schema::{FINGERPRINT, STEP};

/// What comes of looking at one.
enum Found {
    /// It is right, or nothing here tells.
    Nothing,
    /// It has no form, is of no step of this run, or of a step without such gradients.
    Refused,
    /// It is not that of the step's gradients: the step, the unit, its root and what is signed instead.
    Wrong(u64, String, String, String),
}

/// Breaks the edge of each that its step's own worker signed and that is wrong, and counts what else does not hold.
pub(super) fn check(stated: &[Stated], evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut refused = 0;
    for each in stated.iter().filter(|said| said.is(FINGERPRINT)) {
        match judge(each, evidence) {
            Found::Nothing => {}
            Found::Wrong(step, unit, expected, actual)
                if each.by.0 == each.body.address("fingerprintedWorker") =>
            {
                let edge = format!("{}: of step {step}: {unit:?}", each.place);
                findings.broken(edge, expected, actual);
            }
            Found::Refused | Found::Wrong(..) => refused += 1,
        }
    }
    if refused > 0 {
        findings.of_ranks.push(format!(
            "{refused} fingerprint receipts do not count: no step of this run, no form, or another's gradients told wrong"
        ));
    }
}

fn judge(said: &Stated, evidence: &Evidence<'_>) -> Found {
    let (body, receipt) = (&said.body, said.body.bytes32("receipt"));
    let of = Place::named(body, "fingerprinted");
    let (log, step) = match of.find(STEP, |digest| *digest == receipt, evidence) {
        Named::Nothing => return Found::Refused,
        Named::NotShown => return Found::Nothing,
        Named::Receipt(log, step) => (log, step),
    };
    let Some(signed) = body_of(&step) else { return Found::Nothing };
    if body.bytes32("sketch") == Digest::ZERO || signed.bytes32("gradients") == Digest::ZERO {
        return Found::Refused;
    }
    let Some(sketch) = said.opened("sketch", evidence) else { return Found::Nothing };
    let is_sketch =
        |entry: &Entry| entry.is_dense() && entry.measured() == Some(("I64", &[ROWS as u64, BUCKETS as u64]));
    if sketch.entries().is_empty() || !sketch.entries().iter().all(is_sketch) {
        return Found::Refused;
    }
    let Some(gradients) = opened_state(log, &step, "gradients") else { return Found::Nothing };
    match computed(&gradients, &key(body.bytes32("key"), &receipt), evidence) {
        Computed::Nothing => Found::Nothing,
        Computed::Refused => Found::Refused,
        Computed::Units(expected) => match expected.first_difference(&sketch) {
            None => Found::Nothing,
            Some((unit, expected, actual)) => {
                let root = |entry: Option<&Entry>| {
                    entry.map_or("no such unit".into(), |entry| entry.root().to_string())
                };
                Found::Wrong(signed.unsigned("step"), unit.into(), root(expected), root(actual))
            }
        },
    }
}

/// The key under which a step is sketched: that of the receipt, or the step's own where it has none.
fn key(given: Digest, receipt: &Digest) -> Digest {
    match given {
        Digest::ZERO => sha256(&[b"counterfoil.fingerprint-key.v1", receipt.as_slice()]),
        given => given,
    }
}

enum Computed {
    Units(State),
    /// Not all bytes are stored.
    Nothing,
    /// Gradients of which there is no fingerprint.
    Refused,
}

fn computed(gradients: &State, key: &Digest, evidence: &Evidence<'_>) -> Computed {
    let mut stored = Vec::new();
    for entry in gradients.entries().iter().filter(|entry| entry.has_root()) {
        let bytes = if entry.is_dense() { (evidence.object)(entry) } else { Some(Vec::new()) };
        let Some(bytes) = bytes else { return Computed::Nothing };
        stored.push((entry, bytes));
    }
    let tensors: Vec<(&Entry, &[u8])> = stored.iter().map(|(entry, bytes)| (*entry, &bytes[..])).collect();
    let Ok(units) = fingerprint(&tensors, key) else { return Computed::Refused };
    let entry = |(unit, sketch): (&String, &[[i64; BUCKETS]; ROWS])| {
        let bytes: Vec<u8> = sketch.as_flattened().iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Entry::dense(unit, "I64", &[ROWS as u64, BUCKETS as u64], bytes_root(&bytes))
    };
    let entries: Result<Vec<Entry>, _> = units.iter().map(entry).collect();
    entries.and_then(State::new).map_or(Computed::Refused, Computed::Units)
}
