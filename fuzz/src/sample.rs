//! Runs of real signed receipts, made by the builder of the crate's own tests.

use std::sync::LazyLock;

use counterfoil::commit::merkle::CompactRange;
use counterfoil::commit::{Content, Entry, State, bytes_root, leaf_hash};
use counterfoil::evidence::bundle::PartKind;
use counterfoil::evidence::{AnchorRecord, Frame, Log, OpeningFrame};
use counterfoil::primitives::{Address, Digest};
use counterfoil::receipt::{LocalSigner, Signer};

use crate::common::{self, key, opens, part};

/// A run, and what its evidence is made of.
pub struct Run {
    pub specification: Vec<u8>,
    pub nonce: Digest,
    pub id: Digest,
    pub worker: Address,
    pub frames: Vec<Vec<u8>>,
    pub log: Log,
    pub anchor: AnchorRecord,
    pub parts: Vec<(PartKind, String, Vec<u8>)>,
}

impl From<common::Run> for Run {
    /// The run as it is now, anchored.
    fn from(mut run: common::Run) -> Run {
        run.anchor(1_700_000_100);
        let (parts, mut contents) = (run.parts(), run.contents());
        let log = contents.logs.remove(0);
        Run {
            nonce: log.genesis().expect("a genesis").bytes32("nonce"),
            id: run.id,
            worker: run.owner.address(),
            frames: run.payloads(),
            log,
            anchor: run.anchors.remove(0),
            parts,
            specification: run.specification,
        }
    }
}

/// Genesis, join, two steps, a tree head.
pub static RUN: LazyLock<Run> = LazyLock::new(|| {
    let mut run = common::Run::new(r#"{"policy":{"gradients":1},"public":["step.metrics"]}"#);
    run.genesis();
    run.join();
    (1..=2).for_each(|step| with_metrics(&mut run, step));
    run.sign_head();
    run.into()
});

/// A run with everything that a bundle can hold but receipts that are withheld.
pub static COMPLETE: LazyLock<Run> = LazyLock::new(|| {
    let specification = r#"{"policy": {"checkpoint": 2}, "public": ["step.metrics"]}"#;
    let mut run =
        common::Run::with_recipe(specification, &[("data/load.py", "x = 1"), ("recipe.py", "step")]);
    run.genesis();
    let (session, owner) = (key(2), owner());
    let values = run.delegation_values(&session);
    run.delegate(session, &values, &owner);
    run.join();
    run.step(1);
    with_metrics(&mut run, 2);
    run.sign_head();
    run.checkpoint(2);
    run.close(2);
    run.sign_head();
    // Single tensors of the first step, in place of its whole opening.
    let place = run.frames.iter().position(|frame| matches!(frame, Frame::Opening(_))).expect("a step");
    let Frame::Opening(OpeningFrame { receipt, fields }) = run.frames[place].clone() else { unreachable!() };
    let parts = [part(&run, receipt, &fields[0], "a"), part(&run, receipt, &fields[0], "b")];
    run.frames.splice(place..=place, parts.into_iter().chain([part(&run, receipt, &fields[1], "a")]));
    run.into()
});

/// The tensors are named as in a step of the builder, so that one layout serves both.
fn with_metrics(run: &mut common::Run, step: u64) {
    let metrics = common::Opens { by_value: true, ..opens("metrics", &[("loss", &[0, 0, 128, step as u8])]) };
    let gradients = opens("gradients", &[("a", &[step as u8; 3]), ("b", &[5; 40])]);
    run.record("step", &[("step", step.into())], &[gradients, metrics]);
}

/// The owner's key in every run here.
pub fn owner() -> LocalSigner {
    key(1)
}

/// The frames of one part of a bundle.
pub fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat()).collect()
}

/// Puts the hashes of the receipts among these frames in the frames' place.
pub fn withhold(frames: &mut Vec<Vec<u8>>, places: std::ops::RangeInclusive<usize>) {
    let receipts = |frames: &[Vec<u8>]| -> Vec<Digest> {
        let leaf = |frame: &Vec<u8>| match Frame::decode(frame) {
            Ok(Frame::Receipt(receipt)) => Some(leaf_hash(&receipt.leaf())),
            _ => None,
        };
        frames.iter().filter_map(leaf).collect()
    };
    let mut range = CompactRange::from(receipts(&frames[..*places.start()]).len() as u64);
    receipts(&frames[places.clone()]).into_iter().for_each(|leaf| range.push(leaf));
    if range.count() > 0 {
        frames.splice(places, [Frame::Withheld(range).encode()]);
    }
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

/// Frames of every type.
pub fn frames() -> Vec<Vec<u8>> {
    let mut withheld = RUN.frames.clone();
    let last = withheld.len() - 1;
    withhold(&mut withheld, 0..=last);
    let layout = Frame::layout(state().entries()).0.encode();
    [withheld, vec![layout], RUN.frames.clone(), COMPLETE.frames.clone()].concat()
}
