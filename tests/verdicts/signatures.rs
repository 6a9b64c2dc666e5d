//! Who signed a receipt, and what a signature reaches.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::{Delegation, Frame};
use counterfoil::primitives::Digest;
use counterfoil::receipt::schema::{BUNDLE, DELEGATION, Kind};
use counterfoil::receipt::{Body, Signer, recover};
use counterfoil::verify::Status;

#[test]
fn kinds_that_nobody_knows_are_undecided_and_renamed_ones_refuted() {
    let mut renamed = step(1);
    for number in [10u16, 9, 20, 21, u16::MAX] {
        renamed.number = number;
        let kind = match number {
            10 => "transform".to_string(),
            9 => "dataset".into(),
            20 => "revocation".into(),
            _ => format!("unknown kind {number}"),
        };
        let place = format!("ledger: receipt 2 ({kind}): kind");
        assert_eq!(of([renamed.clone()]), [edge(&place, "step", &kind)]);
        // A body of no type that is known here.
        let mut built = Run::of([renamed.clone().item(), step(1).item()]).build();
        let unknown = signed_bytes(&mut built, number, OWNER);
        let verdict = unknown.verdict();
        assert_eq!(verdict.status, Status::Undecided, "{:?}", verdict.integrity.broken);
        let expected =
            format!("ledger: receipt 2 ({kind}): this version does not know the kind; use a newer one");
        assert_eq!(
            verdict.missing,
            ["no step is shown: there is nothing to check yet".to_string(), expected]
        );
        let stranger = signed_bytes(&mut built, number, STRANGER);
        let place = format!("ledger: receipt 2 ({kind}): signature");
        assert_eq!(edges(&stranger), [edge(&place, address(OWNER), address(STRANGER))]);
    }
    // Under another known kind the body has another type.
    let mut as_close = step(1);
    as_close.number = 7;
    assert_eq!(
        of([as_close]),
        [edge(
            "ledger: receipt 2 (close): body",
            "a body of CloseV1",
            "a close receipt has 384 bytes, found 736"
        )]
    );
    let mut as_join = resume(0);
    as_join.number = 2;
    let built = Run::of([as_join.item()]).build();
    let receipt = built.logs[0].receipts().nth(2).unwrap();
    let actual = Body::decode(Kind::from_name("join").unwrap(), &receipt.body).unwrap().digest();
    let found = edges(&built);
    assert_eq!(found, [edge("ledger: receipt 2 (join): body", receipt.digest, actual)]);
    let mut as_resume = join_draft();
    as_resume.number = 6;
    let built = Run::of([as_resume.item()]).build();
    let receipt = built.logs[0].receipts().nth(2).unwrap();
    let actual = Body::decode(Kind::from_name("resume").unwrap(), &receipt.body).unwrap().digest();
    assert_eq!(edges(&built), [edge("ledger: receipt 2 (resume): body", receipt.digest, actual)]);
}

fn join_draft() -> Draft {
    Draft::new("join", &[])
}

/// The first three receipts, the last one with a body of no known type.
fn signed_bytes(built: &mut Built, number: u16, by: u8) -> Built {
    let mut built = built.clone();
    let frames = &mut built.logs[0].frames;
    frames.retain(|frame| matches!(frame, Frame::Receipt(_)));
    frames.truncate(3);
    let Frame::Receipt(receipt) = &mut frames[2] else { unreachable!() };
    receipt.kind = number;
    receipt.digest = Digest::repeat_byte(0x77);
    receipt.body = b"from the future".to_vec();
    receipt.signature = key(by).sign(receipt.digest).unwrap();
    built
}

#[test]
fn a_receipt_is_signed_by_its_worker_in_the_one_encoding() {
    let mut draft = step(1);
    draft.key = Some(STRANGER);
    let place = step_place(2, 1, "signature");
    assert_eq!(of([draft]), [edge(&place, address(OWNER), address(STRANGER))]);
    let mut built = Run::of([step(1).item()]).build();
    let Some(Frame::Receipt(receipt)) = built.logs[0].frames.last_mut() else { unreachable!() };
    receipt.signature.0[64] -= 27;
    let v = receipt.signature.0[64];
    let expected = format!("recovery byte is {v}, expected 27 or 28");
    assert_eq!(edges(&built), [edge(&place, address(OWNER), expected)]);
}

