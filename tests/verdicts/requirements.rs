//! What a verifier demands, and the words for what is missing.

use crate::builder::*;
use crate::built::*;
use counterfoil::primitives::Digest;
use counterfoil::verify::{
    Confirmation, Edge, Judgement, Requirement, Status, Verdict, headline, unconfirmed,
};

fn missing(require: Requirement, change: impl Fn(&mut Judgement)) -> Verdict {
    let mut run = Run::short();
    run.recipe.insert("recipe.py".into(), b"x".to_vec());
    let mut judgement = Judgement { require, ..integrity() };
    change(&mut judgement);
    run.build().anchored(0, 7).verify(&judgement, &confirmed)
}

#[test]
fn each_requirement_says_what_is_missing() {
    let none = Requirement::default;
    let recipe = missing(none(), |_| {}).recipe;
    assert_ne!(recipe, Digest::ZERO);
    let words = |verdict: &Verdict| (verdict.status, verdict.missing.clone());
    let met = (Status::Verified, Vec::<String>::new());
    let lacks = |text: &str| (Status::Undecided, vec![text.to_string()]);
    let signer = || Requirement { signer: true, ..none() };
    let unpinned = "the signer is not pinned: pass signer=, learnt from its owner";
    assert_eq!(words(&missing(none(), |_| {})), met);
    assert_eq!(words(&missing(signer(), |_| {})), lacks(unpinned));
    let pinned = missing(signer(), |judgement| judgement.signer = Some(address(OWNER)));
    assert_eq!((words(&pinned), pinned.signer.pinned), (met.clone(), true));
    assert!(pinned.signer.line.starts_with(&format!("expected {};", address(OWNER))));
    let other = missing(none(), |judgement| judgement.signer = Some(address(STRANGER)));
    assert_eq!((other.status, other.signer.pinned, other.missing.len()), (Status::Refuted, false, 0));
    let line = format!("{} is not the expected {};", address(OWNER), address(STRANGER));
    assert!(other.signer.line.starts_with(&line), "{}", other.signer.line);

    let demanded = || Requirement { recipe: true, ..none() };
    let read = format!("the recipe is not pinned: read it, then pass recipe={recipe}");
    assert_eq!(words(&missing(demanded(), |_| {})), lacks(&read));
    let pinned = missing(demanded(), |judgement| judgement.recipe = Some(recipe));
    assert_eq!((words(&pinned), pinned.transition.recipe_pinned), (met.clone(), true));
    assert!(pinned.transition.line.ends_with("; recipe pinned"));
    assert!(pinned.transition.line.starts_with("structural ("), "nothing was replayed");
    let wrong = missing(none(), |judgement| judgement.recipe = Some(Digest::repeat_byte(1)));
    assert_eq!(wrong.status, Status::Refuted);
    let line = format!("; the recipe is {recipe}, not the pinned {}", Digest::repeat_byte(1));
    assert!(wrong.transition.line.ends_with(&line), "{}", wrong.transition.line);
    let without = Run::short().build();
    let judged = |recipe: Option<Digest>| {
        without.verify(&Judgement { require: demanded(), recipe, ..integrity() }, &unconfirmed)
    };
    let text = "the run has no recipe, so its steps cannot be replayed";
    assert_eq!(words(&judged(None)), lacks(text));
    assert_eq!(words(&judged(Some(Digest::ZERO))), lacks(text), "no recipe cannot be pinned");

    let time = || Requirement { time: true, ..none() };
    assert_eq!(words(&missing(time(), |_| {})), met);
    let judged = |size: u64, said: &Confirmation<'_>| {
        let judgement = Judgement { require: time(), ..integrity() };
        words(&Run::short().build().anchored(0, size).verify(&judgement, &said))
    };
    let cover = |covered: u64| {
        lacks(&format!(
            "confirmed anchors cover {covered} of 7 receipts: pass chain= of an RPC you trust, or trusted_blocks="
        ))
    };
    assert_eq!(judged(6, &confirmed), cover(6));
    assert_eq!(judged(7, &unconfirmed), cover(0));
    assert_eq!(judged(7, &confirmed), met);

    let every =
        |wanted: u32| words(&missing(Requirement { parameters_every: Some(wanted), ..none() }, |_| {}));
    assert_eq!(every(2), met);
    assert_eq!(every(3), met);
    assert_eq!(every(1), lacks("parameters are committed every 2 steps, 1 required"));
    assert_eq!(every(0), lacks("parameters are committed every 2 steps, 0 required"));
    let mut never = Run::of([Draft::new("step", &[("step", 1)]).item()]);
    never.specification = "{}".into();
    let require = Requirement { parameters_every: Some(9), ..none() };
    let verdict = never.build().verify(&Judgement { require, ..integrity() }, &unconfirmed);
    assert_eq!(words(&verdict), lacks("parameters are committed every 0 steps, 9 required"));
    assert_eq!(
        verdict.transition.line,
        "structural (gradients not required, parameters not required, checkpoint not required); recipe unpinned"
    );

    let nothing = Run::of([]).build().verdict();
    assert_eq!(words(&nothing), lacks("no step is shown: there is nothing to check yet"));
    assert_eq!(nothing.transition.line, "not checked: no step is shown; recipe unpinned");
}

