//! The verdict: four lines that are never merged into one word, and a status that names the
//! requirement it speaks of.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::lines::{integrity_line, outdated, shown, signer_line, time_line, trained, transition_line};
use super::{Anchored, Edge, Findings, Standing};
use crate::primitives::{Address, Digest};

/// What a verifier demands beyond integrity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requirement {
    /// The signer is pinned.
    pub signer: bool,
    /// The recipe is pinned.
    pub recipe: bool,
    /// All receipts are covered by anchors on a chain that the verifier chose.
    pub time: bool,
    /// Parameters are committed at least every so many steps.
    pub parameters_every: Option<u32>,
    /// At least so many steps were replayed, bit for bit or within a tolerance that the verifier chose.
    pub replayed: u64,
}

/// The verdict's single word, always read together with its requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The requirement is met.
    Verified,
    /// Something claimed is false.
    Refuted,
    /// Nothing is false, and something required is not shown.
    Undecided,
}

/// Whether all links hold.
#[derive(Clone, Debug, Serialize)]
pub struct Integrity {
    /// No edge is broken.
    pub intact: bool,
    /// Edges that do not hold, the first ones.
    pub broken: Vec<Edge>,
    /// Whether a second history is excluded, and by what.
    pub split_view: String,
    /// The whole line.
    pub line: String,
}

/// Who signed.
#[derive(Clone, Debug, Serialize)]
pub struct SignerLine {
    /// Owner of the run.
    pub owner: Option<Address>,
    /// Whether the verifier pinned the owner.
    pub pinned: bool,
    /// The whole line.
    pub line: String,
}

/// What is known about when.
#[derive(Clone, Debug, Serialize)]
pub struct TimeLine {
    /// Receipts covered by confirmed anchors.
    pub covered: u64,
    /// Receipts in all.
    pub receipts: u64,
    /// The whole line.
    pub line: String,
}

/// What is known about the training steps themselves.
#[derive(Clone, Debug, Serialize)]
pub struct TransitionLine {
    /// Steps that the verifier replayed bit for bit.
    pub replayed: u64,
    /// Steps that the verifier executed on another kind of machine and that lie within its tolerance.
    pub tolerated: u64,
    /// Digest of the thresholds.
    pub thresholds: Option<Digest>,
    /// Steps recorded.
    pub steps: u64,
    /// Whether the verifier saw the recipe make the state from which the run began.
    pub begins: bool,
    /// Steps that others say they replayed bit for bit.
    pub attested: u64,
    /// Whether the verifier pinned the recipe.
    pub recipe_pinned: bool,
    /// Replayed steps that gave something else.
    pub mismatches: Vec<Edge>,
    /// The whole line.
    pub line: String,
}

/// Four lines and what follows from them.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Single word; never read it without `requirement`.
    pub status: Status,
    /// What the status speaks of.
    pub requirement: String,
    /// What of it is false, when something is: integrity, signer, recipe, re-execution.
    pub refuted: Vec<&'static str>,
    /// What is required and not shown, with what to do next.
    pub missing: Vec<String>,
    /// Whether all links hold.
    pub integrity: Integrity,
    /// Who signed.
    pub signer: SignerLine,
    /// When.
    pub time: TimeLine,
    /// Whether the training steps were what they claim.
    pub transition: TransitionLine,
    /// Run id.
    pub run: Digest,
    /// Digest of the pinned recipe; zero for none.
    pub recipe: Digest,
    /// Remarks: openings that are missing, a run without its end.
    pub notes: Vec<String>,
    /// What no verdict of this program shows.
    pub not_shown: Vec<String>,
}

/// What the verifier pins, and what replaying found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Judgement {
    /// Name of the requirement, for the headline.
    pub name: String,
    /// The requirement.
    pub require: Requirement,
    /// Expected owner.
    pub signer: Option<Address>,
    /// Expected digest of the recipe.
    pub recipe: Option<Digest>,
    /// Steps replayed bit for bit by this verifier.
    pub replayed: u64,
    /// Steps that this verifier found to lie within the tolerance of another kind of machine.
    pub tolerated: u64,
    /// What that tolerance hides.
    pub not_seen: Vec<String>,
    /// Digest of the thresholds.
    pub thresholds: Option<Digest>,
    /// Steps whose replay gave something else.
    pub mismatches: Vec<Edge>,
    /// Remarks of the replay.
    pub notes: Vec<String>,
    /// Whether the recipe made the state from which the run began.
    pub begins: bool,
    /// What the replay found that neither refutes the run nor lets it count as verified.
    pub undecided: Vec<String>,
    /// What the chain that the verifier chose knows of this run's ledgers.
    pub heads: Vec<HeadOnChain>,
    /// Hashes of blocks that the verifier knows to be of a public chain.
    pub trusted_blocks: Vec<Digest>,
    /// Unix seconds of the verifier's own clock: what lies here existed then.
    pub now: Option<u64>,
    /// The block at which the chain was asked for revoked keys; none when it was not asked.
    pub revocations_at: Option<u64>,
    /// The keys that it knows as revoked.
    pub revocations: Vec<Revocation>,
}

