//! Keys that sign for a worker: which the worker allowed, and which receipts each of them signed.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::evidence::{Delegation, Log, kind_name};
use crate::primitives::{Address, Digest};

/// The receipts of one log that one key signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key's address.
    pub key: Address,
    /// Unix seconds from which on the key was not allowed to sign; none without an end.
    pub expires: Option<u64>,
    /// How many.
    pub count: u64,
    /// Position of the last one.
    pub last: u64,
}

/// The delegations of one log.
pub(super) struct Delegates<'a> {
    log: &'a Log,
    run: Digest,
    valid: BTreeMap<Digest, &'a Delegation>,
    pub(super) signed: Vec<Signed>,
}

impl<'a> Delegates<'a> {
    /// Those that the worker signed for this log.
    pub(super) fn new(log: &'a Log, run: Digest) -> Delegates<'a> {
        let of_log = |delegation: &&Delegation| delegation.is_of(run, log.worker, log.lane) == Ok(true);
        let valid = log.delegations().iter().filter(of_log);
        let valid = valid.map(|delegation| (delegation.body.digest(), delegation)).collect();
        Delegates { log, run, valid, signed: Vec::new() }
    }

    /// Every delegation that lies in a log must be one for this log, and lie there once.
    pub(super) fn check(&self, place: &str, findings: &mut Findings) {
        let found = self.log.delegations();
        for delegation in found {
            let place = format!("{place}: delegation to {}", delegation.key());
            match delegation.is_of(self.run, self.log.worker, self.log.lane) {
                Ok(true) => {}
                Ok(false) => findings.broken(place, "the worker's signature, for this log", "another"),
                Err(error) => findings.broken(place, "the worker's signature, for this log", error),
            }
        }
        let digests: BTreeSet<Digest> = found.iter().map(|delegation| delegation.body.digest()).collect();
        if digests.len() < found.len() {
            findings.broken(format!("{place}: delegations"), "each once", "one of them twice");
        }
    }

    /// The key that signs a receipt under this delegation, or what was expected of it and found.
    pub(super) fn find(&self, digest: Digest, kind: u16, position: u64) -> Result<Address, (String, String)> {
        let Some(delegation) = self.valid.get(&digest) else {
            return Err((format!("the worker's delegation {digest}"), "none in this ledger".into()));
        };
        if delegation.allows(kind, position) {
            return Ok(delegation.key());
        }
        let unsigned = |name| delegation.body.unsigned(name);
        let (first, last) = (unsigned("firstSequence"), unsigned("lastSequence"));
        let expected = format!("receipts {first} to {last} of the kinds {:#x}", unsigned("kinds"));
        Err((expected, format!("receipt {position} of the kind {}", kind_name(kind))))
    }

    /// Whether some delegation names this key.
    pub(super) fn names(&self, key: Address) -> bool {
        self.valid.values().any(|delegation| delegation.key() == key)
    }

    /// Whether some delegation lets this key sign a tree head of this size.
    pub(super) fn allows_head(&self, key: Address, size: u64) -> bool {
        self.valid.values().any(|delegation| delegation.key() == key && delegation.allows_head(size))
    }

    /// Notes who signed a receipt.
    pub(super) fn note(&mut self, key: Address, delegation: Digest, position: u64) {
        let expires = self.valid.get(&delegation).and_then(|delegation| delegation.expires());
        match self.signed.iter_mut().find(|known| known.key == key && known.expires == expires) {
            Some(known) => (known.count, known.last) = (known.count + 1, position),
            None => self.signed.push(Signed { key, expires, count: 1, last: position }),
        }
    }
}