#[test]
fn replayed_steps_count_with_the_pinned_recipe_alone() {
    let recipe = missing(Requirement::default(), |_| {}).recipe;
    let demand = |replayed: u64| Requirement { replayed, ..Requirement::default() };
    let judged = |wanted: u64, replayed: u64, pinned: Option<Digest>| {
        missing(demand(wanted), |judgement| (judgement.replayed, judgement.recipe) = (replayed, pinned))
    };
    let lacks = |found: u64, wanted: u64| {
        vec![format!(
            "{found} steps were replayed with a pinned recipe, {wanted} required: counterfoil replay"
        )]
    };
    let full = judged(3, 3, Some(recipe));
    assert_eq!((full.status, full.transition.replayed), (Status::Verified, 3));
    assert_eq!(full.transition.line, "replayed 3 of 3 by you, bit-exact; recipe pinned");
    assert_eq!(judged(9, 3, Some(recipe)).missing, [""; 0], "there are no more steps");
    let more = judged(0, 9, Some(recipe));
    assert_eq!((more.transition.replayed, more.transition.steps), (3, 3));
    assert_eq!(judged(3, 2, Some(recipe)).missing, lacks(2, 3));
    assert_eq!(judged(2, 2, Some(recipe)).missing, [""; 0]);
    assert_eq!(
        judged(1, 1, Some(recipe)).transition.line,
        "replayed 1 of 3 by you, bit-exact; recipe pinned"
    );
    let unpinned = judged(1, 3, None);
    assert_eq!(unpinned.missing, lacks(0, 1));
    assert!(unpinned.transition.line.starts_with("structural ("));
    let note = "steps were replayed with a recipe that you did not pin, which shows nothing to a stranger";
    assert_eq!(unpinned.notes, [note]);
    assert_eq!(full.notes, [""; 0]);
    assert_eq!(judged(0, 0, None).notes, [""; 0]);
    assert_eq!(judged(0, 1, Some(Digest::repeat_byte(1))).notes, [note]);
    let refuted = missing(demand(0), |judgement| {
        judgement.replayed = 2;
        judgement.recipe = Some(recipe);
        judgement.mismatches = vec![Edge::new("step 3 \u{1b}[2J", "a", "b"), Edge::new("step 4", "a", "b")];
        judgement.notes = vec!["another machine".into()];
    });
    assert_eq!((refuted.status, refuted.integrity.intact), (Status::Refuted, true));
    assert_eq!(refuted.transition.line, "refuted by replay at step 3 \\u{1b}[2J; recipe pinned");
    assert_eq!(refuted.notes, ["another machine"]);
    assert_eq!(refuted.transition.mismatches.len(), 2);
    let unsure = missing(demand(0), |judgement| judgement.undecided = vec!["step 3 differs".into()]);
    assert_eq!((unsure.status, unsure.missing), (Status::Undecided, vec!["step 3 differs".to_string()]));
}

