//! Keys that end, and the dates of receipts.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::AnchorRecord;
use counterfoil::verify::{Confirmed, Judgement, Revocation, Status, Verdict, unconfirmed};

/// A verdict on a run whose receipt 2 is a session key's, of a lane of four receipts.
fn timed(expires: u64, judgement: Judgement, anchors: &[(u64, Confirmed)]) -> Verdict {
    let (mut run, _) = delegated(&[("expires", expires)]);
    run.items().push(step(2).item());
    let mut built = run.build();
    for (size, _) in anchors {
        built = built.anchored(0, *size);
    }
    let said = |_: usize, record: &AnchorRecord| {
        anchors.iter().find(|(size, _)| *size == record.size).unwrap().1.clone()
    };
    built.verify(&judgement, &said)
}

#[test]
fn receipts_of_a_key_that_has_ended_count_when_an_anchor_shows_their_age() {
    let text = |covered: u64| {
        format!(
            "{} could sign until 2023-11-14 22:13:20 UTC; confirmed anchors show {covered} receipts of its lane to be \
             as old, and the last one it signed is receipt 2",
            address(SESSION)
        )
    };
    let judged = |now: Option<u64>, anchors: &[(u64, Confirmed)]| {
        let verdict = timed(EXPIRES, Judgement { now, ..integrity() }, anchors);
        assert_eq!(edges_of(&verdict), [], "the end of a key refutes nothing");
        assert_eq!(verdict.status == Status::Verified, verdict.missing.is_empty());
        verdict.missing
    };
    let late = Some(EXPIRES + 1);
    assert_eq!(judged(Some(EXPIRES), &[]), [""; 0]);
    assert_eq!(judged(Some(0), &[]), [""; 0]);
    assert_eq!(judged(late, &[]), [text(0)]);
    assert_eq!(judged(Some(u64::MAX), &[]), [text(0)]);
    assert_eq!(judged(None, &[]), [text(0)], "without a clock every end has passed");
    assert_eq!(judged(late, &[(3, said(EXPIRES, true, false))]), [""; 0]);
    assert_eq!(judged(late, &[(3, said(EXPIRES - 1, true, false))]), [""; 0]);
    assert_eq!(judged(late, &[(4, said(EXPIRES, true, false))]), [""; 0]);
    assert_eq!(judged(late, &[(3, said(EXPIRES + 1, true, false))]), [text(0)]);
    assert_eq!(judged(late, &[(2, said(EXPIRES, true, false))]), [text(2)]);
    assert_eq!(judged(late, &[(3, said(EXPIRES, true, true))]), [text(0)], "a development chain's times");
    assert_eq!(judged(late, &[(3, said(EXPIRES, false, false))]), [text(0)], "nobody confirmed it");
    let two = [(2, said(1, true, false)), (4, said(EXPIRES + 1, true, false))];
    assert_eq!(judged(late, &two), [text(2)]);
    let two = [(3, said(EXPIRES, true, false)), (4, said(EXPIRES + 1, true, false))];
    assert_eq!(judged(late, &two), [""; 0]);
    let never = timed(0, at(u64::MAX), &[]);
    assert_eq!((never.status, never.missing.len()), (Status::Verified, 0));
    assert_eq!(timed(1, at(1), &[]).status, Status::Verified);
    assert_eq!(timed(1, at(2), &[]).status, Status::Undecided);
}

