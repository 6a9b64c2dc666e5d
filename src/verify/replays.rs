//! What others say of steps that they executed again: counted by who says it, believed by nobody.
//!
//! Whoever has the folder can join it and write nonsense. That is no fault of the run's: it is noted, and not counted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Findings};
use crate::evidence::{Log, Shown};
use crate::primitives::{Address, Digest, sha256};
use crate::receipt::Body;
use crate::receipt::schema::STEP;

/// The step came out as its receipt says.
const SAME: u64 = 1;
/// It came out otherwise.
const OTHER: u64 = 2;

/// A replay receipt as the walk over its log found it.
pub(super) struct Replay {
    /// Who says it, and of which log.
    pub(super) by: (Address, u32),
    pub(super) body: Body,
}

/// What stands where somebody says that a step of this run does.
pub(super) enum Named<'a> {
    /// That step's receipt, and its log.
    Step(&'a Log, Box<Shown>),
    /// A receipt that is not shown.
    Withheld,
    /// Something else, or no receipt.
    Nothing,
}

/// The step receipt with this digest at a worker's, lane's and log's place.
pub(super) fn named_step<'a>(
    (worker, lane, sequence): (Address, u64, u64),
    digest: Digest,
    evidence: &Evidence<'a>,
) -> Named<'a> {
    let of = |log: &&Log| (log.worker, u64::from(log.lane)) == (worker, lane);
    let Some(log) = evidence.logs.iter().find(of) else { return Named::Nothing };
    match log.at(sequence).ok().flatten() {
        Some(shown) if shown.receipt.digest == digest && shown.receipt.kind == STEP => {
            Named::Step(log, Box::new(shown))
        }
        None if sequence < log.size() => Named::Withheld,
        _ => Named::Nothing,
    }
}

/// Counts those that speak of a step receipt of this run, and give at once what they say or what they promised before.
pub(super) fn check(replays: &[Replay], evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut promised: BTreeSet<((Address, u32), Digest, Digest, Digest)> = BTreeSet::new();
    let mut said: BTreeMap<u64, BTreeSet<(Address, Digest)>> = BTreeMap::new();
    let mut refused = 0;
    for Replay { by, body } in replays {
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
        let worker = body.address("replayedWorker");
        let place = (worker, body.unsigned("replayedLane"), body.unsigned("replayedSequence"));
        match named_step(place, receipt, evidence) {
            _ if !is_formed => refused += 1,
            Named::Nothing => refused += 1,
            Named::Step(..) if by.0 != worker && outcome != 0 => {
                said.entry(outcome).or_default().insert((by.0, receipt));
            }
            Named::Step(..) | Named::Withheld => {}
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
