//! The checks: from evidence that nobody believes yet to a verdict of four independent lines.
//!
//! [`structural`] walks one run's logs and names every edge that does not hold; [`judge`] turns
//! that, with what is known about signers, anchors and replays, into a [`Verdict`] measured
//! against a [`Requirement`]. Nothing here reads a file or asks a chain: the caller brings what it
//! gathered, and says which of it the verifier chose.

mod log;
mod openings;
mod policy;
mod specification;
mod verdict;

use std::collections::BTreeMap;

pub use policy::{CADENCES, Cadences, Policies};
pub use specification::{Specification, SpecificationError};
pub use verdict::{
    HeadOnChain, Integrity, Judgement, Requirement, SignerLine, Status, TimeLine, TransitionLine, Verdict,
    headline, judge,
};

use crate::commit::State;
use crate::evidence::Log;
use crate::primitives::{Address, Digest};

/// A link of the evidence that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Edge {
    /// Between what: `receipt 17 (step 14): body`.
    pub edge: String,
    /// What the other end demands.
    pub expected: String,
    /// What lies there.
    pub actual: String,
}

/// Everything that was gathered about one run.
pub struct Evidence<'a> {
    /// Bytes of `spec.json`.
    pub specification: Vec<u8>,
    /// Files of the recipe, as a state; none when there is no recipe.
    pub recipe: Option<State>,
    /// The logs found.
    pub logs: Vec<Log>,
    /// Anchor records found, and what a chain said about them.
    pub anchors: Vec<Anchored>,
    /// The root of a stored object's bytes, none when the object is missing.
    pub object_root: &'a dyn Fn(&Digest) -> Option<Digest>,
}

/// A tree head that was recorded on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// Name of the record, for edges.
    pub name: String,
    /// Worker of the log.
    pub worker: Address,
    /// Lane of the log.
    pub lane: u32,
    /// Leaves the head speaks of.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// The chain, in words.
    pub chain: String,
    /// Unix seconds of the block.
    pub block_time: u64,
    /// Whether a chain that the verifier chose confirmed the record.
    pub confirmed: bool,
    /// Whether the chain is a development chain, which belongs to whoever runs it.
    pub development: bool,
}

/// What the walk over the evidence found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Links that do not hold.
    pub broken: Vec<Edge>,
    /// Run id of the genesis receipt.
    pub run: Digest,
    /// Owner of the run.
    pub owner: Option<Address>,
    /// Digest of the recipe that genesis pins; zero for none.
    pub recipe: Digest,
    /// Receipts per log, with how many of them anchors cover.
    pub logs: Vec<LogFindings>,
    /// Receipts of kinds this version does not know, or signed by delegation.
    pub undecided: Vec<String>,
    /// Steps recorded, over all logs.
    pub steps: u64,
    /// Opened fields and stored objects whose bytes are not there.
    pub missing: BTreeMap<String, u64>,
    /// Sparsest cadence in force, per field.
    pub weakest: Option<Cadences>,
}

/// One log's share.
#[derive(Clone, Debug, Default)]
pub struct LogFindings {
    /// Worker of the log.
    pub worker: Address,
    /// Lane of the log.
    pub lane: u32,
    /// Receipts found.
    pub receipts: u64,
    /// Whether the last receipt is a close.
    pub closed: bool,
}

impl Findings {
    pub(crate) fn broken(&mut self, edge: String, expected: impl ToString, actual: impl ToString) {
        // A damaged log can break at every receipt; the first edges tell the story.
        if self.broken.len() < 64 {
            self.broken.push(Edge { edge, expected: expected.to_string(), actual: actual.to_string() });
        }
    }
}

/// Walks all links of a run's evidence.
pub fn structural(evidence: &Evidence<'_>) -> Findings {
    let mut findings = Findings::default();
    let specification = specification::check(evidence, &mut findings);
    let Some((specification, genesis)) = specification else { return findings };
    for log in &evidence.logs {
        log::check(log, &genesis, &specification, evidence, &mut findings);
    }
    findings
}
