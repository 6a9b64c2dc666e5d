//! The four lines of a verdict, and what is known of the keys behind the second.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::Cadences;
use super::verdict::{Integrity, Judgement, Revocation, SignerLine, TimeLine, TransitionLine};
use super::{Anchored, Findings, LogFindings, Signed, Standing};
use crate::primitives::{Address, Digest};

/// How many receipts are shown, and how many there are.
pub(super) fn shown(findings: &Findings) -> (u64, u64) {
    (findings.logs.iter().map(|log| log.shown).sum(), findings.logs.iter().map(|log| log.receipts).sum())
}

/// The logs that the training consists of: what observers write is no part of it.
pub(super) fn trained(findings: &Findings) -> impl Iterator<Item = &LogFindings> {
    findings.logs.iter().filter(|log| !log.observes)
}

pub(super) fn integrity_line(findings: &Findings, judgement: &Judgement) -> Integrity {
    // Each of the chain's anchors must be known and be of this history: an earlier one may be of another.
    let covering = |log: &LogFindings| {
        let is_of = |worker: Address, lane: u32| (worker, lane) == (log.worker, log.lane);
        let own = findings.anchored.iter().filter(|anchor| is_of(anchor.worker, anchor.lane));
        let held = own.filter(|anchor| anchor.standing == Standing::Held && !anchor.development);
        let held: BTreeMap<u64, &Anchored> = held.map(|anchor| (anchor.index, anchor)).collect();
        let known = judgement.heads.iter().find(|head| is_of(head.worker, head.lane))?;
        let is_whole = held.len() as u64 == known.count;
        held.into_values().find(|anchor| is_whole && anchor.size == log.receipts)
    };
    let (shown, receipts) = shown(findings);
    let chains: Option<Vec<&Anchored>> = trained(findings).map(covering).collect();
    let split_view = match chains.as_deref() {
        Some([first, ..]) if findings.broken.is_empty() => {
            format!("excluded by {} for the lanes shown", first.chain)
        }
        _ => "not excluded".into(),
    };
    let state = match findings.broken.as_slice() {
        [] if shown < receipts => format!("intact for the {shown} of {receipts} receipts shown"),
        [] if trained(findings).all(|log| log.closed) => "intact".to_string(),
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

pub(super) fn signer_line(findings: &Findings, judgement: &Judgement) -> SignerLine {
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
    let mut others: Vec<Address> = trained(findings).map(|log| log.worker).collect();
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
pub(super) fn outdated(findings: &Findings, judgement: &Judgement) -> Vec<String> {
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

pub(super) fn time_line(findings: &Findings, anchors: &[Anchored]) -> TimeLine {
    let receipts: u64 = trained(findings).map(|log| log.receipts).sum();
    // The largest recorded head of each log, among the anchors that `chosen` accepts.
    let cover = |chosen: &dyn Fn(&Anchored) -> bool| -> (u64, Option<(&Anchored, String)>) {
        let heads = trained(findings).filter_map(|log| {
            let own = anchors.iter().filter(|a| a.worker == log.worker && a.lane == log.lane && chosen(a));
            own.filter(|anchor| anchor.size <= log.receipts).max_by_key(|anchor| anchor.size)
        });
        let heads: Vec<&Anchored> = heads.collect();
        let chains: BTreeSet<&str> = heads.iter().map(|anchor| anchor.chain.as_str()).collect();
        let chains = chains.into_iter().collect::<Vec<_>>().join(" and ");
        let latest = heads.iter().copied().max_by_key(|anchor| anchor.block_time);
        (heads.iter().map(|anchor| anchor.size).sum(), latest.map(|latest| (latest, chains)))
    };
    let first = if trained(findings).count() == 1 { "first " } else { "" };
    let extent = |count: u64| match count == receipts {
        true => format!("all {receipts} receipts"),
        false => format!("{first}{count} of {receipts} receipts"),
    };
    let rest = |count: u64| if count == receipts { "" } else { "; the rest is not anchored" };
    let (covered, latest) = cover(&|anchor| anchor.is_dated() && !anchor.development);
    let line = match latest {
        Some((anchor, chains)) => {
            let time = utc(anchor.block_time);
            format!("{} existed by {time} on {chains}{}", extent(covered), rest(covered))
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
                format!("self-anchored: {} on {chains}{} ({reason})", extent(count), rest(count))
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

pub(super) fn transition_line(findings: &Findings, judgement: &Judgement) -> TransitionLine {
    let steps = findings.steps;
    let recipe_pinned =
        judgement.recipe.is_some_and(|pinned| pinned != Digest::ZERO && pinned == findings.recipe);
    let replayed = judgement.replayed.min(steps);
    let tolerated = judgement.tolerated.min(steps - replayed);
    let state = match judgement.mismatches.first() {
        Some(edge) => format!("refuted by replay at {}", edge.edge),
        // A recipe that nobody pinned could hand back what was recorded.
        None if replayed + tolerated > 0 && recipe_pinned => {
            let begins = if judgement.begins { ", from the state that the recipe makes" } else { "" };
            let exact = format!("replayed {replayed} of {steps} by you, bit-exact{begins}");
            let within = format!("within tolerance {tolerated} of {steps} by you");
            let hidden = format!("not seen: {}", judgement.not_seen.join("; "));
            match (replayed, tolerated) {
                (_, 0) => exact,
                (0, _) => format!("{within} ({hidden})"),
                _ => format!("{exact}; {within} ({hidden})"),
            }
        }
        _ if steps == 0 => "not checked: no step is shown".to_string(),
        _ => format!("structural ({})", weakest(findings.weakest.unwrap_or_default())),
    };
    let pinned = match judgement.recipe {
        Some(_) if recipe_pinned => "recipe pinned".to_string(),
        Some(pinned) => format!("the recipe is {}, not the pinned {pinned}", findings.recipe),
        None => "recipe unpinned".to_string(),
    };
    let mut line = format!("{state}; {pinned}");
    if findings.attested > 0 {
        let (attested, by) = (findings.attested, findings.attesting);
        line.push_str(&format!("; attested: {attested} steps by {by} others, unpinned"));
    }
    TransitionLine {
        replayed,
        tolerated,
        thresholds: judgement.thresholds,
        steps,
        begins: judgement.begins && recipe_pinned,
        attested: findings.attested,
        recipe_pinned,
        mismatches: judgement.mismatches.clone(),
        line,
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
