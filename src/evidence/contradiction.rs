//! Proof that a worker signed two histories of one log: it convinces whoever holds it, without either
//! history.

use std::collections::BTreeMap;

use super::{Delegation, Frame, FrameError, Log, TreeHead};
use crate::primitives::{Address, Digest, Report};
use crate::receipt::schema::{DELEGATION, Kind};
use crate::receipt::{Body, Receipt, recover};

/// Two signed statements of which a worker may sign only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// What contradicts what.
    pub kind: ContradictionKind,
    /// Permissions of the keys that signed, when it was not the worker's own.
    delegations: Vec<Delegation>,
}

/// The two statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContradictionKind {
    /// Receipts of one position of one log, with different contents.
    Fork(Box<[Receipt; 2]>),
    /// Tree heads of one size of one log, with different roots.
    TwoHistories(Box<[TreeHead; 2]>),
}

/// Why statements prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this proves no second history: {detail}")]
pub struct NoContradiction {
    detail: String,
}

impl Report for NoContradiction {
    fn code(&self) -> &'static str {
        "proof"
    }
}

impl From<FrameError> for NoContradiction {
    fn from(error: FrameError) -> Self {
        refused(error)
    }
}

fn refused(detail: impl ToString) -> NoContradiction {
    NoContradiction { detail: detail.to_string() }
}

/// Who signed what, and where: run, worker, lane, position.
type Place = (Digest, Address, u64, u64);

impl Contradiction {
    /// The first contradiction between two copies of a log; none when one continues the other.
    ///
    /// # Errors
    /// [`FrameError`] when a receipt cannot be read again.
    pub fn between(one: &Log, two: &Log) -> Result<Option<Contradiction>, FrameError> {
        let delegations = one.delegations().iter().chain(two.delegations()).cloned().collect::<Vec<_>>();
        let of = |kind| Contradiction { kind, delegations: delegations.clone() };
        let mut positions = (0..one.shown()).map(|index| one.sequence(index));
        let fork = positions.find_map(|sequence| -> Option<Result<_, FrameError>> {
            let pair = one.at(sequence).and_then(|ours| Ok(ours.zip(two.at(sequence)?)));
            let (ours, theirs) = match pair {
                Ok(pair) => pair?,
                Err(error) => return Some(Err(error)),
            };
            if ours.receipt.digest == theirs.receipt.digest {
                return None;
            }
            let found = of(ContradictionKind::Fork(Box::new([ours.receipt, theirs.receipt])));
            found.check().is_ok().then_some(Ok(found))
        });
        if let Some(fork) = fork {
            return fork.map(Some);
        }
        let known: BTreeMap<u64, &TreeHead> = one.heads().map(|head| (head.size(), head)).collect();
        let mut pairs = two.heads().filter_map(|theirs| Some([*known.get(&theirs.size())?, theirs]));
        Ok(pairs.find_map(|pair| {
            let found = of(ContradictionKind::TwoHistories(Box::new(pair.map(TreeHead::clone))));
            found.check().is_ok().then_some(found)
        }))
    }

    /// The worker whom this convicts, after checking everything.
    ///
    /// # Errors
    /// [`NoContradiction`], for example when both statements are the same one, signed twice.
    pub fn check(&self) -> Result<Address, NoContradiction> {
        let [(ours, our_word), (theirs, their_word)] = match &self.kind {
            ContradictionKind::Fork(pair) => [self.receipt(&pair[0])?, self.receipt(&pair[1])?],
            ContradictionKind::TwoHistories(pair) => [self.head(&pair[0])?, self.head(&pair[1])?],
        };
        if ours != theirs {
            return Err(refused("they speak of different logs or positions"));
        }
        match our_word == their_word {
            true => Err(refused("both say the same, and signing twice is no second history")),
            false => Ok(ours.1),
        }
    }

    fn receipt(&self, receipt: &Receipt) -> Result<(Place, Digest), NoContradiction> {
        let kind = Kind::from_number(receipt.kind).ok_or_else(|| refused("a receipt of unknown kind"))?;
        let body = Body::decode(kind, &receipt.body).map_err(refused)?;
        if body.digest() != receipt.digest {
            return Err(refused("a body is not the one that was signed"));
        }
        let place = place(&body, "sequence");
        let signer = recover(receipt.digest, &receipt.signature).map_err(refused)?;
        let delegation = body.bytes32("delegation");
        let is_allowed = |found: &Delegation| {
            found.body.digest() == delegation && found.key() == signer && found.allows(kind.number, place.3)
        };
        match delegation {
            Digest::ZERO if signer == place.1 => Ok((place, receipt.digest)),
            _ if self.allows(place, is_allowed) => Ok((place, receipt.digest)),
            _ => Err(refused(format!("{signer} is not the worker {}, nor a key that it allowed", place.1))),
        }
    }

    fn head(&self, head: &TreeHead) -> Result<(Place, Digest), NoContradiction> {
        let place = place(&head.body, "size");
        let signer = recover(head.body.digest(), &head.signature).map_err(refused)?;
        let is_allowed = |found: &Delegation| found.key() == signer && found.allows_head(place.3);
        match signer == place.1 || self.allows(place, is_allowed) {
            true => Ok((place, head.root())),
            false => {
                Err(refused(format!("{signer} is not the worker {}, nor a key that it allowed", place.1)))
            }
        }
    }

    fn allows(&self, (run, worker, lane, _): Place, wanted: impl Fn(&Delegation) -> bool) -> bool {
        let lane = u32::try_from(lane).unwrap_or(u32::MAX);
        self.delegations.iter().any(|found| wanted(found) && found.is_of(run, worker, lane) == Ok(true))
    }

    /// The statements as frames of a ledger, the delegations first.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let delegations = self.delegations.iter().cloned().map(Frame::Delegation);
        let statements: Vec<Frame> = match &self.kind {
            ContradictionKind::Fork(pair) => pair.iter().cloned().map(Frame::Receipt).collect(),
            ContradictionKind::TwoHistories(pair) => pair.iter().cloned().map(Frame::Head).collect(),
        };
        delegations.chain(statements).map(|frame| frame.encode()).collect()
    }

    /// Reads what [`Contradiction::encode`] wrote; nothing of it is believed before [`Contradiction::check`].
    ///
    /// # Errors
    /// [`NoContradiction`] when these are not two receipts or two tree heads, behind delegations.
    pub fn decode(frames: &[Vec<u8>]) -> Result<Contradiction, NoContradiction> {
        let (mut delegations, mut receipts, mut heads) = (Vec::new(), Vec::new(), Vec::new());
        for payload in frames {
            match Frame::decode(payload)? {
                Frame::Delegation(delegation) => delegations.push(delegation),
                Frame::Receipt(receipt) => receipts.push(receipt),
                Frame::Head(head) => heads.push(head),
                _ => {
                    return Err(refused(format!(
                        "only receipts, tree heads and {} belong here",
                        DELEGATION.name
                    )));
                }
            }
        }
        let kind = match (<[_; 2]>::try_from(receipts), <[_; 2]>::try_from(heads)) {
            (Ok(pair), Err(heads)) if heads.is_empty() => ContradictionKind::Fork(Box::new(pair)),
            (Err(receipts), Ok(pair)) if receipts.is_empty() => {
                ContradictionKind::TwoHistories(Box::new(pair))
            }
            _ => return Err(refused("two receipts or two tree heads are needed")),
        };
        Ok(Contradiction { kind, delegations })
    }
}

fn place(body: &Body, position: &str) -> Place {
    (body.bytes32("run"), body.address("worker"), body.unsigned("lane"), body.unsigned(position))
}
