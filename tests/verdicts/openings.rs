//! What opens a signed digest: states, single tensors, stored objects.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::commit::{Block, Commitment, Content, Entry};
use counterfoil::evidence::bundle::{PartKind, object_name};
use counterfoil::evidence::{Frame, Openable};
use counterfoil::primitives::Digest;
use counterfoil::receipt::Body;
use counterfoil::receipt::schema::Kind;
use counterfoil::verify::{Status, unconfirmed};

#[test]
fn fields_are_blinded_in_both_parts_unless_public() {
    let gradients = |form: Form, is_blinded| {
        let mut field = Field::new("gradients", form, &[("a", &[1]), ("w", &[2])]);
        field.is_blinded = is_blinded;
        of([step(1).field(field)])
    };
    let place = step_place(2, 1, "gradients: blind");
    let partly = "blinded in part or in whole";
    for form in [Form::Roots, Form::Values, Form::Parts(vec![(0, None)]), Form::Parts(vec![(1, Some(0))])] {
        assert_eq!(gradients(form.clone(), [true, true]), []);
        assert_eq!(gradients(form.clone(), [true, false]), [edge(&place, "blinded", partly)]);
        assert_eq!(gradients(form.clone(), [false, true]), [edge(&place, "blinded", partly)]);
        assert_eq!(gradients(form, [false, false]), [edge(&place, "blinded", "not blinded")]);
    }
    let metrics = |form: Form, is_blinded| {
        let mut field = Field::new("metrics", form, &[("loss", &[1])]);
        field.is_blinded = is_blinded;
        of([step(1).field(field)])
    };
    let place = step_place(2, 1, "metrics: blind");
    let expected = "public, as the specification says";
    for form in [Form::Roots, Form::Values, Form::Parts(vec![(0, None)])] {
        assert_eq!(metrics(form.clone(), [false, false]), []);
        for is_blinded in [[true, true], [true, false], [false, true]] {
            assert_eq!(metrics(form.clone(), is_blinded), [edge(&place, expected, partly)]);
        }
    }
}

#[test]
fn gradients_and_parameters_hold_a_tensor() {
    for name in ["gradients", "parameters"] {
        for form in [Form::Roots, Form::Values] {
            let empty = Field::new(name, form, &[]);
            let expected = edge(&step_place(2, 1, name), "at least one tensor", "an empty state");
            assert_eq!(of([step(1).field(empty)]), [expected]);
        }
        assert_eq!(of([step(1).field(Field::new(name, Form::Closed, &[]))]), [], "nobody can tell");
    }
    assert_eq!(of([step(1).field(Field::new("buffers", Form::Roots, &[]))]), []);
}

/// A log whose first step's opening was changed after everything was signed.
fn reopened(change: impl Fn(&mut Vec<u8>, &mut Digest)) -> (Digest, Vec<Ends>) {
    let mut built = Run::of([step(1).item()]).build();
    let mut bound = Digest::ZERO;
    for frame in &mut built.logs[0].frames {
        if let Frame::Opening(opening) = frame {
            let field = &mut opening.fields[0];
            let (Openable::Roots(payload) | Openable::Values(payload)) = &mut field.content;
            change(payload, &mut field.layout);
        }
        if let Frame::Receipt(receipt) = frame
            && receipt.kind == 3
        {
            bound =
                Body::decode(Kind::from_name("step").unwrap(), &receipt.body).unwrap().bytes32("gradients");
        }
    }
    (bound, edges(&built))
}

#[test]
fn an_opening_leads_to_the_signed_digest() {
    let place = step_place(2, 1, "gradients <- opening");
    let (bound, found) = reopened(|payload, _| payload[0] ^= 1);
    assert_eq!((found.len(), &found[0].0, &found[0].1), (1, &place, &bound.to_string()));
    assert_ne!(found[0].2, found[0].1);
    let behind = "the state behind gradients";
    for length in [0, 31, 33, 64] {
        let (_, found) = reopened(|payload, _| payload.resize(length, 0));
        let actual = format!("its payload has {length} bytes, the layout demands 32");
        assert_eq!(found, [edge(&place, behind, actual)]);
    }
    let other = Digest::repeat_byte(1);
    let (_, found) = reopened(|_, layout| *layout = other);
    assert_eq!(found, [edge(&place, behind, format!("its layout {other} is missing"))]);
}

