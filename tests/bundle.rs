//! Bundles in hostile hands: whatever is changed, left out or added is refused with an edge or a parse
//! error, nothing panics, and leaving something out never makes a verdict better.

mod common;

use common::{Run, integrity, key, opens, packed, part, read};
use counterfoil::evidence::bundle::PartKind;
use counterfoil::evidence::{Frame, OpeningFrame};
use counterfoil::primitives::Digest;
use counterfoil::receipt::Signer;
use counterfoil::verify::{Judgement, Status, Verdict};

const SPECIFICATION: &str = r#"{"policy": {"checkpoint": 2}, "public": ["step.metrics"], "seed": 1}"#;

/// A run with everything that a bundle can hold.
fn complete() -> Run {
    let mut run =
        Run::with_recipe(SPECIFICATION, &[("recipe.py", "step = None\n"), ("data/load.py", "x = 1\n")]);
    run.genesis();
    let (session, owner) = (key(2), run.owner.clone());
    let values = run.delegation_values(&session);
    run.delegate(session, &values, &owner);
    run.join();
    run.step(1);
    let metrics = common::Opens { by_value: true, ..opens("metrics", &[("loss", &[0, 0, 128, 63])]) };
    run.record("step", &[("step", 2.into())], &[opens("gradients", &[("a", &[2; 3])]), metrics]);
    run.sign_head();
    run.checkpoint(2);
    run.record("resume", &[("step", 2.into()), ("reason", 1.into())], &[]);
    run.step(3);
    run.close(3);
    run.sign_head();
    run.anchor(1_700_000_000);
    opened_by_parts(&mut run);
    run
}

/// Replaces the opening of the first step by openings of single tensors.
fn opened_by_parts(run: &mut Run) {
    let position = run.frames.iter().position(|frame| matches!(frame, Frame::Opening(_))).unwrap();
    let Frame::Opening(OpeningFrame { receipt, fields }) = run.frames[position].clone() else {
        unreachable!()
    };
    let parts = vec![
        part(run, receipt, &fields[0], "a"),
        part(run, receipt, &fields[0], "b"),
        part(run, receipt, &fields[1], "a"),
    ];
    run.frames.splice(position..=position, parts);
    // The layout of its gradients is no longer needed.
    let first = run.frames.iter().position(|frame| matches!(frame, Frame::Layout(_))).unwrap();
    let Frame::Layout(entries) = &run.frames[first] else { unreachable!() };
    assert_eq!(entries.len(), 2);
}

fn verified(verdict: &Verdict) -> bool {
    verdict.status == Status::Verified && verdict.integrity.intact
}

#[test]
fn a_complete_bundle_verifies_as_what_it_was_made_from() {
    let run = complete();
    let verdict = read(&run.bundle(), &integrity()).unwrap();
    assert!(verified(&verdict), "{:?} {:?}", verdict.integrity, verdict.missing);
    assert_eq!(verdict.integrity.line, "intact; split view: not excluded");
    assert_eq!(verdict.notes.last().unwrap(), &format!("the bundle was made by {}", run.owner.address()));
    assert!(verdict.signer.line.contains(&format!("7 receipts by its session key {}", key(2).address())));
    assert_eq!((verdict.time.covered, verdict.time.receipts), (0, 8));
}

/// The bug: a byte that nothing binds.
#[test]
fn every_flipped_byte_is_refused() {
    let run = complete();
    let bytes = run.bundle();
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        if let Ok(verdict) = read(&changed, &integrity()) {
            assert_eq!(verdict.status, Status::Refuted, "byte {position}");
            assert!(!verdict.integrity.broken.is_empty(), "byte {position}");
        }
    }
}

