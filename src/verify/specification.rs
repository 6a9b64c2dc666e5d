//! `spec.json`: what the owner pinned when the run began, bound by the run's identity.

use std::collections::{BTreeMap, BTreeSet};

use super::{CADENCES, Cadences, Evidence, Findings};
use crate::primitives::{Digest, Report, sha256};
use crate::receipt::schema::{self, Kind, Meaning};
use crate::receipt::{Body, recover, run_id};

/// Largest `spec.json`, bytes.
const MAX_SPECIFICATION: usize = 1 << 20;

/// The parts of `spec.json` that verification reads; the rest is the owner's.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Specification {
    /// `<kind>.<field>` of every field that is not blinded.
    #[serde(default)]
    pub public: BTreeSet<String>,
    /// The floor below which no policy may go.
    #[serde(default)]
    policy: BTreeMap<String, u32>,
}

/// Why a specification cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.json: {detail}")]
pub struct SpecificationError {
    detail: String,
}

impl Report for SpecificationError {
    fn code(&self) -> &'static str {
        "invalid-input"
    }

    fn place(&self) -> Option<String> {
        Some("spec.json".into())
    }
}

impl Specification {
    /// Reads the bytes of `spec.json`.
    ///
    /// # Errors
    /// [`SpecificationError`] when they are no JSON object, name an unknown cadence or field, or
    /// are larger than 1 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Specification, SpecificationError> {
        let refused = |detail: String| SpecificationError { detail };
        if bytes.len() > MAX_SPECIFICATION {
            return Err(refused(format!("{} bytes, at most {MAX_SPECIFICATION} are read", bytes.len())));
        }
        // serde reads a list as a structure too, field by field.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(refused("no JSON object".into()));
        }
        let unreadable = |error: serde_json::Error| {
            refused(format!("no specification, line {} column {}", error.line(), error.column()))
        };
        // What is passed over by name may be nested without end, and every later reader would have to cope with it.
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(unreadable)?;
        let parsed: Specification = serde_json::from_slice(bytes).map_err(unreadable)?;
        if let Some(name) = parsed.policy.keys().find(|name| !CADENCES.contains(&name.as_str())) {
            return Err(refused(format!("policy names {name:?}, expected one of {CADENCES:?}")));
        }
        let is_field = |path: &String| {
            let (kind, field) = path.split_once('.')?;
            let kind = Kind::from_name(kind)?;
            kind.fields.iter().find(|known| known.name == field && known.meaning == Meaning::Commitment)
        };
        if let Some(path) = parsed.public.iter().find(|path| is_field(path).is_none()) {
            return Err(refused(format!(
                "public names {path:?}, which is no commitment field <kind>.<field>"
            )));
        }
        Ok(parsed)
    }

    /// The floor.
    pub fn floor(&self) -> Cadences {
        Cadences(CADENCES.map(|name| self.policy.get(name).copied().unwrap_or(0)))
    }

    /// Whether a field of a kind is not blinded.
    pub fn is_public(&self, kind: &Kind, field: &str) -> bool {
        self.public.contains(&format!("{}.{field}", kind.name))
    }
}

/// The genesis receipt of a run, after the checks that need no log.
pub(super) struct Genesis {
    pub(super) body: Body,
    pub(super) digest: Digest,
}

/// Finds genesis and checks what it binds: the specification, the run id, the floor, the recipe.
pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) -> Option<(Specification, Genesis)> {
    let mut firsts = evidence.logs.iter().filter_map(|log| Some(log.at(0).ok()??.receipt));
    let kind = Kind::from_number(schema::GENESIS).expect("genesis is implemented");
    let Some(receipt) = firsts.find(|receipt| receipt.kind == schema::GENESIS) else {
        findings.broken("run: genesis".into(), "a genesis receipt first in the owner's lane 0", "none");
        return None;
    };
    let body = match Body::decode(kind, &receipt.body) {
        Ok(body) => body,
        Err(error) => {
            findings.broken("genesis: body".into(), "a body of GenesisV1", error);
            return None;
        }
    };
    let owner = body.address("owner");
    // An owner who did not sign genesis owns nothing.
    let signed = recover(receipt.digest, &receipt.signature) == Ok(owner) && body.digest() == receipt.digest;
    findings.owner = signed.then_some(owner);
    findings.run = body.bytes32("run");
    findings.recipe = body.bytes32("recipe");
    let pinned = body.bytes32("specification");
    let actual = sha256(&[evidence.specification]);
    if pinned != actual {
        findings.broken("genesis -> spec.json".into(), pinned, actual);
    }
    let run = run_id(owner, pinned, body.unsigned("flags"), body.bytes32("nonce"));
    if findings.run != run {
        findings.broken("genesis: run id".into(), run, findings.run);
    }
    if owner != body.address("worker") {
        findings.broken("genesis: owner".into(), body.address("worker"), owner);
    }
    let recipe =
        evidence.recipe.as_ref().map_or(Digest::ZERO, |state| state.commitment().digest(&Digest::ZERO));
    if findings.recipe != recipe {
        findings.broken("genesis -> recipe/".into(), findings.recipe, recipe);
    }
    let specification = match Specification::parse(evidence.specification) {
        Ok(specification) => specification,
        Err(error) => {
            findings.broken("spec.json".into(), "a specification", error);
            return None;
        }
    };
    if specification.floor().digest() != body.bytes32("policy") {
        findings.broken(
            "genesis -> policy of spec.json".into(),
            body.bytes32("policy"),
            specification.floor().digest(),
        );
    }
    if findings.owner.is_none() {
        findings.broken("genesis: signature".into(), owner, "another");
    }
    let digest = body.digest();
    Some((specification, Genesis { body, digest }))
}
