//! Every byte of a bundle in hostile hands: whichever is changed, the bundle is refused with an edge
//! or a parse error. `verdicts` holds what else a forger may try.

mod common;

use common::{Run, integrity, key, opens, packed, part, read};
use counterfoil::evidence::bundle::PartKind;
use counterfoil::evidence::{Frame, OpeningFrame};
use counterfoil::receipt::Signer;
use counterfoil::verify::{Status, Verdict};

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
