//! A run as it is handed over: signed, and open to changes by whoever has no key.

use crate::builder::*;
use counterfoil::commit::merkle::CompactRange;
use counterfoil::commit::{Commitment, Entry, leaf_hash};
use counterfoil::evidence::bundle::{Manifest, Part, PartKind, log_name, object_name};
use counterfoil::evidence::{AnchorRecord, Bundle, BundleError, Frame, Log};
use counterfoil::primitives::{Address, Digest, sha256};
use counterfoil::receipt::Receipt;
use counterfoil::verify::{
    Confirmation, Confirmed, Contents, HeadOnChain, Judgement, Standing, Verdict, bundle_object,
    bundle_object_root, unconfirmed,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One log as it is handed over.
#[derive(Clone)]
pub(crate) struct BuiltLog {
    pub(crate) worker: Address,
    pub(crate) lane: u32,
    pub(crate) frames: Vec<Frame>,
}

impl BuiltLog {
    pub(crate) fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.frames.iter().filter_map(|frame| match frame {
            Frame::Receipt(receipt) => Some(receipt),
            _ => None,
        })
    }

    /// The tree over the first receipts.
    pub(crate) fn tree(&self, size: u64) -> CompactRange {
        let mut tree = CompactRange::default();
        self.receipts().take(size as usize).for_each(|receipt| tree.push(leaf_hash(&receipt.leaf())));
        tree
    }

    pub(crate) fn encoded(&self) -> Vec<Vec<u8>> {
        self.frames.iter().map(Frame::encode).collect()
    }

    /// The same log with these receipts replaced by their hashes, and without what opens them.
    pub(crate) fn withhold(&self, positions: &[u64]) -> BuiltLog {
        let (mut frames, mut waiting) = (Vec::new(), Vec::new());
        let (mut range, mut position) = (<CompactRange>::default(), 0);
        let mut layouts: BTreeMap<Digest, Frame> = BTreeMap::new();
        for frame in &self.frames {
            match frame {
                Frame::Layout(_) => {
                    layouts.insert(sha256(&[&frame.encode()]), frame.clone());
                }
                Frame::Opening(_) | Frame::Part(_) => waiting.push(frame.clone()),
                Frame::Receipt(receipt) => {
                    if positions.contains(&position) {
                        if range.count() == 0 {
                            range = CompactRange::from(position);
                        }
                        range.push(leaf_hash(&receipt.leaf()));
                        waiting.clear();
                    } else {
                        if range.count() > 0 {
                            frames.push(Frame::Withheld(std::mem::take(&mut range)));
                        }
                        for frame in &waiting {
                            let Frame::Opening(opening) = frame else { continue };
                            let named = opening.fields.iter().map(|field| field.layout);
                            frames.extend(named.filter_map(|name| layouts.remove(&name)));
                        }
                        frames.append(&mut waiting);
                        frames.push(frame.clone());
                    }
                    position += 1;
                }
                other => {
                    if range.count() > 0 {
                        frames.push(Frame::Withheld(std::mem::take(&mut range)));
                    }
                    frames.push(other.clone());
                }
            }
        }
        if range.count() > 0 {
            frames.push(Frame::Withheld(range));
        }
        BuiltLog { frames, ..self.clone() }
    }
}

/// A run as it is handed over: signed, and open to changes that need no key.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) run: Digest,
    pub(crate) specification: Vec<u8>,
    pub(crate) recipe: BTreeMap<String, Vec<u8>>,
    pub(crate) logs: Vec<BuiltLog>,
    pub(crate) objects: Vec<Vec<u8>>,
    pub(crate) anchors: Vec<(String, AnchorRecord)>,
}

/// One part of a bundle with its bytes.
pub(crate) type PartBytes = (PartKind, String, Vec<u8>);

impl Built {
    /// An anchor over the first receipts of a log, in block 40 of chain 1.
    pub(crate) fn anchor(&self, log: usize, size: u64) -> AnchorRecord {
        let log = &self.logs[log];
        AnchorRecord {
            chain_id: 1,
            contract: Address::repeat_byte(0xcc),
            transaction_hash: Digest::repeat_byte(0x11),
            block_number: 40,
            block_hash: Digest::repeat_byte(0x22),
            block_time: 1_700_000_000,
            run: self.run,
            worker: log.worker,
            lane: log.lane,
            index: 0,
            size,
            root: log.tree(size).root(),
            head_digest: Digest::repeat_byte(0x33),
            proof: None,
        }
    }

    pub(crate) fn anchored(mut self, log: usize, size: u64) -> Built {
        let mut record = self.anchor(log, size);
        let is_of =
            |known: &&(String, AnchorRecord)| (known.1.worker, known.1.lane) == (record.worker, record.lane);
        record.index = self.anchors.iter().filter(is_of).count() as u64;
        self.anchors.push((format!("{}.json", self.anchors.len()), record));
        self
    }

