//! A small run of real signed receipts: genesis, join, two steps, a tree head.

use std::sync::LazyLock;

use counterfoil::commit::{Content, Entry, State, bytes_root, leaf_hash, merkle};
use counterfoil::evidence::{FieldOpening, Frame, Log, Openable, OpeningFrame, TreeHead};
use counterfoil::primitives::{Address, Digest, sha256};
use counterfoil::receipt::schema::{Kind, SCHEMA_VERSION, TREE_HEAD};
use counterfoil::receipt::{Body, LaneSecret, LocalSigner, Receipt, Signer, Value, run_id};
use counterfoil::verify::Specification;

/// The run, and what its evidence is made of.
pub struct Run {
    pub specification: Vec<u8>,
    pub nonce: Digest,
    pub id: Digest,
    pub worker: Address,
    pub frames: Vec<Vec<u8>>,
    pub log: Log,
}

pub static RUN: LazyLock<Run> = LazyLock::new(run);

/// The owner's key.
pub fn owner() -> LocalSigner {
    LocalSigner::from_bytes(&[7; 32]).expect("a key")
}

/// Two dense tensors, one tied to the first, one absent.
pub fn state() -> State {
    let weights = tensor();
    let dense = |name: &str, dtype: &str, shape: &[u64], bytes: &[u8]| {
        Entry::dense(name, dtype, shape, bytes_root(bytes)).expect("an entry")
    };
    let entries = vec![
        dense("bias", "F32", &[3], &[1; 12]),
        dense("weight", "U8", &[3, 1000], &weights),
        Entry { name: "weight.tied".into(), content: Content::Alias { target: "weight".into() } },
        Entry { name: "without".into(), content: Content::Absent },
    ];
    State::new(entries).expect("a state")
}

/// The bytes of [`state`]'s `weight`: three chunks, no two alike.
pub fn tensor() -> Vec<u8> {
    (0..3000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The payloads of the run's journal.
pub fn frames() -> Vec<Vec<u8>> {
    RUN.frames.clone()
}

fn run() -> Run {
    let owner = owner();
    let worker = owner.address();
    let specification = br#"{"policy":{"gradients":1},"public":["step.metrics"]}"#.to_vec();
    let floor = Specification::parse(&specification).expect("a specification").floor().digest();
    let (pinned, nonce) = (sha256(&[&specification]), Digest::repeat_byte(3));
    let id = run_id(worker, pinned, 0, nonce);
    let secret = LaneSecret::new([9; 32]);
    let (mut frames, mut leaves, mut previous) = (Vec::new(), Vec::new(), Digest::ZERO);
    let mut record = |kind: &str, values: &[(&str, Value)], fields: &[(&str, &State, Option<Vec<u8>>)]| {
        let kind = Kind::from_name(kind).expect("a kind");
        let sequence = leaves.len() as u64;
        let mut all: Vec<(&str, Value)> = vec![
            ("schema", u64::from(SCHEMA_VERSION).into()),
            ("run", id.into()),
            ("worker", worker.into()),
            ("sequence", sequence.into()),
            ("previous", previous.into()),
            ("time", (1_700_000_000_000 + sequence).into()),
        ];
        all.extend_from_slice(values);
        let mut openings = Vec::new();
        for (name, state, bytes) in fields {
            let index = kind.fields.iter().position(|field| field.name == *name).expect("a field");
            let is_public = *name == "metrics";
            let blind = match is_public {
                true => Default::default(),
                false => secret.blind((id, worker, 0), sequence, kind, &kind.fields[index]),
            };
            let commitment = blind.entry_key().map_or(state.commitment(), |key| state.blinded(key));
            all.push((name, commitment.digest(&blind.blind).into()));
            let (layout, digest) = Frame::layout(state.entries());
            if !frames.contains(&layout.encode()) {
                frames.push(layout.encode());
            }
            let roots =
                state.entries().iter().filter(|entry| entry.has_root()).flat_map(|entry| entry.root().0);
            let content = bytes.clone().map_or_else(|| Openable::Roots(roots.collect()), Openable::Values);
            openings.push(FieldOpening { index: index as u8, blind, layout: digest, content });
        }
        let body = Body::new(kind, &all).expect("a body");
        let digest = body.digest();
        if !openings.is_empty() {
            frames.push(Frame::Opening(OpeningFrame { receipt: digest, fields: openings }).encode());
        }
        let signature = owner.sign(digest).expect("a signature");
        let receipt = Receipt { kind: kind.number, digest, signature, body: body.encode() };
        leaves.push(leaf_hash(&receipt.leaf()));
        frames.push(Frame::Receipt(receipt).encode());
        previous = digest;
    };
    let genesis = [
        ("owner", worker.into()),
        ("specification", pinned.into()),
        ("nonce", nonce.into()),
        ("minimumSchema", u64::from(SCHEMA_VERSION).into()),
        ("policy", floor.into()),
    ];
    record("genesis", &genesis, &[]);
    record("join", &[("role", 1.into()), ("secret", secret.public_hash().into())], &[]);
    let loss = |value: f64| {
        let bytes = value.to_le_bytes().to_vec();
        let entry = Entry::dense("loss", "F64", &[], bytes_root(&bytes)).expect("an entry");
        (State::new(vec![entry]).expect("a state"), bytes)
    };
    for step in 1..=2u64 {
        let (metrics, bytes) = loss(1.0 / step as f64);
        let fields = [("gradients", &state(), None), ("metrics", &metrics, Some(bytes))];
        record("step", &[("step", step.into())], &fields);
    }
    let head = Body::new(
        &TREE_HEAD,
        &[
            ("schema", u64::from(SCHEMA_VERSION).into()),
            ("run", id.into()),
            ("worker", worker.into()),
            ("size", (leaves.len() as u64).into()),
            ("root", merkle::root(&leaves).into()),
            ("time", 1_700_000_000_009.into()),
        ],
    )
    .expect("a head");
    let signature = owner.sign(head.digest()).expect("a signature");
    frames.push(Frame::Head(TreeHead { body: head, signature }).encode());
    let log = Log::from_frames(worker, 0, &frames).expect("a log");
    Run { specification, nonce, id, worker, frames, log }
}
