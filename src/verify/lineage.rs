//! From a checkpoint over its evaluations to a release, and from a release to answers.
//!
//! What the run's owner signs of these is part of the run: a link that does not hold is broken. Anybody else can join
//! and write what they like: that is counted as theirs, and refutes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::stated::{Named, Place, Stated};
use super::states::{body_of, opened_state};
use super::{Evidence, Findings};
use crate::commit::{Entry, State, leaf_hash};
use crate::evidence::{Log, Shown};
use crate::primitives::{Address, Digest};
use crate::receipt::Body;
use crate::receipt::schema::{CHECKPOINT, EVALUATION, OUTPUT, RELEASE};

/// A link that does not hold: which, what its other end demands, and what lies there.
type Broken = (String, String, String);

/// What came of following a link.
enum Link<T> {
    Holds(T),
    /// Its other end is not shown.
    NotShown,
    Broken(Broken),
}

/// What is said of one release.
#[derive(Default)]
struct Released {
    checkpoint: u64,
    /// None where they are withheld.
    evaluations: Option<u64>,
    /// Evaluators besides the owner.
    others: BTreeSet<Address>,
    answers: u64,
}

pub(super) fn check(stated: &[Stated], owner: Address, evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut refused: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    let mut fail = |said: &Stated, (edge, expected, actual): Broken, findings: &mut Findings| {
        let edge = format!("{}: {edge}", said.place);
        if said.by.0 == owner {
            findings.broken(edge, expected, actual);
        } else {
            refused.entry(said.body.kind().name).or_insert((0, edge)).0 += 1;
        }
    };
    let mut releases: BTreeMap<Digest, Released> = BTreeMap::new();
    for said in stated.iter().filter(|said| said.is(RELEASE)) {
        if said.by.0 != owner {
            let broken = ("worker".to_string(), owner.to_string(), said.by.0.to_string());
            fail(said, broken, findings);
            continue;
        }
        let (checkpoint, body) = match checkpoint(&said.body, "released", evidence) {
            Link::Holds((_, shown)) => (shown.receipt.digest, body_of(&shown)),
            Link::NotShown => {
                findings.undecided.push(format!("{}: the released checkpoint is not shown", said.place));
                continue;
            }
            Link::Broken(broken) => {
                fail(said, broken, findings);
                continue;
            }
        };
        let Some(body) = body.filter(|body| body.bytes32("parameters") != Digest::ZERO) else {
            let broken = ("checkpoint".into(), "one with parameters".into(), "one of files alone".into());
            fail(said, broken, findings);
            continue;
        };
        let evaluations = said.opened("evaluations", evidence);
        let is_shown = evaluations.is_some() || said.body.bytes32("evaluations") == Digest::ZERO;
        let mut released = Released {
            checkpoint: body.unsigned("step"),
            evaluations: is_shown.then_some(0),
            ..Released::default()
        };
        for entry in evaluations.iter().flat_map(State::entries) {
            match evaluation(entry, checkpoint, evidence) {
                Link::Holds(by) => {
                    released.evaluations = released.evaluations.map(|count| count + 1);
                    released.others.extend(Some(by).filter(|by| *by != owner));
                }
                Link::NotShown => {
                    findings.undecided.push(format!("{}: evaluation {} is not shown", said.place, entry.name))
                }
                Link::Broken(broken) => fail(said, broken, findings),
            }
        }
        releases.insert(said.body.digest(), released);
    }
    for said in stated.iter().filter(|said| said.is(EVALUATION)) {
        if let Link::Broken(broken) = checkpoint(&said.body, "evaluated", evidence) {
            fail(said, broken, findings);
        }
    }
    let mut loaded: BTreeMap<(Address, u32), (u64, Loaded)> = BTreeMap::new();
    let mut unbound = 0;
    for said in stated.iter().filter(|said| said.is(OUTPUT)) {
        let before = loaded.remove(&said.by).filter(|(position, _)| position + 1 == said.position);
        let before = before.map_or(Loaded::Nothing, |(_, before)| before);
        let found = match answered(said, owner, before, evidence) {
            Link::Holds(release) => {
                if let Some(released) = releases.get_mut(&release) {
                    released.answers += 1;
                }
                Loaded::Of(release)
            }
            Link::NotShown => {
                unbound += 1;
                Loaded::Unknown
            }
            Link::Broken(broken) => {
                fail(said, broken, findings);
                Loaded::Unknown
            }
        };
        loaded.insert(said.by, (said.position, found));
    }
    for released in releases.values() {
        let evaluations = released.evaluations.map_or_else(
            || "evaluations that are withheld".into(),
            |count| format!("{count} evaluations, by {} others", released.others.len()),
        );
        findings.of_lineage.push(format!(
            "the owner released the checkpoint of step {}, behind {evaluations}; {} answers are bound to it",
            released.checkpoint, released.answers,
        ));
    }
    if unbound > 0 {
        findings
            .of_lineage
            .push(format!("of {unbound} answers it is not shown from which weights they were made"));
    }
    for (kind, (count, first)) in refused {
        findings.of_lineage.push(format!(
            "{count} receipts ({kind}) by others than the owner do not count; the first: {first}"
        ));
    }
}

