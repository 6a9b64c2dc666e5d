//! What a lane's writer remembers of the receipts before, and what it refuses because of it.

use std::collections::HashSet;

use super::LedgerError;
use crate::commit::{leaf_hash, merkle::CompactRange};
use crate::evidence::{Log, TreeHead};
use crate::primitives::Digest;
use crate::receipt::schema::{self, Kind};
use crate::receipt::{Body, Receipt};
use crate::verify::{Cadences, Policies, Specification};

/// How far a lane has come.
pub(super) struct Progress {
    pub(super) tree: CompactRange,
    pub(super) previous: Digest,
    pub(super) step: u64,
    pub(super) work_units: u64,
    pub(super) closed: bool,
    pub(super) policies: Policies,
    pub(super) checkpoint: u64,
    pub(super) released: u64,
    pub(super) layouts: HashSet<Digest>,
    pub(super) head: Option<TreeHead>,
}

impl Progress {
    pub(super) fn new(specification: &Specification, previous: Digest) -> Progress {
        Progress {
            tree: CompactRange::default(),
            previous,
            step: 0,
            work_units: 0,
            closed: false,
            policies: Policies::new(specification.floor()),
            checkpoint: 0,
            released: 0,
            layouts: HashSet::new(),
            head: None,
        }
    }

    pub(super) fn replay(
        specification: &Specification,
        log: &Log,
        genesis: Digest,
    ) -> Result<Progress, LedgerError> {
        let mut progress = Progress::new(specification, genesis);
        for receipt in log.receipts() {
            let receipt = receipt?;
            let damaged = |detail: String| LedgerError::Damaged {
                place: format!("receipt {} of lane {}", progress.tree.size(), log.lane),
                detail,
            };
            let Some(kind) = Kind::from_number(receipt.kind) else {
                return Err(damaged("a kind that this version does not know".into()));
            };
            let body = Body::decode(kind, &receipt.body).map_err(|error| damaged(error.to_string()))?;
            if body.digest() != receipt.digest {
                return Err(damaged("the body is not the one that was signed".into()));
            }
            progress.take(&receipt, &body);
        }
        progress.head = log.heads().next_back().cloned();
        Ok(progress)
    }

    /// Refuses what verification would refute.
    pub(super) fn check(&self, body: &Body, specification: &Specification) -> Result<(), LedgerError> {
        match body.kind().number {
            schema::STEP => {
                let (expected, actual) = (self.step.saturating_add(1), body.unsigned("step"));
                if actual != expected {
                    return Err(LedgerError::Step { expected, actual });
                }
                let every = self.policies.at(self.step).of("checkpoint").unwrap_or(0);
                if self.checkpoint != self.step && Cadences::is_due(every, self.step) {
                    return Err(LedgerError::Due { step: self.step, field: "checkpoint", every });
                }
                if let Some((field, every)) = self.policies.absent_field(body) {
                    return Err(LedgerError::Due { step: actual, field, every });
                }
            }
            schema::CHECKPOINT if body.unsigned("step") != self.step => {
                return Err(LedgerError::Step { expected: self.step, actual: body.unsigned("step") });
            }
            schema::RESUME if body.unsigned("step") > self.step => {
                return Err(LedgerError::Step { expected: self.step, actual: body.unsigned("step") });
            }
            schema::POLICY => {
                let first_step = body.unsigned("firstStep");
                if first_step <= self.step {
                    let detail =
                        format!("firstStep {first_step} is not after the recorded step {}", self.step);
                    return Err(LedgerError::Policy { detail });
                }
                let cadences = Cadences::of_policy(body);
                if let Some(name) = cadences.below_floor(&specification.floor()) {
                    return Err(LedgerError::Policy {
                        detail: format!("{name} is below the floor of spec.json"),
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn take(&mut self, receipt: &Receipt, body: &Body) {
        self.tree.push(leaf_hash(&receipt.leaf()));
        self.previous = receipt.digest;
        self.closed = body.kind().number == schema::CLOSE;
        match body.kind().number {
            schema::STEP => {
                self.step = body.unsigned("step");
                self.work_units = self.work_units.saturating_add(body.unsigned("workUnits"));
            }
            schema::CHECKPOINT if body.bytes32("parameters") != Digest::ZERO => {
                self.checkpoint = body.unsigned("step");
            }
            schema::RESUME => {
                self.step = body.unsigned("step");
                self.checkpoint = self.step;
            }
            schema::POLICY => self.policies.push(body),
            _ => {}
        }
    }
}
