//! Evidence made by hand, without files: by an honest worker, or by one who signs anything.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use counterfoil::commit::merkle::CompactRange;
use counterfoil::commit::{Commitment, Entry, State, bytes_root, leaf_hash};
use counterfoil::evidence::bundle::{Manifest, Part, PartKind, log_name, object_name};
use counterfoil::evidence::{
    AnchorRecord, Bundle, BundleError, Delegation, FieldOpening, Frame, Log, Openable, OpeningFrame,
    PartOpening, TreeHead,
};
use counterfoil::primitives::{Address, Digest, sha256};
use counterfoil::receipt::schema::{DELEGATION, Kind, TREE_HEAD};
use counterfoil::receipt::{
    Blind, Body, LaneSecret, LocalSigner, Receipt, Signer, Value, policy_digest, run_id,
};
use counterfoil::verify::{
    CADENCES, Confirmed, Contents, Judgement, Requirement, Standing, Verdict, bundle_object,
    bundle_object_root, recipe_state, unconfirmed,
};

pub fn key(number: u8) -> LocalSigner {
    LocalSigner::from_bytes(&[number; 32]).unwrap()
}

pub fn tensor(name: &str, bytes: &[u8]) -> (Entry, Vec<u8>) {
    let entry = Entry::dense(name, "U8", &[bytes.len() as u64], Commitment::of_bytes(bytes).root).unwrap();
    (entry, bytes.to_vec())
}

/// What is committed in one field, and how it is opened.
pub struct Opens {
    pub field: &'static str,
    pub tensors: Vec<(Entry, Vec<u8>)>,
    pub by_value: bool,
}

pub fn opens(field: &'static str, tensors: &[(&str, &[u8])]) -> Opens {
    let tensors = tensors.iter().map(|(name, bytes)| tensor(name, bytes)).collect();
    Opens { field, tensors, by_value: false }
}

/// One run with one lane of its owner; receipts are signed by `signer`, which may be a session's.
pub struct Run {
    pub owner: LocalSigner,
    pub signer: LocalSigner,
    pub delegation: Digest,
    pub specification: Vec<u8>,
    pub recipe: BTreeMap<String, Vec<u8>>,
    pub id: Digest,
    pub lane: u32,
    pub frames: Vec<Frame>,
    pub tree: CompactRange,
    pub previous: Digest,
    pub head: Digest,
    pub objects: BTreeMap<Digest, Vec<u8>>,
    pub anchors: Vec<AnchorRecord>,
    secret: LaneSecret,
    nonce: Digest,
}

impl Run {
    pub fn new(specification: &str) -> Run {
        Run::with_recipe(specification, &[])
    }

    pub fn with_recipe(specification: &str, recipe: &[(&str, &str)]) -> Run {
        let (owner, nonce) = (key(1), Digest::repeat_byte(7));
        let specification = specification.as_bytes().to_vec();
        let id = run_id(owner.address(), sha256(&[&specification]), 0, nonce);
        Run {
            signer: owner.clone(),
            owner,
            delegation: Digest::ZERO,
            specification,
            recipe: recipe.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect(),
            id,
            lane: 0,
            frames: Vec::new(),
            tree: CompactRange::default(),
            previous: Digest::ZERO,
            head: Digest::ZERO,
            objects: BTreeMap::new(),
            anchors: Vec::new(),
            secret: LaneSecret::new([9; 32]),
            nonce,
        }
    }