#[test]
fn receipts_of_a_revoked_key_count_when_an_anchor_shows_their_age() {
    let revoked = |worker: u8, by: u8| Judgement {
        revocations_at: Some(90),
        revocations: vec![Revocation { worker: address(worker), key: address(by), block: 41, time: EXPIRES }],
        ..integrity()
    };
    let text = |revoked: u8, signer: u8, covered: u64, last: u64| {
        format!(
            "{} was revoked at block 41 (2023-11-14 22:13:20 UTC); confirmed anchors show {covered} receipts of its \
             lane to be older, and the last one that {} signed is receipt {last}",
            address(revoked),
            address(signer)
        )
    };
    let judged = |judgement: &Judgement, anchors: &[(u64, Confirmed)]| {
        let verdict = timed(0, judgement.clone(), anchors);
        assert_eq!(edges_of(&verdict), [], "a revocation refutes nothing");
        assert_eq!(verdict.status == Status::Verified, verdict.missing.is_empty());
        verdict.missing
    };
    let session = revoked(OWNER, SESSION);
    assert_eq!(judged(&session, &[]), [text(SESSION, SESSION, 0, 2)]);
    let before = EXPIRES - 1;
    assert_eq!(judged(&session, &[(3, said(before, true, false))]), [""; 0]);
    assert_eq!(judged(&session, &[(3, said(before, true, true))]), [""; 0], "one clock for both");
    let same_time = judged(&session, &[(3, said(EXPIRES, true, false))]);
    assert_eq!(same_time, [text(SESSION, SESSION, 0, 2)], "of two blocks of one time nobody knows the order");
    assert_eq!(judged(&session, &[(2, said(before, true, false))]), [text(SESSION, SESSION, 2, 2)]);
    assert_eq!(judged(&session, &[(3, said(before, false, false))]), [text(SESSION, SESSION, 0, 2)]);
    // What a revoked worker's key allowed to others ends with it.
    let own = revoked(OWNER, OWNER);
    assert_eq!(judged(&own, &[(3, said(before, true, false))]), [text(OWNER, OWNER, 3, 3)]);
    assert_eq!(
        judged(&own, &[(2, said(before, true, false))]),
        [text(OWNER, OWNER, 2, 3), text(OWNER, SESSION, 2, 2)]
    );
    assert_eq!(judged(&own, &[(4, said(before, true, false))]), [""; 0]);
    // Keys of other workers, whatever their addresses, and keys that signed nothing here.
    for other in [
        revoked(WORKER, SESSION),
        revoked(SESSION, SESSION),
        revoked(OWNER, STRANGER),
        revoked(WORKER, OWNER),
    ] {
        assert_eq!(judged(&other, &[]), [""; 0]);
        let line = timed(0, other, &[]).signer.line;
        assert!(line.contains("not revoked at block 90"), "{line}");
    }
    let line = |judgement: Judgement| timed(0, judgement, &[]).signer.line;
    let session_part = format!("1 receipts by its session key {}", address(SESSION));
    let owner = format!("unpinned {}", address(OWNER));
    assert_eq!(
        line(session.clone()),
        format!("{owner}; {} revoked at block 41; {session_part}", address(SESSION))
    );
    assert_eq!(line(own), format!("{owner}; {} revoked at block 41; {session_part}", address(OWNER)));
    assert_eq!(
        line(Judgement { revocations_at: Some(90), ..integrity() }),
        format!("{owner}; not revoked at block 90; {session_part}")
    );
    assert_eq!(line(integrity()), format!("{owner}; revocation not checked; {session_part}"));
}

/// A delegation has no date: whoever stole a revoked key could sign one today.
#[test]
fn what_a_revoked_worker_delegated_counts_when_an_anchor_shows_its_age() {
    let stolen = Revocation { worker: address(OWNER), key: address(OWNER), block: 41, time: EXPIRES };
    let judgement = Judgement { revocations_at: Some(90), revocations: vec![stolen], ..integrity() };
    let built = delegated(&[]).0.build();
    for (size, expected) in [(2, Status::Undecided), (3, Status::Verified)] {
        let verdict = built
            .clone()
            .anchored(0, size)
            .verify(&judgement, &|_: usize, _: &AnchorRecord| said(EXPIRES - 1, true, false));
        assert_eq!(verdict.status, expected, "{size} receipts: {:?}", verdict.missing);
        let is_told = verdict.missing.iter().any(|text| text.contains(" revoked at block 41 "));
        assert_eq!(is_told, expected == Status::Undecided);
    }
}

