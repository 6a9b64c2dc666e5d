//! The frames of a log: one encoding each, at a place where a receipt needs them.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::commit::Entry;
use counterfoil::evidence::Frame;
use counterfoil::primitives::{Digest, sha256};

#[test]
fn frames_end_where_their_lengths_say() {
    let built = complete();
    let honest = framed(&built.logs[0].encoded());
    let count = built.logs[0].frames.len();
    let refused =
        |number: usize, detail: &str| log_edge(&format!("frame {number} of the ledger is refused: {detail}"));
    for rest in 1..4 {
        let longer = [honest.clone(), vec![0; rest]].concat();
        let expected = refused(count, &format!("a frame of {rest} bytes"));
        assert_eq!(bundle_edges(&with_log(&built, longer))[0], expected);
    }
    let empty = [honest.clone(), vec![0; 4]].concat();
    let expected = refused(count, "1 bytes expected at offset 0, 0 left");
    assert_eq!(bundle_edges(&with_log(&built, empty))[0], expected);
    let over = [honest.clone(), 3u32.to_be_bytes().to_vec(), b"ab".to_vec()].concat();
    let expected = refused(count, "a payload of 3 bytes, 2 are left");
    assert_eq!(bundle_edges(&with_log(&built, over))[0], expected);
    let huge = [honest.clone(), u32::MAX.to_be_bytes().to_vec()].concat();
    let expected = refused(count, "a payload of 4294967295 bytes, 0 are left");
    assert_eq!(bundle_edges(&with_log(&built, huge))[0], expected);
    let type_byte = [honest, framed(&[b"Q".to_vec()])].concat();
    let expected = refused(count, "type byte 0x51, expected one of R H L O P D W");
    assert_eq!(bundle_edges(&with_log(&built, type_byte))[0], expected);
    let none = bundle_edges(&with_log(&built, Vec::new()));
    assert_eq!(none[1], edge("run: genesis", "a genesis receipt first in the owner's lane 0", "none"));
    assert_eq!(none[0], edge("bundle: run", Digest::ZERO, built.run));
}

/// One frame is 64 MiB at most, in a bundle as in a journal.
#[test]
fn a_frame_of_more_than_64_mib_is_refused() {
    let built = complete();
    let limit = 64usize << 20;
    let honest = framed(&built.logs[0].encoded());
    let count = built.logs[0].frames.len();
    for (size, detail) in [
        (limit, "type byte 0x51, expected one of R H L O P D W".to_string()),
        (limit + 1, format!("a payload of {} bytes, {} are left", limit + 1, limit + 1)),
    ] {
        let log = [honest.clone(), (size as u32).to_be_bytes().to_vec(), vec![b'Q'; size]].concat();
        let expected = log_edge(&format!("frame {count} of the ledger is refused: {detail}"));
        assert_eq!(bundle_edges(&with_log(&built, log))[0], expected);
    }
}

#[test]
fn frames_that_no_receipt_needs_have_no_place_in_a_bundle() {
    let built = complete();
    let honest = built.logs[0].encoded();
    let unneeded = |count: u32| {
        log_edge(&format!("frame 0 of the ledger is refused: {count} frames that no receipt needs"))
    };
    let spare = Frame::layout(&[Entry::dense("spare", "U8", &[1], Digest::ZERO).unwrap()]).0.encode();
    for at in 0..=honest.len() {
        let mut frames = honest.clone();
        frames.insert(at, spare.clone());
        assert_eq!(log_refusal(&built, &frames), unneeded(1), "an unused layout before frame {at}");
    }
    for (index, frame) in honest.iter().enumerate() {
        let mut doubled = honest.clone();
        doubled.insert(index, frame.clone());
        let found = bundle_edges(&with_log(&built, framed(&doubled)));
        match frame[0] {
            b'L' => assert_eq!(found[0], unneeded(1)),
            b'O' => assert!(found[0].2.ends_with("is opened twice"), "{found:?}"),
            b'P' => assert_eq!(found[0].1, "each once, in order"),
            b'D' => assert_eq!(found[0], edge("ledger: delegations", "each once", "one of them twice")),
            _ => assert!(found[0].0.starts_with("ledger: "), "{found:?}"),
        }
        // An opening behind its receipt, or without one, opens nothing.
        if [b'O', b'P'].contains(&frame[0]) {
            let mut moved = honest.clone();
            moved.push(moved[index].clone());
            moved.remove(index);
            let lost = log_refusal(&built, &moved);
            assert!(lost.2.ends_with("frames that no receipt needs"), "{lost:?}");
        }
    }
    let mut early = honest.clone();
    let opening = early.iter().position(|frame| frame[0] == b'O').unwrap();
    let frame = early.remove(opening);
    early.insert(1, frame);
    // The layout that only this opening uses comes behind it, and is then unused.
    assert!(log_refusal(&built, &early).2.ends_with("frames that no receipt needs"));
}

