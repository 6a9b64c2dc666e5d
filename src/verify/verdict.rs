//! The verdict: four lines that are never merged into one word, and a status that names the
//! requirement it speaks of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::policy::Cadences;
use super::{Anchored, Edge, Findings, LogFindings, Signed, Standing};
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
    /// At least so many steps were replayed bit for bit.
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
    /// Steps recorded.
    pub steps: u64,
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
    /// Steps whose replay gave something else.
    pub mismatches: Vec<Edge>,
    /// Remarks of the replay.
    pub notes: Vec<String>,
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
    let is_refuted = !integrity.intact
        || !judgement.mismatches.is_empty()
        || judgement.signer.is_some_and(|expected| findings.owner != Some(expected))
        || judgement.recipe.is_some_and(|expected| expected != findings.recipe);
    let status = match (is_refuted, missing.is_empty()) {
        (true, _) => Status::Refuted,
        (false, true) => Status::Verified,
        (false, false) => Status::Undecided,
    };
    Verdict {
        status,
        requirement: judgement.name.clone(),
        missing,
        integrity,
        signer,
        time,
        transition,
        run: findings.run,
        recipe: findings.recipe,
        notes: notes(findings, judgement),
        not_shown: NOT_SHOWN.map(String::from).to_vec(),
    }
}

/// How many receipts are shown, and how many there are.
fn shown(findings: &Findings) -> (u64, u64) {
    (findings.logs.iter().map(|log| log.shown).sum(), findings.logs.iter().map(|log| log.receipts).sum())
}

fn integrity_line(findings: &Findings, judgement: &Judgement) -> Integrity {
    // Each of the chain's anchors must be known and be of this history: an earlier one may be of another.
    let covering = |log: &super::LogFindings| {
        let is_of = |worker: Address, lane: u32| (worker, lane) == (log.worker, log.lane);
        let own = findings.anchored.iter().filter(|anchor| is_of(anchor.worker, anchor.lane));
        let held = own.filter(|anchor| anchor.standing == Standing::Held && !anchor.development);
        let held: BTreeMap<u64, &Anchored> = held.map(|anchor| (anchor.index, anchor)).collect();
        let known = judgement.heads.iter().find(|head| is_of(head.worker, head.lane))?;
        let is_whole = held.len() as u64 == known.count;
        held.into_values().find(|anchor| is_whole && anchor.size == log.receipts)
    };
    let (shown, receipts) = shown(findings);
    let chains: Option<Vec<&Anchored>> = findings.logs.iter().map(covering).collect();
    let split_view = match chains.as_deref() {
        Some([first, ..]) if findings.broken.is_empty() => {
            format!("excluded by {} for the lanes shown", first.chain)
        }
        _ => "not excluded".into(),
    };
    let state = match findings.broken.as_slice() {
        [] if shown < receipts => format!("intact for the {shown} of {receipts} receipts shown"),
        [] if findings.logs.iter().all(|log| log.closed) => "intact".to_string(),
        [] => "intact, the run not shown to its end".to_string(),
        [edge] => format!("broken at {}", edge.edge),
        [edge, rest @ ..] => format!("broken at {} (and {} more)", edge.edge, rest.len()),
    };
    Integrity {
        intact: findings.broken.is_empty(),
        broken: findings.broken.clone(),
        line: format!("{state}; split view: {split_view}"),
        split_view,
    }
}

fn signer_line(findings: &Findings, judgement: &Judgement) -> SignerLine {
    let owner = match (findings.owner, judgement.signer) {
        (None, _) => "none: no owner signed a genesis receipt".to_string(),
        (Some(owner), Some(expected)) if owner == expected => format!("expected {owner}"),
        (Some(owner), Some(expected)) => format!("{owner} is not the expected {expected}"),
        (Some(owner), None) => format!("unpinned {owner}"),
    };
    let mut parts = vec![owner];
    if findings.owner.is_some() {
        let mut revoked = in_force(findings, judgement).peekable();
        parts.push(match (revoked.peek(), judgement.revocations_at) {
            (Some((_, _, found)), _) => format!("{} revoked at block {}", found.key, found.block),
            (None, Some(block)) => format!("not revoked at block {block}"),
            (None, None) => "revocation not checked".into(),
        });
    }
    let sessions = findings.logs.iter().flat_map(|log| {
        log.signed.iter().filter(|signed| signed.key != log.worker).map(|signed| (signed.key, signed.count))
    });
    for (key, count) in sessions {
        parts.push(format!("{count} receipts by its session key {key}"));
    }
    let mut others: Vec<Address> = findings.logs.iter().map(|log| log.worker).collect();
    others.retain(|worker| Some(*worker) != findings.owner);
    others.sort();
    others.dedup();
    if !others.is_empty() {
        parts.push(format!("{} more workers, unpinned", others.len()));
    }
    let pinned = findings.owner.is_some() && findings.owner == judgement.signer;
    SignerLine { owner: findings.owner, pinned, line: parts.join("; ") }
}