#[test]
fn the_headline_names_what_is_not_shown() {
    let recipe = missing(Requirement::default(), |_| {}).recipe;
    let line = |change: &dyn Fn(&mut Judgement)| headline(&missing(Requirement::default(), change));
    let replayed = |judgement: &mut Judgement| (judgement.recipe, judgement.replayed) = (Some(recipe), 1);
    let signer = |judgement: &mut Judgement| judgement.signer = Some(address(OWNER));
    assert_eq!(line(&|_| {}), "verified: integrity only (not shown: signer, re-execution)");
    assert_eq!(line(&signer), "verified: integrity only (not shown: re-execution)");
    assert_eq!(line(&replayed), "verified: integrity only (not shown: signer)");
    let both = |judgement: &mut Judgement| {
        signer(judgement);
        replayed(judgement);
    };
    assert_eq!(line(&both), "verified: integrity");
    let pinned = |judgement: &mut Judgement| {
        signer(judgement);
        judgement.recipe = Some(recipe);
    };
    assert_eq!(line(&pinned), "verified: integrity only (not shown: re-execution)");
    let unpinned = |judgement: &mut Judgement| {
        signer(judgement);
        judgement.replayed = 3;
    };
    assert_eq!(line(&unpinned), "verified: integrity only (not shown: re-execution)");
    let time = headline(&Run::short().build().verdict());
    assert_eq!(time, "verified: integrity only (not shown: signer, time, re-execution)");
    let named = |judgement: &mut Judgement| judgement.name = "strict".into();
    assert_eq!(line(&named), "verified: strict");
    assert_eq!(headline(&Run::of([]).build().verdict()), "undecided: integrity");
    let refuted = Run::of([step(2).item()]).build().verdict();
    assert_eq!(headline(&refuted), "refuted: integrity");
    assert_eq!(refuted.requirement, "integrity");
    // Of an intact run the headline must not say that its integrity is refuted.
    let others = |judgement: &mut Judgement| {
        judgement.name = "integrity".into();
        judgement.signer = Some(address(WORKER));
        judgement.recipe = Some(Digest::repeat_byte(9));
        judgement.mismatches = vec![Edge::new("step 7", 1, 2)];
    };
    assert_eq!(line(&others), "refuted: signer, recipe, re-execution");
}

#[test]
fn a_verdict_is_written_as_json_in_lower_case() {
    let json = serde_json::to_value(Run::short().build().verdict()).unwrap();
    assert_eq!(
        (json["status"].as_str(), json["integrity"]["intact"].as_bool()),
        (Some("verified"), Some(true))
    );
}

#[test]
fn names_from_the_evidence_cannot_steer_a_terminal() {
    let edge = Edge::new("a\u{1b}[31m\n", "b\0", "c\u{85}é");
    assert_eq!(edge.edge, "a\\u{1b}[31m\\n");
    assert_eq!(edge.expected, "b\\u{0}");
    assert_eq!(edge.actual, "c\\u{85}é");
}

#[test]
fn bytes_of_an_unfinished_frame_are_noted() {
    let mut contents = Run::short().and(WORKER, 0, [close(0).item()]).build().contents();
    (contents.logs[0].dropped_bytes, contents.logs[1].dropped_bytes) = (5, 7);
    let verdict = contents.verify(&integrity(), &unconfirmed, &|_| None, &|_| None);
    assert_eq!(verdict.notes[0], "12 bytes of an unfinished frame were passed over");
    contents.logs[0].dropped_bytes = 0;
    contents.logs[1].dropped_bytes = 0;
    let verdict = contents.verify(&integrity(), &unconfirmed, &|_| None, &|_| None);
    assert!(!verdict.notes.iter().any(|note| note.contains("unfinished")), "{:?}", verdict.notes);
}
