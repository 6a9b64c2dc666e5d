//! What others say of steps that they executed again: counted by who says it, believed by nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Findings};
use crate::primitives::{Address, Digest, sha256};
use crate::receipt::Body;
use crate::receipt::schema::STEP;

/// The step came out as its receipt says.
const SAME: u64 = 1;
/// It came out otherwise.
const OTHER: u64 = 2;

/// A replay receipt as the walk over its log found it.
pub(super) struct Replay {
    /// Which receipt, for edges.
    pub(super) place: String,
    /// Who says it, and of which log.
    pub(super) by: (Address, u32),
    pub(super) body: Body,
}

/// Each speaks of a step receipt of this run; what was promised under a beacon is what was revealed.
pub(super) fn check(replays: &[Replay], evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut promised: BTreeSet<((Address, u32), Digest, Digest, Digest)> = BTreeSet::new();
    let mut said: BTreeMap<u64, BTreeSet<(Address, Digest)>> = BTreeMap::new();
    for Replay { place, by, body } in replays {
        let digest = |name| body.bytes32(name);
        let (receipt, beacon, commitment) = (digest("receipt"), digest("beacon"), digest("commitment"));
        let (answer, salt, outcome) = (digest("answer"), digest("salt"), body.unsigned("outcome"));
        let is_zero = |word: Digest| word == Digest::ZERO;
        match outcome {
            0 if is_zero(answer) && is_zero(salt) && !is_zero(beacon) && !is_zero(commitment) => {
                promised.insert((*by, receipt, beacon, commitment));
            }
            SAME | OTHER if !is_zero(answer) && is_zero(beacon) && is_zero(commitment) && is_zero(salt) => {}
            SAME | OTHER if !is_zero(answer) && !is_zero(beacon) => {
                let of = [b"counterfoil.replay-commitment.v1".as_slice(), &salt.0, &answer.0];
                let revealed = sha256(&[of[0], of[1], of[2], &(outcome as u16).to_be_bytes()]);
                if revealed != commitment {
                    findings.broken(format!("{place}: commitment <- answer"), commitment, revealed);
                } else if !promised.contains(&(*by, receipt, beacon, commitment)) {
                    let place = format!("{place}: commitment");
                    findings.broken(place, "an earlier receipt of this log that promises it", "none");
                }
            }
            _ => findings.broken(format!("{place}: form"), "a promise, an answer or a revealed one", outcome),
        }
        let (worker, lane) = (body.address("replayedWorker"), body.unsigned("replayedLane"));
        let sequence = body.unsigned("replayedSequence");
        let of = |log: &&crate::evidence::Log| (log.worker, u64::from(log.lane)) == (worker, lane);
        let Some(log) = evidence.logs.iter().find(of) else {
            findings.undecided.push(format!("{place}: the ledger of {worker} lane {lane} is not here"));
            continue;
        };
        let place = format!("{place} <- receipt {sequence} of {worker} lane {lane}");
        match log.at(sequence).ok().flatten().map(|shown| shown.receipt) {
            Some(found) if found.digest == receipt && found.kind == STEP => {
                if by.0 != worker && outcome != 0 {
                    said.entry(outcome).or_default().insert((by.0, receipt));
                }
            }
            Some(found) => findings.broken(place, format!("the step receipt {receipt}"), found.digest),
            None if sequence >= log.size() => {
                findings.broken(place, receipt, format!("{} receipts", log.size()));
            }
            None => {} // withheld, which is said elsewhere
        }
    }
    let of = |outcome| said.get(&outcome).into_iter().flatten();
    findings.attested = of(SAME).map(|(_, receipt)| receipt).collect::<BTreeSet<_>>().len() as u64;
    findings.attesting = of(SAME).map(|(by, _)| by).collect::<BTreeSet<_>>().len() as u64;
    findings.contested = of(OTHER).map(|(_, receipt)| receipt).collect::<BTreeSet<_>>().len() as u64;
}