/// The receipt of this kind that stands at a place under this digest.
fn follow<'a>(
    place: Place,
    kind: u16,
    is_named: impl Fn(&Digest) -> bool,
    expected: String,
    edge: String,
    evidence: &Evidence<'a>,
) -> Link<(&'a Log, Box<Shown>)> {
    let has_log = evidence.logs.iter().any(|log| place.is_in(log));
    match place.find(kind, is_named, evidence) {
        Named::Receipt(log, shown) => Link::Holds((log, shown)),
        Named::NotShown => Link::NotShown,
        Named::Nothing if !has_log => Link::NotShown,
        Named::Nothing => Link::Broken((edge, expected, format!("another receipt, or none, at {place}"))),
    }
}

fn checkpoint<'a>(body: &Body, prefix: &str, evidence: &Evidence<'a>) -> Link<(&'a Log, Box<Shown>)> {
    let (place, digest) = (Place::named(body, prefix), body.bytes32("receipt"));
    let expected = format!("the checkpoint receipt {digest}");
    let edge = "checkpoint".to_string();
    follow(place, CHECKPOINT, |found| *found == digest, expected, edge, evidence)
}

/// Who evaluated, if an entry of a release names an evaluation of this checkpoint.
fn evaluation(entry: &Entry, checkpoint: Digest, evidence: &Evidence<'_>) -> Link<Address> {
    let edge = format!("evaluations <- {}", entry.name);
    let Some(place) = Place::parse(&entry.name) else {
        return Link::Broken((edge, "<worker>/<lane>/<sequence>".into(), entry.name.clone()));
    };
    // An entry's root over 32 bytes is the hash of one leaf.
    let is_named = |found: &Digest| leaf_hash(&found.0) == entry.root();
    let expected = "the evaluation receipt of which the entry is".to_string();
    match follow(place, EVALUATION, is_named, expected, edge.clone(), evidence) {
        Link::Holds((_, shown)) => match body_of(&shown).map(|body| body.bytes32("receipt")) {
            Some(of) if of == checkpoint => Link::Holds(place.worker),
            of => Link::Broken((
                edge,
                format!("an evaluation of the checkpoint {checkpoint}"),
                of.map_or_else(|| "none".into(), |of| format!("of {of}")),
            )),
        },
        Link::NotShown => Link::NotShown,
        Link::Broken(broken) => Link::Broken(broken),
    }
}

/// The weights from which the answer directly before was made.
enum Loaded {
    /// There is no answer directly before, or none is shown.
    Nothing,
    /// Those of this release.
    Of(Digest),
    /// Others than it says, or nothing tells.
    Unknown,
}

/// The release from which an answer was made. One without parameters was made with those of the answer before it.
fn answered(said: &Stated, owner: Address, before: Loaded, evidence: &Evidence<'_>) -> Link<Digest> {
    let (place, release) = (Place::named(&said.body, "release"), said.body.bytes32("receipt"));
    let expected = format!("the release receipt {release}");
    let (_, shown) =
        match follow(place, RELEASE, |found| *found == release, expected, "release".into(), evidence) {
            Link::Holds(found) => found,
            Link::NotShown => return Link::NotShown,
            Link::Broken(broken) => return Link::Broken(broken),
        };
    if place.worker != owner {
        return Link::Broken(("release".into(), format!("a release by {owner}"), place.worker.to_string()));
    }
    if said.body.bytes32("parameters") == Digest::ZERO {
        return match before {
            Loaded::Of(before) if before == release => Link::Holds(release),
            Loaded::Unknown => Link::NotShown,
            Loaded::Nothing if !is_whole(said, evidence) => Link::NotShown,
            _ => Link::Broken((
                "parameters".into(),
                "those of the answer before, of the same release, or its own".into(),
                "none".into(),
            )),
        };
    }
    let released = body_of(&shown).map(|body| checkpoint(&body, "released", evidence));
    let Some(Link::Holds((log, shown))) = released else { return Link::NotShown };
    let theirs = opened_state(log, &shown, "parameters");
    let Some((ours, theirs)) = said.opened("parameters", evidence).zip(theirs) else { return Link::NotShown };
    match theirs.first_difference(&ours) {
        None => Link::Holds(release),
        Some((tensor, expected, actual)) => {
            let root = |entry: Option<&Entry>| {
                entry.map_or("no such tensor".into(), |entry| entry.root().to_string())
            };
            Link::Broken((
                format!("parameters <- the released checkpoint: {tensor:?}"),
                root(expected),
                root(actual),
            ))
        }
    }
}

/// Whether all receipts of its log are shown.
fn is_whole(said: &Stated, evidence: &Evidence<'_>) -> bool {
    let log = evidence.logs.iter().find(|log| (log.worker, log.lane) == said.by);
    log.is_some_and(|log| log.shown() as u64 == log.size())
}