/// Expected: eth-account 0.14, `encode_typed_data` and `sign_message` for the keys of bytes 1.
#[test]
fn delegations_and_bundles_are_typed_data_that_wallets_sign_alike() {
    let run = Digest::repeat_byte(0x11);
    let values: Words = vec![
        ("schema", 1.into()),
        ("run", run.into()),
        ("worker", address(OWNER).into()),
        ("lane", 3.into()),
        ("key", address(SESSION).into()),
        ("kinds", 0x1ed.into()),
        ("firstSequence", 2.into()),
        ("lastSequence", u64::MAX.into()),
        ("expires", 1_700_000_000.into()),
    ];
    let delegation = Body::new(&DELEGATION, &values).unwrap();
    let bundle: Words =
        vec![("schema", 1.into()), ("run", run.into()), ("manifest", Digest::repeat_byte(0x22).into())];
    let bundle = Body::new(&BUNDLE, &bundle).unwrap();
    for (body, digest, signature) in [
        (
            &delegation,
            "c8e8016be0b452a5e098ad83545d38ba456dd8f24268cc2648bf6899b786e23f",
            "365e7e5c8e79ad90d087503144ea57ed02b5ff8f1b2e9b7736112aaa65b8490b2a5ff7bc1f89c6ff7085fa39395851364b65893885af6d48b2daf2926707cadd1b",
        ),
        (
            &bundle,
            "52f7ef33a7fcd5e41722cb95422bd3ae38e3b0741603720b774e0cc60495628b",
            "5f9ea90e565a83b286dd3f6851b6f32515aea370bc56333471f2189365fb4f9a10de5273493bd4f1cdfab404c1ddb79ab503e3dc347116c936d9d4f5f8e1a3821b",
        ),
    ] {
        assert_eq!(body.digest().to_string(), format!("0x{digest}"));
        let signed = key(OWNER).sign_message(body).unwrap();
        assert_eq!(format!("{signed:?}"), format!("Signature(0x{signature})"));
        assert_eq!(recover(body.digest(), &signed), Ok(address(OWNER)));
    }
    let found = Delegation { body: delegation, signature: key(OWNER).sign(Digest::ZERO).unwrap() };
    assert_eq!((found.key(), found.expires()), (address(SESSION), Some(1_700_000_000)));
    assert_eq!(found.is_of(run, address(OWNER), 3), Ok(false));
    assert!(found.allows(3, 2) && found.allows(8, u64::MAX) && !found.allows(3, 1) && !found.allows(1, 2));
    assert!(!found.allows(0, 2) && !found.allows(64, 2) && !found.allows(67, 2) && !found.allows(4, 2));
    assert!(found.allows_head(3) && !found.allows_head(2) && !found.allows_head(0));
}

/// Every word of every signed body, changed by somebody without the key: the digest kept, and the
/// digest made to fit.
#[test]
fn every_word_of_every_signed_body_is_bound() {
    let built = rich();
    for (built, skips_steps) in [(built, true), (complete(), false)] {
        let honest = built.logs[0].encoded();
        assert_eq!(built.verdict().status, Status::Verified);
        for (index, payload) in honest.iter().enumerate() {
            let begin = match payload[0] {
                b'R' if skips_steps && payload[..3] == [b'R', 0, 3] => continue,
                b'R' => 100,
                b'H' | b'D' => 66,
                _ => continue,
            };
            for at in (begin..payload.len()).step_by(32) {
                let word: [u8; 32] = payload[at..at + 32].try_into().unwrap();
                let mut changes = vec![[0; 32], [0xff; 32], added(word, 1), added(word, -1)];
                if at + 64 <= payload.len() {
                    changes.push(payload[at + 32..at + 64].try_into().unwrap());
                }
                for change in changes.into_iter().filter(|change| *change != word) {
                    let mut changed = payload.clone();
                    if change[..] == payload[at + 32..payload.len().min(at + 64)] {
                        changed[at + 32..at + 64].copy_from_slice(&word);
                    }
                    changed[at..at + 32].copy_from_slice(&change);
                    // The digest kept: one change of each word will do.
                    let mut payloads = Vec::new();
                    if change == added(word, 1) || payload[0] != b'R' {
                        payloads.push(changed.clone());
                    }
                    if payload[0] == b'R' {
                        let number = u16::from_be_bytes([payload[1], payload[2]]);
                        let body = Body::decode(Kind::from_number(number).unwrap(), &changed[100..]);
                        if let Ok(body) = body {
                            changed[3..35].copy_from_slice(body.digest().as_slice());
                            payloads.push(changed);
                        }
                    }
                    for payload in payloads {
                        let mut frames = honest.clone();
                        frames[index] = payload;
                        let word = (at - begin) / 32;
                        let verdict = judge(&with_log(&built, framed(&frames))).unwrap();
                        assert_eq!(verdict.status, Status::Refuted, "word {word} of frame {index}");
                        assert!(!verdict.integrity.broken.is_empty());
                    }
                }
            }
        }
    }
}

/// A word plus or minus one, as a number of 256 bits.
fn added(mut word: [u8; 32], by: i16) -> [u8; 32] {
    let mut carry = by;
    for byte in word.iter_mut().rev() {
        let sum = i16::from(*byte) + carry;
        (*byte, carry) = (sum.rem_euclid(256) as u8, sum.div_euclid(256));
    }
    word
}
