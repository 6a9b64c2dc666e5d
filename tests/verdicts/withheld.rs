//! Receipts that are withheld, and everything else that is left out.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::commit::leaf_hash;
use counterfoil::commit::merkle::CompactRange;
use counterfoil::evidence::Frame;
use counterfoil::primitives::Digest;
use counterfoil::verify::{HeadOnChain, Judgement, Requirement, Revocation, Status, Verdict, unconfirmed};

/// Behind withheld receipts a step may have any later number, once.
#[test]
fn steps_behind_withheld_receipts_do_not_go_back() {
    let withheld = |drafts: &[Draft]| {
        let mut items: Vec<Item> = [step(1), step(2), checkpoint(2)].map(Draft::item).into();
        items.extend(drafts.iter().cloned().map(Draft::item));
        items.push(head());
        let mut built = Run::of(items).build();
        built.logs[0] = built.logs[0].withhold(&[3, 4]);
        let verdict = built.verdict();
        assert_ne!(verdict.status, Status::Verified);
        edges_of(&verdict)
    };
    assert_eq!(withheld(&[step(3)]), []);
    let far = step(9).field(Field::new("parameters", Form::Roots, &[("w", &[9])]));
    assert_eq!(withheld(&[far.clone(), step(10)]), []);
    assert_eq!(withheld(&[far, step(9)]), [edge(&step_place(6, 9, "step"), 10, 9)]);
    assert_eq!(withheld(&[step(1)]), [edge(&step_place(5, 1, "step"), 2, 1)]);
    assert_eq!(withheld(&[close(0)]), [edge("ledger: receipt 5 (close): step", 1, 0)]);
    assert_eq!(withheld(&[close(1)]), []);
    assert_eq!(withheld(&[resume(7), step(9)]), [edge(&step_place(6, 9, "step"), 8, 9)]);
    let last = step(3).with("step", u64::MAX);
    let found = withheld(&[last.clone(), last]);
    assert_eq!(found, [edge(&step_place(6, u64::MAX, "step"), u64::MAX, u64::MAX)]);
    assert_eq!(withheld(&[step(3).with("step", u64::MAX), close(u64::MAX)]), [], "the last step there is");
    // Only the floor is sure to hold behind them, and it does hold.
    assert_eq!(
        withheld(&[step(3).without("gradients")]),
        [edge(&step_place(5, 3, "gradients"), "due every 1 steps", "absent")]
    );
    assert_eq!(
        withheld(&[step(4), step(5)]),
        [edge("ledger: checkpoint after step 4", "due every 2 steps", "absent")]
    );
    let mut dense = Run::of([policy(1, &[("parametersEvery", 1)]), step(1), step(2)].map(Draft::item));
    dense.items()[3] = step(1).field(Field::new("parameters", Form::Roots, &[("w", &[1])])).item();
    dense.items().extend([checkpoint(2), step(3)].map(Draft::item));
    dense.items().push(head());
    let mut built = dense.build();
    let due = edge(&step_place(6, 3, "parameters"), "due every 1 steps", "absent");
    assert_eq!(edges(&built), [due]);
    built.logs[0] = built.logs[0].withhold(&[5]);
    assert_eq!(edges(&built), [], "the policy may have changed among what is withheld");
}

