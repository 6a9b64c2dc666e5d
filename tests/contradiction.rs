//! Two histories: who signed both is convicted, and who signed one twice is not.

mod common;

use common::{Run, key};
use counterfoil::evidence::{Contradiction, ContradictionKind, Frame, TreeHead};
use counterfoil::primitives::Digest;
use counterfoil::receipt::schema::TREE_HEAD;
use counterfoil::receipt::{Body, Signature, Signer};

fn run(steps: u64, last: u64) -> Run {
    let mut run = Run::new("{}");
    run.genesis();
    let (session, owner) = (key(2), run.owner.clone());
    let values = run.delegation_values(&session);
    run.delegate(session, &values, &owner);
    run.join();
    (1..steps).for_each(|step| run.step(step));
    run.record("step", &[("step", steps.into()), ("workUnits", last.into())], &[]);
    run.sign_head();
    run
}

fn between(one: &Run, two: &Run) -> Option<Contradiction> {
    Contradiction::between(&one.contents().logs[0], &two.contents().logs[0]).unwrap()
}

#[test]
fn a_fork_convicts_the_worker_and_stands_alone() {
    let found = between(&run(3, 1), &run(3, 2)).expect("two last steps");
    assert!(matches!(found.kind, ContradictionKind::Fork(_)));
    assert_eq!(found.check(), Ok(key(1).address()), "the session's key signed for its worker");
    let frames = found.encode();
    assert_eq!(Contradiction::decode(&frames).unwrap(), found);
    // Without the permission it is a stranger's word.
    let without: Vec<_> = frames.iter().filter(|frame| frame[0] != b'D').cloned().collect();
    assert!(Contradiction::decode(&without).unwrap().check().is_err());
    for index in 0..frames.len() {
        for position in 0..frames[index].len() {
            let mut changed = frames.clone();
            changed[index][position] ^= 1;
            let accused = Contradiction::decode(&changed).and_then(|found| found.check());
            // There are two delegations, one of either copy, of which one is enough.
            assert!(accused.is_err() || frames[index][0] == b'D', "frame {index} byte {position}");
            assert!(accused.is_err() || accused == Ok(key(1).address()));
        }
    }
    assert!(Contradiction::decode(&frames[..frames.len() - 1]).is_err(), "one receipt");
    let three = [frames.clone(), vec![frames[frames.len() - 1].clone()]].concat();
    assert!(Contradiction::decode(&three).is_err(), "three receipts");
}

#[test]
fn one_history_and_its_beginning_are_no_contradiction() {
    assert_eq!(between(&run(3, 1), &run(3, 1)), None);
    let mut longer = run(3, 1);
    longer.step(4);
    longer.sign_head();
    assert_eq!(between(&run(3, 1), &longer), None);
    // Receipts of two positions differ, and that is no crime.
    let receipts = |run: &Run| -> Vec<Vec<u8>> {
        run.frames
            .iter()
            .filter(|f| matches!(f, Frame::Receipt(_) | Frame::Delegation(_)))
            .map(Frame::encode)
            .collect()
    };
    let all = receipts(&longer);
    let (delegation, two) = (all[1].clone(), &all[all.len() - 2..]);
    let found = Contradiction::decode(&[vec![delegation], two.to_vec()].concat()).unwrap();
    assert!(found.check().unwrap_err().to_string().contains("different logs or positions"));
}

/// The bug: a worker whose signer answered twice for one digest is accused of a fork.
#[test]
fn signing_one_statement_twice_is_no_contradiction() {
    let honest = run(2, 1);
    let mut again = run(2, 1);
    let head = |run: &Run| match run.frames.last() {
        Some(Frame::Head(head)) => head.clone(),
        _ => unreachable!(),
    };
    // The other valid signature of the same digest, as another nonce would give it.
    let other = TreeHead { signature: Signature([1; 65]), ..head(&honest) };
    *again.frames.last_mut().unwrap() = Frame::Head(other);
    assert_eq!(between(&honest, &again), None);
    let frames = [Frame::Head(head(&honest)).encode(), Frame::Head(head(&honest)).encode()];
    let refused = Contradiction::decode(&frames).unwrap().check().unwrap_err().to_string();
    assert!(
        refused.contains("nor a key that it allowed") || refused.contains("no second history"),
        "{refused}"
    );
}

#[test]
fn two_heads_of_one_size_convict_without_any_receipt() {
    let heads = |last| -> Vec<Vec<u8>> {
        let run = run(3, last);
        run.frames
            .iter()
            .filter(|f| matches!(f, Frame::Head(_) | Frame::Delegation(_)))
            .map(Frame::encode)
            .collect()
    };
    let (one, two) = (heads(1), heads(2));
    let found = Contradiction::decode(&[one.clone(), vec![two[1].clone()]].concat()).unwrap();
    assert!(matches!(found.kind, ContradictionKind::TwoHistories(_)));
    assert_eq!(found.check(), Ok(key(1).address()));
    let same = Contradiction::decode(&[one.clone(), vec![one[1].clone()]].concat()).unwrap();
    assert!(same.check().unwrap_err().to_string().contains("signing twice is no second history"));
    assert_ne!(key(1).address(), key(2).address());
}

/// The bug: a stranger signs two heads in a worker's name and convicts it, or a worker's own key does not.
#[test]
fn heads_convict_whom_they_name_when_it_signed_them() {
    let mut values = run(3, 1).head_values();
    let one = Body::new(&TREE_HEAD, &values).unwrap();
    values.push(("root", Digest::repeat_byte(1).into()));
    let two = Body::new(&TREE_HEAD, &values).unwrap();
    for (number, convicts) in [(1, true), (9, false)] {
        let signed = |body: &Body| {
            let signature = key(number).sign(body.digest()).unwrap();
            Frame::Head(TreeHead { body: body.clone(), signature }).encode()
        };
        let found = Contradiction::decode(&[signed(&one), signed(&two)]).unwrap();
        assert_eq!(found.check().is_ok(), convicts, "{number}");
    }
}