/// A key that its owner or its worker declared invalid on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Revocation {
    /// The worker for whom the key signed; the key itself for a worker's own.
    pub worker: Address,
    /// The key.
    pub key: Address,
    /// Number of the block that records it.
    pub block: u64,
    /// Unix seconds of that block.
    pub time: u64,
}

/// The last head that a chain holds of one ledger.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct HeadOnChain {
    /// Worker of the ledger.
    pub worker: Address,
    /// Lane of the ledger.
    pub lane: u32,
    /// Receipts it covers.
    pub size: u64,
    /// Anchors that the chain holds of the ledger.
    pub count: u64,
}

const NOT_SHOWN: [&str; 6] = [
    "that training began from the state that its recipe makes, or from an honest one",
    "that the data is what its name says, or was lawfully obtained",
    "that this was the only run, or that these are all its lanes",
    "that what was withheld or erased was harmless",
    "that steps nobody replayed are honest",
    "that the work was done at the dated time, or on the worker's own machine",
];

/// Draws the four lines and measures them against the requirement.
pub fn judge(findings: &Findings, judgement: &Judgement) -> Verdict {
    let time = time_line(findings, &findings.anchored);
    let integrity = integrity_line(findings, judgement);
    let signer = signer_line(findings, judgement);
    let transition = transition_line(findings, judgement);
    let mut missing = missing(findings, judgement, &signer, &time, &transition);
    missing.extend(outdated(findings, judgement));
    missing.extend(judgement.undecided.iter().chain(&findings.undecided).cloned());
    let refuted: Vec<&str> = [
        ("integrity", !integrity.intact),
        ("signer", judgement.signer.is_some_and(|expected| findings.owner != Some(expected))),
        ("recipe", judgement.recipe.is_some_and(|expected| expected != findings.recipe)),
        ("re-execution", !judgement.mismatches.is_empty()),
    ]
    .into_iter()
    .filter_map(|(what, is_false)| is_false.then_some(what))
    .collect();
    let status = match (refuted.is_empty(), missing.is_empty()) {
        (false, _) => Status::Refuted,
        (true, true) => Status::Verified,
        (true, false) => Status::Undecided,
    };
    let begins = transition.begins;
    Verdict {
        status,
        requirement: judgement.name.clone(),
        refuted,
        missing,
        integrity,
        signer,
        time,
        transition,
        run: findings.run,
        recipe: findings.recipe,
        notes: notes(findings, judgement),
        not_shown: NOT_SHOWN.iter().skip(usize::from(begins)).copied().map(String::from).collect(),
    }
}

fn missing(
    findings: &Findings,
    judgement: &Judgement,
    signer: &SignerLine,
    time: &TimeLine,
    transition: &TransitionLine,
) -> Vec<String> {
    let require = &judgement.require;
    let mut missing = Vec::new();
    let mut want = |is_met: bool, text: String| {
        if !is_met {
            missing.push(text);
        }
    };
    let work = findings.steps + findings.rounds + findings.collections;
    want(work > 0, "no step is shown: there is nothing to check yet".into());
    let (shown, receipts) = shown(findings);
    want(
        shown == receipts,
        format!(
            "{shown} of {receipts} receipts are shown, as whoever made the bundle chose: ask for the rest"
        ),
    );
    want(
        !require.signer || signer.pinned,
        "the signer is not pinned: pass signer=, learnt from its owner".into(),
    );
    let has_recipe = findings.recipe != Digest::ZERO;
    want(
        !require.recipe || transition.recipe_pinned,
        match has_recipe {
            true => format!("the recipe is not pinned: read it, then pass recipe={}", findings.recipe),
            false => "the run has no recipe, so its steps cannot be replayed".into(),
        },
    );
    want(
        !require.time || (time.receipts > 0 && time.covered == time.receipts),
        format!(
            "confirmed anchors cover {} of {} receipts: pass chain= of an RPC you trust, or trusted_blocks=",
            time.covered, time.receipts
        ),
    );
    if let Some(wanted) = require.parameters_every {
        let every = findings.weakest.and_then(|cadences| cadences.of("parameters")).unwrap_or(0);
        want(
            every != 0 && every <= wanted,
            format!("parameters are committed every {every} steps, {wanted} required"),
        );
    }
    let wanted = require.replayed.min(findings.steps);
    let replayed = if transition.recipe_pinned { transition.replayed + transition.tolerated } else { 0 };
    want(
        replayed >= wanted,
        format!("{replayed} steps were replayed with a pinned recipe, {wanted} required: counterfoil replay"),
    );
    missing
}

