//! What others say of steps that they executed again: counted by who says it, believed by nobody.
//!
//! Whoever has the folder can join it and write nonsense. That is no fault of the run's: it is noted, and not counted.

use std::collections::{BTreeMap, BTreeSet};

use super::stated::{Named, Place, Stated};
use super::{Evidence, Findings};
use crate::primitives::{Address, Digest, sha256};
use crate::receipt::schema::{REPLAY, STEP};

/// The step came out as its receipt says.
const SAME: u64 = 1;
/// It came out otherwise.
const OTHER: u64 = 2;

/// Counts those that speak of a step receipt of this run, and give at once what they say or what they promised before.
pub(super) fn check(stated: &[Stated], evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut promised: BTreeSet<((Address, u32), Digest, Digest, Digest)> = BTreeSet::new();
    let mut said: BTreeMap<u64, BTreeSet<(Address, Digest)>> = BTreeMap::new();
    let mut refused = 0;
    for Stated { by, body, .. } in stated.iter().filter(|said| said.is(REPLAY)) {
        let digest = |name| body.bytes32(name);
        let (receipt, beacon, commitment) = (digest("receipt"), digest("beacon"), digest("commitment"));
        let (answer, salt, outcome) = (digest("answer"), digest("salt"), body.unsigned("outcome"));
        let is_zero = |word: Digest| word == Digest::ZERO;
        let is_formed = match outcome {
            0 if is_zero(answer) && is_zero(salt) && !is_zero(beacon) && !is_zero(commitment) => {
                promised.insert((*by, receipt, beacon, commitment))
            }
            SAME | OTHER if !is_zero(answer) && is_zero(beacon) && is_zero(commitment) && is_zero(salt) => {
                true
            }
            SAME | OTHER if !is_zero(answer) && !is_zero(beacon) => {
                let of = [b"counterfoil.replay-commitment.v1".as_slice(), &salt.0, &answer.0];
                let revealed = sha256(&[of[0], of[1], of[2], &(outcome as u16).to_be_bytes()]);
                revealed == commitment && promised.contains(&(*by, receipt, beacon, commitment))
            }
            _ => false,
        };
        let of = Place::named(body, "replayed");
        match of.find(STEP, |digest| *digest == receipt, evidence) {
            _ if !is_formed => refused += 1,
            Named::Nothing => refused += 1,
            Named::Receipt(..) if by.0 != of.worker && outcome != 0 => {
                said.entry(outcome).or_default().insert((by.0, receipt));
            }
            Named::Receipt(..) | Named::NotShown => {}
        }
    }
    if refused > 0 {
        findings.of_ranks.push(format!(
            "{refused} replay receipts do not count: no step of this run, no form, or an answer that was not promised"
        ));
    }
    let of = |outcome| said.get(&outcome).into_iter().flatten();
    findings.attested = of(SAME).map(|(_, receipt)| receipt).collect::<BTreeSet<_>>().len() as u64;
    findings.attesting = of(SAME).map(|(by, _)| by).collect::<BTreeSet<_>>().len() as u64;
    findings.contested = of(OTHER).map(|(_, receipt)| receipt).collect::<BTreeSet<_>>().len() as u64;
}
