//! Bundles from anywhere, and a bundle of a signed run, changed and packed anew by somebody else.

use std::sync::Arc;

use counterfoil::evidence::bundle::{PartKind, log_name};
use counterfoil::evidence::{AnchorRecord, Bundle, BundleError};
use counterfoil::verify::{
    Confirmed, Contents, Judgement, Standing, Status, bundle_object, bundle_object_root, unconfirmed,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::common::{key, packed};
use crate::sample::{COMPLETE, RUN, framed, withhold};
use crate::tampered::{Folder, changes, check_verified, flip, one_of_each};

type Parts = Vec<(PartKind, String, Vec<u8>)>;

/// Only what was signed is verified, whoever packed it. `is_asked` is whether the chain, which holds
/// the original anchor and no other, is asked.
fn read(bytes: &[u8], is_asked: bool) -> std::result::Result<Status, BundleError> {
    let bundle = Bundle::open(Arc::new(bytes.to_vec()), bytes.len() as u64)?;
    let contents = Contents::of_bundle(&bundle)?;
    let judgement = Judgement { signer: Some(COMPLETE.worker), ..Judgement::default() };
    let holds = |record: &AnchorRecord| *record == COMPLETE.anchor;
    let confirmation = |number: usize, record: &AnchorRecord| match is_asked {
        true => {
            let standing = if holds(record) { Standing::Held } else { Standing::Denied };
            Confirmed { standing, ..unconfirmed(number, record) }
        }
        false => unconfirmed(number, record),
    };
    let object_root = |entry: &_| bundle_object_root(&bundle, entry);
    let verdict = contents.verify(&judgement, &confirmation, &object_root, &|entry| bundle_object(&bundle, entry));
    if verdict.status == Status::Verified {
        check(&bundle, &contents, is_asked);
    }
    Ok(verdict.status)
}

fn check(bundle: &Bundle, contents: &Contents, is_asked: bool) {
    let of_kind = |wanted: PartKind| -> Vec<(String, Vec<u8>)> {
        let parts = COMPLETE.parts.iter().filter(|(kind, ..)| *kind == wanted);
        parts.map(|(_, name, bytes)| (name.clone(), bytes.clone())).collect()
    };
    assert_eq!(bundle.run(), COMPLETE.id);
    assert_eq!(contents.specification, COMPLETE.specification);
    assert_eq!(contents.recipe, of_kind(PartKind::Recipe).into_iter().collect());
    let objects = of_kind(PartKind::Object);
    for object in bundle.files(PartKind::Object, u64::MAX).expect("they were read before") {
        assert!(objects.contains(&object), "an object verifies that was not signed so");
    }
    assert_eq!(contents.logs.len(), 1);
    let is_anchored = contents.anchors.iter().any(|(_, record)| *record == COMPLETE.anchor);
    check_verified(&COMPLETE.log, &contents.logs[0], is_asked && is_anchored);
}

/// A bundle; then the frames of a log in a bundle that is right otherwise.
pub fn bundle(bytes: &[u8]) {
    let _ = read(bytes, false);
    let mut parts = COMPLETE.parts.clone();
    replace(&mut parts, PartKind::Log, bytes);
    let status = read(&packed(COMPLETE.id, &parts, &key(66)), false);
    assert!(status.is_ok(), "a damaged log is an edge that does not hold: {status:?}");
}

fn replace(parts: &mut Parts, wanted: PartKind, bytes: &[u8]) {
    let found = parts.iter_mut().find(|(kind, ..)| *kind == wanted).expect("every kind is there");
    found.2 = bytes.to_vec();
}

pub fn bundle_seeds() -> Vec<Vec<u8>> {
    let bundle = |parts| packed(COMPLETE.id, parts, &key(66));
    let mut withheld = COMPLETE.frames.clone();
    withhold(&mut withheld, 8..=12);
    // Nothing has a place behind the last position that a number can name.
    let last = [b"W", &[0; 8][..], &[255; 8], &[1; 64 * 32]].concat();
    let beyond = vec![last, RUN.frames[0].clone()];
    let logs = [&COMPLETE.frames, &RUN.frames, &withheld, &beyond].map(|frames| framed(frames));
    logs.into_iter().chain([bundle(&COMPLETE.parts), bundle(&RUN.parts)]).collect()
}

/// Changes of the log's frames and of other parts, with the hashes and the signature made anew.
pub fn repacked(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let is_asked = input.arbitrary().unwrap_or_default();
    let mut parts = COMPLETE.parts.clone();
    if change(&mut input, &mut parts).is_ok() {
        let mut folder = Folder::from(&*COMPLETE);
        if input.arbitrary().unwrap_or_default() {
            let last = folder.frames.len() - 1;
            let from = input.int_in_range(0..=last).unwrap_or_default();
            withhold(&mut folder.frames, from..=input.int_in_range(from..=last).unwrap_or(from));
        }
        changes(&mut input, &mut folder);
        for (kind, name, bytes) in &mut parts {
            match kind {
                PartKind::Specification => *bytes = folder.specification.clone(),
                PartKind::Log => {
                    *name = log_name(folder.worker, folder.lane);
                    *bytes = framed(&folder.frames);
                }
                _ => {}
            }
        }
    }
    let _ = read(&packed(COMPLETE.id, &parts, &key(66)), is_asked);
}

/// Up to three changes of whole parts.
fn change(input: &mut Unstructured, parts: &mut Parts) -> Result<()> {
    for _ in 0..input.int_in_range(0..=3)? {
        let which = input.choose_index(parts.len())?;
        match input.int_in_range(0..=6)? {
            0 => flip(input, &mut parts[which].2)?,
            1 => {
                let length = input.choose_index(parts[which].2.len() + 1)?;
                parts[which].2.truncate(length);
            }
            2 => {
                let more = input.int_in_range(1..=40)?;
                parts[which].2.extend_from_slice(input.bytes(more)?);
            }
            3 if parts.len() > 1 => drop(parts.remove(which)),
            4 => {
                let copy = parts[which].clone();
                parts.insert(which + 1, copy);
            }
            5 => {
                let length = input.int_in_range(0..=12)?;
                parts[which].1 = String::from_utf8_lossy(input.bytes(length)?).into_owned();
            }
            _ => {
                let other = input.choose_index(parts.len())?;
                parts[which].2 = parts[other].2.clone();
            }
        }
    }
    Ok(())
}

/// The control: without a change the bundle is verified, whether the chain is asked or not.
pub fn repacked_seeds() -> Vec<Vec<u8>> {
    for is_asked in [false, true] {
        let status = read(&packed(COMPLETE.id, &COMPLETE.parts, &key(66)), is_asked);
        assert_eq!(status, Ok(Status::Verified), "the sample itself");
    }
    let parts = (0..7).flat_map(|what| (0..6).map(move |which| vec![which & 1, 1, which, what, 1, 2, 3, 4]));
    let frames = one_of_each().map(|seed| [&[seed[0], 0, 0], &seed[1..]].concat());
    let withheld = (0..6).map(|from| vec![0, 0, 1, 3 * from, 2]);
    parts.chain(frames).chain(withheld).collect()
}
