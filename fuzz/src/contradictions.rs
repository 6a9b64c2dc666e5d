//! Proofs of a second history: whoever signed one history is never convicted.

use counterfoil::evidence::{Contradiction, Frame, Log};
use counterfoil::primitives::Address;
use counterfoil::receipt::schema::Kind;
use counterfoil::receipt::{Body, Receipt, Signer, Value};
use libfuzzer_sys::arbitrary::Unstructured;

use crate::common::key;
use crate::sample::{COMPLETE, framed};
use crate::tampered::{Folder, changes, one_of_each};

/// Frames as in a bundle.
pub fn contradiction(bytes: &[u8]) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let Some((frame, behind)) = behind.split_at_checked(u32::from_be_bytes(*length) as usize) else {
            return;
        };
        frames.push(frame.to_vec());
        rest = behind;
    }
    check(&frames);
}

/// Whom these frames convict.
fn check(frames: &[Vec<u8>]) -> Option<Address> {
    let found = Contradiction::decode(frames).ok()?;
    let again = Contradiction::decode(&found.encode()).expect("what was written");
    assert_eq!((&again, again.check()), (&found, found.check()));
    found.check().ok()
}

/// Two receipts for one position, signed by the worker, and by a key that it allowed.
pub fn contradiction_seeds() -> Vec<Vec<u8>> {
    let of_type = |letter| COMPLETE.frames.iter().filter(move |frame| frame[0] == letter).cloned();
    let forks = [(0, key(1)), (2, key(2))].map(|(position, signer)| {
        let ours = COMPLETE.log.read(position).expect("a receipt").receipt;
        let body = Body::decode(Kind::from_number(ours.kind).expect("a kind"), &ours.body).expect("a body");
        let mut values: Vec<(&str, Value)> =
            body.fields().map(|(field, value)| (field.name, value)).collect();
        values.push(("time", 5.into()));
        let body = Body::new(body.kind(), &values).expect("a body");
        let digest = body.digest();
        let signature = signer.sign(digest).expect("a signature");
        let theirs = Receipt { digest, signature, body: body.encode(), ..ours.clone() };
        let pair = [ours, theirs].map(|receipt| Frame::Receipt(receipt).encode());
        let frames: Vec<Vec<u8>> = of_type(b'D').chain(pair).collect();
        assert_eq!(check(&frames), Some(COMPLETE.worker), "the sample itself");
        framed(&frames)
    });
    let heads: Vec<Vec<u8>> = of_type(b'D').chain(of_type(b'H')).collect();
    forks.into_iter().chain([framed(&heads)]).collect()
}

/// Two statements of one history with its delegations, then the whole history against itself, changed.
pub fn honest(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut folder = Folder::from(&*COMPLETE);
    if input.arbitrary().unwrap_or_default() {
        let is_statement = |frame: &&Vec<u8>| matches!(frame[0], b'R' | b'H');
        let statements: Vec<&Vec<u8>> = COMPLETE.frames.iter().filter(is_statement).collect();
        let pair =
            [(); 2].map(|()| statements[input.choose_index(statements.len()).unwrap_or_default()].clone());
        folder.frames.retain(|frame| frame[0] == b'D');
        folder.frames.extend(pair);
        changes(&mut input, &mut folder);
        assert_ne!(check(&folder.frames), Some(COMPLETE.worker), "an honest worker is convicted");
    } else {
        changes(&mut input, &mut folder);
        let Ok(log) = Log::from_frames(COMPLETE.worker, 0, &folder.frames) else { return };
        let found =
            [Contradiction::between(&COMPLETE.log, &log), Contradiction::between(&log, &COMPLETE.log)];
        assert_eq!(found, [Ok(None), Ok(None)], "an honest worker is convicted");
    }
}

pub fn honest_seeds() -> Vec<Vec<u8>> {
    let pairs = (0..8u8).map(|one| vec![1, one, 0]);
    let same = (0..8u8).map(|one| vec![1, one, one, 0, 1, 2]);
    pairs.chain(same).chain(one_of_each()).collect()
}