/// The bug: a check that rests on the hashes of the parts, which a forger writes anew. The forger signs
/// the list with another key. Only anchor records, which are hints, can be changed, and gain nothing.
#[test]
fn every_flipped_byte_of_a_part_is_refused_when_hashes_and_signature_are_made_anew() {
    let run = complete();
    let parts = run.parts();
    let (mut refused, mut hints) = (0, 0);
    for (index, (kind, name, contents)) in parts.iter().enumerate() {
        for position in 0..contents.len() {
            let mut changed = parts.clone();
            changed[index].2[position] ^= 1;
            let place = format!("{kind:?} {name} byte {position}");
            match read(&packed(run.id, &changed, &key(66)), &integrity()) {
                Err(_) => refused += 1,
                Ok(verdict) if verdict.status == Status::Refuted => {
                    assert!(!verdict.integrity.broken.is_empty(), "{place}");
                    refused += 1;
                }
                Ok(verdict) => {
                    assert_eq!(*kind, PartKind::Anchor, "{place}");
                    assert_eq!(verdict.time.covered, 0, "{place}");
                    assert!(
                        verdict.time.line.contains("unconfirmed")
                            || verdict.time.line.contains("development")
                    );
                    hints += 1;
                }
            }
        }
    }
    println!("{refused} flips refused, {hints} changed a hint");
    assert!(hints < 300);
}

#[test]
fn the_list_of_parts_itself_is_bound() {
    let run = complete();
    let parts = run.parts();
    let refused = |bytes: Vec<u8>, what: &str| match read(&bytes, &integrity()) {
        Err(_) => {}
        Ok(verdict) => assert_eq!(verdict.status, Status::Refuted, "{what}"),
    };
    refused(packed(Digest::repeat_byte(1), &parts, &run.owner), "another run");
    let renamed = |index: usize, name: &str| {
        let mut changed = parts.clone();
        changed[index].1 = name.into();
        packed(run.id, &changed, &run.owner)
    };
    let owner = run.owner.address();
    for name in
        ["../recipe.py", "/recipe.py", "a//b.py", "./a.py", "a\\b.py", "c:a.py", "a\nb.py", "", "data"]
    {
        refused(renamed(1, name), name);
    }
    for name in [format!("{owner}/0"), format!("{owner:#x}/00"), format!("{owner:#x}/1"), "0x/0".into()] {
        refused(renamed(3, &name), &name);
    }
    for name in ["00", &"AB".repeat(32), &"00".repeat(32)] {
        refused(renamed(4, name), name);
    }
    for name in ["1", "01.json", "-1.json", "x.json"] {
        refused(renamed(5, name), name);
    }
    for one in 0..parts.len() {
        for other in 0..one {
            let mut swapped = parts.clone();
            swapped.swap(one, other);
            refused(packed(run.id, &swapped, &run.owner), "two parts swapped");
        }
        let mut doubled = parts.clone();
        doubled.insert(one, parts[one].clone());
        refused(packed(run.id, &doubled, &run.owner), "a part twice");
        let mut emptied = parts.clone();
        emptied[one].2.clear();
        refused(packed(run.id, &emptied, &run.owner), "an empty part");
    }
    let mut stray = parts.clone();
    stray.insert(5, (PartKind::Object, "ff".repeat(32), b"of no tensor".to_vec()));
    refused(packed(run.id, &stray, &run.owner), "an object of no tensor");
}

#[test]
fn a_cut_or_longer_bundle_is_refused_by_name() {
    let bytes = complete().bundle();
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length], &integrity()).is_err(), "{length} bytes");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    let refused = read(&longer, &integrity()).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("expected {} bytes, found {} bytes", bytes.len(), longer.len())),
        "{refused}"
    );
    let mut unsigned = bytes.clone();
    let length = u32::from_be_bytes(bytes[21..25].try_into().unwrap()) as usize;
    unsigned[25 + length..25 + length + 65].fill(0);
    let verdict = read(&unsigned, &integrity()).unwrap();
    assert_eq!(verdict.integrity.broken[0].edge, "bundle: manifest <- signature");
    // A length that no memory holds is refused before anything is taken for it.
    let mut huge = bytes;
    huge[21..25].fill(0xff);
    assert!(read(&huge, &integrity()).is_err());
}

