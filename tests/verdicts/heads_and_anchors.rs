//! Tree heads, the records of their anchors, and what a chain knows.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::{AnchorRecord, Frame};
use counterfoil::primitives::Digest;
use counterfoil::receipt::{Signature, Value};
use counterfoil::verify::{Confirmation, Confirmed, HeadOnChain, Judgement, Standing, Status, unconfirmed};

#[test]
fn a_tree_head_is_signed_for_this_log_at_this_place() {
    let with = |words: Words, by: Option<u8>| {
        edges(&Run::of([step(1).item(), Item::Head(words, by), step(2).item(), head()]).build())
    };
    assert_eq!(with(Vec::new(), None), []);
    let at = |size: u64, what: &str| format!("ledger: tree head of size {size}: {what}");
    assert_eq!(
        with(Vec::new(), Some(STRANGER)),
        [edge(&at(3, "signature"), address(OWNER), address(STRANGER))]
    );
    let other = Digest::repeat_byte(4);
    assert_eq!(
        with(vec![("previousHead", other.into())], None),
        [edge(&at(3, "previousHead"), Digest::ZERO, other)]
    );
    let log = edge(&at(3, "log"), "ledger", "the head of another log");
    let cases: [(&'static str, Value); 3] =
        [("run", other.into()), ("worker", address(STRANGER).into()), ("lane", 1u64.into())];
    for (name, value) in cases {
        assert_eq!(with(vec![(name, value)], None), std::slice::from_ref(&log));
    }
    for schema in [0u64, 2] {
        assert_eq!(
            with(vec![("schema", schema.into())], None),
            [edge(&at(3, "order"), "a head of schema 1 over more than 0", 3)]
        );
    }
    let root = Run::of([step(1).item()]).build().logs[0].tree(3).root();
    assert_eq!(
        with(vec![("root", other.into())], None),
        [edge(&at(3, "root over the first 3 receipts"), other, root)]
    );
    for size in [1u64, 2, 4, u64::MAX] {
        let found = with(vec![("size", size.into())], None);
        assert_eq!(found[0], edge(&at(size, "receipts of the ledger"), size, "3 receipts before it"));
    }
    assert_eq!(
        with(vec![("size", 0u64.into())], None),
        [
            edge(&at(0, "order"), "a head of schema 1 over more than 0", 0),
            edge(&at(0, "receipts of the ledger"), 0, "3 receipts before it"),
        ]
    );
    assert_eq!(
        edges(&Run::of([step(1).item(), head(), head()]).build()),
        [edge(&at(3, "order"), "a head of schema 1 over more than 3", 3)]
    );
    // A head behind the receipts that it does not speak of, and one that was left out.
    let mut built = Run::of([step(1).item(), head(), step(2).item(), head()]).build();
    let heads: Vec<usize> = (0..built.logs[0].frames.len())
        .filter(|index| matches!(built.logs[0].frames[*index], Frame::Head(_)))
        .collect();
    let mut late = built.clone();
    let moved = late.logs[0].frames.remove(heads[0]);
    late.logs[0].frames.insert(heads[1] - 1, moved);
    assert_eq!(edges(&late), [edge(&at(3, "receipts of the ledger"), 3, "4 receipts before it")]);
    let Frame::Head(first) = built.logs[0].frames.remove(heads[0]) else { unreachable!() };
    let digest = first.body.digest();
    assert_eq!(edges(&built), [edge(&at(4, "previousHead"), Digest::ZERO, digest)]);
    // Where receipts are withheld, heads may be missing as well.
    built.logs[0] = built.logs[0].withhold(&[2]);
    assert_eq!(edges(&built), []);
    let mut unsigned = first;
    unsigned.signature = Signature([0; 65]);
    let mut built = Run::of([step(1).item()]).build();
    built.logs[0].frames.push(Frame::Head(unsigned));
    let refused = edge(&at(3, "signature"), address(OWNER), "recovery byte is 0, expected 27 or 28");
    assert_eq!(edges(&built), [refused]);
}

#[test]
fn an_anchor_speaks_of_this_history() {
    let mut run = Run::short();
    run.items().push(head());
    let built = run.build();
    let judged = |change: &dyn Fn(&mut AnchorRecord)| {
        let mut record = built.anchor(0, 5);
        change(&mut record);
        let mut built = built.clone();
        built.anchors.push(("0.json".into(), record));
        built.verify(&integrity(), &confirmed)
    };
    let found = |change: &dyn Fn(&mut AnchorRecord)| edges_of(&judged(change));
    let other = Digest::repeat_byte(1);
    assert_eq!(found(&|_| {}), []);
    assert_eq!(found(&|record| record.run = other), [edge("anchor 0.json: run", built.run, other)]);
    assert_eq!(found(&|record| record.size = 0), [edge("anchor 0.json: size", "at least 1", 0)]);
    let root = built.logs[0].tree(5).root();
    assert_eq!(
        found(&|record| record.root = other),
        [edge("anchor 0.json: root over the first 5 receipts", other, root)]
    );
    let last = built.logs[0].tree(4).root();
    assert_eq!(
        found(&|record| record.size = 4),
        [edge("anchor 0.json: root over the first 4 receipts", root, last)]
    );
    for size in [8, u64::MAX] {
        assert_eq!(
            found(&|record| record.size = size),
            [edge("anchor 0.json: receipts of the ledger", format!("at least {size}"), "7 receipts")]
        );
    }
    let stranger = address(STRANGER);
    assert_eq!(
        found(&|record| record.worker = stranger),
        [edge("anchor 0.json: ledger", format!("the ledger of {stranger} lane 0"), "none")]
    );
    assert_eq!(
        found(&|record| record.lane = 1),
        [edge("anchor 0.json: ledger", format!("the ledger of {} lane 1", address(OWNER)), "none")]
    );
    for size in [1, 5, 7] {
        let verdict = built.clone().anchored(0, size).verify(&integrity(), &confirmed);
        assert_eq!((edges_of(&verdict), verdict.time.covered), (vec![], size));
    }
    let mut hidden = built.clone().anchored(0, 4);
    hidden.logs[0] = hidden.logs[0].withhold(&[3, 4]);
    let verdict = hidden.verify(&integrity(), &confirmed);
    assert_eq!((verdict.status, verdict.time.covered), (Status::Undecided, 0));
    let amid = "anchor 0.json: its 4 receipts end among withheld ones, and were not compared";
    assert!(verdict.missing.contains(&amid.to_string()), "{:?}", verdict.missing);
    let mut behind = built.anchored(0, 5).anchored(0, 6);
    behind.logs[0] = behind.logs[0].withhold(&[3, 4]);
    let verdict = behind.verify(&integrity(), &confirmed);
    assert_eq!((verdict.status, verdict.time.covered), (Status::Undecided, 6));
    assert_eq!(
        verdict.time.line,
        "first 6 of 7 receipts existed by 2023-11-14 22:13:20 UTC on chain 1; the rest is not anchored"
    );
}

#[test]
fn the_time_line_says_who_confirmed_what() {
    let line = |sizes: &[u64], said: &Confirmation<'_>| {
        let mut built = Run::short().build();
        for size in sizes {
            built = built.anchored(0, *size);
        }
        let verdict = built.verify(&Judgement { heads: built.heads(), ..integrity() }, &said);
        (verdict.time.covered, verdict.time.line, verdict.integrity.split_view)
    };
    let open = "not excluded".to_string();
    let none = line(&[], &confirmed);
    assert_eq!(none, (0, "none".into(), open.clone()));
    let all = line(&[7], &confirmed);
    let excluded = "excluded by chain 1 for the lanes shown".to_string();
    assert_eq!(all, (7, "all 7 receipts existed by 2023-11-14 22:13:20 UTC on chain 1".into(), excluded));
    let (part, rest) = ("first 6 of 7 receipts", "; the rest is not anchored");
    let some = line(&[6], &confirmed);
    assert_eq!(
        some,
        (6, format!("{part} existed by 2023-11-14 22:13:20 UTC on chain 1{rest}"), open.clone())
    );
    assert_eq!(
        line(&[6], &unconfirmed),
        (
            0,
            format!(
                "self-anchored: {part} on chain 1{rest} (unconfirmed: name an RPC with --chain or a --trusted-block)"
            ),
            open.clone()
        )
    );
    let development = |_: usize, record: &AnchorRecord| said(record.block_time, true, true);
    assert_eq!(
        line(&[7], &development),
        (
            0,
            "self-anchored: all 7 receipts on chain 1 (a development chain proves no date)".into(),
            open.clone()
        )
    );
    let denied = |number: usize, record: &AnchorRecord| Confirmed {
        standing: Standing::Denied,
        ..unconfirmed(number, record)
    };
    let denial = "none: chain 1 does not hold the recorded anchor".to_string();
    assert_eq!(line(&[6], &denied), (0, denial, open.clone()));
    // Of two anchors the larger one counts, and one that is confirmed before one that is not.
    let two = line(&[3, 6], &|_, record| said(record.size * 86_400, true, false));
    assert_eq!(two, (6, format!("{part} existed by 1970-01-07 00:00:00 UTC on chain 1{rest}"), open.clone()));
    let first = line(&[3, 7], &|_, record| said(5, record.size == 3, false));
    assert_eq!(
        first,
        (
            3,
            "first 3 of 7 receipts existed by 1970-01-01 00:00:05 UTC on chain 1; the rest is not anchored"
                .into(),
            open.clone()
        )
    );
    let both = line(&[3, 7], &|_, record| said(record.size, true, record.size == 3));
    assert_eq!(both, (7, "all 7 receipts existed by 1970-01-01 00:00:07 UTC on chain 1".into(), open));
}

/// The bug: of two unrelated histories that an owner anchors one after the other, each is shown with its own
/// record, and the chain is said to exclude the other.
#[test]
fn an_anchor_of_the_chain_that_is_not_shown_may_be_of_another_history() {
    let built = Run::short().build().anchored(0, 7);
    let judged = |count: u64, index: u64| {
        let mut built = built.clone();
        built.anchors[0].1.index = index;
        let heads = vec![HeadOnChain { count, ..built.heads()[0] }];
        built.verify(&Judgement { heads, ..integrity() }, &confirmed).integrity.split_view
    };
    assert_eq!(judged(1, 0), "excluded by chain 1 for the lanes shown");
    assert_eq!(judged(2, 1), "not excluded");
    assert_eq!(judged(2, 0), "not excluded");
    let twice = built.clone().anchored(0, 7);
    let twice = Built { anchors: vec![twice.anchors[0].clone(), twice.anchors[0].clone()], ..twice };
    let heads = vec![HeadOnChain { count: 2, ..twice.heads()[0] }];
    let verdict = twice.verify(&Judgement { heads, ..integrity() }, &confirmed);
    assert_eq!(verdict.integrity.split_view, "not excluded", "one anchor shown twice is one");
}

#[test]
fn a_development_chain_is_known_by_its_number() {
    let mut record = Run::short().build().anchor(0, 1);
    for (chain_id, expected) in [(31_337, true), (31_336, false), (1, false)] {
        record.chain_id = chain_id;
        let found = unconfirmed(0, &record);
        assert_eq!(found, said_unconfirmed(chain_id, expected, record.block_time));
    }
}

fn said_unconfirmed(chain_id: u64, development: bool, block_time: u64) -> Confirmed {
    Confirmed { chain: format!("chain {chain_id}"), standing: Standing::Unconfirmed, development, block_time }
}

#[test]
fn a_chain_that_knows_more_receipts_refutes() {
    let built = Run::short().build();
    let judged = |worker: u8, lane: u32, size: u64| {
        let heads = vec![HeadOnChain { worker: address(worker), lane, size, count: 1 }];
        edges_of(&built.verify(&Judgement { heads, ..integrity() }, &unconfirmed))
    };
    for size in [0, 6, 7] {
        assert_eq!(judged(OWNER, 0, size), []);
    }
    let place = |worker: u8, lane: u32| {
        format!("ledger of {} lane {lane}: receipts that the chain knows", address(worker))
    };
    assert_eq!(judged(OWNER, 0, 8), [edge(&place(OWNER, 0), "at least 8", "7 receipts")]);
    assert_eq!(judged(OWNER, 1, 1), [edge(&place(OWNER, 1), "at least 1", "0 receipts")]);
    assert_eq!(judged(WORKER, 0, 1), [edge(&place(WORKER, 0), "at least 1", "0 receipts")]);
}

/// Lanes of one length, of which one is anchored.
#[test]
fn an_anchor_covers_its_own_lane_alone() {
    let lane = || [step(1).item(), resume(1).item(), resume(1).item(), close(1).item()];
    let run = Run::of([step(1).item(), resume(1).item(), close(1).item()]);
    let built = run.and(WORKER, 0, lane()).and(OWNER, 1, lane()).build();
    for log in 0..3 {
        let verdict = built.clone().anchored(log, 5).verify(&integrity(), &confirmed);
        assert_eq!((verdict.time.covered, verdict.time.receipts), (5, 15));
        assert_eq!(verdict.missing, [""; 0], "log {log}");
        assert_eq!(verdict.integrity.split_view, "not excluded", "log {log}");
    }
}