/// Revocations of keys that signed something here.
fn in_force<'a>(
    findings: &'a Findings,
    judgement: &'a Judgement,
) -> impl Iterator<Item = (&'a LogFindings, &'a Signed, &'a Revocation)> {
    findings.logs.iter().flat_map(move |log| {
        log.signed.iter().flat_map(move |signed| {
            // What a revoked worker's key allowed to others ends with it.
            let of_key = move |found: &&Revocation| {
                found.worker == log.worker && [signed.key, log.worker].contains(&found.key)
            };
            judgement.revocations.iter().filter(of_key).map(move |found| (log, signed, found))
        })
    })
}

/// Receipts of keys that were not allowed to sign any more at some time, and that are not shown to be
/// older. Block time alone decides: the time in a receipt is its signer's own word.
fn outdated(findings: &Findings, judgement: &Judgement) -> Vec<String> {
    // How many receipts existed at a time, by the anchors that count.
    let covered = |log: &LogFindings, counts: &dyn Fn(&Anchored) -> bool| -> u64 {
        let own = findings.anchored.iter().filter(|a| (a.worker, a.lane) == (log.worker, log.lane));
        own.filter(|a| a.is_dated() && counts(a)).map(|a| a.size).max().unwrap_or(0)
    };
    let mut found = Vec::new();
    for log in &findings.logs {
        for signed in &log.signed {
            let Some(expires) = signed.expires.filter(|end| judgement.now.is_none_or(|now| now > *end))
            else {
                continue;
            };
            // A development chain's owner chooses its times.
            let covered = covered(log, &|anchor| anchor.block_time <= expires && !anchor.development);
            if covered <= signed.last {
                found.push(format!(
                    "{} could sign until {}; confirmed anchors show {covered} receipts of its lane to be as old, \
                     and the last one it signed is receipt {}",
                    signed.key,
                    utc(expires),
                    signed.last
                ));
            }
        }
    }
    for (log, signed, revocation) in in_force(findings, judgement) {
        // Two blocks may have one time, and of those nobody here knows the order.
        let covered =
            covered(log, &|anchor| anchor.standing == Standing::Held && anchor.block_time < revocation.time);
        if covered <= signed.last {
            found.push(format!(
                "{} was revoked at block {} ({}); confirmed anchors show {covered} receipts of its lane to be older, \
                 and the last one that {} signed is receipt {}",
                revocation.key,
                revocation.block,
                utc(revocation.time),
                signed.key,
                signed.last
            ));
        }
    }
    found
}

