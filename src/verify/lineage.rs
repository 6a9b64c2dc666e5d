//! From a checkpoint over its evaluations to a release, and from a release to answers.
//!
//! What the run's owner signs of these is part of the run: a link that does not hold is broken. Anybody else can join
//! and write what they like: that is counted as theirs, and refutes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::stated::{Named, Place, Stated};
use super::states::{body_of, opened_state};
use super::{Evidence, Findings};
use crate::commit::{Content, Entry, State, leaf_hash};
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
struct Released {
    /// In words.
    checkpoint: String,
    /// The released weights; none when they are withheld.
    parameters: Option<State>,
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
    let said_by = |said: &Stated| Said { by: said.by.0, owner, evidence };
    let mut releases: BTreeMap<Digest, Released> = BTreeMap::new();
    for said in stated.iter().filter(|said| said.is(RELEASE)) {
        if said.by.0 != owner {
            let broken = ("worker".to_string(), owner.to_string(), said.by.0.to_string());
            fail(said, broken, findings);
            continue;
        }
        let (parameters, checkpoint) = match checkpoint(&said.body, "released", &said_by(said)) {
            Link::Holds((log, shown)) => {
                (opened_state(log, &shown, "parameters"), body_of(&shown).map(|body| (shown, body)))
            }
            Link::NotShown => {
                findings.undecided.push(format!("{}: the released checkpoint is not shown", said.place));
                continue;
            }
            Link::Broken(broken) => {
                fail(said, broken, findings);
                continue;
            }
        };
        let has_weights = |(_, body): &(Box<Shown>, Body)| body.bytes32("parameters") != Digest::ZERO;
        let Some((_, body)) = checkpoint.filter(has_weights) else {
            let broken = ("checkpoint".into(), "one with parameters".into(), "one of files alone".into());
            fail(said, broken, findings);
            continue;
        };
        let evaluations = said.opened("evaluations", evidence);
        let is_shown = evaluations.is_some() || said.body.bytes32("evaluations") == Digest::ZERO;
        let of = Place::named(&said.body, "released");
        let mut released = Released {
            checkpoint: format!("step {} (receipt {of})", body.unsigned("step")),
            parameters,
            evaluations: is_shown.then_some(0),
            others: BTreeSet::new(),
            answers: 0,
        };
        let mut not_shown = Vec::new();
        for entry in evaluations.iter().flat_map(State::entries) {
            match evaluation(entry, &said.body, &said_by(said)) {
                Link::Holds(by) => {
                    released.evaluations = released.evaluations.map(|count| count + 1);
                    released.others.extend(Some(by).filter(|by| *by != owner));
                }
                Link::NotShown => not_shown.push(&entry.name),
                Link::Broken(broken) => fail(said, broken, findings),
            }
        }
        if let Some(first) = not_shown.first() {
            let (place, count) = (&said.place, not_shown.len());
            findings
                .undecided
                .push(format!("{place}: {count} of its evaluations are not shown; the first: {first}"));
        }
        releases.insert(said.body.digest(), released);
    }
    for said in stated.iter().filter(|said| said.is(EVALUATION)) {
        if let Link::Broken(broken) = checkpoint(&said.body, "evaluated", &said_by(said)) {
            fail(said, broken, findings);
        }
    }
    let mut loaded: BTreeMap<(Address, u32), (u64, Loaded)> = BTreeMap::new();
    let mut unbound = 0;
    for said in stated.iter().filter(|said| said.is(OUTPUT)) {
        // Between two answers others may be withheld.
        let before = loaded.remove(&said.by);
        let before = before.filter(|(at, _)| at + 1 == said.position || is_whole(said, evidence));
        let before = before.map_or(Loaded::Nothing, |(_, before)| before);
        let release = releases.get(&said.body.bytes32("receipt"));
        let weights = release.and_then(|release| release.parameters.as_ref());
        let found = match answered(said, &said_by(said), before, weights) {
            Link::Holds(release) => {
                if let Some(released) = releases.get_mut(&release) {
                    released.answers += u64::from(said.by.0 == owner);
                }
                Loaded::Of(release)
            }
            Link::NotShown => {
                unbound += u64::from(said.by.0 == owner);
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
            "the owner released the checkpoint of {}, behind {evaluations}; {} answers are bound to it",
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
    said: &Said<'_, 'a>,
) -> Link<(&'a Log, Box<Shown>)> {
    let named = match said.by == said.owner {
        true => place.named_by(said.owner, kind, is_named, said.evidence),
        false => place.find(kind, is_named, said.evidence),
    };
    match named {
        Named::Receipt(log, shown) => Link::Holds((log, shown)),
        Named::NotShown => Link::NotShown,
        Named::Nothing => Link::Broken((edge, expected, format!("another receipt, or none, at {place}"))),
    }
}

/// Who says something, of a run of which owner.
#[derive(Clone, Copy)]
struct Said<'e, 'a> {
    by: Address,
    owner: Address,
    evidence: &'e Evidence<'a>,
}

fn checkpoint<'a>(body: &Body, prefix: &str, said: &Said<'_, 'a>) -> Link<(&'a Log, Box<Shown>)> {
    let (place, digest) = (Place::named(body, prefix), body.bytes32("receipt"));
    let expected = format!("the checkpoint receipt {digest}");
    follow(place, CHECKPOINT, |found| *found == digest, expected, "checkpoint".into(), said)
}

/// Who evaluated, if an entry of a release names an evaluation of the same checkpoint.
fn evaluation(entry: &Entry, release: &Body, said: &Said<'_, '_>) -> Link<Address> {
    let edge = format!("evaluations <- {}", entry.name);
    let Some(place) = Place::parse(&entry.name) else {
        return Link::Broken((edge, "<worker>/<lane>/<sequence>".into(), entry.name.clone()));
    };
    // An entry's root over 32 bytes is the hash of one leaf.
    let is_named = |found: &Digest| leaf_hash(&found.0) == entry.root();
    let expected = "the evaluation receipt of which the entry is".to_string();
    let shown = match follow(place, EVALUATION, is_named, expected, edge.clone(), said) {
        Link::Holds((_, shown)) => shown,
        Link::NotShown => return Link::NotShown,
        Link::Broken(broken) => return Link::Broken(broken),
    };
    let Some(body) = body_of(&shown) else { return Link::NotShown };
    let (ours, theirs) = (Place::named(release, "released"), Place::named(&body, "evaluated"));
    let (receipt, of) = (release.bytes32("receipt"), body.bytes32("receipt"));
    if (ours, receipt) != (theirs, of) {
        let told = |place: Place, digest: Digest| format!("an evaluation of {digest} at {place}");
        return Link::Broken((edge, told(ours, receipt), told(theirs, of)));
    }
    match ["heldOut", "metrics"].into_iter().find(|field| body.bytes32(field) == Digest::ZERO) {
        Some(field) => Link::Broken((edge, format!("an evaluation with {field}"), "none".into())),
        None => Link::Holds(place.worker),
    }
}

/// The weights from which the answer before was made.
enum Loaded {
    /// There is no answer before, or none is shown.
    Nothing,
    /// Those of this release.
    Of(Digest),
    /// Others than it says, or nothing tells.
    Unknown,
}

/// The release from which an answer was made. One without parameters was made with those of the answer before it.
fn answered(said: &Stated, by: &Said<'_, '_>, before: Loaded, released: Option<&State>) -> Link<Digest> {
    let Said { owner, evidence, .. } = *by;
    let (place, release) = (Place::named(&said.body, "release"), said.body.bytes32("receipt"));
    let expected = format!("the release receipt {release}");
    match follow(place, RELEASE, |found| *found == release, expected, "release".into(), by) {
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
    let Some(theirs) = released else { return Link::NotShown };
    let Some(ours) = said.opened("parameters", evidence) else { return Link::NotShown };
    for name in theirs.entries().iter().chain(ours.entries()).map(|entry| &entry.name) {
        let (expected, actual) = (tensor(theirs, name), tensor(&ours, name));
        let is_whole =
            |entry: Option<&Entry>| entry.is_none_or(|entry| entry.is_dense() || !entry.has_root());
        if expected.map(contents) == actual.map(contents) {
            continue;
        }
        if is_whole(expected) != is_whole(actual) {
            return Link::NotShown;
        }
        let root =
            |entry: Option<&Entry>| entry.map_or("no such tensor".into(), |entry| entry.root().to_string());
        let edge = format!("parameters <- the released checkpoint: {name:?}");
        return Link::Broken((edge, root(expected), root(actual)));
    }
    Link::Holds(release)
}

/// A tensor, whatever it is called.
fn contents(entry: &Entry) -> (Option<(&'static str, &[u64])>, Digest) {
    (entry.measured(), entry.root())
}

/// What stands under a name. Weights that are tied in one model may be loaded untied: an alias is what it points to.
fn tensor<'a>(state: &'a State, name: &str) -> Option<&'a Entry> {
    let find = |name: &str| {
        let at = state.entries().binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes()));
        at.ok().and_then(|at| state.entries().get(at))
    };
    match find(name) {
        Some(Entry { content: Content::Alias { target }, .. }) => find(target),
        found => found,
    }
}

/// Whether all receipts of its log are shown.
fn is_whole(said: &Stated, evidence: &Evidence<'_>) -> bool {
    let log = evidence.logs.iter().find(|log| (log.worker, log.lane) == said.by);
    log.is_some_and(|log| log.shown() as u64 == log.size())
}
