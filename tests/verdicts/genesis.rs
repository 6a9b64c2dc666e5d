//! What genesis binds: the owner, the specification, the recipe and the run.

use crate::builder::*;
use crate::judged::*;
use counterfoil::evidence::Frame;
use counterfoil::primitives::{Digest, sha256};
use counterfoil::receipt::schema::Kind;
use counterfoil::receipt::{Value, policy_digest, run_id};
use counterfoil::verify::Specification;

#[test]
fn genesis_binds_the_specification_the_recipe_and_the_run() {
    let honest = Run::short();
    let changed = |words: &[(&'static str, Value)]| {
        let mut draft = Draft::new("genesis", &[]);
        draft.words.extend(words.iter().copied());
        let mut run = Run::short();
        run.items()[0] = draft.item();
        run.build().verdict()
    };
    let (other, owner) = (Digest::repeat_byte(3), address(OWNER));
    let specification = sha256(&[FLOOR.as_bytes()]);
    let found = edges_of(&changed(&[("specification", other.into())]));
    let id = run_id(owner, other, 0, Digest::repeat_byte(5));
    assert_eq!(
        found,
        [edge("genesis -> spec.json", other, specification), edge("genesis: run id", id, honest.id())]
    );
    let id = run_id(owner, specification, 1, Digest::repeat_byte(5));
    let verdict = changed(&[("flags", 1u64.into())]);
    assert_eq!(edges_of(&verdict), [edge("genesis: run id", id, honest.id())]);
    let id = run_id(owner, specification, 0, other);
    assert_eq!(edges_of(&changed(&[("nonce", other.into())])), [edge("genesis: run id", id, honest.id())]);
    let recipe = edges_of(&changed(&[("recipe", other.into())]));
    assert_eq!(recipe, [edge("genesis -> recipe/", other, Digest::ZERO)]);
    let policy = edges_of(&changed(&[("policy", other.into())]));
    let floor = policy_digest(&[0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(policy, [edge("genesis -> policy of spec.json", other, floor)]);
    // An owner who did not sign genesis owns nothing.
    let stolen = changed(&[("owner", address(STRANGER).into())]);
    let id = run_id(address(STRANGER), specification, 0, Digest::repeat_byte(5));
    let found = edges_of(&stolen);
    assert_eq!(found[0], edge("genesis: run id", id, honest.id()));
    assert_eq!(found[1], edge("genesis: owner", owner, address(STRANGER)));
    assert_eq!(
        (stolen.signer.owner, stolen.signer.line.as_str()),
        (None, "none: no owner signed a genesis receipt; 1 more workers, unpinned")
    );
    let mut run = Run::short();
    let mut draft = Draft::new("genesis", &[]);
    draft.key = Some(STRANGER);
    run.items()[0] = draft.item();
    let verdict = run.build().verdict();
    let place = "ledger: receipt 0 (genesis): signature";
    let unsigned = edge("genesis: signature", owner, "another");
    assert_eq!(edges_of(&verdict), [unsigned, edge(place, owner, address(STRANGER))]);
    assert_eq!(verdict.signer.owner, None);
    // Other files than those that were pinned.
    let mut built = honest.build();
    built.recipe.insert("recipe.py".into(), b"x".to_vec());
    assert_eq!(edges(&built)[0].0, "genesis -> recipe/");
    let mut built = honest.build();
    built.specification.push(b' ');
    assert_eq!(
        edges(&built),
        [edge("genesis -> spec.json", specification, sha256(&[format!("{FLOOR} ").as_bytes()]))]
    );
    let mut built = honest.build();
    built.recipe.insert("bad\nname".into(), b"x".to_vec());
    assert_eq!(edges(&built)[0].0, "recipe/");
}

#[test]
fn genesis_that_cannot_be_read_refutes() {
    let mut built = Run::short().build();
    for frame in &mut built.logs[0].frames {
        if let Frame::Receipt(receipt) = frame
            && receipt.kind == 1
        {
            receipt.body.push(0);
        }
    }
    let expected = "a body of GenesisV1";
    assert_eq!(
        edges(&built),
        [edge("genesis: body", expected, "a genesis receipt has 608 bytes, found 609")]
    );
    // Its digest signed, its body exchanged for another.
    let mut built = Run::short().build();
    let Frame::Receipt(receipt) = &mut built.logs[0].frames[0] else { unreachable!() };
    receipt.body[607] = 1;
    let verdict = built.verdict();
    assert_eq!(verdict.signer.owner, None);
    let found = edges_of(&verdict);
    assert_eq!(found[0], edge("genesis: signature", address(OWNER), "another"));
    assert_eq!(found[1].0, "ledger: receipt 0 (genesis): body");
    for text in ["", "{", "[]", "7", r#"{"policy":{"weights":1}}"#, r#"{"public":["step.step"]}"#] {
        let mut run = Run::short();
        run.specification = text.into();
        let found = edges(&run.build());
        assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("spec.json", "a specification"), "{text}");
    }
    let mut none = Run::short().build();
    none.logs.clear();
    assert_eq!(edges(&none), [edge("run: genesis", "a genesis receipt first in the owner's lane 0", "none")]);
}

#[test]
fn a_specification_is_read_strictly() {
    let refused = |text: &str| Specification::parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(refused("{"), "spec.json: no specification, line 1 column 1");
    assert!(
        refused(r#"{"policy":{"weights":1}}"#)
            .starts_with("spec.json: policy names \"weights\", expected one of")
    );
    for path in
        ["step", "step.step", "step.gradient", "stop.gradients", "genesis.recipe", "round.x", "step.", ".x"]
    {
        let text = format!("{{\"public\":[\"{path}\"]}}");
        let expected =
            format!("spec.json: public names {path:?}, which is no commitment field <kind>.<field>");
        assert_eq!(refused(&text), expected);
    }
    assert!(refused(r#"{"policy":{"batch":4294967296}}"#).starts_with("spec.json: no specification"));
    let text = r#"{"more":1,"policy":{"batch":3,"checkpoint":9},"public":["step.batch","genesis.dataset"]}"#;
    let parsed = Specification::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.floor().0, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let step = Kind::from_name("step").unwrap();
    assert!(parsed.is_public(step, "batch") && !parsed.is_public(step, "samples"));
    let padded = |size: usize| format!("{}{}", " ".repeat(size - 2), "{}");
    assert!(Specification::parse(padded(1 << 20).as_bytes()).is_ok());
    assert_eq!(refused(&padded((1 << 20) + 1)), "spec.json: 1048577 bytes, at most 1048576 are read");
}