fn notes(findings: &Findings, judgement: &Judgement) -> Vec<String> {
    let mut notes = judgement.notes.clone();
    for log in trained(findings).filter(|log| !log.closed) {
        notes.push(format!(
            "the run of {} lane {} is not shown to its end (no close receipt)",
            log.worker, log.lane
        ));
    }
    if findings.dropped_bytes > 0 {
        notes.push(format!("{} bytes of an unfinished frame were passed over", findings.dropped_bytes));
    }
    for denied in findings.anchored.iter().filter(|anchor| anchor.standing == Standing::Denied) {
        notes.push(format!("{} does not hold the recorded {}", denied.chain, denied.name));
    }
    if findings.skipped > 0 {
        let (skipped, steps) = (findings.skipped, findings.steps);
        notes.push(format!("{skipped} of {steps} steps are flagged as skipped and show no gradient"));
    }
    if findings.fallback > 0 {
        let (fallback, steps) = (findings.fallback, findings.steps);
        notes
            .push(format!("{fallback} of {steps} steps were copied from their device and hashed by the CPU"));
    }
    // Whoever collects preferences opens the run for it, and trains nothing.
    if findings.resumed > 0 && (findings.steps > 0 || findings.collections == 0) {
        let (resumed, continued) = (findings.resumed, findings.continued);
        notes.push(format!(
            "resumed {resumed} times; {continued} times it is shown that training went on from the state it had there"
        ));
    }
    if findings.abandoned > 0 {
        let count = findings.abandoned;
        notes.push(format!(
            "{count} more recorded steps were abandoned: training was resumed from a step before them"
        ));
    }
    if findings.ranks > 1 {
        let (ranks, agreed) = (findings.ranks, findings.agreed);
        notes.push(format!(
            "{ranks} ranks contributed; at {agreed} steps they are shown to have applied one gradient"
        ));
    }
    notes.extend(findings.of_ranks.iter().chain(&findings.of_lineage).cloned());
    if findings.contested > 0 {
        let count = findings.contested;
        notes.push(format!("others say that {count} steps came out otherwise when they executed them again"));
    }
    if findings.updated > 0 {
        let count = findings.updated;
        notes.push(format!(
            "the optimiser's update of {count} steps was executed again from stored gradients, bit-exact"
        ));
    }
    for (reason, count) in &findings.not_updated {
        notes.push(format!("the update of {count} steps with stored gradients was not executed: {reason}"));
    }
    for (what, count) in &findings.missing {
        notes.push(format!("{count} {what}s are missing: they were withheld or erased"));
    }
    for head in &judgement.heads {
        let is_held = |anchor: &&Anchored| {
            (anchor.worker, anchor.lane) == (head.worker, head.lane) && anchor.standing == Standing::Held
        };
        let held: BTreeSet<u64> =
            findings.anchored.iter().filter(is_held).map(|anchor| anchor.index).collect();
        if (held.len() as u64) < head.count {
            notes.push(format!(
                "the chain holds {} anchors of {} lane {}, and {} are shown here: the others may be of another history",
                head.count,
                head.worker,
                head.lane,
                held.len()
            ));
        }
    }
    if let Some(thresholds) = judgement.thresholds.filter(|_| judgement.tolerated > 0) {
        notes.push(format!("the thresholds of the tolerance are those of calibration {thresholds}"));
    }
    if judgement.replayed + judgement.tolerated > 0
        && judgement.recipe.is_none_or(|pinned| pinned != findings.recipe)
    {
        notes.push(
            "steps were replayed with a recipe that you did not pin, which shows nothing to a stranger"
                .into(),
        );
    }
    notes
}

/// The first line of a printed verdict.
pub fn headline(verdict: &Verdict) -> String {
    let shown = match verdict.status {
        Status::Verified => "verified",
        Status::Refuted => "refuted",
        Status::Undecided => "undecided",
    };
    match (verdict.status, verdict.requirement.as_str()) {
        (Status::Verified, "integrity") => {
            let mut absent = Vec::new();
            if !verdict.signer.pinned {
                absent.push("signer");
            }
            if verdict.time.covered < verdict.time.receipts {
                absent.push("time");
            }
            let executed = verdict.transition.replayed + verdict.transition.tolerated;
            if executed == 0 || !verdict.transition.recipe_pinned {
                absent.push("re-execution");
            } else if verdict.transition.replayed == 0 {
                absent.push("bit-exact re-execution");
            }
            match absent.is_empty() {
                true => "verified: integrity".into(),
                false => format!("verified: integrity only (not shown: {})", absent.join(", ")),
            }
        }
        // Of several requirements it says no more than of one: this is false.
        (Status::Refuted, _) => format!("{shown}: {}", verdict.refuted.join(", ")),
        (_, requirement) => format!("{shown}: {requirement}"),
    }
}
