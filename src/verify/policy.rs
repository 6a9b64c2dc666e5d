//! Cadences: at which steps a field must be committed.

use crate::primitives::Digest;
use crate::receipt::{Body, policy_digest};

/// The names that a policy sets a cadence for, in the order of `PolicyV1`. All but the last are
/// fields of a step; the last speaks of checkpoint receipts.
pub const CADENCES: [&str; 12] = [
    "batch",
    "samples",
    "contribution",
    "gradients",
    "parameters",
    "optimizer",
    "buffers",
    "hyperparameters",
    "randomness",
    "environment",
    "metrics",
    "checkpoint",
];

/// One cadence per name: every how many steps; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cadences(pub [u32; CADENCES.len()]);

impl Cadences {
    /// The cadence of this name.
    pub fn of(&self, name: &str) -> Option<u32> {
        CADENCES.iter().position(|known| *known == name).map(|index| self.0[index])
    }

    /// Whether something of this cadence is due at a step.
    pub fn is_due(every: u32, step: u64) -> bool {
        every != 0 && step.is_multiple_of(every.into())
    }

    /// Whether a cadence records less often than another: 0 is the sparsest.
    fn is_sparser(every: u32, than: u32) -> bool {
        than != 0 && (every == 0 || every > than)
    }

    /// The first name whose cadence is sparser than the floor's.
    pub fn below_floor(&self, floor: &Cadences) -> Option<&'static str> {
        let sparser = |index: &usize| Cadences::is_sparser(self.0[*index], floor.0[*index]);
        (0..CADENCES.len()).find(sparser).map(|index| CADENCES[index])
    }

    /// For each name the sparser of the two.
    pub fn weakest(mut self, other: Cadences) -> Cadences {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            if Cadences::is_sparser(other, *mine) {
                *mine = other;
            }
        }
        self
    }

    /// What genesis says about its floor.
    pub fn digest(&self) -> Digest {
        policy_digest(&self.0)
    }

    /// The cadences that a policy receipt sets.
    pub fn of_policy(body: &Body) -> Cadences {
        Cadences(CADENCES.map(|name| body.unsigned(&format!("{name}Every")) as u32))
    }
}

/// The floor and every policy receipt of a log so far.
#[derive(Clone, Debug)]
pub struct Policies(Vec<(u64, Cadences)>);

/// Step flag: the optimiser changed nothing.
pub(super) const SKIPPED: u64 = 1;
/// Step flag: tensors of a device were copied and hashed by the CPU.
pub(super) const FALLBACK: u64 = 4;

impl Policies {
    /// Only the floor.
    pub fn new(floor: Cadences) -> Policies {
        Policies(vec![(0, floor)])
    }

    /// Takes a policy receipt.
    pub fn push(&mut self, body: &Body) {
        self.0.push((body.unsigned("firstStep"), Cadences::of_policy(body)));
    }

    /// The cadences in force at a step: those of the last policy that has reached it.
    pub fn at(&self, step: u64) -> Cadences {
        self.0
            .iter()
            .rev()
            .find(|(first_step, _)| *first_step <= step)
            .expect("the floor holds from step 0 on")
            .1
    }

    /// The first field that is due in this step receipt and absent, with its cadence.
    pub fn absent_field(&self, step: &Body) -> Option<(&'static str, u32)> {
        let number = step.unsigned("step");
        let is_skipped = step.unsigned("flags") & SKIPPED != 0;
        let of_steps = CADENCES.into_iter().zip(self.at(number).0).filter(|(name, _)| *name != "checkpoint");
        let due = of_steps.filter(|(_, every)| Cadences::is_due(*every, number));
        let mut expected =
            due.filter(|(name, _)| !(is_skipped && ["gradients", "contribution"].contains(name)));
        expected.find(|(name, _)| step.bytes32(name) == Digest::ZERO)
    }
}
