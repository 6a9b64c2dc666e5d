//! What several ranks of one training said of the same steps.

use std::collections::BTreeMap;

use super::Findings;
use crate::primitives::Digest;

/// The applied gradients that one rank's log opens.
pub(super) struct Rank {
    /// Which log, for edges.
    pub(super) place: String,
    /// Their roots, by step: those of a step that also has a contribution.
    pub(super) applied: BTreeMap<u64, Digest>,
}

/// Ranks that contribute to one step apply one gradient. Who applied another one than most is named;
/// where there is no most, all are.
pub(super) fn compare(ranks: &[Rank], findings: &mut Findings) {
    let mut steps: BTreeMap<u64, Vec<(&str, Digest)>> = BTreeMap::new();
    for rank in ranks {
        for (step, root) in &rank.applied {
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
}
