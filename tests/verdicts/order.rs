//! Headers, links, and what follows what in a log.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::Frame;
use counterfoil::primitives::{Address, Digest};
use counterfoil::receipt::Value;
use counterfoil::verify::{Judgement, Status, Verdict};

fn word(address: Address) -> Digest {
    address.into_word()
}

#[test]
fn an_honest_run_is_verified_in_these_words() {
    let verdict = Run::short().build().verdict();
    assert_eq!(edges_of(&verdict), []);
    assert_eq!(verdict.status, Status::Verified);
    assert_eq!(verdict.missing, [""; 0]);
    assert_eq!(verdict.notes, [""; 0]);
    assert_eq!(verdict.integrity.line, "intact; split view: not excluded");
    assert_eq!(verdict.signer.line, format!("unpinned {}; revocation not checked", address(OWNER)));
    assert_eq!((verdict.signer.owner, verdict.signer.pinned), (Some(address(OWNER)), false));
    assert_eq!(verdict.time.line, "none");
    assert_eq!((verdict.time.covered, verdict.time.receipts), (0, 7));
    assert_eq!(
        verdict.transition.line,
        "structural (gradients every step, parameters every 2 steps, checkpoint every 2 steps); recipe unpinned"
    );
    assert_eq!((verdict.transition.replayed, verdict.transition.steps), (0, 3));
    assert_eq!(verdict.run, Run::short().id());
    assert_eq!(verdict.not_shown.len(), 6);
}