    pub fn record(&mut self, kind: &str, values: &[(&'static str, Value)], opened: &[Opens]) {
        let kind = Kind::from_name(kind).unwrap();
        let sequence = self.tree.size();
        let mut all: Vec<(&'static str, Value)> = vec![
            ("schema", 1.into()),
            ("run", self.id.into()),
            ("worker", self.owner.address().into()),
            ("lane", u64::from(self.lane).into()),
            ("sequence", sequence.into()),
            ("previous", self.previous.into()),
            ("delegation", self.delegation.into()),
            ("time", 1_700_000_000_000.into()),
        ];
        all.extend_from_slice(values);
        let mut fields = Vec::new();
        for open in opened {
            let (index, row) =
                kind.fields.iter().enumerate().find(|(_, row)| row.name == open.field).unwrap();
            let public =
                String::from_utf8_lossy(&self.specification).contains(&format!("{}.{}", kind.name, row.name));
            let log = (self.id, self.owner.address(), self.lane);
            let blind = if public { Blind::default() } else { self.secret.blind(log, sequence, kind, row) };
            let entries: Vec<Entry> = open.tensors.iter().map(|(entry, _)| entry.clone()).collect();
            let state = State::new(entries).unwrap();
            let commitment = blind.entry_key().map_or(state.commitment(), |key| state.blinded(key));
            all.push((row.name, commitment.digest(&blind.blind).into()));
            let content = match open.by_value {
                true => Openable::Values(open.tensors.iter().flat_map(|(_, bytes)| bytes.clone()).collect()),
                false => Openable::Roots(state.entries().iter().flat_map(|entry| entry.root().0).collect()),
            };
            let (frame, layout) = Frame::layout(state.entries());
            if !self.frames.contains(&frame) {
                self.frames.push(frame);
            }
            fields.push(FieldOpening { index: index as u8, blind, layout, content });
        }
        let body = Body::new(kind, &all).unwrap();
        let digest = body.digest();
        if !fields.is_empty() {
            self.frames.push(Frame::Opening(OpeningFrame { receipt: digest, fields }));
        }
        let signature = self.signer.sign(digest).unwrap();
        self.push(Receipt { kind: kind.number, digest, signature, body: body.encode() });
    }

    pub fn push(&mut self, receipt: Receipt) {
        self.tree.push(leaf_hash(&receipt.leaf()));
        self.previous = receipt.digest;
        self.frames.push(Frame::Receipt(receipt));
    }

    pub fn genesis(&mut self) {
        let floor = String::from_utf8_lossy(&self.specification).to_string();
        let every = |name: &&str| -> u32 {
            let (_, rest) = floor.split_once(&format!("\"{name}\":")).unwrap_or(("", "0"));
            rest.trim_start()
                .chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .unwrap_or(0)
        };
        let cadences: Vec<u32> = CADENCES.iter().map(every).collect();
        let recipe = recipe_state(&self.recipe).unwrap();
        let recipe = recipe.map_or(Digest::ZERO, |state| state.commitment().digest(&Digest::ZERO));
        let values = [
            ("owner", self.owner.address().into()),
            ("specification", sha256(&[&self.specification]).into()),
            ("nonce", self.nonce.into()),
            ("minimumSchema", 1.into()),
            ("recipe", recipe.into()),
            ("policy", policy_digest(&cadences).into()),
        ];
        self.record("genesis", &values, &[]);
    }

    pub fn join(&mut self) {
        let secret = self.secret.public_hash();
        self.record("join", &[("role", 1.into()), ("rank", 0.into()), ("secret", secret.into())], &[]);
    }

    /// A step with gradients and parameters that follow from its number.
    pub fn step(&mut self, step: u64) {
        let bytes = [step as u8; 3];
        let opened =
            [opens("gradients", &[("a", &bytes), ("b", &[5; 40])]), opens("parameters", &[("a", &bytes)])];
        self.record("step", &[("step", step.into()), ("workUnits", 2.into())], &opened);
    }

    /// A checkpoint of the parameters of [`Run::step`], whose bytes are stored.
    pub fn checkpoint(&mut self, step: u64) {
        let bytes = [step as u8; 3];
        self.objects.insert(bytes_root(&bytes), bytes.to_vec());
        self.record("checkpoint", &[("step", step.into())], &[opens("parameters", &[("a", &bytes)])]);
    }

    pub fn close(&mut self, step: u64) {
        self.record("close", &[("reason", 0.into()), ("step", step.into()), ("workUnits", 0.into())], &[]);
    }

    pub fn head_values(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("schema", 1.into()),
            ("run", self.id.into()),
            ("worker", self.owner.address().into()),
            ("lane", u64::from(self.lane).into()),
            ("size", self.tree.size().into()),
            ("root", self.tree.root().into()),
            ("previousHead", self.head.into()),
            ("time", 1_700_000_000_000.into()),
        ]
    }

    pub fn sign_head(&mut self) {
        self.sign_head_of(&self.head_values());
    }

    pub fn sign_head_of(&mut self, values: &[(&'static str, Value)]) {
        let body = Body::new(&TREE_HEAD, values).unwrap();
        self.head = body.digest();
        let signature = self.signer.sign(body.digest()).unwrap();
        self.frames.push(Frame::Head(TreeHead { body, signature }));
    }

    pub fn delegation_values(&self, session: &LocalSigner) -> Vec<(&'static str, Value)> {
        vec![
            ("schema", 1.into()),
            ("run", self.id.into()),
            ("worker", self.owner.address().into()),
            ("lane", u64::from(self.lane).into()),
            ("key", session.address().into()),
            ("kinds", (!2u64).into()),
            ("firstSequence", self.tree.size().into()),
            ("lastSequence", u64::MAX.into()),
            ("expires", 0.into()),
        ]
    }

    /// The lane is handed to a session's key; `by` signs that it may.
    pub fn delegate(&mut self, session: LocalSigner, values: &[(&'static str, Value)], by: &LocalSigner) {
        let body = Body::new(&DELEGATION, values).unwrap();
        let signature = by.sign(body.digest()).unwrap();
        self.delegation = body.digest();
        self.frames.push(Frame::Delegation(Delegation { body, signature }));
        self.signer = session;
    }

    /// An anchor of the lane as it is now.
    pub fn anchor(&mut self, block_time: u64) {
        self.anchors.push(AnchorRecord {
            chain_id: 16_602,
            contract: Address::repeat_byte(3),
            transaction_hash: Digest::repeat_byte(4),
            block_number: 100,
            block_hash: Digest::repeat_byte(5),
            block_time,
            run: self.id,
            worker: self.owner.address(),
            lane: self.lane,
            index: self.anchors.len() as u64,
            size: self.tree.size(),
            root: self.tree.root(),
            head_digest: self.head,
            proof: None,
        });
    }

    pub fn payloads(&self) -> Vec<Vec<u8>> {
        self.frames.iter().map(Frame::encode).collect()
    }

    pub fn contents(&self) -> Contents {
        Contents {
            specification: self.specification.clone(),
            recipe: self.recipe.clone(),
            logs: vec![Log::from_frames(self.owner.address(), self.lane, &self.payloads()).unwrap()],
            anchors: self.anchors.iter().enumerate().map(|(n, a)| (format!("{n}.json"), a.clone())).collect(),
            ..Contents::default()
        }
    }

    pub fn parts(&self) -> Vec<(PartKind, String, Vec<u8>)> {
        let framed = |payload: &Vec<u8>| [&(payload.len() as u32).to_be_bytes()[..], payload].concat();
        let log = self.payloads().iter().flat_map(framed).collect();
        let mut parts = vec![(PartKind::Specification, String::new(), self.specification.clone())];
        parts.extend(self.recipe.iter().map(|(name, bytes)| (PartKind::Recipe, name.clone(), bytes.clone())));
        parts.push((PartKind::Log, log_name(self.owner.address(), self.lane), log));
        parts.extend(
            self.objects.iter().map(|(root, bytes)| (PartKind::Object, object_name(root), bytes.clone())),
        );
        let json = |anchor| serde_json::to_vec(anchor).unwrap();
        parts.extend(
            self.anchors.iter().enumerate().map(|(n, a)| (PartKind::Anchor, format!("{n}.json"), json(a))),
        );
        parts
    }

    pub fn bundle(&self) -> Vec<u8> {
        packed(self.id, &self.parts(), &self.owner)
    }
}

/// A bundle of these parts, signed by anybody.
pub fn packed(run: Digest, parts: &[(PartKind, String, Vec<u8>)], signer: &LocalSigner) -> Vec<u8> {
    let part = |(kind, name, bytes): &(PartKind, String, Vec<u8>)| Part {
        kind: *kind,
        name: name.clone(),
        size: bytes.len() as u64,
        digest: sha256(&[bytes]),
    };
    let head = Manifest { run, maker: signer.address(), parts: parts.iter().map(part).collect() }
        .sign(signer)
        .unwrap();
    parts.iter().fold(head, |all, (_, _, bytes)| [all, bytes.clone()].concat())
}

/// The verdict over a bundle.
pub fn read(bytes: &[u8], judgement: &Judgement) -> Result<Verdict, BundleError> {
    let bundle = Bundle::open(Arc::new(bytes.to_vec()), bytes.len() as u64)?;
    let contents = Contents::of_bundle(&bundle)?;
    let root = |entry: &_| bundle_object_root(&bundle, entry);
    Ok(contents.verify(judgement, &unconfirmed, &root, &|entry| bundle_object(&bundle, entry)))
}

/// A chain that holds whatever is asked.
pub fn confirmed(_: usize, record: &AnchorRecord) -> Confirmed {
    Confirmed {
        chain: "chain 16602".into(),
        standing: Standing::Held,
        development: false,
        block_time: record.block_time,
    }
}

pub fn integrity() -> Judgement {
    Judgement { name: "integrity".into(), require: Requirement::default(), ..Judgement::default() }
}

/// Opens one tensor of a receipt's field.
pub fn part(run: &Run, receipt: Digest, field: &FieldOpening, name: &str) -> Frame {
    let log = &run.contents().logs[0];
    let shown = log.receipts().map(Result::unwrap).find(|known| known.digest == receipt).unwrap();
    let body = Body::decode(Kind::from_number(shown.kind).unwrap(), &shown.body).unwrap();
    let Value::Digest(digest) = body.fields().nth(8 + usize::from(field.index)).unwrap().1 else { panic!() };
    let opened = log.open(field, digest).unwrap();
    let opening = opened.state.prove(name, field.blind.entry_key()).unwrap();
    Frame::Part(PartOpening { receipt, index: field.index, blind: field.blind.blind, opening })
}