/// Anchors of one lane date nothing of another.
#[test]
fn an_anchor_dates_its_own_lane_alone() {
    let (mut run, _) = delegated(&[("expires", EXPIRES)]);
    run = run.and(OWNER, 1, [step(1).item(), step(2).item(), step(3).without("gradients").item()]);
    run = run.and(WORKER, 0, [step(1).item(), step(2).item()]);
    run.logs[1].items.truncate(3);
    let confirmed_at = |_: usize, _: &AnchorRecord| said(EXPIRES, true, false);
    for (log, is_dated) in [(0, true), (1, false), (2, false)] {
        let built = run.build().anchored(log, 3);
        let verdict = built.verify(&at(EXPIRES + 1), &confirmed_at);
        assert_eq!(verdict.status == Status::Verified, is_dated, "log {log}: {:?}", verdict.missing);
    }
}

/// Two delegations of one key with two ends are two keys to the clock.
#[test]
fn each_receipt_ends_with_its_own_delegation() {
    let mut run = Run::of([]);
    let long = run.delegation(OWNER, 0, &[("expires", EXPIRES)]);
    let short = run.delegation(OWNER, 0, &[("expires", 50)]);
    run.items().splice(0..0, [Item::Delegation(long.clone(), OWNER), Item::Delegation(short.clone(), OWNER)]);
    run.items().extend([step(1).by(SESSION, &short).item(), step(2).by(SESSION, &long).item()]);
    let verdict = run.build().verify(&at(60), &unconfirmed);
    assert_eq!(verdict.missing.len(), 1);
    assert!(verdict.missing[0].contains("until 1970-01-01 00:00:50 UTC"), "{:?}", verdict.missing);
    assert!(verdict.missing[0].ends_with("is receipt 2"));
    let both = run.build().verify(&at(u64::MAX), &unconfirmed);
    assert_eq!(both.missing.len(), 2);
    assert!(both.missing[1].ends_with("is receipt 3"));
    // Two receipts of one delegation are counted together.
    let mut run = Run::of([]);
    let body = run.delegation(OWNER, 0, &[("expires", 50)]);
    run.items().insert(0, Item::Delegation(body.clone(), OWNER));
    run.items().extend([step(1), step(2)].map(|draft| draft.by(SESSION, &body).item()));
    let verdict = run.build().verify(&at(60), &unconfirmed);
    assert_eq!(verdict.missing.len(), 1);
    assert!(verdict.missing[0].ends_with("is receipt 3"));
    assert!(verdict.signer.line.ends_with(&format!("2 receipts by its session key {}", address(SESSION))));
}

