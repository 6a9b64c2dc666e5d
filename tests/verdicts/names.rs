//! One name for each part and one spelling for each record.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::Bundle;
use counterfoil::evidence::bundle::PartKind;
use counterfoil::primitives::Digest;
use std::sync::Arc;

#[test]
fn each_part_has_one_name_and_no_path_leads_out_of_the_recipe() {
    let with = |kind: PartKind, name: &str| {
        let parts: Vec<PartBytes> = match kind {
            PartKind::Specification => vec![(kind, name.into(), b"{}".to_vec())],
            _ => vec![
                (PartKind::Specification, String::new(), b"{}".to_vec()),
                (kind, name.into(), b"{}".to_vec()),
            ],
        };
        let bytes = pack(Digest::ZERO, &parts, MAKER);
        Bundle::open(Arc::new(bytes.clone()), bytes.len() as u64).map(|_| ())
    };
    let long = "n".repeat(1024);
    let (owner, root) = (format!("{:#x}", address(OWNER)), "0f".repeat(32));
    let good: [(PartKind, Vec<String>); 5] = [
        (PartKind::Specification, vec![String::new()]),
        (
            PartKind::Recipe,
            ["a", "a/b", "...", "..a", "a..", ".a", "a b", "é", "0/1/2/3", &long].map(String::from).into(),
        ),
        (PartKind::Log, vec![format!("{owner}/0"), format!("{owner}/4294967295")]),
        (PartKind::Object, vec![root.clone(), "0".repeat(64)]),
        (PartKind::Anchor, ["0.json", "7.json", "18446744073709551615.json"].map(String::from).into()),
    ];
    for (kind, names) in good {
        for name in names {
            assert_eq!(with(kind, &name), Ok(()), "{kind:?} {name:?}");
        }
    }
    let upper = format!("0x{}", owner[2..].to_uppercase());
    let recipe = [
        "", "/", "a/", "/a", "a//b", ".", "..", "./a", "../a", "a/..", "a/../b", "a/./b", "a\\b", "\\a",
        "c:a", "c:/a", "a\0", "a\nb", "a\u{7f}", "a\u{85}", "é/../é",
    ];
    let bad: [(PartKind, Vec<String>); 5] = [
        (PartKind::Specification, vec!["a".into(), "spec.json".into()]),
        (PartKind::Recipe, recipe.map(String::from).into_iter().chain([format!("{long}n")]).collect()),
        (
            PartKind::Log,
            vec![
                String::new(),
                owner.clone(),
                format!("{owner}/"),
                format!("{owner}/00"),
                format!("{owner}/01"),
                format!("{owner}/+1"),
                format!("{owner}/-1"),
                format!("{owner}/4294967296"),
                format!("{owner}/0/0"),
                format!("{owner}/ 0"),
                format!("{upper}/0"),
                format!("0X{}/0", &owner[2..]),
                format!("{}/0", &owner[2..]),
                format!("{}/0", address(OWNER)),
                format!("{}/0", &owner[..41]),
                "../0".into(),
            ],
        ),
        (
            PartKind::Object,
            vec![
                String::new(),
                root.to_uppercase(),
                format!("0x{root}"),
                format!("0X{root}"),
                root[1..].into(),
                format!("{root}0"),
                format!("../{root}"),
                "g".repeat(64),
            ],
        ),
        (
            PartKind::Anchor,
            [
                "",
                "0",
                ".json",
                "00.json",
                "01.json",
                "+1.json",
                "-1.json",
                "0.JSON",
                "0.json ",
                "x.json",
                "18446744073709551616.json",
                "../0.json",
                "0.json.json",
            ]
            .map(String::from)
            .into(),
        ),
    ];
    for (kind, names) in bad {
        for name in names {
            let at = usize::from(kind != PartKind::Specification);
            let place = format!("the manifest, part {at} of kind {}", kind as u8);
            let expected = damaged(&place, "a name of its kind", format!("{name:?}"));
            assert_eq!(with(kind, &name), Err(expected), "{kind:?} {name:?}");
        }
    }
}

#[test]
fn an_anchor_record_has_one_spelling() {
    let built = complete();
    let honest = String::from_utf8(built.parts().pop().unwrap().2).unwrap();
    let with_record = |text: &str| {
        let mut parts = built.parts();
        parts.last_mut().unwrap().2 = text.as_bytes().to_vec();
        bundle_edges(&pack(built.run, &parts, MAKER))
    };
    assert_eq!(with_record(&honest), []);
    for (from, to) in [
        ("\"40\"", "\"040\""),
        ("\"40\"", "\"+40\""),
        ("\"40\"", "40"),
        ("\"40\"", "\"18446744073709551616\""),
        ("{", "{ "),
        ("{", "{\"more\":1,"),
        ("\"lane\":0", "\"lane\":\"0\""),
        ("0xcc", "0xCC"),
        ("0x11", "0X11"),
        ("}", "}\n"),
    ] {
        let changed = honest.replacen(from, to, 1);
        assert_ne!(changed, honest, "{from}");
        let expected = edge("bundle: anchor 0.json", "what was written", "no anchor record");
        assert_eq!(with_record(&changed), [expected], "{to}");
    }
    assert_eq!(with_record("")[0].2, "no anchor record");
}
