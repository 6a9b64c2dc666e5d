//! What others say of a log's heads: chains, and the writers of other logs.

use std::collections::BTreeMap;

use super::{Anchored, Evidence, Findings, Standing};
use crate::primitives::{Address, Digest};

/// A log as the walk found it.
pub(super) struct Heads {
    /// Which log, for edges.
    pub(super) place: String,
    pub(super) worker: Address,
    pub(super) lane: u32,
    /// Receipts, with those that are withheld.
    pub(super) size: u64,
    /// Whether nothing is withheld.
    pub(super) is_whole: bool,
    /// Roots at the sizes of its own tree heads and of its anchors.
    pub(super) roots: BTreeMap<u64, Digest>,
    /// Heads of other logs that it observed.
    pub(super) observed: Vec<Observed>,
}

/// A head that a log's writer was given by the writer of another one.
pub(super) struct Observed {
    /// Which receipt says so, and its position.
    pub(super) place: String,
    pub(super) position: u64,
    pub(super) worker: Address,
    pub(super) lane: u32,
    pub(super) size: u64,
    pub(super) root: Digest,
}

/// A recorded head that this log does not contain is a truncation or a second history.
pub(super) fn check_anchors(log: &Heads, run: Digest, evidence: &Evidence<'_>, findings: &mut Findings) {
    let own = |worker: Address, lane: u32| worker == log.worker && lane == log.lane;
    for anchor in evidence.anchors.iter().filter(|anchor| own(anchor.worker, anchor.lane)) {
        let (name, size) = (&anchor.name, anchor.size);
        match log.roots.get(&size) {
            _ if anchor.run != run => findings.broken(format!("{name}: run"), run, anchor.run),
            _ if size == 0 => findings.broken(format!("{name}: size"), "at least 1", 0),
            Some(root) if *root == anchor.root => findings.anchored.push(anchor.clone()),
            Some(actual) => {
                let place = format!("{name}: root over the first {size} receipts");
                findings.broken(place, anchor.root, actual);
            }
            None if size > log.size => {
                let found = format!("{} receipts", log.size);
                findings.broken(format!("{name}: receipts of the ledger"), format!("at least {size}"), found);
            }
            None => findings
                .undecided
                .push(format!("{name}: its {size} receipts end among withheld ones, and were not compared")),
        }
    }
}

/// Where a log does not hold what another one observed of it, one of the two was written anew or speaks falsely.
/// What is anchored of the log that observed a head dates the head as well.
pub(super) fn check_observed(logs: &[Heads], run: Digest, findings: &mut Findings) {
    for (by, observed) in logs.iter().flat_map(|log| log.observed.iter().map(move |each| (log, each))) {
        let Observed { place, worker, lane, size, root, .. } = observed;
        let Some(log) = logs.iter().find(|log| (log.worker, log.lane) == (*worker, *lane)) else {
            findings
                .undecided
                .push(format!("{place}: the ledger of {worker} lane {lane} that it observed is not here"));
            continue;
        };
        let place = format!("{place} <- {}: its first {size} receipts", log.place);
        match log.roots.get(size) {
            Some(actual) if actual == root => date(by, observed, run, findings),
            Some(actual) => findings.broken(place, root, actual),
            None if *size > log.size => {
                findings.broken(place, format!("at least {size} receipts"), format!("{} receipts", log.size));
            }
            None if log.is_whole => findings.broken(place, "a tree head over them", "none"),
            None => findings.undecided.push(format!("{place}: no tree head over them is shown")),
        }
    }
}

/// The earliest anchor behind an observation, one that the verifier believes if there is one.
fn date(by: &Heads, observed: &Observed, run: Digest, findings: &mut Findings) {
    let covers = |anchor: &&Anchored| {
        (anchor.worker, anchor.lane) == (by.worker, by.lane) && anchor.size > observed.position
    };
    let earliest = findings.anchored.iter().filter(covers);
    let earliest = earliest.min_by_key(|anchor| (!anchor.is_dated(), anchor.development, anchor.block_time));
    let Some(anchor) = earliest else { return };
    let standing = match anchor.standing {
        // The chain itself knows no head of this log, and would hold any other.
        Standing::Held => Standing::Dated,
        other => other,
    };
    let Observed { worker, lane, size, root, .. } = *observed;
    let name = format!("{} by {}", observed.place, anchor.name);
    let dated = Anchored { name, run, worker, lane, size, root, standing, ..anchor.clone() };
    findings.anchored.push(dated);
}
