//! What a worker allowed to the key of a session.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::{Delegation, Frame};
use counterfoil::primitives::Digest;
use counterfoil::receipt::{Body, Signature, Signer};
use counterfoil::verify::{Judgement, Status, unconfirmed};

fn delegation_place() -> String {
    format!("ledger: delegation to {}", address(SESSION))
}

#[test]
fn a_delegation_allows_its_kinds_at_its_positions() {
    let allowed = |first: u64, last: u64, kinds: u64| {
        let (run, _) = delegated(&[("firstSequence", first), ("lastSequence", last), ("kinds", kinds)]);
        edges(&run.build())
    };
    let refused = |first: u64, last: u64, kinds: u64| {
        let expected = format!("receipts {first} to {last} of the kinds {kinds:#x}");
        vec![edge(&step_place(2, 1, "delegation"), expected, "receipt 2 of the kind step")]
    };
    for (first, last) in [(2, 2), (0, 2), (2, u64::MAX), (1, 3)] {
        assert_eq!(allowed(first, last, 8), [], "{first} to {last}");
    }
    for (first, last) in [(3, 3), (3, u64::MAX), (0, 1), (1, 1), (3, 1)] {
        assert_eq!(allowed(first, last, 8), refused(first, last, 8), "{first} to {last}");
    }
    assert_eq!(allowed(0, 9, u64::MAX), []);
    for kinds in [0, 1, 4, 16, !8] {
        assert_eq!(allowed(0, 9, kinds), refused(0, 9, kinds), "{kinds:#x}");
    }
}

/// The first and the last receipt that a delegation allows, and those beside them.
#[test]
fn a_delegation_holds_from_its_first_to_its_last_receipt() {
    let mut run = Run::of([]);
    let body = run.delegation(OWNER, 0, &[("firstSequence", 3), ("lastSequence", 4)]);
    run.items().insert(0, Item::Delegation(body.clone(), OWNER));
    let drafts = [step(1), step(2), checkpoint(2), step(3)];
    run.items().extend(drafts.map(|draft| draft.by(SESSION, &body).item()));
    let refused = |position: u64, number: u64| {
        let actual = format!("receipt {position} of the kind step");
        edge(&step_place(position, number, "delegation"), "receipts 3 to 4 of the kinds 0x1ed", actual)
    };
    assert_eq!(edges(&run.build()), [refused(2, 1), refused(5, 3)]);
}

#[test]
fn genesis_is_never_delegated() {
    let mut run = Run::of([]);
    let body = run.delegation(OWNER, 0, &[("kinds", u64::MAX)]);
    run.logs[0].items = vec![
        Item::Delegation(body.clone(), OWNER),
        Draft::new("genesis", &[]).by(SESSION, &body).item(),
        join(),
        step(1).item(),
    ];
    let verdict = run.build().verdict();
    let expected = format!("receipts 0 to {} of the kinds {:#x}", u64::MAX, u64::MAX);
    let place = "ledger: receipt 0 (genesis): delegation";
    let unsigned = edge("genesis: signature", address(OWNER), "another");
    assert_eq!(edges_of(&verdict), [unsigned, edge(place, expected, "receipt 0 of the kind genesis")]);
    assert_eq!(verdict.signer.owner, None);
    // Whoever pins the owner is told so, too.
    let pinned = Judgement { signer: Some(address(OWNER)), ..integrity() };
    let verdict = run.build().verify(&pinned, &unconfirmed);
    assert_eq!((verdict.status, verdict.signer.pinned), (Status::Refuted, false));
}

#[test]
fn a_delegation_is_the_worker_s_own_for_this_log() {
    let mine = "the worker's signature, for this log";
    let judged = |body: Body, by: u8| {
        let mut run = Run::of([step(1).by(SESSION, &body).item()]);
        run.items().insert(0, Item::Delegation(body.clone(), by));
        let found = edges(&run.build());
        let absent = edge(
            &step_place(2, 1, "delegation"),
            format!("the worker's delegation {}", body.digest()),
            "none in this ledger",
        );
        if !found.is_empty() {
            assert_eq!(found, [edge(&delegation_place(), mine, "another"), absent]);
        }
        !found.is_empty()
    };
    let run = Run::of([]);
    assert!(!judged(run.delegation(OWNER, 0, &[]), OWNER));
    assert!(judged(run.delegation(OWNER, 0, &[]), STRANGER), "signed by another");
    assert!(judged(run.delegation(OWNER, 0, &[]), SESSION), "a session key allows nothing to itself");
    assert!(judged(run.delegation(OWNER, 1, &[]), OWNER), "of another lane");
    assert!(judged(run.delegation(WORKER, 0, &[]), OWNER), "of another worker");
    assert!(judged(run.delegation(WORKER, 0, &[]), WORKER), "of another worker, by that one");
    assert!(judged(run.delegation(OWNER, 0, &[("schema", 2)]), OWNER), "of another schema");
    let other = Run { specification: "{}".into(), ..run.clone() };
    assert!(judged(other.delegation(OWNER, 0, &[]), OWNER), "of another run");
    // A session key cannot pass on what it was allowed.
    let first = run.delegation(OWNER, 0, &[]);
    let second = run.delegation(OWNER, 0, &[("expires", 9)]);
    let mut run = Run::of([step(1).by(STRANGER, &second).item()]);
    run.items().insert(0, Item::Delegation(first, OWNER));
    run.items().insert(1, Item::Delegation(second, SESSION));
    assert_eq!(edges(&run.build())[0], edge(&delegation_place(), mine, "another"));
    // A signature of nobody.
    let (run, body) = delegated(&[]);
    let mut built = run.build();
    built.logs[0].frames[0] = Frame::Delegation(Delegation { body, signature: Signature([0; 65]) });
    let nobody = "recovery byte is 0, expected 27 or 28";
    assert_eq!(edges(&built)[0], edge(&delegation_place(), mine, nobody));
}