#[test]
fn single_tensors_are_opened_in_one_order() {
    let built = complete();
    let mut frames = built.logs[0].encoded();
    let first = frames.iter().position(|frame| frame[0] == b'P').unwrap();
    frames.swap(first, first + 1);
    assert_eq!(
        bundle_edges(&with_log(&built, framed(&frames))),
        [edge("ledger: receipt 2 (step 1): openings of tensors", "each once, in order", "another order")]
    );
}

/// An opening of something that is no commitment binds nothing, so its bytes would be free.
#[test]
fn an_opening_of_no_commitment_field_is_refuted() {
    let built = complete();
    let at = built.logs[0].frames.iter().position(|frame| matches!(frame, Frame::Opening(_))).unwrap();
    // Fields 0, 1 and 13 of a step are numbers; it has no field 15.
    for index in [0, 1, 13, 15, 200, 255] {
        let mut changed = built.clone();
        let Frame::Opening(opening) = &mut changed.logs[0].frames[at] else { unreachable!() };
        let mut stray = opening.fields[0].clone();
        stray.index = index;
        opening.fields.push(stray);
        assert_eq!(
            bundle_edges(&changed.bundle()),
            [edge("ledger: receipt 2 (step 1): opening", "a commitment field", format!("field {index}"))]
        );
        let mut changed = built.clone();
        let part = changed.logs[0].frames.iter_mut().find_map(|frame| match frame {
            Frame::Part(part) => Some(part),
            _ => None,
        });
        part.unwrap().index = index;
        let stray =
            edge("ledger: receipt 2 (step 1): opening", "a commitment field", format!("field {index}"));
        assert!(bundle_edges(&changed.bundle()).contains(&stray));
    }
}

/// Any other text than the notice would be signed by an owner who read something else.
#[test]
fn a_delegation_with_another_notice_is_no_frame() {
    let (run, _) = delegated(&[]);
    let built = run.build();
    let mut payload = built.logs[0].frames[0].encode();
    payload[66] ^= 1;
    let error = Frame::decode(&payload).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame 0 of the ledger is refused: the notice of a delegation is not the one of its type"
    );
}

#[test]
fn a_body_has_at_most_2_kib() {
    let built = Run::short().build();
    let leaf = &built.logs[0].frames[0].encode()[..100];
    let payload = |length: usize| [leaf, &vec![0; length]].concat();
    assert!(Frame::decode(&payload(2048)).is_ok());
    assert_eq!(Frame::decode(&payload(2049)).unwrap_err().detail, "a body of 2049 bytes, at most 2048 fit");
}

/// A parser that recursed would end the verifier's process.
#[test]
fn deep_json_in_an_opening_is_refused() {
    let head = [b"P".as_slice(), &[1; 32], &[5], &[2; 32]].concat();
    for text in ["[".repeat(1 << 20), "{\"commitment\":".repeat(100_000), format!("{}1", "[".repeat(200))] {
        let error = Frame::decode(&[head.clone(), text.into_bytes()].concat()).unwrap_err();
        assert!(error.detail.starts_with("no opening, line 1 column "), "{error}");
    }
    let honest = {
        let field = Field::new("gradients", Form::Parts(vec![(0, None)]), &[("w", &[1])]);
        let built = Run::of([step(1).field(field).item()]).build();
        built.logs[0].frames.iter().find(|frame| matches!(frame, Frame::Part(_))).unwrap().encode()
    };
    assert!(Frame::decode(&honest).is_ok());
    let mut spaced = honest;
    spaced.push(b' ');
    assert_eq!(Frame::decode(&spaced).unwrap_err().detail, "its JSON is not in canonical form");
}