#[test]
fn withheld_receipts_have_one_encoding() {
    let mut built = rich();
    built.logs[0] = built.logs[0].withhold(&[2, 3, 4]);
    built.objects.clear();
    // The head over the withheld receipts parts them from the rest.
    assert_eq!(judge(&built.bundle()).unwrap().status, Status::Undecided);
    let frames = built.logs[0].encoded();
    let at = frames.iter().position(|frame| frame[0] == b'W').unwrap();
    let Frame::Withheld(whole) = &built.logs[0].frames[at] else { unreachable!() };
    assert_eq!((whole.begin(), whole.count(), whole.size()), (2, 3, 5));
    let leaves: Vec<Digest> = rich().logs[0].receipts().map(|receipt| leaf_hash(&receipt.leaf())).collect();
    let range = |begin: u64, leaves: &[Digest]| {
        let mut range = <CompactRange>::from(begin);
        leaves.iter().for_each(|leaf| range.push(*leaf));
        Frame::Withheld(range).encode()
    };
    let replaced = |with: Vec<Vec<u8>>| {
        let mut frames = frames.clone();
        frames.splice(at..=at, with);
        log_refusal(&built, &frames).2
    };
    let refused = |number: usize, detail: &str| format!("frame {number} of the ledger is refused: {detail}");
    for split in 3..5 {
        let two = vec![range(2, &leaves[2..split]), range(split as u64, &leaves[split..5])];
        let detail =
            format!("withheld receipts from {split} on, expected from {split} on and all in one frame");
        assert_eq!(replaced(two), refused(at + 1, &detail));
    }
    for begin in [1, 3, 0] {
        let detail = format!("withheld receipts from {begin} on, expected from 2 on and all in one frame");
        assert_eq!(replaced(vec![range(begin, &leaves[2..5])]), refused(at, &detail));
    }
    let none = [b"W".as_slice(), &2u64.to_be_bytes(), &0u64.to_be_bytes()].concat();
    assert_eq!(replaced(vec![none]), refused(at, "a run of no receipts, or of too many"));
    let many = [b"W".as_slice(), &2u64.to_be_bytes(), &(u64::MAX - 1).to_be_bytes()].concat();
    assert_eq!(replaced(vec![many]), refused(at, "a run of no receipts, or of too many"));
    let short = frames[at][..frames[at].len() - 1].to_vec();
    assert_eq!(replaced(vec![short]), refused(at, "32 bytes expected at offset 49, 31 left"));
    let long = [frames[at].clone(), vec![0]].concat();
    assert_eq!(replaced(vec![long]), refused(at, "bytes follow the hashes of withheld receipts"));
    // Every bit of the hashes leads to the signed root.
    for position in 17..frames[at].len() {
        let mut changed = frames.clone();
        changed[at][position] ^= 0x10;
        let found = log_refusal(&built, &changed);
        assert_eq!(found.0, "ledger: tree head of size 5: root over the first 5 receipts", "byte {position}");
    }
}

/// Withheld receipts in numbers that nobody has must neither overflow nor add up to a whole log.
#[test]
fn withheld_receipts_never_count_as_shown_however_many_there_are() {
    let limit = 1u64 << 40;
    let claim = |begin: u64, end: u64| {
        let mut payload = [b"W".as_slice(), &begin.to_be_bytes(), &(end - begin).to_be_bytes()].concat();
        let mut at = begin;
        while at < end {
            at += 1 << at.trailing_zeros().min((end - at).ilog2());
            payload.extend([7; 32]);
        }
        Frame::decode(&payload)
    };
    // Two lanes that withhold the largest number there is.
    let mut built = Run::of([step(1).item()]).and(WORKER, 0, []).build();
    built.logs[0].frames.push(claim(3, limit).unwrap());
    built.logs[1].frames.push(claim(1, limit).unwrap());
    let verdict = judge(&built.bundle()).unwrap();
    let unbound = |place: &str| edge(&format!("{place}: withheld receipts"), "a tree head over them", "none");
    let second = format!("ledger of {} lane 0", address(WORKER));
    assert_eq!(edges_of(&verdict), [unbound("ledger"), unbound(&second)]);
    let shown =
        format!("4 of {} receipts are shown, as whoever made the bundle chose: ask for the rest", 2 * limit);
    assert_eq!((verdict.missing[0].as_str(), verdict.time.receipts), (shown.as_str(), 2 * limit));
    let refused = "a run of no receipts, or of too many";
    for (begin, end) in [(3, limit + 1), (limit, limit + 1), (u64::MAX - 1, u64::MAX)] {
        assert_eq!(claim(begin, end).unwrap_err().detail, refused, "{begin} to {end}");
    }
    let over = [b"W".as_slice(), &u64::MAX.to_be_bytes(), &1u64.to_be_bytes(), &[7; 32]].concat();
    assert_eq!(Frame::decode(&over).unwrap_err().detail, refused, "beyond the largest number");
}

