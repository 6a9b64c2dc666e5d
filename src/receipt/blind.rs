//! Blinds: what keeps a signed digest from naming the data it was made from.
//!
//! Whoever knows a model's initial weights can try every training record until an unblinded
//! gradient or parameter digest fits. Each private field is therefore blinded by a key that only
//! the lane's owner can derive, and each can be opened without opening another.

use super::schema::{Field, Kind};
use crate::primitives::{Address, Digest, hmac_sha256, sha256};

/// 32 random bytes of one lane that never leave the key folder.
#[derive(Clone)]
pub struct LaneSecret([u8; 32]);

/// What opens one private field: the blind of its digest and the key of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blind {
    /// Goes into the commitment's digest; zero for a public field.
    pub blind: Digest,
    /// Blinds the entries' roots; zero for a public field.
    pub entry_key: Digest,
}

impl Blind {
    /// The entry key, unless the field is public.
    pub fn entry_key(&self) -> Option<&Digest> {
        (self.entry_key != Digest::ZERO).then_some(&self.entry_key)
    }
}

impl LaneSecret {
    /// Takes 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        LaneSecret(secret)
    }

    /// What the join receipt says about the secret.
    pub fn public_hash(&self) -> Digest {
        sha256(&[b"counterfoil.lane-secret.v1", &self.0])
    }

    /// The blind of one field of one receipt.
    pub fn blind(&self, log: (Digest, Address, u32), sequence: u64, kind: &Kind, field: &Field) -> Blind {
        let (run, worker, lane) = log;
        let derive = |purpose: &str| {
            hmac_sha256(
                &self.0,
                &[
                    purpose.as_bytes(),
                    run.as_slice(),
                    worker.as_slice(),
                    &lane.to_be_bytes(),
                    &sequence.to_be_bytes(),
                    kind.type_hash().as_slice(),
                    field.name.as_bytes(),
                ],
            )
        };
        Blind { blind: derive("counterfoil.blind.v1"), entry_key: derive("counterfoil.entries.v1") }
    }
}
