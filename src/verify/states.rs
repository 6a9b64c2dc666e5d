//! The states that several receipts of one log speak of.

use super::openings::{STATE, States};
use crate::commit::State;
use crate::evidence::{Log, Shown};
use crate::receipt::Body;
use crate::receipt::schema::Kind;

/// The parts of a state as the receipts at these positions opened them, whose openings were checked before.
pub(super) fn states_at(log: &Log, positions: &[u64; STATE.len()]) -> States {
    let part = |(name, position): (&&'static str, &u64)| {
        Some((*name, opened_state(log, &log.at(*position).ok()??, name)?))
    };
    STATE.iter().zip(positions).filter_map(part).collect()
}

/// What a receipt says; none if it is of a kind that this version does not know.
pub(super) fn body_of(shown: &Shown) -> Option<Body> {
    Body::decode(Kind::from_number(shown.receipt.kind)?, &shown.receipt.body).ok()
}

/// The state that a receipt opens in this field; none where it opens none, or another one than it signs.
pub(super) fn opened_state(log: &Log, shown: &Shown, name: &str) -> Option<State> {
    let body = body_of(shown)?;
    let index = body.kind().fields.iter().position(|field| field.name == name)?;
    let field = shown.fields.iter().find(|field| usize::from(field.index) == index)?;
    Some(log.open(field, body.bytes32(name)).ok()?.state)
}

/// What can be said of two records of one state.
pub(super) enum Same<'a> {
    Equal,
    /// This tensor is in blocks, of which the other record knows nothing; the rest is equal.
    Unknown(&'a str),
    Different,
}

pub(super) fn same<'a>(step: &'a State, checkpoint: &State) -> Same<'a> {
    let (ours, theirs) = (step.entries(), checkpoint.entries());
    if ours.len() != theirs.len() {
        return Same::Different;
    }
    let mut found = Same::Equal;
    for (our, their) in ours.iter().zip(theirs).filter(|(our, their)| our != their) {
        let in_blocks = our.has_root() && their.has_root() && !(our.is_dense() && their.is_dense());
        // One dtype and one shape under one name, or it is another state whatever the blocks are.
        if !in_blocks || our.name != their.name || our.measured() != their.measured() {
            return Same::Different;
        }
        found = Same::Unknown(&our.name);
    }
    found
}
