//! Receipts that speak of other receipts, which may lie in any log of the run.

use super::Evidence;
use super::states::opened_state;
use crate::commit::State;
use crate::evidence::{Log, Shown};
use crate::primitives::{Address, Digest};
use crate::receipt::Body;
use crate::receipt::schema::{EVALUATION, FINGERPRINT, OUTPUT, PREFERENCE_SET, RELEASE, REPLAY};

/// Such a receipt, as the walk over its log found it.
pub(super) struct Stated {
    /// Who says it, and in which lane.
    pub(super) by: (Address, u32),
    /// Which receipt this is, for edges.
    pub(super) place: String,
    pub(super) position: u64,
    pub(super) body: Body,
}

impl Stated {
    /// Whoever looks on may write these, too: they train nothing.
    pub(super) const KINDS: [u16; 6] = [PREFERENCE_SET, EVALUATION, RELEASE, OUTPUT, REPLAY, FINGERPRINT];

    pub(super) fn is(&self, kind: u16) -> bool {
        self.body.kind().number == kind
    }

    /// What it opens in this field, as a whole.
    pub(super) fn opened(&self, field: &str, evidence: &Evidence<'_>) -> Option<State> {
        let log = evidence.logs.iter().find(|log| (log.worker, log.lane) == self.by)?;
        opened_state(log, &log.at(self.position).ok().flatten()?, field)
    }
}

/// Where a receipt stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) worker: Address,
    pub(super) lane: u64,
    pub(super) sequence: u64,
}

/// What stands where somebody says that a receipt does.
pub(super) enum Named<'a> {
    /// The receipt, and its log.
    Receipt(&'a Log, Box<Shown>),
    /// A receipt that is not shown.
    NotShown,
    /// Something else, or no receipt.
    Nothing,
}

impl Place {
    /// The place of which a receipt speaks in its fields `<prefix>Worker`, `<prefix>Lane` and `<prefix>Sequence`.
    pub(super) fn named(body: &Body, prefix: &str) -> Place {
        Place {
            worker: body.address(&format!("{prefix}Worker")),
            lane: body.unsigned(&format!("{prefix}Lane")),
            sequence: body.unsigned(&format!("{prefix}Sequence")),
        }
    }

    /// The place that the name of an entry gives: `<worker>/<lane>/<sequence>`.
    pub(super) fn parse(name: &str) -> Option<Place> {
        let mut pieces = name.split('/');
        let place = Place {
            worker: pieces.next()?.parse().ok()?,
            lane: pieces.next()?.parse().ok()?,
            sequence: pieces.next()?.parse().ok()?,
        };
        // One receipt has one name, or it could stand in a list twice.
        (place.to_string() == name).then_some(place)
    }

    /// Whether it lies in the lane of this worker.
    pub(super) fn is_of(self, (worker, lane): (Address, u32)) -> bool {
        (self.worker, self.lane) == (worker, lane.into())
    }

    /// As `find`, for a statement of the run's owner: what stands in another worker's log in its place may be that
    /// worker's second history, and a log may have been cut or left out. None of that is the owner's lie.
    pub(super) fn named_by<'a>(
        self,
        owner: Address,
        kind: u16,
        is_named: impl Fn(&Digest) -> bool,
        evidence: &Evidence<'a>,
    ) -> Named<'a> {
        let has_log = evidence.logs.iter().any(|log| self.is_of((log.worker, log.lane)));
        match self.find(kind, is_named, evidence) {
            Named::Nothing if !has_log || self.worker != owner => Named::NotShown,
            found => found,
        }
    }

    /// The receipt of this kind and with such a digest that stands here.
    pub(super) fn find<'a>(
        self,
        kind: u16,
        is_named: impl Fn(&Digest) -> bool,
        evidence: &Evidence<'a>,
    ) -> Named<'a> {
        let log = evidence.logs.iter().find(|log| self.is_of((log.worker, log.lane)));
        let Some(log) = log else { return Named::Nothing };
        match log.at(self.sequence).ok().flatten() {
            Some(shown) if shown.receipt.kind == kind && is_named(&shown.receipt.digest) => {
                Named::Receipt(log, Box::new(shown))
            }
            None if self.sequence < log.size() => Named::NotShown,
            _ => Named::Nothing,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}/{}/{}", self.worker, self.lane, self.sequence)
    }
}
