//! Evidence of a signed run, changed: what is verified is what was signed.

use counterfoil::evidence::Log;
use counterfoil::primitives::{Address, Digest};
use counterfoil::receipt::schema::Kind;
use counterfoil::receipt::{Body, LocalSigner, Signer};
use counterfoil::verify::{Contents, Judgement, Status};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::common::confirmed;
use crate::sample::{RUN, Run, owner};

/// Where a receipt's payload has its parts: type, kind, digest, signature, body.
const KIND: usize = 1;
const DIGEST: usize = 3;
const SIGNATURE: usize = 35;
const BODY: usize = 100;

/// What is changed of a run.
pub struct Folder {
    pub specification: Vec<u8>,
    pub worker: Address,
    pub lane: u32,
    pub frames: Vec<Vec<u8>>,
}

impl From<&Run> for Folder {
    fn from(run: &Run) -> Folder {
        let (specification, frames) = (run.specification.clone(), run.frames.clone());
        Folder { specification, worker: run.worker, lane: 0, frames }
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let is_anchored = input.arbitrary().unwrap_or_default();
    let mut folder = Folder::from(&*RUN);
    changes(&mut input, &mut folder);
    let Some((contents, verdict)) = verdict(&folder, is_anchored) else { return };
    if verdict == Status::Verified {
        assert_eq!(contents.specification, RUN.specification);
        check_verified(&RUN.log, &contents.logs[0], is_anchored);
    }
}

/// As many changes as the input says, twelve at most.
pub fn changes(input: &mut Unstructured, folder: &mut Folder) {
    for _ in 0..12 {
        if input.is_empty() || change(input, folder).is_err() {
            break;
        }
    }
}

fn verdict(folder: &Folder, is_anchored: bool) -> Option<(Contents, Status)> {
    let log = Log::from_frames(folder.worker, folder.lane, &folder.frames).ok()?;
    let anchor = || ("0.json".into(), RUN.anchor.clone());
    let contents = Contents {
        specification: folder.specification.clone(),
        logs: vec![log],
        anchors: is_anchored.then(anchor).into_iter().collect(),
        ..Contents::default()
    };
    let judgement = Judgement { signer: Some(RUN.worker), ..Judgement::default() };
    let status = contents.verify(&judgement, &confirmed, &|_| None, &|_| None).status;
    Some((contents, status))
}

/// A verified log is the one that was signed, or what came before its end when no head and no anchor
/// tells how long it was; what is opened of it are the original openings.
pub fn check_verified(original: &Log, log: &Log, is_anchored: bool) {
    assert_eq!((log.worker, log.lane), (original.worker, original.lane));
    assert_eq!(log.shown() as u64, log.size(), "withheld receipts are verified");
    assert!(log.size() <= original.size(), "more receipts verify than were signed");
    for index in 0..log.shown() {
        let read = |log: &Log| log.read(index).expect("it was read before");
        let (shown, known) = (read(log), read(original));
        assert_eq!(shown.receipt, known.receipt, "a receipt verifies that was not signed so");
        let is_known = shown.fields.iter().all(|field| known.fields.contains(field))
            && shown.parts.iter().all(|part| known.parts.contains(part));
        assert!(is_known, "an opening verifies that was not signed so");
    }
    assert!(log.delegations().iter().all(|found| original.delegations().contains(found)));
    assert!(log.heads().zip(original.heads()).all(|(head, known)| head == known), "a head was not signed so");
    assert!(log.heads().count() <= original.heads().count(), "more heads verify than were signed");
    let covered =
        if is_anchored { original.size() } else { log.heads().last().map_or(0, |head| head.size()) };
    assert!(log.size() >= covered, "receipts are missing before a head");
}

fn change(input: &mut Unstructured, folder: &mut Folder) -> Result<()> {
    let what = input.int_in_range(0..=15)?;
    if folder.frames.is_empty() {
        return Ok(());
    }
    let which = input.choose_index(folder.frames.len())?;
    match what {
        0 => flip(input, &mut folder.frames[which])?,
        1 => {
            let length = input.choose_index(folder.frames[which].len() + 1)?;
            folder.frames[which].truncate(length);
        }
        2 => {
            let more = input.int_in_range(1..=40)?;
            folder.frames[which].extend_from_slice(input.bytes(more)?);
        }
        3 => {
            let copy = folder.frames[which].clone();
            folder.frames.insert(input.choose_index(folder.frames.len() + 1)?, copy);
        }
        4 => {
            let other = input.choose_index(folder.frames.len())?;
            folder.frames.swap(which, other);
        }
        5 => drop(folder.frames.remove(which)),
        6 => flip(input, &mut folder.specification)?,
        7 if input.arbitrary()? => folder.worker = Address::ZERO,
        7 => folder.lane = input.arbitrary()?,
        8 => {
            let other = input.choose_index(folder.frames.len())?;
            move_word(input, &mut folder.frames, which, other)?;
        }
        9 => folder.frames[which] = input.bytes(input.len().min(300))?.to_vec(),
        _ if folder.frames[which].first() == Some(&b'R') && folder.frames[which].len() >= BODY => {
            change_receipt(input, what, &mut folder.frames[which])?;
        }
        _ => {}
    }
    Ok(())
}

pub fn flip(input: &mut Unstructured, bytes: &mut [u8]) -> Result<()> {
    if !bytes.is_empty() {
        let place = input.choose_index(bytes.len())?;
        bytes[place] ^= input.arbitrary::<u8>()?;
    }
    Ok(())
}

/// Copies 32 bytes of one frame over some of another.
fn move_word(input: &mut Unstructured, frames: &mut [Vec<u8>], from: usize, to: usize) -> Result<()> {
    let (Some(last_from), Some(last_to)) =
        (frames[from].len().checked_sub(32), frames[to].len().checked_sub(32))
    else {
        return Ok(());
    };
    let (from_place, to_place) = (input.int_in_range(0..=last_from)?, input.int_in_range(0..=last_to)?);
    let word = frames[from][from_place..from_place + 32].to_vec();
    frames[to][to_place..to_place + 32].copy_from_slice(&word);
    Ok(())
}

fn change_receipt(input: &mut Unstructured, what: u8, frame: &mut [u8]) -> Result<()> {
    match what {
        10 => frame[KIND..DIGEST].copy_from_slice(&input.int_in_range(0u16..=21)?.to_be_bytes()),
        11 => {
            let signature: [u8; 65] = frame[SIGNATURE..BODY].try_into().expect("65 bytes");
            if let Some(twin) = high_s_twin(&signature) {
                frame[SIGNATURE..BODY].copy_from_slice(&twin);
            }
        }
        12 => frame[BODY - 1] = *input.choose(&[0, 1, 27, 28, 29, 255])?,
        13 => {
            // One field of the body, an address for instance, becomes zero.
            let words = (frame.len() - BODY) / 32;
            if words > 0 {
                let begin = BODY + 32 * input.choose_index(words)?;
                frame[begin..begin + 32].fill(0);
            }
        }
        14 => drop(digest_anew(frame)),
        _ => {
            // A stranger signs what stands there now; the owner's key would make it true.
            let Some(digest) = digest_anew(frame) else { return Ok(()) };
            let stranger = LocalSigner::from_bytes(&[input.int_in_range(3..=8)?; 32]).expect("a key");
            assert_ne!(stranger.address(), owner().address());
            frame[SIGNATURE..BODY].copy_from_slice(&stranger.sign(digest).expect("a signature").0);
        }
    }
    Ok(())
}

/// Makes the digest that of the body, so that the signature is what is wrong.
fn digest_anew(frame: &mut [u8]) -> Option<Digest> {
    let kind = Kind::from_number(u16::from_be_bytes([frame[KIND], frame[KIND + 1]]))?;
    let digest = Body::decode(kind, &frame[BODY..]).ok()?.digest();
    frame[DIGEST..SIGNATURE].copy_from_slice(digest.as_slice());
    Some(digest)
}

/// (r, n - s) with the other v: the same signature to plain ECDSA.
pub fn high_s_twin(signature: &[u8; 65]) -> Option<[u8; 65]> {
    use alloy_primitives::{U256, hex};
    let order = U256::from_be_bytes(hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"));
    let s = U256::from_be_slice(&signature[32..64]);
    let mut twin = *signature;
    twin[32..64].copy_from_slice(&order.checked_sub(s)?.to_be_bytes::<32>());
    twin[64] = 55u8.wrapping_sub(signature[64]);
    Some(twin)
}

/// The control: without a change the run is verified, anchored or not.
pub fn seeds() -> Vec<Vec<u8>> {
    for is_anchored in [false, true] {
        let status = verdict(&Folder::from(&*RUN), is_anchored).map(|(_, status)| status);
        assert_eq!(status, Some(Status::Verified), "the sample itself");
    }
    one_of_each().collect()
}

/// One byte for the target, then one change of every kind at some frame.
pub fn one_of_each() -> impl Iterator<Item = Vec<u8>> {
    let one = |what: u8| [[0, what, 3, 1, 2, 3, 4, 5], [1, what, 1, 7, 0, 0, 9, 9]].map(Vec::from);
    (0..16).flat_map(one)
}
