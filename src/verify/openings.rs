//! Opened fields against signed digests, and stored objects against opened roots.

use super::specification::Specification;
use super::{Evidence, Findings};
use crate::evidence::{FieldOpening, Log, Opened};
use crate::primitives::Digest;
use crate::receipt::schema::{self, Field, Meaning};
use crate::receipt::{Body, Receipt, Value};

/// Checks what the journal opens of one receipt.
pub(super) fn check_openings(
    log: &Log,
    receipt: &Receipt,
    body: &Body,
    specification: &Specification,
    evidence: &Evidence<'_>,
    place: &str,
    findings: &mut Findings,
) {
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
                if let Some(opened) = check_field(log, opening, field, digest, is_public, &place, findings)
                    && body.kind().number == schema::CHECKPOINT
                {
                    check_objects(&opened, evidence, &place, findings);
                }
            }
        }
    }
    if let Some(stray) = openings.iter().find(|opening| {
        let field = body.kind().fields.get(usize::from(opening.index));
        field.is_none_or(|field| field.meaning != Meaning::Commitment)
    }) {
        findings.broken(format!("{place}: opening"), "a commitment field", format!("field {}", stray.index));
    }
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
    let opened = match log.open(opening) {
        Ok(opened) => opened,
        Err(error) => {
            findings.broken(format!("{place} <- opening"), format!("the state behind {}", field.name), error);
            return None;
        }
    };
    let blind = &opening.blind;
    let is_plain = blind.blind == Digest::ZERO && blind.entry_key().is_none();
    if is_plain != is_public {
        let expected = if is_public { "public, as the specification says" } else { "blinded" };
        findings.broken(
            format!("{place}: blind"),
            expected,
            if is_plain { "not blinded" } else { "blinded" },
        );
    }
    let commitment = blind.entry_key().map_or(opened.state.commitment(), |key| opened.state.blinded(key));
    let actual = commitment.digest(&blind.blind);
    if actual != digest {
        findings.broken(format!("{place} <- opening"), digest, actual);
        return None;
    }
    Some(opened)
}

/// Every tensor of a checkpoint whose bytes are stored must be the one that was signed.
fn check_objects(opened: &Opened, evidence: &Evidence<'_>, place: &str, findings: &mut Findings) {
    if opened.values.is_some() {
        return;
    }
    for entry in opened.state.entries().iter().filter(|entry| entry.is_dense()) {
        match (evidence.object_root)(&entry.root()) {
            None => *findings.missing.entry("object".into()).or_default() += 1,
            Some(actual) if actual == entry.root() => {}
            Some(actual) => {
                findings.broken(format!("{place} {:?} <- object", entry.name), entry.root(), actual)
            }
        }
    }
}
