//! Opened fields against signed digests, and stored objects against opened roots.

use std::collections::BTreeMap;

use super::prepared::Prepared;
use super::specification::Specification;
use super::updates::is_from_checkpoint;
use super::{Evidence, Findings};
use crate::commit::{Entry, State};
use crate::evidence::{Opened, OpeningError, PartOpening};
use crate::primitives::Digest;
use crate::receipt::schema::{self, Field, Meaning};
use crate::receipt::{Body, Value};

/// Fields of a step and of a checkpoint that describe one state, stored with the checkpoint.
pub(super) const STATE: [&str; 3] = ["parameters", "optimizer", "buffers"];

/// What a receipt opens, by the field's name.
pub(super) type States = Vec<(&'static str, State)>;

/// Checks what is opened of one receipt, and returns the states that are opened as a whole.
pub(super) fn check_openings(
    prepared: &Prepared,
    body: &Body,
    specification: &Specification,
    evidence: &Evidence<'_>,
    place: &str,
    findings: &mut Findings,
) -> States {
    let mut found = Vec::new();
    let own = body.fields().skip(schema::HEADER.len());
    for (index, (field, value)) in own.enumerate() {
        let (Meaning::Commitment, Value::Digest(digest)) = (field.meaning, value) else { continue };
        let place = format!("{place}: {}", field.name);
        let is_public = specification.is_public(body.kind(), field.name);
        let whole = prepared.opened.iter().find(|(at, _)| usize::from(*at) == index);
        let mut parts = prepared.parts.iter().filter(|part| usize::from(part.index) == index).peekable();
        match whole {
            None if digest == Digest::ZERO => {}
            None if parts.peek().is_some() => *findings.missing.entry("sibling").or_default() += 1,
            None => *findings.missing.entry("opening").or_default() += 1,
            Some((_, opened)) => {
                let Some(opened) = check_field(opened, field, is_public, &place, findings) else { continue };
                if body.kind().number == schema::CHECKPOINT {
                    // What else a checkpoint speaks of, files for instance, need not be stored with it.
                    let is_needed = STATE.contains(&field.name);
                    check_objects(opened, is_needed, evidence, &place, findings);
                }
                found.push((field.name, opened.state.clone()));
            }
        }
        let mut names = BTreeMap::new();
        for part in parts {
            let Some((name, position)) = check_part(part, digest, is_public, evidence, &place, findings)
            else {
                continue;
            };
            // A state that its maker committed with one name twice must not show both.
            if *names.entry(name.clone()).or_insert(position) != position {
                findings.broken(format!("{place} {name:?}"), "one tensor of this name", "two");
            }
        }
    }
    if body.kind().number == schema::STEP && is_from_checkpoint(&found) {
        // What is stored of such a step.
        for (name, state) in found.iter().filter(|(name, _)| ["gradients", "parameters"].contains(name)) {
            for tensor in state.entries().iter().filter(|entry| entry.is_dense()) {
                check_object(tensor, evidence, &format!("{place}: {name}"), findings);
            }
        }
    }
    if let Some(stray) = prepared.indexes.iter().find(|index| {
        let field = body.kind().fields.get(usize::from(**index));
        field.is_none_or(|field| field.meaning != Meaning::Commitment)
    }) {
        findings.broken(format!("{place}: opening"), "a commitment field", format!("field {stray}"));
    }
    let order = |part: &PartOpening| {
        let opening = &part.opening;
        (part.index, opening.entry.as_ref().map(|e| e.index), opening.chunk.as_ref().map(|c| c.index))
    };
    if !prepared.parts.is_sorted_by(|one, next| order(one) < order(next)) {
        findings.broken(format!("{place}: openings of tensors"), "each once, in order", "another order");
    }
    found
}

fn check_blind([blind, entry]: [bool; 2], is_public: bool, place: &str, findings: &mut Findings) {
    if [blind, entry] != [!is_public; 2] {
        let expected = if is_public { "public, as the specification says" } else { "blinded" };
        let actual = if blind || entry { "blinded in part or in whole" } else { "not blinded" };
        findings.broken(format!("{place}: blind"), expected, actual);
    }
}

fn check_field<'a>(
    opened: &'a Result<Opened, OpeningError>,
    field: &Field,
    is_public: bool,
    place: &str,
    findings: &mut Findings,
) -> Option<&'a Opened> {
    let opened = match opened {
        Ok(opened) => opened,
        Err(OpeningError::Digest { expected, actual }) => {
            findings.broken(format!("{place} <- opening"), expected, actual);
            return None;
        }
        Err(error) => {
            findings.broken(format!("{place} <- opening"), format!("the state behind {}", field.name), error);
            return None;
        }
    };
    let blind = &opened.field.blind;
    check_blind([blind.blind, blind.entry_key].map(|part| part != Digest::ZERO), is_public, place, findings);
    if opened.state.entries().is_empty() && ["gradients", "parameters"].contains(&field.name) {
        findings.broken(place.to_string(), "at least one tensor", "an empty state");
    }
    Some(opened)
}

/// One tensor, or one chunk of it, against the digest of its field; returns its name and position.
fn check_part(
    part: &PartOpening,
    digest: Digest,
    is_public: bool,
    evidence: &Evidence<'_>,
    place: &str,
    findings: &mut Findings,
) -> Option<(String, u64)> {
    let entry = match part.opening.verify(&digest, &part.blind) {
        Ok(entry) => entry,
        Err(error) => {
            findings.broken(format!("{place} <- opening of a tensor"), digest, error);
            return None;
        }
    };
    let Some((entry, opened)) = entry.zip(part.opening.entry.as_ref()) else {
        findings.broken(format!("{place} <- opening of a tensor"), "a tensor of a state", "bytes");
        return None;
    };
    check_blind([part.blind != Digest::ZERO, opened.blind.is_some()], is_public, place, findings);
    if entry.is_dense() {
        check_object(&entry, evidence, place, findings);
    }
    Some((entry.name, opened.index))
}

/// Every tensor of a checkpoint whose bytes are stored must be the one that was signed.
fn check_objects(
    opened: &Opened,
    is_needed: bool,
    evidence: &Evidence<'_>,
    place: &str,
    findings: &mut Findings,
) {
    if opened.values.is_some() {
        return;
    }
    for entry in opened.state.entries().iter().filter(|entry| entry.has_root()) {
        // No object holds a tensor in blocks.
        let is_stored = entry.is_dense() && check_object(entry, evidence, place, findings);
        if is_needed && !is_stored {
            *findings.missing.entry("object").or_default() += 1;
        }
    }
}

/// What is stored for a tensor, if anything is, must be the tensor; returns whether something is.
fn check_object(entry: &Entry, evidence: &Evidence<'_>, place: &str, findings: &mut Findings) -> bool {
    match (evidence.object_root)(entry) {
        None => return false,
        Some(actual) if actual == entry.root() => {}
        Some(actual) => findings.broken(format!("{place} {:?} <- object", entry.name), entry.root(), actual),
    }
    true
}