#[test]
fn a_layout_that_makes_no_state_or_has_no_values_is_named() {
    let place = step_place(2, 1, "gradients <- opening");
    let blocks = [[0, 1], [2, 1]].map(|[offset, extent]| Block {
        offset: vec![offset],
        shape: vec![if offset == 0 { 2 } else { extent }],
        root: Digest::repeat_byte(3),
    });
    let sharded = Entry::sharded("w", "U8", &[3], &blocks).unwrap();
    let mut field = Field::new("gradients", Form::Values, &[("w", &[1, 2, 3])]);
    field.entries = vec![sharded];
    assert_eq!(
        of([step(1).field(field.clone())]),
        [edge(&place, "the state behind gradients", "it holds values, but one of its tensors is sharded")]
    );
    field.form = Form::Roots;
    assert_eq!(of([step(1).field(field.clone())]), []);
    field.form = Form::Parts(vec![(0, None)]);
    assert_eq!(of([step(1).field(field)]), []);
    let mut alias = Field::new("gradients", Form::Roots, &[("a", &[1])]);
    alias.entries.push(Entry { name: "b".into(), content: Content::Alias { target: "a".into() } });
    alias.entries.push(Entry { name: "c".into(), content: Content::Absent });
    assert_eq!(of([step(1).field(alias)]), []);
    // A layout of an alias without its target is a frame, and no state.
    let mut built = Run::of([step(1).item()]).build();
    let lonely = [Entry { name: "b".into(), content: Content::Alias { target: "a".into() } }];
    let (layout, named) = Frame::layout(&lonely);
    for frame in &mut built.logs[0].frames {
        if let Frame::Opening(opening) = frame {
            opening.fields[0].layout = named;
            opening.fields[0].content = Openable::Roots(Vec::new());
        }
    }
    built.logs[0].frames.insert(0, layout);
    let found = edges(&built);
    assert_eq!((found[0].0.as_str(), found.len()), (place.as_str(), 1));
    assert!(found[0].2.starts_with("\"b\" cannot be an alias of \"a\""), "{found:?}");
}

#[test]
fn a_single_tensor_leads_to_the_signed_digest() {
    let place = step_place(2, 1, "gradients <- opening of a tensor");
    let honest = {
        let parts = Form::Parts(vec![(0, Some(0)), (1, None)]);
        let field = Field::new("gradients", parts, &[("a", &[1]), ("w", &[2])]);
        Run::of([step(1).field(field).item()]).build()
    };
    assert_eq!(honest.verdict().notes[1], "1 siblings are missing: they were withheld or erased");
    let changed = |change: &dyn Fn(&mut counterfoil::evidence::PartOpening)| {
        let mut built = honest.clone();
        let parts = built.logs[0].frames.iter_mut().filter_map(|frame| match frame {
            Frame::Part(part) => Some(part),
            _ => None,
        });
        change(parts.into_iter().next().unwrap());
        edges(&built)
    };
    assert_eq!(changed(&|_| {}), []);
    let bound = changed(&|part| part.blind = Digest::repeat_byte(1));
    assert_eq!((bound.len(), bound[0].0.as_str()), (1, place.as_str()));
    assert!(bound[0].2.starts_with("the proof leads to root"), "{bound:?}");
    let no_entry = changed(&|part| part.opening.entry = None);
    assert_eq!(no_entry[0].2, "the opening is refused: its parts do not belong to this kind of commitment");
    assert_eq!(changed(&|part| part.opening.chunk.as_mut().unwrap().index = 1).len(), 1);
    // A commitment to bytes in the place of a state.
    let data = [1, 2, 3];
    let commitment = Commitment::of_bytes(&data);
    let blind = Digest::repeat_byte(2);
    let draft = step(1).without("gradients").with("gradients", commitment.digest(&blind));
    let mut built = Run::of([draft.item()]).build();
    let receipt = built.logs[0].receipts().nth(2).unwrap().digest;
    let chunk = counterfoil::commit::ChunkOpening::new(&data, 0).unwrap();
    let opening = counterfoil::commit::Opening { commitment, entry: None, chunk: Some(chunk) };
    let part = counterfoil::evidence::PartOpening { receipt, index: 5, blind, opening };
    let last = built.logs[0].frames.len() - 1;
    built.logs[0].frames.insert(last, Frame::Part(part));
    assert_eq!(edges(&built)[0].1, "a tensor of a state");
    assert_eq!(edges(&built)[0].2, "bytes");
}