#[test]
fn a_delegation_lies_in_its_log_once_wherever_it_stands() {
    let (mut run, body) = delegated(&[]);
    run.items().push(Item::Delegation(body.clone(), OWNER));
    assert_eq!(edges(&run.build()), [edge("ledger: delegations", "each once", "one of them twice")]);
    run.items().remove(0);
    assert_eq!(edges(&run.build()), [], "behind the receipt that needs it");
    run.items().pop();
    let missing = format!("the worker's delegation {}", body.digest());
    assert_eq!(edges(&run.build()), [edge(&step_place(2, 1, "delegation"), missing, "none in this ledger")]);
    // The worker cannot sign in the place of its session key, nor another key.
    for by in [OWNER, STRANGER] {
        let (mut run, body) = delegated(&[]);
        run.items()[3] = step(1).by(by, &body).item();
        assert_eq!(
            edges(&run.build()),
            [edge(&step_place(2, 1, "signature"), address(SESSION), address(by))]
        );
    }
    // Nor can the session key without naming its delegation.
    let (mut run, _) = delegated(&[]);
    let mut draft = step(1);
    draft.key = Some(SESSION);
    run.items()[3] = draft.item();
    let place = step_place(2, 1, "signature");
    assert_eq!(edges(&run.build()), [edge(&place, address(OWNER), address(SESSION))]);
}

#[test]
fn a_session_key_signs_heads_whose_last_receipt_it_may_sign() {
    let head_of = |words: &[(&'static str, u64)]| {
        let (mut run, _) = delegated(words);
        run.items()[3] = step(1).item();
        run.items().push(Item::Head(Vec::new(), Some(SESSION)));
        edges(&run.build())
    };
    let refused = [edge("ledger: tree head of size 3: signature", address(OWNER), address(SESSION))];
    for (first, last) in [(2, 2), (0, 2), (2, 9), (0, u64::MAX)] {
        assert_eq!(head_of(&[("firstSequence", first), ("lastSequence", last)]), [], "{first} to {last}");
    }
    for (first, last) in [(3, 3), (3, 9), (0, 1), (1, 1)] {
        assert_eq!(
            head_of(&[("firstSequence", first), ("lastSequence", last)]),
            refused,
            "{first} to {last}"
        );
    }
    for kinds in [0, 2, 8, !1] {
        assert_eq!(head_of(&[("kinds", kinds)]), refused, "{kinds:#x}");
    }
    assert_eq!(head_of(&[("kinds", 1)]), []);
    let (mut run, _) = delegated(&[]);
    run.items().push(Item::Head(Vec::new(), Some(STRANGER)));
    let stranger = edge("ledger: tree head of size 3: signature", address(OWNER), address(STRANGER));
    assert_eq!(edges(&run.build()), [stranger]);
    // A head of size 0 speaks of no receipt that could lie in the range.
    let (mut run, _) = delegated(&[]);
    run.items().push(Item::Head(vec![("size", 0u64.into())], Some(SESSION)));
    assert_eq!(edges(&run.build())[0].0, "ledger: tree head of size 0: signature");
}

#[test]
fn a_receipt_of_an_unknown_kind_may_be_a_session_key_s() {
    let (run, _) = delegated(&[]);
    let mut built = run.build();
    built.logs[0].frames.retain(|frame| matches!(frame, Frame::Receipt(_) | Frame::Delegation(_)));
    let Some(Frame::Receipt(receipt)) = built.logs[0].frames.last_mut() else { unreachable!() };
    (receipt.kind, receipt.digest, receipt.body) = (99, Digest::repeat_byte(7), Vec::new());
    let digest = receipt.digest;
    receipt.signature = key(SESSION).sign(digest).unwrap();
    assert_eq!(built.verdict().status, Status::Undecided);
    let Some(Frame::Receipt(receipt)) = built.logs[0].frames.last_mut() else { unreachable!() };
    receipt.signature = key(STRANGER).sign(digest).unwrap();
    assert_eq!(built.verdict().status, Status::Refuted);
}