/// Expected: `date -u -d @N`.
#[test]
fn dates_are_those_of_the_calendar() {
    let contents = Run::short().build().anchored(0, 7).contents();
    for (seconds, expected) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (1, "1970-01-01 00:00:01 UTC"),
        (59, "1970-01-01 00:00:59 UTC"),
        (60, "1970-01-01 00:01:00 UTC"),
        (3599, "1970-01-01 00:59:59 UTC"),
        (3600, "1970-01-01 01:00:00 UTC"),
        (86399, "1970-01-01 23:59:59 UTC"),
        (86400, "1970-01-02 00:00:00 UTC"),
        (5097599, "1970-02-28 23:59:59 UTC"),
        (5097600, "1970-03-01 00:00:00 UTC"),
        (68169600, "1972-02-29 00:00:00 UTC"),
        (68255999, "1972-02-29 23:59:59 UTC"),
        (68256000, "1972-03-01 00:00:00 UTC"),
        (94694399, "1972-12-31 23:59:59 UTC"),
        (94694400, "1973-01-01 00:00:00 UTC"),
        (951782399, "2000-02-28 23:59:59 UTC"),
        (951782400, "2000-02-29 00:00:00 UTC"),
        (951868799, "2000-02-29 23:59:59 UTC"),
        (951868800, "2000-03-01 00:00:00 UTC"),
        (951955200, "2000-03-02 00:00:00 UTC"),
        (1078012800, "2004-02-29 00:00:00 UTC"),
        (1078099199, "2004-02-29 23:59:59 UTC"),
        (1078099200, "2004-03-01 00:00:00 UTC"),
        (1700000000, "2023-11-14 22:13:20 UTC"),
        (1709164800, "2024-02-29 00:00:00 UTC"),
        (1709251199, "2024-02-29 23:59:59 UTC"),
        (1709251200, "2024-03-01 00:00:00 UTC"),
        (1735689599, "2024-12-31 23:59:59 UTC"),
        (1735689600, "2025-01-01 00:00:00 UTC"),
        (1772323200, "2026-03-01 00:00:00 UTC"),
        (4102444799, "2099-12-31 23:59:59 UTC"),
        (4102444800, "2100-01-01 00:00:00 UTC"),
        (4107456000, "2100-02-28 00:00:00 UTC"),
        (4107542399, "2100-02-28 23:59:59 UTC"),
        (4107542400, "2100-03-01 00:00:00 UTC"),
        (4107628800, "2100-03-02 00:00:00 UTC"),
        (7258118400, "2200-01-01 00:00:00 UTC"),
        (13574563200, "2400-02-29 00:00:00 UTC"),
        (13574649600, "2400-03-01 00:00:00 UTC"),
        (253402300799, "9999-12-31 23:59:59 UTC"),
        (32535215999, "3000-12-31 23:59:59 UTC"),
        (1672576496, "2023-01-01 12:34:56 UTC"),
        (1706445296, "2024-01-28 12:34:56 UTC"),
        (1675254896, "2023-02-01 12:34:56 UTC"),
        (1709123696, "2024-02-28 12:34:56 UTC"),
        (1677674096, "2023-03-01 12:34:56 UTC"),
        (1711629296, "2024-03-28 12:34:56 UTC"),
        (1680352496, "2023-04-01 12:34:56 UTC"),
        (1714307696, "2024-04-28 12:34:56 UTC"),
        (1682944496, "2023-05-01 12:34:56 UTC"),
        (1716899696, "2024-05-28 12:34:56 UTC"),
        (1685622896, "2023-06-01 12:34:56 UTC"),
        (1719578096, "2024-06-28 12:34:56 UTC"),
        (1688214896, "2023-07-01 12:34:56 UTC"),
        (1722170096, "2024-07-28 12:34:56 UTC"),
        (1690893296, "2023-08-01 12:34:56 UTC"),
        (1724848496, "2024-08-28 12:34:56 UTC"),
        (1693571696, "2023-09-01 12:34:56 UTC"),
        (1727526896, "2024-09-28 12:34:56 UTC"),
        (1696163696, "2023-10-01 12:34:56 UTC"),
        (1730118896, "2024-10-28 12:34:56 UTC"),
        (1698842096, "2023-11-01 12:34:56 UTC"),
        (1732797296, "2024-11-28 12:34:56 UTC"),
        (1701434096, "2023-12-01 12:34:56 UTC"),
        (1735389296, "2024-12-28 12:34:56 UTC"),
    ] {
        let confirmed = |_: usize, _: &AnchorRecord| said(seconds, true, false);
        let verdict = contents.verify(&integrity(), &confirmed, &|_| None, &|_| None);
        assert_eq!(verdict.time.line, format!("all 7 receipts existed by {expected} on chain 1"));
    }
    let last = contents.verify(
        &integrity(),
        &|_: usize, _: &AnchorRecord| said(u64::MAX, true, false),
        &|_| None,
        &|_| None,
    );
    assert_eq!(last.time.covered, 7);
}