#[test]
fn what_is_not_opened_is_counted() {
    let closed = |number: u64| step(number).field(Field::new("gradients", Form::Closed, &[("w", &[1])]));
    let mut run = Run::short();
    run.items()[2] = closed(1).item();
    run.items()[5] = closed(3).item();
    assert_eq!(run.build().verdict().notes, ["2 openings are missing: they were withheld or erased"]);
    let mut run = Run::short();
    run.objects.clear();
    assert_eq!(run.build().verdict().notes, ["1 objects are missing: they were withheld or erased"]);
    let by_value = Field::new("parameters", Form::Values, &[("w", &weights(2))]);
    run.items()[4] = checkpoint(2).field(by_value).item();
    assert_eq!(run.build().verdict().notes, [""; 0], "values need no object");
    // A frame that no receipt needs is what an interrupted write leaves in a folder.
    let mut built = Run::short().build();
    let spare = Entry::dense("spare", "U8", &[1], Digest::ZERO).unwrap();
    built.logs[0].frames.push(Frame::layout(&[spare]).0);
    assert_eq!(built.contents().logs[0].unclaimed(), 1);
    assert_eq!(edges(&built), []);
}

#[test]
fn a_stored_object_is_the_tensor_that_was_signed() {
    let built = Run::short().build();
    let root = Commitment::of_bytes(&weights(2)).root;
    let other = Digest::repeat_byte(6);
    let verdict = built.contents().verify(&integrity(), &unconfirmed, &|_| Some(other), &|_| None);
    let place = "ledger: receipt 4 (checkpoint 2): parameters \"w\" <- object";
    assert_eq!(edges_of(&verdict), [edge(place, root, other)]);
    // So is whatever else a checkpoint opens by roots; the tensors of steps are not stored.
    for (name, expected) in [("optimizer", 2), ("buffers", 2), ("hyperparameters", 2)] {
        let mut run = Run::short();
        run.items()[4] = checkpoint(2).field(Field::new(name, Form::Roots, &[("w", &[4])])).item();
        let verdict = run.build().contents().verify(&integrity(), &unconfirmed, &|_| Some(other), &|_| None);
        assert_eq!(edges_of(&verdict).len(), expected, "{name}");
    }
    // An absent tensor has no object, and one in blocks can have none.
    let block = Block { offset: vec![0], shape: vec![2], root: other };
    let mut parameters = Field::new("parameters", Form::Roots, &[]);
    parameters.entries = vec![
        Entry { name: "none".into(), content: Content::Absent },
        Entry::sharded("w", "U8", &[2], &[block]).unwrap(),
    ];
    let run = Run::of([step(1).item(), checkpoint(1).field(parameters).item(), close(1).item()]);
    let verdict = run.build().contents().verify(&integrity(), &unconfirmed, &|_| Some(other), &|_| None);
    assert_eq!(edges_of(&verdict), []);
    assert_eq!(verdict.notes, ["1 objects are missing: they were withheld or erased"]);
}

#[test]
fn a_checkpoint_holds_the_state_of_its_step() {
    let wrong = |name: &'static str, tensors: &[(&str, &[u8])]| Field::new(name, Form::Roots, tensors);
    let place = |name: &str| format!("ledger: receipt 4 (checkpoint 2): {name} <- its step");
    let compare =
        |before: Field, after: Field| of([step(1), step(2).field(before), checkpoint(2).field(after)]);
    for name in ["parameters", "optimizer", "buffers"] {
        let honest = wrong(name, &[("a", &[1]), ("w", &[2, 2])]);
        assert_eq!(compare(honest.clone(), honest.clone()), []);
        for other in [
            wrong(name, &[("a", &[1]), ("w", &[2, 3])]),
            wrong(name, &[("a", &[1])]),
            wrong(name, &[("a", &[1]), ("w", &[2, 2]), ("x", &[3])]),
            wrong(name, &[("b", &[1]), ("w", &[2, 2])]),
        ] {
            let found = compare(honest.clone(), other);
            assert_eq!((found.len(), found[0].0.as_str()), (1, place(name).as_str()));
            assert_ne!(found[0].1, found[0].2);
        }
    }
    assert_eq!(compare(wrong("metrics", &[("a", &[1])]).public(), wrong("randomness", &[("a", &[2])])), []);
    let differs = wrong("randomness", &[("a", &[1])]);
    assert_eq!(compare(differs, wrong("randomness", &[("a", &[2])])), []);
    // Nothing to compare with: the step is not opened.
    let other = checkpoint(2).field(wrong("parameters", &[("w", &[7])]));
    let closed = step(2).field(Field::new("parameters", Form::Closed, &[("w", &[2])]));
    assert_eq!(of([step(1), closed, other.clone()]), []);
    let again = of([step(1), step(2), checkpoint(2), other.clone()]);
    assert_eq!(again[0].0, "ledger: receipt 5 (checkpoint 2): parameters <- its step");
    assert_eq!(of([step(1), step(2), policy(3, &[]), other]).len(), 1);
}

