//! How a log is read: from its frames, in batches, and from a file that changes meanwhile.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::{Frame, Log, OpeningError, TreeHead};
use counterfoil::primitives::Report;
use counterfoil::receipt::schema::TREE_HEAD;
use counterfoil::verify::{Contents, Specification, unconfirmed};
use std::sync::Arc;

#[test]
fn a_log_is_read_as_it_was_written() {
    let mut run = Run::short();
    run.items().push(head());
    let built = run.build();
    let log = &built.contents().logs[0];
    assert_eq!((log.size(), log.shown(), log.unclaimed(), log.heads().count()), (7, 7, 0, 1));
    assert_eq!((log.worker, log.lane, log.delegations().len(), log.marks().len()), (address(OWNER), 0, 0, 1));
    let receipts: Vec<_> = log.receipts().map(Result::unwrap).collect();
    assert!(receipts.iter().eq(built.logs[0].receipts()));
    for position in 0..7 {
        let shown = log.at(position).unwrap().unwrap();
        assert_eq!((shown.sequence, &shown.receipt), (position, &receipts[position as usize]));
    }
    assert!(log.at(7).unwrap().is_none());
    let head: &TreeHead = log.heads().next().unwrap();
    assert_eq!((head.size(), head.root()), (7, built.logs[0].tree(7).root()));
    assert_eq!(head.body.kind(), &TREE_HEAD);
    let genesis = log.genesis().unwrap();
    assert_eq!((genesis.bytes32("run"), genesis.kind().name), (built.run, "genesis"));
    let contents = Run::short().and(WORKER, 0, []).build().contents();
    assert_eq!(contents.logs[1].genesis(), None);
    assert_eq!(contents.run(), Some(Run::short().id()));
    let mut hidden = built.clone();
    hidden.logs[0] = built.logs[0].withhold(&[3, 4]);
    let log = &hidden.contents().logs[0];
    assert_eq!((log.size(), log.shown(), log.sequence(2), log.sequence(3)), (7, 5, 2, 5));
    assert!(log.at(3).unwrap().is_none());
    assert_eq!(log.at(5).unwrap().unwrap().receipt, receipts[5]);
    let (run, _) = delegated(&[]);
    let keys: Vec<_> = run.and(WORKER, 0, []).build().contents().keys().into_iter().collect();
    let mut expected = [
        (address(OWNER), address(OWNER)),
        (address(OWNER), address(SESSION)),
        (address(WORKER), address(WORKER)),
    ];
    expected.sort();
    assert_eq!(keys, expected);
}

/// Receipts are prepared a thousand at a time: each batch must be read, and in its place.
#[test]
fn a_log_of_more_than_one_batch_is_read_to_its_end() {
    let mut run = Run::of((0..1030).map(|_| resume(0).item()));
    let verdict = run.build().verdict();
    assert_eq!(edges_of(&verdict), []);
    let notes = "resumed 1030 times; 0 times it is shown that training went on from the state it had there";
    assert_eq!(verdict.notes[1], notes);
    run.items()[1025] = resume(4).item();
    assert_eq!(edges(&run.build()), [edge("ledger: receipt 1025 (resume): step", "at most 0", 4)]);
}

#[test]
fn damage_of_evidence_has_stable_codes_and_places() {
    let frame = Frame::decode(b"Q").unwrap_err();
    assert_eq!((frame.code(), frame.place()), ("journal-corrupt", Some("frame 0".into())));
    let specification = Specification::parse(b"7").unwrap_err();
    let place = Some("spec.json".to_string());
    assert_eq!((specification.code(), specification.place()), ("invalid-input", place));
    assert_eq!(OpeningError::ShardedValue.code(), "journal-corrupt");
}

/// A file that changes between the two readings of a verifier.
#[test]
fn a_file_that_changes_while_it_is_read_is_refuted() {
    let reread = |payloads: &[Vec<u8>], changed: &[Vec<u8>]| {
        let mut log = Log::new(address(OWNER), 0, Arc::new(changed.concat()));
        let mut offset = 0;
        for payload in payloads {
            log.take(offset, payload).unwrap();
            offset += payload.len() as u64;
        }
        let contents = Contents { specification: FLOOR.into(), logs: vec![log], ..Contents::default() };
        edges_of(&contents.verify(&integrity(), &unconfirmed, &|_| None, &|_| None))
    };
    let gone = |position: u64, detail: &str| {
        let detail = format!("frame 0 of the ledger is refused: {detail}");
        edge(&format!("ledger: receipt {position}"), "what was read before", detail)
    };
    let built = Run::short().build();
    let payloads = built.logs[0].encoded();
    let step = payloads.iter().position(|frame| frame[..3] == [b'R', 0, 3]).unwrap();
    assert_eq!(reread(&payloads, &payloads), []);
    let no_frame = gone(2, "type byte 0x51, expected one of R H L O P D W");
    let other = gone(2, "the file was changed while it was read");
    for index in [step - 1, step] {
        let mut changed = payloads.clone();
        changed[index][0] = b'Q';
        assert_eq!(reread(&payloads, &changed)[0], no_frame, "frame {index}");
        // A frame of another type and of the same length.
        let length = payloads[index].len();
        let mut frame = if index == step { vec![b'O'; 135] } else { vec![b'R'; 99] };
        if index == step {
            frame[130] = 0;
            frame[131..].copy_from_slice(&(length as u32 - 135).to_be_bytes());
        }
        frame.resize(length, 0);
        changed[index] = frame;
        assert_eq!(reread(&payloads, &changed)[0], other, "frame {index}");
    }
    let mut shorter = payloads.clone();
    shorter.last_mut().unwrap().pop();
    let begin = payloads[..payloads.len() - 1].concat().len();
    let detail = format!("cannot be read again at byte {begin}: unexpected end of file");
    assert_eq!(reread(&payloads, &shorter), [gone(6, &detail)]);
    // Withheld receipts behind a receipt that is gone.
    let payloads = built.logs[0].withhold(&[3, 4]).encoded();
    let mut changed = payloads.clone();
    let step = payloads.iter().position(|frame| frame[..3] == [b'R', 0, 3]).unwrap();
    changed[step][0] = b'Q';
    assert_eq!(reread(&payloads, &changed)[0], no_frame);
}

/// The bug: an anchor over a receipt that cannot be read any more counts as one over a cut log.
#[test]
fn an_anchor_over_a_receipt_that_is_gone_is_not_compared() {
    let built = Run::short().build();
    let payloads = built.logs[0].encoded();
    let mut changed = payloads.clone();
    changed.last_mut().unwrap()[0] = b'Q';
    let mut log = Log::new(address(OWNER), 0, Arc::new(changed.concat()));
    let mut offset = 0;
    for payload in &payloads {
        log.take(offset, payload).unwrap();
        offset += payload.len() as u64;
    }
    let anchors = vec![("0.json".to_string(), built.anchor(0, 7))];
    let contents = Contents { specification: FLOOR.into(), logs: vec![log], anchors, ..Contents::default() };
    let verdict = contents.verify(&integrity(), &unconfirmed, &|_| None, &|_| None);
    let detail = "frame 0 of the ledger is refused: type byte 0x51, expected one of R H L O P D W";
    assert_eq!(edges_of(&verdict), [edge("ledger: receipt 6", "what was read before", detail)]);
    let amid = "anchor 0.json: its 7 receipts end among withheld ones, and were not compared";
    assert_eq!(verdict.missing, [amid]);
}
