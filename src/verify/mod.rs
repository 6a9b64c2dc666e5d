//! The checks: from evidence that nobody believes yet to a verdict of four independent lines.
//!
//! [`structural`] walks one run's logs and names every edge that does not hold; [`judge`] turns
//! that, with what is known about signers, anchors and replays, into a [`Verdict`] measured
//! against a [`Requirement`]. Nothing here reads a file or asks a chain: the caller brings what it
//! gathered, and says which of it the verifier chose.

mod contents;
mod delegated;
mod diff;
mod element;
mod fingerprints;
mod heads;
mod lineage;
mod lines;
mod log;
mod openings;
mod policy;
mod preferences;
mod prepared;
mod ranks;
mod replays;
mod specification;
mod stated;
mod states;
mod updates;
mod verdict;

use std::collections::BTreeMap;

pub use contents::{
    Confirmation, Confirmed, Contents, DEVELOPMENT_CHAIN, MAX_DOCUMENT, MAX_RECIPE, MAX_RECIPE_FILES,
    bundle_object, bundle_object_root, edge, recipe_state, unconfirmed,
};
pub use delegated::Signed;
pub use diff::{Comparison, Difference, Objects, compare};
pub use element::{Element, first_element};
pub use policy::{CADENCES, Cadences, Policies};
pub use specification::{Specification, SpecificationError};
pub use updates::FROM_CHECKPOINT;
pub use verdict::{
    HeadOnChain, Integrity, Judgement, Requirement, Revocation, SignerLine, Status, TimeLine, TransitionLine,
    Verdict, headline, judge,
};

use crate::commit::{Entry, State};
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

impl Edge {
    /// An edge in printable words: names in it come from whoever made the evidence, and must not
    /// steer a terminal.
    pub fn new(edge: &str, expected: impl ToString, actual: impl ToString) -> Edge {
        let printable = |text: &str| -> String {
            let escape = |letter: char| match letter.is_control() {
                true => letter.escape_default().collect::<String>(),
                false => letter.to_string(),
            };
            text.chars().map(escape).collect()
        };
        Edge {
            edge: printable(edge),
            expected: printable(&expected.to_string()),
            actual: printable(&actual.to_string()),
        }
    }
}

/// Everything that was gathered about one run.
pub struct Evidence<'a> {
    /// Bytes of `spec.json`.
    pub specification: &'a [u8],
    /// Files of the recipe, as a state; none when there is no recipe.
    pub recipe: Option<State>,
    /// The logs found.
    pub logs: &'a [Log],
    /// Anchor records found, and what a chain said about them.
    pub anchors: Vec<Anchored>,
    /// The root over what is stored for a tensor, none when nothing is.
    pub object_root: &'a dyn Fn(&Entry) -> Option<Digest>,
    /// The stored bytes of a tensor, if they are the tensor's.
    pub object: &'a dyn Fn(&Entry) -> Option<Vec<u8>>,
}

/// What a verifier knows of an anchor record, which alone says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody was asked.
    Unconfirmed,
    /// A chain that the verifier chose was asked and does not hold the anchor.
    Denied,
    /// A block that the verifier trusts holds the event, of a contract that nobody looked at: the
    /// head existed then, and the contract may know other heads of the same size.
    Dated,
    /// The run ledger on a chain that the verifier chose holds the anchor, and no other in its place.
    Held,
}

impl Anchored {
    /// Whether the time of its block is that of a chain or block the verifier chose.
    pub(crate) fn is_dated(&self) -> bool {
        matches!(self.standing, Standing::Dated | Standing::Held)
    }
}