/// The bug: a field that no link, signature or opening reaches.
#[test]
fn every_changed_word_of_a_signed_statement_is_refused() {
    let run = complete();
    let payloads = run.payloads();
    let with = |index: usize, payload: Vec<u8>| {
        let mut changed = run.parts();
        let mut payloads = payloads.clone();
        payloads[index] = payload;
        changed[3].2 =
            payloads.iter().flat_map(|p| [&(p.len() as u32).to_be_bytes()[..], p].concat()).collect();
        read(&packed(run.id, &changed, &key(66)), &integrity())
    };
    for (index, payload) in payloads.iter().enumerate() {
        let body = match payload[0] {
            b'R' => 100,
            b'H' | b'D' => 66,
            _ => continue,
        };
        for word in (body..payload.len()).step_by(32) {
            let one = |byte: u8| {
                let mut changed = payload.clone();
                changed[word + 31] = changed[word + 31].wrapping_add(byte);
                changed
            };
            let filled = |byte: u8| {
                let mut changed = payload.clone();
                changed[word..word + 32].fill(byte);
                changed
            };
            let swapped = || {
                let mut changed = payload.clone();
                if word + 64 <= changed.len() {
                    let (left, right) = changed[word..word + 64].split_at_mut(32);
                    left.swap_with_slice(right);
                }
                changed
            };
            for changed in [one(1), one(255), filled(0), filled(255), swapped()] {
                if changed == *payload {
                    continue;
                }
                match with(index, changed) {
                    Err(_) => {}
                    Ok(verdict) => {
                        assert_eq!(verdict.status, Status::Refuted, "frame {index} word at {word}")
                    }
                }
            }
        }
    }
}

/// Larger is better in each place.
fn rank(verdict: &Verdict) -> [u64; 5] {
    let status = match verdict.status {
        Status::Refuted => 0,
        Status::Undecided => 1,
        Status::Verified => 2,
    };
    let integrity = match (verdict.integrity.intact, verdict.integrity.line.starts_with("intact;")) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    let all = u64::from(verdict.time.covered == verdict.time.receipts && verdict.time.receipts > 0);
    [status, integrity, u64::from(verdict.signer.pinned), all, verdict.transition.replayed]
}

/// The bug: something that may be left out, and without which the run looks better.
#[test]
fn leaving_out_a_part_or_a_frame_never_improves_a_line() {
    let run = complete();
    let judgement = Judgement { signer: Some(run.owner.address()), replayed: 2, ..integrity() };
    let best = rank(&read(&run.bundle(), &judgement).unwrap());
    let check = |bytes: Vec<u8>, what: String| {
        if let Ok(verdict) = read(&bytes, &judgement) {
            assert!(rank(&verdict).iter().zip(best).all(|(now, then)| *now <= then), "{what}");
        }
    };
    for index in 0..run.parts().len() {
        let mut fewer = run.parts();
        let (_, name, _) = fewer.remove(index);
        check(packed(run.id, &fewer, &run.owner), format!("without {name:?}"));
    }
    for index in 0..run.frames.len() {
        let mut fewer = run.payloads();
        fewer.remove(index);
        let mut parts = run.parts();
        parts[3].2 = fewer.iter().flat_map(|p| [&(p.len() as u32).to_be_bytes()[..], p].concat()).collect();
        check(packed(run.id, &parts, &run.owner), format!("without frame {index}"));
    }
}