/// The bug: training is interrupted, and goes on from weights that no step of the run led to.
#[test]
fn training_is_resumed_from_the_state_that_it_had_at_that_step() {
    let weights = |bytes: &[u8]| Field::new("parameters", Form::Roots, &[("w", bytes)]);
    let other = |number: u64| checkpoint(number).field(weights(&[7]));
    let of = |drafts: Vec<Draft>| edges(&Run::of(drafts.into_iter().map(Draft::item)).build());
    let refuted = |drafts: Vec<Draft>| {
        let found = of(drafts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.ends_with("parameters <- its step"), "{found:?}");
    };
    let begun = || vec![checkpoint(0), step(1), step(2), checkpoint(2), step(3)];
    let then = |more: &[Draft]| [begun(), more.to_vec()].concat();
    // At once, or with the steps since abandoned; from what was stored, or from the last step's own state.
    assert_eq!(of(then(&[resume(2), checkpoint(2), step(3), close(3)])), []);
    assert_eq!(of(then(&[resume(0), checkpoint(0), step(1), step(2), checkpoint(2), step(3)])), []);
    assert_eq!(of(then(&[step(4), resume(4), checkpoint(4), step(5)])), []);
    refuted(then(&[resume(2), other(2)]));
    refuted(then(&[resume(3), resume(0), other(0)]));
    refuted(then(&[step(4), resume(4), other(4)]));
    // What is known of abandoned steps says nothing about the new ones.
    let renewed = step(2).field(weights(&[8]));
    let stored = checkpoint(2).field(weights(&[8]));
    let again = [resume(0), step(1), renewed, stored.clone(), step(3), resume(2), stored];
    assert_eq!(of(then(&again)), []);
    refuted(then(&[&again[..6], &[checkpoint(2)]].concat()));
    // A step whose state nobody recorded can be gone back to; only executing the steps again shows more, and the
    // verdict says that nothing was compared.
    assert_eq!(of(then(&[resume(1), other(1), step(2)])), []);
    let noted = |drafts: Vec<Draft>| Run::of(drafts.into_iter().map(Draft::item)).build().verdict().notes;
    let shown = |count: u64| {
        format!(
            "resumed 1 times; {count} times it is shown that training went on from the state it had there"
        )
    };
    assert!(noted(then(&[resume(1), other(1), step(2)])).contains(&shown(0)));
    assert!(noted(then(&[resume(2), checkpoint(2), step(3)])).contains(&shown(1)));
    // The receipt of a step that is gone back to tells its state without any checkpoint.
    refuted(vec![
        checkpoint(0),
        step(1),
        step(2),
        checkpoint(2),
        step(3),
        step(4),
        checkpoint(4),
        step(5),
        resume(4),
        other(4),
    ]);
    refuted(vec![step(1), step(2), resume(2), checkpoint(2), step(3), resume(2), other(2)]);
    // A later record of a part leaves what is known of the rest.
    let moments = |bytes: &[u8]| Field::new("optimizer", Form::Roots, &[("w", bytes)]);
    let whole = checkpoint(2).field(moments(&[1]));
    let found = of(vec![
        step(1),
        step(2),
        whole.clone(),
        checkpoint(2),
        resume(2),
        checkpoint(2).field(moments(&[9])),
    ]);
    assert!(found[0].0.ends_with("optimizer <- its step"), "{found:?}");
    assert_eq!(of(vec![step(1), step(2), whole.clone(), checkpoint(2), resume(2), whole]), []);
    let verdict = Run::of(then(&[resume(2), checkpoint(2), step(3), close(3)]).into_iter().map(Draft::item));
    let verdict = verdict.build().verdict();
    assert_eq!(verdict.transition.steps, 3);
    let abandoned = "1 more recorded steps were abandoned: training was resumed from a step before them";
    assert!(verdict.notes.contains(&abandoned.to_string()), "{:?}", verdict.notes);
}

