//! Verdicts in the form in which the tests compare them.

use crate::builder::*;
use crate::built::*;
use counterfoil::evidence::BundleError;
use counterfoil::evidence::bundle::{Manifest, Part, PartKind, log_name};
use counterfoil::primitives::{Digest, sha256};
use counterfoil::receipt::Body;
use counterfoil::verify::{Confirmed, Judgement, Standing, Status, Verdict, unconfirmed};

pub(crate) type Ends = (String, String, String);

pub(crate) fn edge(place: &str, expected: impl ToString, actual: impl ToString) -> Ends {
    (place.into(), expected.to_string(), actual.to_string())
}

/// The edges of a verdict, which is refuted when there is one.
pub(crate) fn edges_of(verdict: &Verdict) -> Vec<Ends> {
    let broken = &verdict.integrity.broken;
    assert_eq!(verdict.integrity.intact, broken.is_empty());
    assert_eq!(verdict.status == Status::Refuted, !broken.is_empty(), "{verdict:#?}");
    broken.iter().map(|edge| (edge.edge.clone(), edge.expected.clone(), edge.actual.clone())).collect()
}

pub(crate) fn edges(built: &Built) -> Vec<Ends> {
    edges_of(&built.verdict())
}

/// The edges of a run of these items behind genesis and join.
pub(crate) fn of<const N: usize>(drafts: [Draft; N]) -> Vec<Ends> {
    edges(&Run::of(drafts.map(Draft::item)).build())
}

pub(crate) fn step_place(position: u64, number: u64, what: &str) -> String {
    format!("ledger: receipt {position} (step {number}): {what}")
}

/// A policy of the floor's cadences, but for these.
pub(crate) fn policy(first_step: u64, cadences: &[(&'static str, u64)]) -> Draft {
    let floor =
        [("firstStep", first_step), ("gradientsEvery", 1), ("parametersEvery", 2), ("checkpointEvery", 2)];
    Draft::new("policy", &[floor.as_slice(), cadences].concat())
}

/// A run whose first step is signed by the session key under a delegation of these words.
pub(crate) fn delegated(words: &[(&'static str, u64)]) -> (Run, Body) {
    let mut run = Run::of([]);
    let body = run.delegation(OWNER, 0, words);
    run.items().insert(0, Item::Delegation(body.clone(), OWNER));
    run.items().push(step(1).by(SESSION, &body).item());
    (run, body)
}

pub(crate) const EXPIRES: u64 = 1_700_000_000;

pub(crate) fn said(time: u64, is_confirmed: bool, development: bool) -> Confirmed {
    Confirmed {
        chain: "chain 1".into(),
        standing: if is_confirmed { Standing::Held } else { Standing::Unconfirmed },
        development,
        block_time: time,
    }
}

pub(crate) fn at(now: u64) -> Judgement {
    Judgement { now: Some(now), ..integrity() }
}

pub(crate) fn complete() -> Built {
    Run::complete().build().anchored(0, 3)
}

/// A run with more steps, a checkpoint and its object, heads and two anchors.
pub(crate) fn rich() -> Built {
    let mut run = Run::short();
    run.recipe.insert("recipe.py".into(), b"step".to_vec());
    run.items().insert(5, head());
    run.items().push(head());
    run.build().anchored(0, 5).anchored(0, 7)
}

pub(crate) fn judge(bytes: &[u8]) -> Result<Verdict, BundleError> {
    verify_bundle(bytes, &integrity(), &unconfirmed)
}

/// Edges of a refuted bundle.
pub(crate) fn bundle_edges(bytes: &[u8]) -> Vec<Ends> {
    let verdict = judge(bytes).unwrap();
    assert_eq!(verdict.status == Status::Refuted, !verdict.integrity.broken.is_empty());
    let edges = verdict.integrity.broken.into_iter();
    edges.map(|edge| (edge.edge, edge.expected, edge.actual)).collect()
}

pub(crate) fn damaged(place: &str, expected: impl ToString, actual: impl ToString) -> BundleError {
    let (expected, actual) = (expected.to_string(), actual.to_string());
    BundleError::Damaged { place: place.into(), expected, actual }
}

/// The error of a container.
pub(crate) fn refusal(bytes: &[u8]) -> BundleError {
    judge(bytes).expect_err("a container that is not exactly one bundle")
}

/// The edge of a log whose frames are refused.
pub(crate) fn log_edge(detail: &str) -> (String, String, String) {
    edge(&format!("bundle: log {}", log_name(address(OWNER), 0)), "what was written", detail)
}

/// The bundle of a run whose log holds these bytes.
pub(crate) fn with_log(built: &Built, log: Vec<u8>) -> Vec<u8> {
    let mut parts = built.parts();
    parts.iter_mut().filter(|part| part.0 == PartKind::Log).for_each(|part| part.2 = log.clone());
    pack(built.run, &parts, MAKER)
}

pub(crate) fn log_refusal(built: &Built, frames: &[Vec<u8>]) -> (String, String, String) {
    bundle_edges(&with_log(built, framed(frames))).remove(0)
}

pub(crate) fn manifest_of(parts: &[PartBytes], run: Digest) -> Manifest {
    let part = |(kind, name, bytes): &PartBytes| Part {
        kind: *kind,
        name: name.clone(),
        size: bytes.len() as u64,
        digest: sha256(&[bytes]),
    };
    Manifest { run, maker: address(MAKER), parts: parts.iter().map(part).collect() }
}