/// The bug: a run of which the inconvenient half is withheld looks whole.
#[test]
fn withheld_receipts_are_counted_and_never_verified() {
    use counterfoil::commit::leaf_hash;
    use counterfoil::commit::merkle::CompactRange;

    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    (1..=3).for_each(|step| run.step(step));
    run.close(3);
    run.sign_head();
    let receipts: Vec<_> =
        run.frames.iter().filter(|frame| matches!(frame, Frame::Receipt(_))).cloned().collect();
    let head = run.frames.last().unwrap().clone();
    for subset in 0..1u32 << receipts.len() {
        let (mut frames, mut withheld) = (Vec::new(), None::<CompactRange>);
        for (position, frame) in receipts.iter().enumerate() {
            let Frame::Receipt(receipt) = frame else { unreachable!() };
            if subset >> position & 1 == 1 {
                let range = withheld.get_or_insert_with(|| CompactRange::from(position as u64));
                range.push(leaf_hash(&receipt.leaf()));
            } else {
                frames.extend(withheld.take().map(Frame::Withheld));
                frames.push(frame.clone());
            }
        }
        frames.extend(withheld.take().map(Frame::Withheld));
        frames.push(head.clone());
        run.frames = frames;
        let verdict = read(&run.bundle(), &integrity()).unwrap();
        let hidden = subset.count_ones() as usize;
        if subset & 3 != 0 {
            assert_eq!(verdict.status, Status::Refuted, "genesis and join are shown, {subset:b}");
        } else if hidden == 0 {
            assert_eq!(verdict.status, Status::Verified);
        } else {
            assert_eq!(verdict.status, Status::Undecided, "{subset:b}: {:?}", verdict.integrity);
            let shown =
                format!("intact for the {} of 6 receipts shown; split view: not excluded", 6 - hidden);
            assert_eq!(verdict.integrity.line, shown);
            let missing = format!(
                "{} of 6 receipts are shown, as whoever made the bundle chose: ask for the rest",
                6 - hidden
            );
            assert!(verdict.missing.contains(&missing));
        }
    }
}

/// The bug: slack in a log, where somebody hides bytes or a second reading.
#[test]
fn frames_that_nothing_needs_have_no_place_in_a_bundle() {
    let honest = complete();
    let layout = Frame::layout(&[common::tensor("stray", b"x").0]).0;
    let part = honest.frames.iter().find(|frame| matches!(frame, Frame::Part(_))).unwrap().clone();
    let delegation =
        honest.frames.iter().find(|frame| matches!(frame, Frame::Delegation(_))).unwrap().clone();
    let opening = honest.frames.iter().find(|frame| matches!(frame, Frame::Opening(_))).unwrap().clone();
    let at = |wanted: &Frame| honest.frames.iter().position(|frame| frame == wanted).unwrap();
    for (what, frame, position) in [
        ("a layout of no opening", layout, 3),
        ("a tensor opened twice", part.clone(), at(&part)),
        ("an opening at the end", opening.clone(), honest.frames.len()),
        ("an opening twice", opening.clone(), at(&opening)),
        ("a tensor's opening before another receipt", part, 1),
        ("a delegation twice", delegation, 2),
        ("a receipt twice", honest.frames[0].clone(), 1),
        ("a head twice", honest.frames.last().unwrap().clone(), honest.frames.len()),
    ] {
        let mut run = complete();
        run.frames.insert(position, frame);
        let verdict = read(&run.bundle(), &integrity());
        let is_refused = verdict.map_or(true, |verdict| verdict.status == Status::Refuted);
        assert!(is_refused, "{what}");
    }
    let mut run = complete();
    let first = run.frames.iter().position(|frame| matches!(frame, Frame::Part(_))).unwrap();
    run.frames.swap(first, first + 1);
    assert_eq!(read(&run.bundle(), &integrity()).unwrap().status, Status::Refuted, "tensors out of order");
}

/// Files without bytes pass every limit of bytes.
#[test]
fn a_recipe_has_at_most_256_files() {
    let verdict_of = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("{number:03}.py")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        let mut run = Run::with_recipe("{}", &files);
        run.genesis();
        run.join();
        run.close(0);
        run.sign_head();
        read(&run.bundle(), &integrity()).unwrap()
    };
    assert!(verdict_of(256).integrity.intact);
    assert_eq!(verdict_of(257).integrity.broken[0].edge, "bundle: recipe");
}