#[test]
fn tensors_in_other_blocks_are_undecided_and_other_tensors_refuted() {
    let root = Digest::repeat_byte(8);
    let sharded = |dtype: &str, shape: &[u64]| {
        let block = Block { offset: vec![0; shape.len()], shape: shape.to_vec(), root };
        Entry::sharded("w", dtype, shape, &[block]).unwrap()
    };
    let dense = |name: &str, dtype: &str, shape: &[u64]| Entry::dense(name, dtype, shape, root).unwrap();
    let state = |entry: Entry| {
        let mut field = Field::new("parameters", Form::Roots, &[]);
        field.entries = vec![entry];
        field
    };
    let judge = |before: Entry, after: Entry| {
        let drafts = [step(1), step(2).field(state(before)), checkpoint(2).field(state(after))];
        Run::of(drafts.map(Draft::item)).build().verdict()
    };
    for (before, after) in
        [(sharded("U8", &[4]), dense("w", "U8", &[4])), (dense("w", "U8", &[4]), sharded("U8", &[4]))]
    {
        let verdict = judge(before, after);
        assert_eq!(verdict.status, Status::Undecided);
        assert_eq!(
            verdict.missing,
            [
                "ledger: receipt 4 (checkpoint 2): parameters \"w\" is in other blocks than in its step, and not compared"
            ]
        );
    }
    for after in [
        dense("w", "U8", &[5]),
        dense("w", "I8", &[4]),
        dense("v", "U8", &[4]),
        Entry { name: "w".into(), content: Content::Absent },
    ] {
        assert_eq!(judge(sharded("U8", &[4]), after).status, Status::Refuted);
    }
    assert_eq!(judge(sharded("U8", &[4]), sharded("U8", &[4])).status, Status::Verified);
}

#[test]
fn objects_belong_to_opened_tensors_and_hold_their_bytes() {
    let built = rich();
    let root = Commitment::of_bytes(&weights(2)).root;
    let place = "ledger: receipt 4 (checkpoint 2): parameters \"w\" <- object";
    let at = built.parts().iter().position(|part| part.0 == PartKind::Object).unwrap();
    let with_object = |bytes: &[u8]| {
        let mut parts = built.parts();
        parts[at].2 = bytes.to_vec();
        bundle_edges(&pack(built.run, &parts, MAKER))
    };
    let other = Commitment::of_bytes(&[9; 5]).root;
    assert_eq!(with_object(&[9; 5]), [edge(place, root, other)]);
    for size in [0, 4, 6] {
        assert_eq!(with_object(&vec![1; size]), [edge(place, root, Digest::ZERO)], "{size} bytes");
    }
    let mut parts = built.parts();
    let spare = Commitment::of_bytes(b"spare").root;
    parts.push((PartKind::Object, object_name(&spare), b"spare".to_vec()));
    parts.sort_by(|one, next| (one.0, &one.1).cmp(&(next.0, &next.1)));
    assert_eq!(
        bundle_edges(&pack(built.run, &parts, MAKER)),
        [edge(&format!("bundle: object {spare}"), "a tensor that is opened", "none")]
    );
    let mut none = built.clone();
    none.objects.clear();
    let verdict = judge(&none.bundle()).unwrap();
    assert_eq!(verdict.status, Status::Verified);
    assert_eq!(verdict.notes[0], "1 objects are missing: they were withheld or erased");
}

/// The bug: boxes that share a side count as overlapping, so that an honest division is refused.
#[test]
fn blocks_that_touch_do_not_overlap() {
    let block = |offset: [u64; 2], shape: [u64; 2]| Block {
        offset: offset.into(),
        shape: shape.into(),
        root: Digest::repeat_byte(1),
    };
    let blocks = [block([0, 0], [1, 1]), block([0, 1], [2, 1]), block([1, 0], [1, 1])];
    Entry::sharded("w", "U8", &[2, 2], &blocks).unwrap();
    let overlapping = [block([0, 0], [2, 1]), block([0, 1], [1, 1]), block([1, 0], [1, 1])];
    assert!(Entry::sharded("w", "U8", &[2, 2], &overlapping).is_err());
}