/// What a verdict is worth, line by line.
fn worth(verdict: &Verdict) -> [u64; 7] {
    let status = match verdict.status {
        Status::Refuted => 0,
        Status::Undecided => 1,
        Status::Verified => 2,
    };
    [
        status,
        verdict.integrity.intact.into(),
        verdict.signer.pinned.into(),
        verdict.time.covered,
        if verdict.transition.recipe_pinned { verdict.transition.replayed } else { 0 },
        verdict.integrity.split_view.starts_with("excluded").into(),
        verdict.transition.mismatches.is_empty().into(),
    ]
}

/// Judgements under which the honest bundle is verified, undecided or refuted.
fn judgements(built: &Built) -> Vec<(Judgement, bool)> {
    let all = Requirement { signer: true, recipe: true, time: true, parameters_every: Some(2), replayed: 3 };
    let pinned = Judgement {
        name: "everything".into(),
        require: all,
        signer: Some(address(OWNER)),
        recipe: Some(built.verdict().recipe),
        replayed: 3,
        revocations_at: Some(90),
        now: Some(1_800_000_000),
        heads: built.heads(),
        ..Judgement::default()
    };
    let time = Requirement { time: true, ..Requirement::default() };
    let revoked = Revocation { worker: address(OWNER), key: address(OWNER), block: 41, time: 1_700_000_001 };
    vec![
        (integrity(), false),
        (pinned.clone(), true),
        (Judgement { require: time, ..integrity() }, false),
        (Judgement { revocations: vec![revoked], ..pinned.clone() }, true),
        (Judgement { revocations: vec![revoked], ..pinned.clone() }, false),
        (Judgement { signer: Some(address(STRANGER)), ..pinned.clone() }, true),
        (Judgement { undecided: vec!["a step differs".into()], ..pinned }, true),
    ]
}

fn verdicts(built: &Built, bytes: &[u8]) -> Vec<Option<Verdict>> {
    let judged = |(judgement, is_confirmed): &(Judgement, bool)| match is_confirmed {
        true => verify_bundle(bytes, judgement, &confirmed).ok(),
        false => verify_bundle(bytes, judgement, &unconfirmed).ok(),
    };
    judgements(built).iter().map(judged).collect()
}

#[test]
fn leaving_out_a_part_or_a_frame_never_improves_a_line() {
    let built = rich();
    let honest = verdicts(&built, &built.bundle());
    let status = |verdict: &Option<Verdict>| verdict.as_ref().unwrap().status;
    use Status::{Refuted, Undecided, Verified};
    assert_eq!(
        honest.iter().map(status).collect::<Vec<_>>(),
        [Verified, Verified, Undecided, Verified, Undecided, Refuted, Undecided]
    );
    assert_eq!(worth(honest[1].as_ref().unwrap()), [2, 1, 1, 7, 3, 1, 1]);
    let compare = |what: &str, bytes: &[u8]| {
        for (index, (before, after)) in honest.iter().zip(verdicts(&built, bytes)).enumerate() {
            let Some(after) = after else { continue };
            let (before, after) = (worth(before.as_ref().unwrap()), worth(&after));
            let improved = before.iter().zip(after).any(|(before, after)| after > *before);
            assert!(!improved, "without {what}, judgement {index}: {before:?} became {after:?}");
        }
    };
    for index in 1..built.parts().len() {
        let mut parts = built.parts();
        let (kind, name, _) = parts.remove(index);
        compare(&format!("{kind:?} {name}"), &pack(built.run, &parts, STRANGER));
    }
    for index in 0..built.logs[0].frames.len() {
        let mut fewer = built.clone();
        fewer.logs[0].frames.remove(index);
        compare(&format!("frame {index}"), &fewer.bundle());
    }
}