fn time_line(findings: &Findings, anchors: &[Anchored]) -> TimeLine {
    let receipts: u64 = findings.logs.iter().map(|log| log.receipts).sum();
    // The largest recorded head of each log, among the anchors that `chosen` accepts.
    let cover = |chosen: &dyn Fn(&Anchored) -> bool| -> (u64, Option<(&Anchored, String)>) {
        let heads = findings.logs.iter().filter_map(|log| {
            let own = anchors.iter().filter(|a| a.worker == log.worker && a.lane == log.lane && chosen(a));
            own.filter(|anchor| anchor.size <= log.receipts).max_by_key(|anchor| anchor.size)
        });
        let heads: Vec<&Anchored> = heads.collect();
        let chains: BTreeSet<&str> = heads.iter().map(|anchor| anchor.chain.as_str()).collect();
        let chains = chains.into_iter().collect::<Vec<_>>().join(" and ");
        let latest = heads.iter().copied().max_by_key(|anchor| anchor.block_time);
        (heads.iter().map(|anchor| anchor.size).sum(), latest.map(|latest| (latest, chains)))
    };
    let first = if findings.logs.len() == 1 { "first " } else { "" };
    let extent = |count: u64| match count == receipts {
        true => format!("all {receipts} receipts"),
        false => format!("{first}{count} of {receipts} receipts, the rest not anchored"),
    };
    let (covered, latest) = cover(&|anchor| anchor.is_dated() && !anchor.development);
    let line = match latest {
        Some((anchor, chains)) => {
            format!("{} existed by {} on {chains}", extent(covered), utc(anchor.block_time))
        }
        None => match cover(&|anchor| anchor.standing != Standing::Denied) {
            (_, None) => match anchors.iter().find(|anchor| anchor.standing == Standing::Denied) {
                Some(denied) => format!("none: {} does not hold the recorded anchor", denied.chain),
                None => "none".to_string(),
            },
            (count, Some((anchor, chains))) => {
                let reason = if anchor.development {
                    "a development chain proves no date"
                } else {
                    "unconfirmed: name an RPC with --chain or a --trusted-block"
                };
                format!("self-anchored: {} on {chains} ({reason})", extent(count))
            }
        },
    };
    TimeLine { covered, receipts, line }
}

/// Unix seconds as `2026-11-22 14:08:29 UTC` (proleptic Gregorian calendar).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that the leap day ends a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3_600, rest / 60 % 60, rest % 60)
}

fn transition_line(findings: &Findings, judgement: &Judgement) -> TransitionLine {
    let steps = findings.steps;
    let recipe_pinned =
        judgement.recipe.is_some_and(|pinned| pinned != Digest::ZERO && pinned == findings.recipe);
    let state = match (judgement.mismatches.first(), judgement.replayed.min(steps)) {
        (Some(edge), _) => format!("refuted by replay at {}", edge.edge),
        // A recipe that nobody pinned could hand back what was recorded.
        (None, replayed) if replayed > 0 && recipe_pinned => {
            format!("replayed {replayed} of {steps} by you, bit-exact")
        }
        _ if steps == 0 => "not checked: no step is shown".to_string(),
        _ => format!("structural ({})", weakest(findings.weakest.unwrap_or_default())),
    };
    let pinned = match judgement.recipe {
        Some(_) if recipe_pinned => "recipe pinned".to_string(),
        Some(pinned) => format!("the recipe is {}, not the pinned {pinned}", findings.recipe),
        None => "recipe unpinned".to_string(),
    };
    TransitionLine {
        replayed: judgement.replayed.min(steps),
        steps,
        recipe_pinned,
        mismatches: judgement.mismatches.clone(),
        line: format!("{state}; {pinned}"),
    }
}

fn weakest(cadences: Cadences) -> String {
    let parts = ["gradients", "parameters", "checkpoint"].map(|name| match cadences.of(name).unwrap_or(0) {
        0 => format!("{name} not required"),
        1 => format!("{name} every step"),
        every => format!("{name} every {every} steps"),
    });
    parts.join(", ")
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
    want(findings.steps > 0, "no step is shown: there is nothing to check yet".into());
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
    let replayed = if transition.recipe_pinned { transition.replayed } else { 0 };
    want(
        replayed >= wanted,
        format!("{replayed} steps were replayed with a pinned recipe, {wanted} required: counterfoil replay"),
    );
    missing
}

fn notes(findings: &Findings, judgement: &Judgement) -> Vec<String> {
    let mut notes = judgement.notes.clone();
    for log in findings.logs.iter().filter(|log| !log.closed) {
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
    if findings.resumed > 0 {
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
    for (what, count) in &findings.missing {
        notes.push(format!("{count} {what}s are missing: they were withheld or erased"));
    }
    if judgement.replayed > 0 && judgement.recipe.is_none_or(|pinned| pinned != findings.recipe) {
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
            if verdict.transition.replayed == 0 || !verdict.transition.recipe_pinned {
                absent.push("re-execution");
            }
            match absent.is_empty() {
                true => "verified: integrity".into(),
                false => format!("verified: integrity only (not shown: {})", absent.join(", ")),
            }
        }
        (_, requirement) => format!("{shown}: {requirement}"),
    }
}