#[test]
fn a_header_names_its_place_in_its_log() {
    let other = Digest::repeat_byte(9);
    let run = Run::short();
    let previous = run.build().logs[0].receipts().nth(2).unwrap().digest;
    let cases: [(&'static str, Value, Digest, Digest); 3] = [
        ("run", other.into(), run.id(), other),
        ("previous", other.into(), previous, other),
        ("worker", address(STRANGER).into(), word(address(OWNER)), word(address(STRANGER))),
    ];
    let changed = |name, value: Value| {
        let mut run = Run::short();
        run.items()[3] = step(2).with(name, value).item();
        edges(&run.build())
    };
    for (name, value, expected, actual) in cases {
        assert_eq!(changed(name, value), [edge(&step_place(3, 2, name), expected, actual)]);
    }
    for (name, value, expected) in
        [("schema", 2, 1), ("schema", 0, 1), ("lane", 1, 0), ("sequence", 4, 3), ("sequence", 2, 3)]
    {
        assert_eq!(changed(name, u64::into(value)), [edge(&step_place(3, 2, name), expected, value)]);
    }
    // What a worker says of its clock binds nobody.
    assert_eq!(changed("time", u64::MAX.into()), []);
}

#[test]
fn receipts_left_out_swapped_or_doubled_break_their_links() {
    let honest = Run::short().build();
    let digests: Vec<Digest> = honest.logs[0].receipts().map(|receipt| receipt.digest).collect();
    let at = |position: usize| {
        let frames = &honest.logs[0].frames;
        let is_it =
            |frame: &Frame| matches!(frame, Frame::Receipt(receipt) if receipt.digest == digests[position]);
        frames.iter().position(is_it).unwrap()
    };
    let mut fewer = honest.clone();
    fewer.logs[0].frames.remove(at(2));
    let found = edges(&fewer);
    assert_eq!(
        found[..3],
        [
            edge(&step_place(2, 2, "previous"), digests[1], digests[2]),
            edge(&step_place(2, 2, "sequence"), 2, 3),
            edge(&step_place(2, 2, "step"), 1, 2),
        ]
    );
    let mut twice = honest.clone();
    twice.logs[0].frames.insert(at(2), honest.logs[0].frames[at(2)].clone());
    assert_eq!(edges(&twice)[0], edge(&step_place(3, 1, "previous"), digests[2], digests[1]));
    let mut swapped = honest.clone();
    swapped.logs[0].frames.swap(at(5), at(6));
    assert_eq!(edges(&swapped)[0], edge("ledger: receipt 5 (close): previous", digests[4], digests[5]));
    // A receipt that was signed again, and links that nobody repaired.
    let mut other = Run::short();
    other.items()[3] = step(2).with("workUnits", 5u64).item();
    let other = other.build();
    let mut grafted = honest.clone();
    grafted.logs[0].frames.truncate(at(3));
    grafted.logs[0].frames.extend_from_slice(&other.logs[0].frames[at(3) - 1..=at(3)]);
    grafted.logs[0].frames.extend_from_slice(&honest.logs[0].frames[at(3) + 1..]);
    let signed = other.logs[0].receipts().nth(3).unwrap().digest;
    let found = edges(&grafted);
    assert!(
        found.contains(&edge("ledger: receipt 4 (checkpoint 2): previous", signed, digests[3])),
        "{found:?}"
    );
}

#[test]
fn a_log_begins_with_genesis_and_join_and_has_them_once() {
    let order = "no second genesis or join";
    let step_first = {
        let mut run = Run::short();
        run.items()[1] = step(1).item();
        edges(&run.build())
    };
    assert_eq!(step_first[0], edge(&step_place(1, 1, "order"), "join", "step"));
    let second = |draft: Item, name: &str| {
        let found = edges(&Run::of([draft]).build());
        assert_eq!(found, [edge(&format!("ledger: receipt 2 ({name}): order"), order, name)]);
    };
    second(genesis(), "genesis");
    second(join(), "join");
    // In every log but the owner's first lane, join alone.
    let (worker, other) = (address(WORKER), address(OWNER));
    let place = format!("ledger of {worker} lane 0: receipt");
    let run = Run::short().and(WORKER, 0, [join()]);
    assert_eq!(edges(&run.build()), [edge(&format!("{place} 1 (join): order"), order, "join")]);
    let mut run = Run::short().and(WORKER, 0, []);
    run.logs[1].items = vec![genesis()];
    let found = edges(&run.build());
    assert!(found.contains(&edge(&format!("{place} 0 (genesis): order"), "join", "genesis")), "{found:?}");
    let mut run = Run::short().and(OWNER, 1, []);
    run.logs[1].items = vec![step(1).item()];
    let lane = format!("ledger of {other} lane 1: receipt 0 (step 1): order");
    assert_eq!(edges(&run.build()), [edge(&lane, "join", "step")]);
    // The first receipt of another log is linked to genesis.
    let mut run = Run::short().and(WORKER, 0, []);
    run.logs[1].items = vec![Draft::new("join", &[]).with("previous", Digest::ZERO).item()];
    let built = run.build();
    let digest = built.logs[0].receipts().next().unwrap().digest;
    assert_eq!(edges(&built), [edge(&format!("{place} 0 (join): previous"), digest, Digest::ZERO)]);
    let mut run = Run::short().and(WORKER, 0, []);
    run.logs[1].items.clear();
    let place = format!("ledger of {worker} lane 0: first receipt");
    assert_eq!(edges(&run.build()), [edge(&place, "genesis or join", "an empty ledger")]);
}

#[test]
fn nothing_follows_close_but_resume() {
    let after = |draft: Draft, place: &str| {
        let name = draft.kind.name;
        let expected =
            [edge(&format!("ledger: receipt 4 ({place}): order"), "nothing but resume after close", name)];
        assert_eq!(of([step(1), close(1), draft]), expected);
    };
    after(step(2), "step 2");
    after(checkpoint(1), "checkpoint 1");
    after(policy(9, &[]), "policy");
    after(close(1), "close");
    assert_eq!(of([step(1), close(1), resume(1), step(2), checkpoint(2), close(2)]), []);
    let closed = |verdict: Verdict| (verdict.integrity.line, verdict.notes);
    let not_shown =
        format!("the run of {} lane 0 is not shown to its end (no close receipt)", address(OWNER));
    let resumed = "resumed 1 times; 0 times it is shown that training went on from the state it had there";
    assert_eq!(
        closed(Run::of([step(1), close(1), resume(1)].map(Draft::item)).build().verdict()),
        (
            "intact, the run not shown to its end; split view: not excluded".into(),
            vec![not_shown, resumed.into()]
        )
    );
}

#[test]
fn steps_have_no_gaps_and_others_name_the_last_one() {
    for (number, expected) in [(1, 2), (3, 2), (0, 2), (u64::MAX, 2)] {
        let number_of = step(2).with("step", number);
        assert_eq!(of([step(1), number_of])[0], edge(&step_place(3, number, "step"), expected, number));
    }
    for number in [0, 2, u64::MAX] {
        let found = |draft: Draft| of([step(1), draft]);
        assert_eq!(found(close(number)), [edge("ledger: receipt 3 (close): step", 1, number)]);
        let place = format!("ledger: receipt 3 (checkpoint {number}): step");
        assert_eq!(found(checkpoint(number)), [edge(&place, 1, number)]);
    }
    for number in [2, u64::MAX] {
        let found = of([step(1), resume(number)]);
        assert_eq!(found, [edge("ledger: receipt 3 (resume): step", "at most 1", number)]);
    }
    assert_eq!(of([resume(0), checkpoint(0), close(0)]), []);
    assert_eq!(of([step(2)])[0], edge(&step_place(2, 2, "step"), 1, 2));
}

#[test]
fn several_logs_are_judged_together() {
    let run = Run::short().and(WORKER, 0, [step(1).item(), close(1).item()]).and(OWNER, 1, [step(1).item()]);
    let built = run.build();
    let verdict = built.verdict();
    assert_eq!(edges_of(&verdict), []);
    assert_eq!(verdict.integrity.line, "intact, the run not shown to its end; split view: not excluded");
    assert_eq!((verdict.transition.steps, verdict.time.receipts), (5, 12));
    let owner = address(OWNER);
    assert_eq!(
        verdict.signer.line,
        format!("unpinned {owner}; revocation not checked; 1 more workers, unpinned")
    );
    assert_eq!(
        verdict.notes[0],
        format!("the run of {owner} lane 1 is not shown to its end (no close receipt)")
    );
    // A split view is excluded when each lane is anchored to its end.
    let anchored = built.clone().anchored(0, 7).anchored(1, 3).anchored(2, 2);
    let judgement = Judgement { heads: anchored.heads(), ..integrity() };
    let verdict = anchored.verify(&judgement, &confirmed);
    assert_eq!((verdict.time.covered, verdict.time.receipts), (12, 12));
    assert_eq!(verdict.integrity.split_view, "excluded by chain 1 for the lanes shown");
    let mut short = built.anchored(0, 7).anchored(1, 2).anchored(2, 2);
    let verdict = short.verify(&Judgement { heads: short.heads(), ..integrity() }, &confirmed);
    assert_eq!((verdict.time.covered, verdict.integrity.split_view.as_str()), (11, "not excluded"));
    short.anchors.remove(0);
    assert_eq!(short.verify(&integrity(), &confirmed).time.covered, 4);
    let broken = {
        let mut run = Run::short();
        run.items()[6] = close(2).item();
        run.build().anchored(0, 7).verify(&integrity(), &confirmed)
    };
    assert_eq!(broken.integrity.split_view, "not excluded");
    assert_eq!(broken.integrity.line, "broken at ledger: receipt 6 (close): step; split view: not excluded");
}

#[test]
fn two_edges_are_counted_and_no_more_than_64_kept() {
    let verdict = Run::of([step(1).without("gradients").item(), close(0).item()]).build().verdict();
    let first = step_place(2, 1, "gradients");
    assert_eq!(verdict.integrity.line, format!("broken at {first} (and 1 more); split view: not excluded"));
    let run = |count: u64| Run::of((0..count).map(|_| close(7).item())).build().verdict();
    // The first close names another step, each of the others stands behind it too.
    assert_eq!(run(10).integrity.broken.len(), 19);
    assert_eq!(run(32).integrity.broken.len(), 63);
    assert_eq!(run(33).integrity.broken.len(), 64);
    assert_eq!(run(40).integrity.broken.len(), 64);
}