    /// What a chain knows that holds all anchors and no other.
    pub(crate) fn heads(&self) -> Vec<HeadOnChain> {
        let of = |log: &BuiltLog| {
            let own = self.anchors.iter().map(|(_, record)| record);
            let own = own.filter(|record| (record.worker, record.lane) == (log.worker, log.lane));
            let size = own.clone().map(|record| record.size).max()?;
            Some(HeadOnChain { worker: log.worker, lane: log.lane, size, count: own.count() as u64 })
        };
        self.logs.iter().filter_map(of).collect()
    }

    pub(crate) fn contents(&self) -> Contents {
        let mut contents = Contents {
            specification: self.specification.clone(),
            recipe: self.recipe.clone(),
            anchors: self.anchors.clone(),
            ..Contents::default()
        };
        for log in &self.logs {
            match Log::from_frames(log.worker, log.lane, &log.encoded()) {
                Ok(log) => contents.logs.push(log),
                Err(error) => contents.damage.push(counterfoil::verify::edge("ledger", error)),
            }
        }
        contents
    }

    /// The root over the stored bytes of a tensor.
    pub(crate) fn object_root(&self, tensor: &Entry) -> Option<Digest> {
        let roots = self.objects.iter().map(|bytes| Commitment::of_bytes(bytes).root);
        roots.into_iter().find(|root| *root == tensor.root())
    }

    pub(crate) fn verify(&self, judgement: &Judgement, confirmation: &Confirmation<'_>) -> Verdict {
        self.contents().verify(judgement, confirmation, &|tensor| self.object_root(tensor), &|tensor| {
            self.objects.iter().find(|bytes| Commitment::of_bytes(bytes).root == tensor.root()).cloned()
        })
    }

    /// The verdict on integrity alone, when no chain was asked.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verify(&integrity(), &unconfirmed)
    }

    pub(crate) fn parts(&self) -> Vec<PartBytes> {
        let mut parts = vec![(PartKind::Specification, String::new(), self.specification.clone())];
        parts.extend(self.recipe.iter().map(|(name, bytes)| (PartKind::Recipe, name.clone(), bytes.clone())));
        for log in &self.logs {
            parts.push((PartKind::Log, log_name(log.worker, log.lane), framed(&log.encoded())));
        }
        for bytes in &self.objects {
            parts.push((PartKind::Object, object_name(&Commitment::of_bytes(bytes).root), bytes.clone()));
        }
        for (name, record) in &self.anchors {
            parts.push((PartKind::Anchor, name.clone(), serde_json::to_vec(record).unwrap()));
        }
        parts.sort_by(|one, next| (one.0, &one.1).cmp(&(next.0, &next.1)));
        parts
    }

    pub(crate) fn bundle(&self) -> Vec<u8> {
        pack(self.run, &self.parts(), MAKER)
    }
}

pub(crate) fn framed(payloads: &[Vec<u8>]) -> Vec<u8> {
    payloads
        .iter()
        .flat_map(|payload| [&(payload.len() as u32).to_be_bytes(), payload.as_slice()].concat())
        .collect()
}

/// A bundle of these parts in this order.
pub(crate) fn pack(run: Digest, parts: &[PartBytes], maker: u8) -> Vec<u8> {
    let part = |(kind, name, bytes): &PartBytes| Part {
        kind: *kind,
        name: name.clone(),
        size: bytes.len() as u64,
        digest: sha256(&[bytes]),
    };
    let manifest = Manifest { run, maker: address(maker), parts: parts.iter().map(part).collect() };
    let mut bundle = manifest.sign(&key(maker)).unwrap();
    parts.iter().for_each(|(_, _, bytes)| bundle.extend(bytes));
    bundle
}

/// The judgement that demands integrity alone.
pub(crate) fn integrity() -> Judgement {
    Judgement { name: "integrity".into(), ..Judgement::default() }
}

/// A chain that the verifier chose and that holds every record.
pub(crate) fn confirmed(number: usize, record: &AnchorRecord) -> Confirmed {
    Confirmed { standing: Standing::Held, ..unconfirmed(number, record) }
}

/// Opens and verifies a bundle.
pub(crate) fn verify_bundle(
    bytes: &[u8],
    judgement: &Judgement,
    confirmation: &Confirmation<'_>,
) -> Result<Verdict, BundleError> {
    let bundle = Bundle::open(Arc::new(bytes.to_vec()), bytes.len() as u64)?;
    let contents = Contents::of_bundle(&bundle)?;
    Ok(contents.verify(judgement, confirmation, &|tensor| bundle_object_root(&bundle, tensor), &|tensor| {
        bundle_object(&bundle, tensor)
    }))
}
