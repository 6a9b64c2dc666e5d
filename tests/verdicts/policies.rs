//! What is due by the floor and by the policies of a run.

use crate::builder::*;
use crate::judged::*;
use counterfoil::primitives::Digest;
use counterfoil::verify::CADENCES;

#[test]
fn a_policy_neither_reaches_back_nor_goes_below_the_floor() {
    let place = |what: &str| format!("ledger: receipt 4 (policy): {what}");
    for first_step in [0, 1, 2] {
        assert_eq!(
            of([step(1), step(2), policy(first_step, &[])]),
            [edge(&place("firstStep"), "more than 2", first_step)]
        );
    }
    assert_eq!(of([step(1), step(2), policy(3, &[])]), []);
    for (name, floor, every) in [
        ("gradients", 1, 0),
        ("gradients", 1, 2),
        ("parameters", 2, 0),
        ("parameters", 2, 3),
        ("checkpoint", 2, 0),
    ] {
        let field = CADENCES.iter().find(|known| **known == name).unwrap();
        let field: &'static str = Box::leak(format!("{field}Every").into_boxed_str());
        let what = format!("{name} below the floor of genesis");
        assert_eq!(of([step(1), step(2), policy(3, &[(field, every)])]), [edge(&place(&what), floor, every)]);
    }
    let denser = [("parametersEvery", 1), ("checkpointEvery", 1), ("metricsEvery", 7)];
    assert_eq!(of([step(1), step(2), policy(3, &denser)]), []);
}

#[test]
fn the_last_policy_that_has_begun_is_in_force() {
    let plain = |number| step(number);
    let due =
        |position, number| edge(&step_place(position, number, "parameters"), "due every 1 steps", "absent");
    let dense = |first| policy(first, &[("parametersEvery", 1)]);
    assert_eq!(of([dense(2), plain(1), plain(2), checkpoint(2), plain(3)]), [due(6, 3)]);
    assert_eq!(of([dense(4), plain(1), plain(2), checkpoint(2), plain(3)]), []);
    assert_eq!(of([dense(3), plain(1), plain(2), checkpoint(2), plain(3)]), [due(6, 3)]);
    assert_eq!(of([dense(1), plain(1)]), [due(3, 1)]);
    // The later receipt of two that have both begun.
    assert_eq!(of([dense(1), policy(1, &[]), plain(1)]), []);
    assert_eq!(of([policy(1, &[]), dense(1), plain(1)]), [due(4, 1)]);
    assert_eq!(of([dense(1), policy(2, &[]), plain(1)]), [due(4, 1)]);
    let line =
        |drafts: &[Draft]| Run::of(drafts.iter().cloned().map(Draft::item)).build().verdict().transition.line;
    let words = |every: &str| {
        format!(
            "structural (gradients every step, parameters every {every}, checkpoint every 2 steps); recipe unpinned"
        )
    };
    let full = step(1).field(Field::new("parameters", Form::Closed, &[("w", &[1])]));
    assert_eq!(line(&[dense(1), full.clone()]), words("step"));
    assert_eq!(line(&[dense(2), full.clone(), step(2)]), words("2 steps"), "the sparsest counts");
    assert_eq!(line(&[dense(1), policy(2, &[]), full, step(2)]), words("2 steps"));
}

fn field_of(name: &'static str) -> Field {
    Field::new(name, Form::Closed, &[("t", &[1])])
}

#[test]
fn every_field_that_is_due_is_there() {
    for name in CADENCES.into_iter().filter(|name| *name != "checkpoint") {
        let with_floor = |every: u32, draft: Draft| {
            let mut run = Run::of([draft.item()]);
            run.specification = format!("{{\"policy\":{{\"{name}\":{every}}}}}");
            run.build().verdict()
        };
        let bare = || Draft::new("step", &[("step", 1)]);
        let absent = edge(&step_place(2, 1, name), "due every 1 steps", "absent");
        assert_eq!(edges_of(&with_floor(1, bare())), std::slice::from_ref(&absent));
        assert_eq!(edges_of(&with_floor(1, bare().field(field_of(name)))), []);
        assert_eq!(edges_of(&with_floor(2, bare())), [], "not due at step 1");
        assert_eq!(edges_of(&with_floor(0, bare())), []);
        let is_excused = ["gradients", "contribution"].contains(&name);
        for (flags, expected) in
            [(1u64, is_excused), (3, is_excused), (5, is_excused), (2, false), (4, false)]
        {
            let found = edges_of(&with_floor(1, bare().with("flags", flags)));
            assert_eq!(found.is_empty(), expected, "{name} with flags {flags}");
        }
    }
}

#[test]
fn skipped_steps_and_fallbacks_are_counted_in_the_notes() {
    let notes = |flags: [u64; 3]| {
        let [a, b, c] = flags;
        let run = Run::of([
            step(1).with("flags", a).item(),
            step(2).with("flags", b).item(),
            checkpoint(2).item(),
            step(3).with("flags", c).item(),
            close(3).item(),
        ]);
        let run = Run { objects: vec![weights(2)], ..run };
        run.build().verdict().notes
    };
    assert_eq!(notes([0, 2, 8]), [""; 0]);
    assert_eq!(notes([1, 0, 3]), ["2 of 3 steps are flagged as skipped and show no gradient"]);
    assert_eq!(notes([4, 0, 0]), ["1 of 3 steps were copied from their device and hashed by the CPU"]);
    assert_eq!(notes([5, 1, 4]).len(), 2);
}

#[test]
fn a_due_checkpoint_stands_before_the_next_step() {
    let absent = edge("ledger: checkpoint after step 2", "due every 2 steps", "absent");
    assert_eq!(of([step(1), step(2), step(3)]), std::slice::from_ref(&absent));
    assert_eq!(
        of([step(1), step(2), checkpoint(2).without("parameters"), step(3)]),
        std::slice::from_ref(&absent)
    );
    assert_eq!(of([step(1), checkpoint(1), step(2), step(3)]), [absent]);
    assert_eq!(of([step(1), step(2), resume(2), step(3)]), []);
    assert_eq!(of([step(1), step(2)]), [], "the last step is excused");
    assert_eq!(of([step(1), step(2), close(2)]), []);
    assert_eq!(of([step(1), step(2), checkpoint(2), policy(9, &[]), step(3)]), []);
}

/// The bug: an opening stands in for a field that the step does not bind.
#[test]
fn an_opened_field_that_is_not_bound_is_absent() {
    let found = of([step(1).with("gradients", Digest::ZERO)]);
    assert_eq!(found[0], edge(&step_place(2, 1, "gradients"), "due every 1 steps", "absent"));
    assert_eq!((found.len(), found[1].0.as_str()), (2, "ledger: receipt 2 (step 1): gradients <- opening"));
}
