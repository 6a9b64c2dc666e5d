//! A worker who signs anything: each rule of the format is broken in turn, with right signatures, links
//! and heads, and the edge is named. Keys that end are judged by block time alone.

mod common;

use common::{Opens, Run, confirmed, integrity, key, opens};
use counterfoil::evidence::Frame;
use counterfoil::primitives::{Address, Digest};
use counterfoil::receipt::{LocalSigner, Receipt, Signer, Value};
use counterfoil::verify::{
    Confirmation, Confirmed, Judgement, Requirement, Revocation, Standing, Status, Verdict, headline,
};

const FLOOR: &str = r#"{"policy": {"gradients": 1, "checkpoint": 2, "parameters": 2}}"#;

/// genesis, join, step 1, step 2, checkpoint 2, step 3, close; `change` alters one receipt before it is
/// signed.
fn run_with(position: u64, change: impl Fn(&mut Vec<(&'static str, Value)>) + 'static) -> Run {
    let mut run = Run::new(FLOOR);
    run.changes.insert(position, Box::new(change));
    record(&mut run);
    run
}

fn record(run: &mut Run) {
    run.genesis();
    run.join();
    run.step(1);
    run.step(2);
    run.checkpoint(2);
    run.step(3);
    run.close(3);
    run.sign_head();
}

fn set(
    name: &'static str,
    value: impl Into<Value> + Copy + 'static,
) -> impl Fn(&mut Vec<(&'static str, Value)>) {
    move |values| values.push((name, value.into()))
}

#[track_caller]
fn broken(verdict: &Verdict, edge: &str, expected: &str, actual: &str) {
    assert_eq!(verdict.status, Status::Refuted);
    let first = &verdict.integrity.broken[0];
    assert_eq!(
        (first.edge.as_str(), first.expected.as_str(), first.actual.as_str()),
        (edge, expected, actual)
    );
}

fn refuted(run: &Run) -> Verdict {
    let verdict = run.verify(&integrity());
    assert_eq!(verdict.status, Status::Refuted, "{}", verdict.integrity.line);
    verdict
}

#[test]
fn an_honest_run_verifies_in_four_lines() {
    let mut run = Run::new(FLOOR);
    record(&mut run);
    run.anchor(1_700_000_000);
    let verdict = run.verify(&integrity());
    assert_eq!(verdict.status, Status::Verified);
    assert_eq!(verdict.integrity.line, "intact; split view: excluded by chain 16602 for the lanes shown");
    assert_eq!(verdict.signer.line, format!("unpinned {}; revocation not checked", run.owner.address()));
    assert_eq!(verdict.time.line, "all 7 receipts existed by 2023-11-14 22:13:20 UTC on chain 16602");
    assert_eq!(
        verdict.transition.line,
        "structural (gradients every step, parameters every 2 steps, checkpoint every 2 steps); recipe unpinned"
    );
    assert_eq!((verdict.transition.steps, verdict.run), (3, run.id));
    assert!(verdict.missing.is_empty() && verdict.notes.is_empty(), "{:?}", verdict.notes);
    assert_eq!(headline(&verdict), "verified: integrity only (not shown: signer, re-execution)");
}

#[test]
fn a_header_that_is_not_the_logs_is_named() {
    let worker = key(1).address();
    let other = Digest::repeat_byte(8);
    let cases: [(&'static str, Value, String, String); 6] = [
        ("run", other.into(), Run::new(FLOOR).id.to_string(), other.to_string()),
        ("previous", other.into(), String::new(), other.to_string()),
        ("schema", 2.into(), "1".into(), "2".into()),
        ("lane", 1.into(), "0".into(), "1".into()),
        ("sequence", 4.into(), "3".into(), "4".into()),
        (
            "worker",
            Address::repeat_byte(8).into(),
            worker.into_word().to_string(),
            Address::repeat_byte(8).into_word().to_string(),
        ),
    ];
    for (field, value, expected, actual) in cases {
        let verdict = refuted(&run_with(3, set(field, value)));
        let edge = &verdict.integrity.broken[0];
        assert_eq!(edge.edge, format!("ledger: receipt 3 (step 2): {field}"));
        assert!(expected.is_empty() || edge.expected == expected, "{edge:?}");
        assert_eq!(edge.actual, actual);
    }
}

#[test]
fn steps_follow_each_other_and_the_rest_names_the_last() {
    broken(&refuted(&run_with(3, set("step", 3))), "ledger: receipt 3 (step 3): step", "2", "3");
    broken(&refuted(&run_with(2, set("step", 0))), "ledger: receipt 2 (step 0): step", "1", "0");
    broken(&refuted(&run_with(4, set("step", 1))), "ledger: receipt 4 (checkpoint 1): step", "2", "1");
    broken(&refuted(&run_with(6, set("step", 2))), "ledger: receipt 6 (close): step", "3", "2");
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.step(1);
    run.record("resume", &[("step", 2.into())], &[]);
    broken(&refuted(&run), "ledger: receipt 3 (resume): step", "1", "2");
}

#[test]
fn a_log_begins_and_ends_in_order() {
    let mut run = Run::new("{}");
    run.genesis();
    run.step(1);
    broken(&refuted(&run), "ledger: receipt 1 (step 1): order", "join", "step");
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.join();
    broken(&refuted(&run), "ledger: receipt 2 (join): order", "no second genesis or join", "join");
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.step(1);
    run.close(1);
    run.step(2);
    broken(&refuted(&run), "ledger: receipt 4 (step 2): order", "nothing but resume after close", "step");
    let mut run = Run::new("{}");
    run.join();
    broken(&refuted(&run), "run: genesis", "a genesis receipt first in the owner's lane 0", "none");
}

#[test]
fn what_is_due_is_there() {
    let zero = Digest::ZERO;
    let mut run = run_with(3, move |values| {
        values.push(("gradients", zero.into()));
    });
    // The opening of a field that is zero is refused too; the absence comes first.
    broken(&refuted(&run), "ledger: receipt 3 (step 2): gradients", "due every 1 steps", "absent");
    run = Run::new(FLOOR);
    run.genesis();
    run.join();
    run.record("step", &[("step", 1.into()), ("flags", 1.into())], &[]);
    let verdict = run.verify(&integrity());
    assert_eq!(verdict.status, Status::Verified, "{:?}", verdict.integrity.broken);
    assert_eq!(verdict.notes[1], "1 of 1 steps are flagged as skipped and show no gradient");
    let mut run = Run::new(FLOOR);
    run.genesis();
    run.join();
    (1..=3).for_each(|step| run.step(step));
    broken(&refuted(&run), "ledger: checkpoint after step 2", "due every 2 steps", "absent");
    let mut run = Run::new(FLOOR);
    run.genesis();
    run.join();
    (1..=2).for_each(|step| run.step(step));
    run.record("resume", &[("step", 2.into())], &[]);
    run.step(3);
    assert_eq!(
        run.verify(&integrity()).status,
        Status::Verified,
        "a resume excuses the checkpoint before it"
    );
}

#[test]
fn policies_neither_reach_back_nor_go_below_the_floor() {
    let policy = |first: u64, gradients: u64| {
        let mut run = Run::new(r#"{"policy": {"gradients": 2}}"#);
        run.genesis();
        run.join();
        run.step(1);
        run.record("policy", &[("firstStep", first.into()), ("gradientsEvery", gradients.into())], &[]);
        run
    };
    assert_eq!(policy(2, 1).verify(&integrity()).status, Status::Verified);
    broken(&refuted(&policy(1, 1)), "ledger: receipt 3 (policy): firstStep", "more than 1", "1");
    let edge = "ledger: receipt 3 (policy): gradients below the floor of genesis";
    broken(&refuted(&policy(2, 3)), edge, "2", "3");
    broken(&refuted(&policy(2, 0)), edge, "2", "0");
}

#[test]
fn a_checkpoint_is_the_state_of_its_step() {
    let mut run = Run::new(FLOOR);
    run.genesis();
    run.join();
    (1..=2).for_each(|step| run.step(step));
    run.objects.insert(counterfoil::commit::bytes_root(&[9; 3]), vec![9; 3]);
    run.record("checkpoint", &[("step", 2.into())], &[opens("parameters", &[("a", &[9; 3])])]);
    let verdict = refuted(&run);
    assert_eq!(verdict.integrity.broken[0].edge, "ledger: receipt 4 (checkpoint 2): parameters <- its step");
    let mut run = Run::new(FLOOR);
    record(&mut run);
    *run.objects.values_mut().next().unwrap() = vec![0; 3];
    let verdict = refuted(&run);
    assert_eq!(
        verdict.integrity.broken[0].edge,
        "ledger: receipt 4 (checkpoint 2): parameters \"a\" <- object"
    );
    run.objects.clear();
    assert_eq!(run.verify(&integrity()).notes, ["1 objects are missing: they were withheld or erased"]);
}

#[test]
fn openings_are_blinded_as_the_specification_says() {
    let empty = Opens { field: "gradients", tensors: vec![], by_value: false };
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.record("step", &[("step", 1.into())], &[empty]);
    broken(&refuted(&run), "ledger: receipt 2 (step 1): gradients", "at least one tensor", "an empty state");
    for (specification, by_whom, expected, actual) in [
        ("{}", r#"{"public": ["step.gradients"]}"#, "blinded", "not blinded"),
        (
            r#"{"public": ["step.gradients"]}"#,
            "{}",
            "public, as the specification says",
            "blinded in part or in whole",
        ),
    ] {
        let mut run = Run::new(specification);
        run.genesis();
        run.join();
        // The worker blinds by another specification than the one that genesis pins.
        run.specification = by_whom.into();
        run.record("step", &[("step", 1.into())], &[opens("gradients", &[("a", b"x")])]);
        run.specification = specification.into();
        broken(&refuted(&run), "ledger: receipt 2 (step 1): gradients: blind", expected, actual);
    }
}

#[test]
fn heads_speak_of_what_stands_before_them() {
    for (field, value, edge) in [
        ("size", Value::Unsigned(6), "tree head of size 6: receipts of the ledger"),
        ("size", Value::Unsigned(8), "tree head of size 8: receipts of the ledger"),
        ("root", Digest::repeat_byte(1).into(), "tree head of size 7: root over the first 7 receipts"),
        ("previousHead", Digest::repeat_byte(1).into(), "tree head of size 7: previousHead"),
        ("lane", Value::Unsigned(1), "tree head of size 7: log"),
        ("run", Digest::repeat_byte(1).into(), "tree head of size 7: log"),
        ("worker", Address::repeat_byte(1).into(), "tree head of size 7: log"),
        ("schema", Value::Unsigned(2), "tree head of size 7: order"),
    ] {
        let mut run = Run::new(FLOOR);
        record(&mut run);
        run.frames.pop();
        run.head = Digest::ZERO;
        let mut values = run.head_values();
        values.push((field, value));
        run.sign_head_of(&values);
        assert_eq!(refuted(&run).integrity.broken[0].edge, format!("ledger: {edge}"), "{field}");
    }
    let mut run = Run::new(FLOOR);
    record(&mut run);
    run.sign_head();
    let verdict = refuted(&run);
    assert_eq!(verdict.integrity.broken[0].edge, "ledger: tree head of size 7: order");
    let mut run = Run::new(FLOOR);
    record(&mut run);
    run.frames.pop();
    run.signer = key(5);
    run.head = Digest::ZERO;
    run.sign_head();
    let edge = "ledger: tree head of size 7: signature";
    broken(&refuted(&run), edge, &run.owner.address().to_string(), &key(5).address().to_string());
}

#[test]
fn anchors_speak_of_this_history() {
    let anchored = |change: &dyn Fn(&mut counterfoil::evidence::AnchorRecord)| {
        let mut run = Run::new(FLOOR);
        record(&mut run);
        run.anchor(5);
        change(&mut run.anchors[0]);
        run
    };
    let verdict = refuted(&anchored(&|a| a.root = Digest::repeat_byte(1)));
    assert_eq!(verdict.integrity.broken[0].edge, "anchor 0.json: root over the first 7 receipts");
    broken(
        &refuted(&anchored(&|a| a.size = 8)),
        "anchor 0.json: receipts of the ledger",
        "at least 8",
        "7 receipts",
    );
    broken(&refuted(&anchored(&|a| a.size = 0)), "anchor 0.json: size", "at least 1", "0");
    let verdict = refuted(&anchored(&|a| a.run = Digest::repeat_byte(1)));
    assert_eq!(verdict.integrity.broken[0].edge, "anchor 0.json: run");
    let verdict = refuted(&anchored(&|a| a.lane = 4));
    assert_eq!(verdict.integrity.broken[0].edge, "anchor 0.json: ledger");
}

#[test]
fn unknown_kinds_are_undecided_and_known_ones_keep_their_number() {
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.step(1);
    let digest = Digest::repeat_byte(3);
    run.push(Receipt { kind: 77, digest, signature: run.owner.sign(digest).unwrap(), body: vec![1, 2, 3] });
    let verdict = run.verify(&integrity());
    assert_eq!(verdict.status, Status::Undecided);
    assert_eq!(
        verdict.missing,
        ["ledger: receipt 3 (unknown kind 77): this version does not know the kind; use a newer one"]
    );
    let Some(Frame::Receipt(last)) = run.frames.last_mut() else { unreachable!() };
    last.signature = key(4).sign(digest).unwrap();
    assert_eq!(refuted(&run).integrity.broken[0].edge, "ledger: receipt 3 (unknown kind 77): signature");
    let mut run = Run::new("{}");
    run.genesis();
    run.join();
    run.step(1);
    let Some(Frame::Receipt(last)) = run.frames.last_mut() else { unreachable!() };
    last.kind = 77;
    broken(&refuted(&run), "ledger: receipt 2 (unknown kind 77): kind", "step", "unknown kind 77");
}

/// genesis by the owner, then join, two steps and a head by a session's key under a permission that
/// `change` alters and `by` signs.
fn delegated(by: &LocalSigner, change: impl Fn(&mut Vec<(&'static str, Value)>)) -> Run {
    let mut run = Run::new("{}");
    run.genesis();
    let session = key(2);
    let mut values = run.delegation_values(&session);
    change(&mut values);
    run.delegate(session, &values, by);
    run.join();
    run.step(1);
    run.step(2);
    run.sign_head();
    run
}

#[test]
fn a_session_signs_what_it_was_allowed_and_nothing_else() {
    let owner = key(1);
    let honest = delegated(&owner, |_| {});
    let verdict = honest.verify(&integrity());
    assert_eq!(verdict.status, Status::Verified, "{:?}", verdict.integrity.broken);
    let session = key(2).address();
    let line = format!(
        "unpinned {}; revocation not checked; 3 receipts by its session key {session}",
        owner.address()
    );
    assert_eq!(verdict.signer.line, line);
    assert_eq!(delegated(&owner, set("lastSequence", 3)).verify(&integrity()).status, Status::Verified);
    for (what, field, value) in [
        ("another run", "run", Value::Digest(Digest::repeat_byte(1))),
        ("another lane", "lane", Value::Unsigned(1)),
        ("another worker", "worker", Value::Address(key(9).address())),
        ("another schema", "schema", Value::Unsigned(2)),
    ] {
        let verdict = refuted(&delegated(&owner, move |values| values.push((field, value))));
        assert_eq!(verdict.integrity.broken[0].edge, format!("ledger: delegation to {session}"), "{what}");
        let edge = &verdict.integrity.broken[1];
        assert_eq!(
            (edge.edge.as_str(), edge.actual.as_str()),
            ("ledger: receipt 1 (join): delegation", "none in this ledger")
        );
    }
    // Neither a stranger nor the session's key itself can give the permission.
    for by in [key(3), key(2)] {
        assert_eq!(
            refuted(&delegated(&by, |_| {})).integrity.broken[0].edge,
            format!("ledger: delegation to {session}")
        );
    }
    let outside = refuted(&delegated(&owner, set("lastSequence", 2)));
    broken(
        &outside,
        "ledger: receipt 3 (step 2): delegation",
        "receipts 1 to 2 of the kinds 0xfffffffffffffffd",
        "receipt 3 of the kind step",
    );
    assert_eq!(outside.integrity.broken[1].edge, "ledger: tree head of size 4: signature");
    let early = refuted(&delegated(&owner, set("firstSequence", 2)));
    assert_eq!(early.integrity.broken[0].edge, "ledger: receipt 1 (join): delegation");
    let no_steps = refuted(&delegated(&owner, set("kinds", !2u64 & !8)));
    assert_eq!(no_steps.integrity.broken[0].edge, "ledger: receipt 2 (step 1): delegation");
    let no_heads = refuted(&delegated(&owner, set("kinds", !3u64)));
    broken(
        &no_heads,
        "ledger: tree head of size 4: signature",
        &owner.address().to_string(),
        &session.to_string(),
    );
    let mut missing = delegated(&owner, |_| {});
    missing.frames.retain(|frame| !matches!(frame, Frame::Delegation(_)));
    assert_eq!(refuted(&missing).integrity.broken[0].actual, "none in this ledger");
    let mut twice = delegated(&owner, |_| {});
    let copy = twice.frames.iter().find(|frame| matches!(frame, Frame::Delegation(_))).unwrap().clone();
    twice.frames.push(copy);
    broken(&refuted(&twice), "ledger: delegations", "each once", "one of them twice");
    let mut other = delegated(&owner, |_| {});
    other.signer = key(3);
    other.step(3);
    assert_eq!(refuted(&other).integrity.broken[0].edge, "ledger: receipt 4 (step 3): signature");
}

#[test]
fn genesis_is_the_owners_own() {
    let mut run = Run::new("{}");
    let (session, owner) = (key(2), run.owner.clone());
    let values = run.delegation_values(&session);
    run.delegate(session, &values, &owner);
    run.genesis();
    run.join();
    run.step(1);
    let verdict = refuted(&run);
    assert_eq!(verdict.signer.owner, None, "who did not sign genesis owns nothing");
    let edges: Vec<&str> = verdict.integrity.broken.iter().map(|edge| edge.edge.as_str()).collect();
    assert_eq!(edges[..2], ["genesis: signature", "ledger: receipt 0 (genesis): delegation"]);
    // Whoever pins a signer is told so, too.
    assert_eq!(
        run.verify(&Judgement { signer: Some(key(1).address()), ..integrity() }).status,
        Status::Refuted
    );
}

const END: u64 = 1_700_000_000;

/// A delegated run whose permission ends at [`END`], anchored at `block_time` when it had `size` receipts.
fn ended(size: u64, block_time: u64) -> Run {
    let mut run = Run::new("{}");
    run.genesis();
    let (session, owner) = (key(2), run.owner.clone());
    let mut values = run.delegation_values(&session);
    values.push(("expires", END.into()));
    run.delegate(session, &values, &owner);
    run.join();
    for step in 1..=2 {
        if run.tree.size() == size {
            run.anchor(block_time);
        }
        run.step(step);
    }
    if run.tree.size() == size {
        run.anchor(block_time);
    }
    run
}

fn status(run: &Run, judgement: &Judgement, confirmation: &Confirmation<'_>) -> (Status, Vec<String>) {
    let verdict = run.contents().verify(judgement, confirmation, &|_| None);
    (verdict.status, verdict.missing)
}

/// The bug: a time that the signer chose decides whether the key had ended.
#[test]
fn a_key_that_ended_counts_as_far_as_anchors_in_time_reach() {
    let at = |now: Option<u64>| Judgement { now, ..integrity() };
    let late = at(Some(END + 1));
    assert_eq!(
        status(&ended(9, 0), &at(Some(END)), &confirmed).0,
        Status::Verified,
        "the verifier holds it in time"
    );
    let (found, missing) = status(&ended(9, 0), &late, &confirmed);
    assert_eq!(found, Status::Undecided);
    let message = format!(
        "{} could sign until 2023-11-14 22:13:20 UTC; confirmed anchors show 0 receipts of its lane to be as old, \
         and the last one it signed is receipt 3",
        key(2).address()
    );
    assert_eq!(missing, std::slice::from_ref(&message));
    assert_eq!(status(&ended(9, 0), &at(None), &confirmed).0, Status::Undecided, "no clock, no anchor");
    assert_eq!(status(&ended(4, END), &late, &confirmed).0, Status::Verified);
    assert_eq!(status(&ended(4, END + 1), &late, &confirmed).1, std::slice::from_ref(&message));
    let (found, missing) = status(&ended(3, END), &late, &confirmed);
    assert_eq!(
        (found, missing),
        (Status::Undecided, vec![message.replace("show 0 receipts", "show 3 receipts")])
    );
    let unconfirmed = |n, a: &_| Confirmed { standing: Standing::Unconfirmed, ..confirmed(n, a) };
    assert_eq!(status(&ended(4, END), &late, &unconfirmed).0, Status::Undecided);
    let development = |n, a: &_| Confirmed { development: true, ..confirmed(n, a) };
    assert_eq!(status(&ended(4, END), &late, &development).0, Status::Undecided);
}

/// The bug: a revocation frees its signer from what was signed, or does not end the key.
#[test]
fn a_revoked_key_counts_as_far_as_anchors_before_it_reach() {
    let revoked = |worker: u8, who: u8, time: u64| Judgement {
        revocations_at: Some(99),
        revocations: vec![Revocation {
            worker: key(worker).address(),
            key: key(who).address(),
            block: 50,
            time,
        }],
        now: Some(END - 10),
        ..integrity()
    };
    let line = |run: &Run, judgement: &Judgement| {
        run.contents().verify(judgement, &confirmed, &|_| None).signer.line
    };
    let run = ended(4, 1_000);
    assert_eq!(status(&run, &revoked(1, 2, 1_001), &confirmed).0, Status::Verified, "anchored before");
    assert!(line(&run, &revoked(1, 2, 1_000)).contains(&format!("{} revoked at block 50", key(2).address())));
    let (found, missing) = status(&run, &revoked(1, 2, 1_000), &confirmed);
    assert_eq!(found, Status::Undecided);
    assert_eq!(
        missing,
        [format!(
            "{} was revoked at block 50 (1970-01-01 00:16:40 UTC); confirmed anchors show 0 receipts of its lane to \
             be older, and the last one that {} signed is receipt 3",
            key(2).address(),
            key(2).address()
        )]
    );
    // Both times are the same chain's word, so a development chain orders them, too.
    let development = |n, a: &_| Confirmed { development: true, ..confirmed(n, a) };
    assert_eq!(status(&run, &revoked(1, 2, 1_001), &development).0, Status::Verified);
    // What a revoked worker's key allowed to others ends with it.
    let (found, missing) = status(&ended(9, 0), &revoked(1, 1, 5), &confirmed);
    assert_eq!((found, missing.len()), (Status::Undecided, 2));
    assert!(missing[0].ends_with(&format!("the last one that {} signed is receipt 0", key(1).address())));
    assert!(missing[1].ends_with(&format!("the last one that {} signed is receipt 3", key(2).address())));
    // The same key of another worker, and a key that signed nothing here.
    for (worker, who) in [(3, 2), (1, 3)] {
        assert_eq!(status(&run, &revoked(worker, who, 1), &confirmed).0, Status::Verified);
        assert!(line(&run, &revoked(worker, who, 1)).contains("; not revoked at block 99; "));
    }
}

#[test]
fn requirements_say_what_is_missing() {
    let mut run = Run::new(FLOOR);
    record(&mut run);
    let owner = run.owner.address();
    let judge =
        |require: Requirement, judgement: Judgement| run.verify(&Judgement { require, ..judgement }).missing;
    let require = |change: &dyn Fn(&mut Requirement)| {
        let mut require = Requirement::default();
        change(&mut require);
        require
    };
    let pinned = || Judgement { signer: Some(owner), ..integrity() };
    assert_eq!(
        judge(require(&|r| r.signer = true), integrity()),
        ["the signer is not pinned: pass signer=, learnt from its owner"]
    );
    assert!(judge(require(&|r| r.signer = true), pinned()).is_empty());
    assert_eq!(
        judge(require(&|r| r.recipe = true), integrity()),
        ["the run has no recipe, so its steps cannot be replayed"]
    );
    assert_eq!(
        judge(require(&|r| r.time = true), integrity()),
        ["confirmed anchors cover 0 of 7 receipts: pass chain= of an RPC you trust, or trusted_blocks="]
    );
    assert_eq!(
        judge(require(&|r| r.parameters_every = Some(1)), integrity()),
        ["parameters are committed every 2 steps, 1 required"]
    );
    assert!(judge(require(&|r| r.parameters_every = Some(2)), integrity()).is_empty());
    assert_eq!(
        judge(require(&|r| r.replayed = 20), integrity()),
        ["0 steps were replayed with a pinned recipe, 3 required: counterfoil replay"]
    );
    let other = Judgement { signer: Some(key(5).address()), ..integrity() };
    assert_eq!(run.verify(&other).status, Status::Refuted);
    assert_eq!(
        run.verify(&other).signer.line.split(';').next().unwrap(),
        format!("{owner} is not the expected {}", key(5).address())
    );
}

#[test]
fn days_are_counted_right() {
    // `date -u -d @SECONDS`
    for (seconds, text) in [
        (0, "1970-01-01 00:00:00"),
        (951_782_400, "2000-02-29 00:00:00"),
        (4_107_542_400, "2100-03-01 00:00:00"),
        (1_709_251_199, "2024-02-29 23:59:59"),
        (1_735_689_599, "2024-12-31 23:59:59"),
    ] {
        let mut run = Run::new("{}");
        record(&mut run);
        run.anchor(seconds);
        assert_eq!(
            run.verify(&integrity()).time.line,
            format!("all 7 receipts existed by {text} UTC on chain 16602")
        );
    }
}
