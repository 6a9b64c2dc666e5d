//! Opened fields against signed digests, and stored objects against opened roots.

use super::specification::Specification;
use super::{Evidence, Findings};
use crate::commit::State;
use crate::evidence::{FieldOpening, Log, Opened, OpeningError};
use crate::primitives::Digest;
use crate::receipt::schema::{self, Field, Meaning};
use crate::receipt::{Body, Receipt, Value};

/// Fields of a step and of a checkpoint that describe one state, stored with the checkpoint.
pub(super) const STATE: [&str; 3] = ["parameters", "optimizer", "buffers"];

/// What a receipt opens, by the field's name.
pub(super) type States = Vec<(&'static str, State)>;

/// Checks what the journal opens of one receipt, and returns it.
pub(super) fn check_openings(
    log: &Log,
    receipt: &Receipt,
    body: &Body,
    specification: &Specification,
    evidence: &Evidence<'_>,
    place: &str,
    findings: &mut Findings,
) -> States {
    let mut found = Vec::new();
    let openings = log.openings(&receipt.digest);
    let own = body.fields().skip(schema::HEADER.len());
    for (index, (field, value)) in own.enumerate() {
        let (Meaning::Commitment, Value::Digest(digest)) = (field.meaning, value) else { continue };
        let opening = openings.iter().find(|opening| usize::from(opening.index) == index);
        match opening {
            None if digest == Digest::ZERO => {}
            None => *findings.missing.entry("opening".into()).or_default() += 1,
            Some(opening) => {
                let place = format!("{place}: {}", field.name);
                let is_public = specification.is_public(body.kind(), field.name);
                let opened = check_field(log, opening, field, digest, is_public, &place, findings);
                let Some(opened) = opened else { continue };
                if body.kind().number == schema::CHECKPOINT && STATE.contains(&field.name) {
                    check_objects(&opened, evidence, &place, findings);
                }
                found.push((field.name, opened.state));
            }
        }
    }
    if let Some(stray) = openings.iter().find(|opening| {
        let field = body.kind().fields.get(usize::from(opening.index));
        field.is_none_or(|field| field.meaning != Meaning::Commitment)
    }) {
        findings.broken(format!("{place}: opening"), "a commitment field", format!("field {}", stray.index));
    }
    found
}

fn check_field(
    log: &Log,
    opening: &FieldOpening,
    field: &Field,
    digest: Digest,
    is_public: bool,
    place: &str,
    findings: &mut Findings,
) -> Option<Opened> {
    let opened = match log.open(opening, digest) {
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
    let blind = &opening.blind;
    let blinded = [blind.blind, blind.entry_key].map(|part| part != Digest::ZERO);
    if blinded != [!is_public; 2] {
        let expected = if is_public { "public, as the specification says" } else { "blinded" };
        let actual = if blinded == [false; 2] { "not blinded" } else { "blinded in part or in whole" };
        findings.broken(format!("{place}: blind"), expected, actual);
    }
    if opened.state.entries().is_empty() && ["gradients", "parameters"].contains(&field.name) {
        findings.broken(place.to_string(), "at least one tensor", "an empty state");
    }
    Some(opened)
}

/// Every tensor of a checkpoint whose bytes are stored must be the one that was signed.
fn check_objects(opened: &Opened, evidence: &Evidence<'_>, place: &str, findings: &mut Findings) {
    if opened.values.is_some() {
        return;
    }
    for entry in opened.state.entries().iter().filter(|entry| entry.has_root()) {
        // No object holds a tensor in blocks.
        match entry.is_dense().then(|| (evidence.object_root)(entry)).flatten() {
            None => *findings.missing.entry("object".into()).or_default() += 1,
            Some(actual) if actual == entry.root() => {}
            Some(actual) => {
                findings.broken(format!("{place} {:?} <- object", entry.name), entry.root(), actual)
            }
        }
    }
}