/// A tree head that was recorded on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// Name of the record, for edges.
    pub name: String,
    /// Run of the log.
    pub run: Digest,
    /// Worker of the log.
    pub worker: Address,
    /// Lane of the log.
    pub lane: u32,
    /// Anchors of the log that came before.
    pub index: u64,
    /// Leaves the head speaks of.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// The chain, in words.
    pub chain: String,
    /// Unix seconds of the block.
    pub block_time: u64,
    /// What the verifier knows of the record.
    pub standing: Standing,
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
    /// What could not be decided: receipts of unknown kinds, anchors amid withheld receipts.
    pub undecided: Vec<String>,
    /// Steps recorded, over all logs, without those that were abandoned.
    pub steps: u64,
    /// Steps behind which a resume went back: they were recorded, and training went on without them.
    pub abandoned: u64,
    /// Steps flagged as skipped, which need not show a gradient.
    pub skipped: u64,
    /// Steps flagged as hashed by the CPU though their tensors lay on a device.
    pub fallback: u64,
    /// Bytes of unfinished frames at the ends of journals.
    pub dropped_bytes: u64,
    /// Resume receipts.
    pub resumed: u64,
    /// Those behind which a checkpoint was compared with the state before.
    pub continued: u64,
    /// Logs whose steps show a contribution and the gradient that was applied.
    pub ranks: u64,
    /// Steps at which several of them are shown to have applied the same gradient.
    pub agreed: u64,
    /// Round receipts shown.
    pub rounds: u64,
    /// What is odd of logs that contributed to the same steps: those that show fewer, or the same contribution.
    pub of_ranks: Vec<String>,
    /// Collections of preferences by the run's owner.
    pub collections: u64,
    /// What is said of preferences, evaluations, releases and answers.
    pub of_lineage: Vec<String>,
    /// Steps that others say came out the same when they executed them again.
    pub attested: u64,
    /// How many say so.
    pub attesting: u64,
    /// Steps that somebody says came out otherwise.
    pub contested: u64,
    /// Steps whose update was executed again, and gave what was recorded.
    pub updated: u64,
    /// Steps with stored gradients whose update was not executed, by the reason.
    pub not_updated: BTreeMap<&'static str, u64>,
    /// Opened fields and stored objects whose bytes are not there.
    pub missing: BTreeMap<&'static str, u64>,
    /// Anchors whose head is one of the logs'.
    pub anchored: Vec<Anchored>,
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
    /// Receipts of the log, with those that are withheld.
    pub receipts: u64,
    /// Receipts shown.
    pub shown: u64,
    /// Whether the last receipt is a close.
    pub closed: bool,
    /// Whether its writer joined to look on: it trains nothing.
    pub observes: bool,
    /// Who signed the shown receipts, by key.
    pub signed: Vec<Signed>,
}

impl Findings {
    pub(crate) fn broken(&mut self, edge: String, expected: impl ToString, actual: impl ToString) {
        // A damaged log can break at every receipt; the first edges tell the story.
        if self.broken.len() < 64 {
            self.broken.push(Edge::new(&edge, expected, actual));
        }
    }
}

/// Walks all links of a run's evidence.
pub fn structural(evidence: &Evidence<'_>) -> Findings {
    let mut findings = Findings::default();
    let specification = specification::check(evidence, &mut findings);
    let Some((specification, genesis)) = specification else { return findings };
    let (mut heads, mut ranks) = (Vec::new(), Vec::new());
    let mut stated = Vec::new();
    for log in evidence.logs {
        findings.dropped_bytes += log.dropped_bytes;
        let (found, rank, said) = log::check(log, &genesis, &specification, evidence, &mut findings);
        heads.push(found);
        ranks.push(rank);
        stated.extend(said);
    }
    heads::check_observed(&heads, genesis.body.bytes32("run"), &mut findings);
    ranks::compare(&ranks, &mut findings);
    ranks::check_inputs(&ranks, &mut findings);
    replays::check(&stated, evidence, &mut findings);
    fingerprints::check(&stated, evidence, &mut findings);
    let owner = genesis.body.address("owner");
    preferences::check(&stated, owner, evidence, &mut findings);
    lineage::check(&stated, owner, evidence, &mut findings);
    findings
}