/// Whatever receipts are withheld, the run is not verified, and nothing gets better.
#[test]
fn withholding_any_receipts_never_improves_a_line_and_never_verifies() {
    let built = rich();
    let honest = verdicts(&built, &built.bundle());
    // Without genesis or join the run is refuted whatever else is there: a sample will do.
    for mask in (1u64..1 << 7).filter(|mask| mask % 4 == 0 || mask % 16 < 4) {
        let positions: Vec<u64> = (0..7).filter(|position| mask >> position & 1 == 1).collect();
        let mut fewer = built.clone();
        fewer.logs[0] = built.logs[0].withhold(&positions);
        if positions.contains(&4) {
            fewer.objects.clear();
        }
        let bytes = fewer.bundle();
        for (before, after) in honest.iter().zip(verdicts(&built, &bytes)) {
            let (before, after) = (before.as_ref().unwrap(), after.unwrap());
            let improved = worth(before).iter().zip(worth(&after)).any(|(before, after)| after > *before);
            assert!(!improved, "without {positions:?}");
            assert_ne!(after.status, Status::Verified, "without {positions:?}");
        }
        let after = judge(&bytes).unwrap();
        let first = positions[0];
        if first < 2 {
            assert_eq!(after.status, Status::Refuted);
        }
        if first >= 2 {
            let shown = 7 - positions.len();
            let expected = format!("intact for the {shown} of 7 receipts shown; split view: not excluded");
            assert_eq!((after.status, after.integrity.line), (Status::Undecided, expected), "{positions:?}");
            let ask = "receipts are shown, as whoever made the bundle chose: ask for the rest";
            assert!(after.missing.contains(&format!("{shown} of 7 {ask}")), "{:?}", after.missing);
        }
    }
}

#[test]
fn a_log_without_its_first_receipts_is_refuted() {
    let mut built = rich();
    let honest = built.logs[0].clone();
    built.logs[0] = honest.withhold(&[1]);
    assert_eq!(bundle_edges(&built.bundle()), [edge("ledger: receipt 1 (join)", "shown", "withheld")]);
    built.objects.clear();
    built.logs[0] = honest.withhold(&[0, 4]);
    assert_eq!(
        bundle_edges(&built.bundle()),
        [
            edge("bundle: run", Digest::ZERO, built.run),
            edge("run: genesis", "a genesis receipt first in the owner's lane 0", "none"),
        ]
    );
}

/// A log cut off before its last head is a shorter run; only a chain that knows more tells.
#[test]
fn a_log_cut_short_is_caught_by_what_the_chain_knows() {
    let built = rich();
    let frames = built.logs[0].frames.len();
    let known = HeadOnChain { worker: address(OWNER), lane: 0, size: 7, count: 1 };
    let judgement = Judgement { heads: vec![known], ..integrity() };
    let whole = verify_bundle(&built.bundle(), &judgement, &unconfirmed).unwrap();
    assert_eq!(whole.status, Status::Verified);
    for kept in 1..frames {
        let mut fewer = built.clone();
        fewer.anchors.clear();
        fewer.objects.clear();
        fewer.logs[0].frames.truncate(kept);
        let receipts = fewer.logs[0].receipts().count();
        let Ok(verdict) = verify_bundle(&fewer.bundle(), &judgement, &unconfirmed) else { continue };
        if receipts == 7 {
            continue;
        }
        assert_eq!(verdict.status, Status::Refuted, "{kept} frames");
        let found = verdict
            .integrity
            .broken
            .iter()
            .map(|edge| (edge.edge.clone(), edge.expected.clone(), edge.actual.clone()));
        let is_damaged = verdict.integrity.broken[0].edge.starts_with("bundle: log");
        let expected = edge(
            &format!("ledger of {} lane 0: receipts that the chain knows", address(OWNER)),
            "at least 7",
            format!("{} receipts", if is_damaged { 0 } else { receipts }),
        );
        assert!(
            found.clone().any(|found| found == expected),
            "{kept} frames: {:?}",
            verdict.integrity.broken
        );
    }
}
