//! What several parties of one training said of the same steps and rounds.

use std::collections::BTreeMap;

use super::Findings;
use crate::commit::{State, leaf_hash};
use crate::primitives::{Address, Digest};

/// What one log opens of the work that it shares with others.
pub(super) struct Rank {
    /// Which log, for edges.
    pub(super) place: String,
    pub(super) worker: Address,
    pub(super) lane: u32,
    /// Whether nothing is withheld.
    pub(super) is_whole: bool,
    /// Of the steps that have a contribution, the roots of the applied gradients and of the contribution.
    pub(super) applied: BTreeMap<u64, (Digest, Option<Digest>)>,
    /// Digests of its round receipts, each with its round.
    pub(super) rounds: Vec<(Digest, u64)>,
    /// Its aggregation receipts: which, of which round, and the opened inputs.
    pub(super) aggregations: Vec<(String, u64, State)>,
}

/// Ranks that contribute to one step apply one gradient. Who applied another one than most is named;
/// where there is no most, all are.
pub(super) fn compare(ranks: &[Rank], findings: &mut Findings) {
    let mut steps: BTreeMap<u64, Vec<(&str, Digest)>> = BTreeMap::new();
    for rank in ranks {
        for (step, (root, _)) in &rank.applied {
            steps.entry(*step).or_default().push((&rank.place, *root));
        }
    }
    findings.ranks = ranks.iter().filter(|rank| !rank.applied.is_empty()).count() as u64;
    for (step, roots) in steps.into_iter().filter(|(_, roots)| roots.len() > 1) {
        let votes = |root: &Digest| roots.iter().filter(|(_, other)| other == root).count();
        let (most, root) = roots.iter().map(|(_, root)| (votes(root), *root)).max().unwrap_or_default();
        findings.agreed += u64::from(most == roots.len());
        for (place, actual) in &roots {
            if most * 2 <= roots.len() {
                let place = format!("{place}: gradients of step {step} <- other ranks");
                findings.broken(place, "the gradient that most ranks applied", actual);
            } else if *actual != root {
                findings.broken(format!("{place}: gradients of step {step} <- other ranks"), root, actual);
            }
        }
    }
    let contributing = ranks.iter().filter(|rank| !rank.applied.is_empty());
    let last = contributing.clone().filter_map(|rank| rank.applied.keys().max()).max().copied().unwrap_or(0);
    for rank in contributing {
        let own = rank.applied.keys().max().copied().unwrap_or(0);
        if own < last {
            findings.of_ranks.push(format!(
                "{}: shows no contribution after step {own}; others do up to step {last}",
                rank.place
            ));
        }
    }
    copied(ranks, findings);
}

/// Batches of several ranks differ, and so do their gradients: of equal ones, one may be a copy.
fn copied(ranks: &[Rank], findings: &mut Findings) {
    let mut first: BTreeMap<(u64, Digest), &str> = BTreeMap::new();
    let mut copies: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for rank in ranks {
        for (step, contribution) in rank.applied.iter().filter_map(|(step, (_, own))| Some((*step, (*own)?)))
        {
            let place = *first.entry((step, contribution)).or_insert(&rank.place);
            if place != rank.place {
                *copies.entry((&rank.place, place)).or_default() += 1;
            }
        }
    }
    let said = |((place, other), count)| {
        format!(
            "{place}: contributed the same gradients as the {other} at {count} steps, and shows no work of its own there"
        )
    };
    findings.of_ranks.extend(copies.into_iter().map(said));
}

/// What was aggregated are round receipts of this run, of the same round, each party's own.
pub(super) fn check_inputs(ranks: &[Rank], findings: &mut Findings) {
    let name = |rank: &Rank| format!("{:#x}/{}", rank.worker, rank.lane);
    let is_whole: BTreeMap<String, bool> = ranks.iter().map(|rank| (name(rank), rank.is_whole)).collect();
    // An entry's root over 32 bytes is the hash of one leaf.
    let rounds = ranks.iter().flat_map(|rank| {
        rank.rounds.iter().map(move |(digest, round)| ((name(rank), leaf_hash(&digest.0)), *round))
    });
    let rounds: BTreeMap<(String, Digest), u64> = rounds.collect();
    for (place, round, inputs) in ranks.iter().flat_map(|rank| &rank.aggregations) {
        for entry in inputs.entries() {
            let place = format!("{place}: inputs <- round receipt of {}", entry.name);
            match rounds.get(&(entry.name.clone(), entry.root())) {
                Some(found) if found == round => {}
                Some(found) => findings.broken(place, format!("round {round}"), format!("round {found}")),
                None if is_whole.get(&entry.name) == Some(&true) => {
                    findings.broken(place, "one of its round receipts", "none of them");
                }
                None => findings.undecided.push(format!("{place}: not shown")),
            }
        }
    }
}