#[test]
fn layouts_hold_no_root_and_stand_in_order() {
    let entry = |name: &str, root: Digest| Entry::dense(name, "U8", &[1], root).unwrap().encode(None);
    let payload = |entries: &[Vec<u8>]| {
        let framed =
            entries.iter().flat_map(|entry| [&(entry.len() as u32).to_be_bytes(), entry.as_slice()].concat());
        [b'L'].into_iter().chain(framed).collect::<Vec<u8>>()
    };
    let (a, b) = (entry("a", Digest::ZERO), entry("b", Digest::ZERO));
    let refused = |entries: &[Vec<u8>]| Frame::decode(&payload(entries)).unwrap_err().detail;
    assert!(Frame::decode(&payload(&[a.clone(), b.clone()])).is_ok());
    assert!(Frame::decode(&payload(&[])).is_ok(), "a state of nothing has a layout");
    assert_eq!(refused(&[b, a.clone()]), "a layout is not sorted by name");
    assert_eq!(refused(&[a.clone(), a]), "a layout is not sorted by name");
    assert_eq!(refused(&[entry("a", Digest::repeat_byte(1))]), "a layout holds a root");
    let blinded = Entry::dense("a", "U8", &[1], Digest::ZERO).unwrap().encode(Some(&Digest::repeat_byte(2)));
    assert_eq!(refused(&[blinded]), "a layout holds a root");
}

#[test]
fn an_opening_frame_is_refused_twice_over() {
    let built = Run::of([step(1).item()]).build();
    let opening = built.logs[0].frames.iter().find(|frame| matches!(frame, Frame::Opening(_))).unwrap();
    let payload = opening.encode();
    let field = &payload[33..];
    let twice = [payload.as_slice(), field].concat();
    assert_eq!(Frame::decode(&twice).unwrap_err().detail, "field 5 is opened twice");
    let mut form = payload.clone();
    form[33 + 97] = 2;
    assert_eq!(Frame::decode(&form).unwrap_err().detail, "an opening of form 2, expected 0 or 1");
    let mut doubled = built.logs[0].clone();
    let at = doubled.frames.iter().position(|frame| frame == opening).unwrap();
    doubled.frames.insert(at, opening.clone());
    let mut twice = built.clone();
    twice.logs[0] = doubled;
    let Frame::Opening(opening) = opening else { unreachable!() };
    let found = edges(&twice);
    let detail =
        format!("frame {} of the ledger is refused: receipt {} is opened twice", at + 1, opening.receipt);
    assert_eq!(found[0], edge("ledger", "what was written", detail));
}

#[test]
fn frames_of_a_receipt_may_stand_in_any_order_before_it() {
    let mut built = Run::complete().build();
    let is_opening = |frame: &Frame| matches!(frame, Frame::Opening(_));
    let at = built.logs[0].frames.iter().position(is_opening).unwrap();
    let opening = built.logs[0].frames.remove(at);
    built.logs[0].frames.insert(at + 2, opening.clone());
    assert_eq!(edges(&built), []);
    // An opening of another receipt is no second one of this.
    let Frame::Opening(mut other) = opening else { unreachable!() };
    other.receipt = Digest::repeat_byte(1);
    built.logs[0].frames.insert(at + 2, Frame::Opening(other));
    assert_eq!(edges(&built), []);
    let log = &built.contents().logs[0];
    assert_eq!(log.unclaimed(), 1);
}

#[test]
fn a_layout_is_found_by_its_digest() {
    let built = Run::of([step(1).item()]).build();
    let log = &built.contents().logs[0];
    let layout = built.logs[0].frames.iter().find(|frame| matches!(frame, Frame::Layout(_))).unwrap();
    let Frame::Layout(entries) = layout else { unreachable!() };
    assert_eq!(log.layout(&sha256(&[&layout.encode()])), Some(entries.as_slice()));
    assert_eq!(log.layout(&Digest::ZERO), None);
}
