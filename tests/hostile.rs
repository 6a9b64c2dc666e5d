//! Parsers of outside bytes: whatever comes in, they answer with a value or a typed error, and what
//! they accept they would write again byte for byte.

use counterfoil::commit::{Content, Entry, State, leaf_hash, merkle};
use counterfoil::evidence::{AnchorRecord, FieldOpening, Frame, Openable, OpeningFrame};
use counterfoil::primitives::Digest;
use counterfoil::receipt::schema::KINDS;
use counterfoil::receipt::{Blind, Body, LocalSigner, Receipt, Signature, SignatureError, Signer, recover};
use counterfoil::verify::Specification;
use proptest::prelude::*;

fn entries() -> Vec<Entry> {
    vec![
        Entry::dense("layer.weight", "F32", &[3, 4], Digest::repeat_byte(7)).unwrap(),
        Entry::dense("scale", "BF16", &[], Digest::repeat_byte(8)).unwrap(),
        Entry { name: "tied".into(), content: Content::Alias { target: "layer.weight".into() } },
        Entry { name: "unused".into(), content: Content::Absent },
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let kind = &KINDS[2];
    let body = Body::new(kind, &[("step", 7u64.into())]).unwrap();
    let signer = LocalSigner::from_bytes(&[5; 32]).unwrap();
    let digest = body.digest();
    let receipt =
        Receipt { kind: kind.number, digest, signature: signer.sign(digest).unwrap(), body: body.encode() };
    let (layout, named) = Frame::layout(&entries());
    let field = |content| FieldOpening { index: 5, blind: Blind::default(), layout: named, content };
    let fields = vec![field(Openable::Roots(vec![1; 64])), field(Openable::Values(vec![2; 50]))];
    let opening = Frame::Opening(OpeningFrame { receipt: digest, fields });
    [Frame::Receipt(receipt), layout, opening].map(|frame| frame.encode()).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn frames_with_changed_bytes_are_refused_or_canonical(
        which in 0usize..3, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(), is_cut in any::<bool>(),
    ) {
        let mut bytes = frames()[which].clone();
        for (index, byte) in changes {
            let position = index.index(bytes.len());
            bytes[position] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }

    #[test]
    fn random_bytes_never_crash_a_parser(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Frame::decode(&bytes);
        let _ = Specification::parse(&bytes);
        let _ = serde_json::from_slice::<AnchorRecord>(&bytes);
        let _ = serde_json::from_slice::<counterfoil::commit::Opening>(&bytes);
        let _ = Entry::decode(&bytes);
    }

    #[test]
    fn an_entry_has_one_encoding(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        for entry in entries() {
            let original = entry.encode(None);
            let mut bytes = original.clone();
            for (index, byte) in &changes {
                let position = index.index(bytes.len());
                bytes[position] = *byte;
            }
            if let Ok((decoded, false, _)) = Entry::decode(&bytes) {
                prop_assert_eq!(decoded == entry, bytes == original);
            }
        }
    }

    #[test]
    fn growing_and_whole_trees_agree(count in 0usize..200) {
        let leaves: Vec<Digest> = (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut grown = <merkle::CompactRange>::default();
        leaves.iter().for_each(|leaf| grown.push(*leaf));
        prop_assert_eq!(grown.root(), merkle::root(&leaves));
    }
}

proptest! {
    // Unoptimised curve arithmetic is slow.
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn only_the_canonical_signature_names_its_signer(secret in 1u8..255, message in any::<[u8; 32]>(), flip in 0usize..520) {
        let signer = LocalSigner::from_bytes(&[secret; 32]).unwrap();
        let signature = signer.sign(Digest::from(message)).unwrap();
        prop_assert_eq!(recover(Digest::from(message), &signature), Ok(signer.address()));
        let mut other = signature;
        other.0[flip / 8] ^= 1 << (flip % 8);
        prop_assert_ne!(recover(Digest::from(message), &other), Ok(signer.address()));
    }
}

/// s' = n - s with the other v is the same signature to plain ECDSA.
#[test]
fn the_malleable_twin_of_a_signature_is_refused() {
    let order = alloy_primitives::U256::from_be_bytes(alloy_primitives::hex!(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
    ));
    let digest = Digest::repeat_byte(3);
    let Signature(mut bytes) = LocalSigner::from_bytes(&[9; 32]).unwrap().sign(digest).unwrap();
    let s = alloy_primitives::U256::from_be_slice(&bytes[32..64]);
    bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    bytes[64] = 55 - bytes[64];
    assert_eq!(recover(digest, &Signature(bytes)), Err(SignatureError::HighS));
    bytes[64] -= 27;
    assert!(matches!(recover(digest, &Signature(bytes)), Err(SignatureError::RecoveryByte { .. })));
}

#[test]
fn an_alias_needs_a_smaller_dense_target() {
    let alias = |name: &str, target: &str| Entry {
        name: name.into(),
        content: Content::Alias { target: target.into() },
    };
    let dense = || Entry::dense("m", "U8", &[1], Digest::ZERO).unwrap();
    assert!(State::new(vec![dense(), alias("n", "m")]).is_ok());
    for wrong in [alias("a", "m"), alias("n", "missing"), alias("n", "n")] {
        assert!(State::new(vec![dense(), wrong]).is_err());
    }
}

#[test]
fn opening_a_blinded_entry_discloses_no_sibling() {
    let state = State::new(entries()).unwrap();
    let (key, blind) = (Digest::repeat_byte(1), Digest::repeat_byte(2));
    let digest = state.blinded(&key).digest(&blind);
    let opening = state.prove("scale", Some(&key)).unwrap();
    let entry = opening.verify(&digest, &blind).unwrap().unwrap();
    assert_eq!(entry.root(), Digest::repeat_byte(8));
    let text = serde_json::to_string(&opening).unwrap();
    let hidden = leaf_hash(&state.entries()[0].encode(None)).to_string();
    assert!(!text.contains(&hidden), "the plain leaf of a sibling could be guessed from its tensor");
    assert!(!text.contains(&key.to_string()), "the entry key would open every sibling");
    let mut wrong = opening.clone();
    wrong.entry.as_mut().unwrap().root = Digest::repeat_byte(9);
    assert!(wrong.verify(&digest, &blind).is_err());
    assert!(opening.verify(&digest, &Digest::ZERO).is_err());
}

/// serde reads a list as a structure, field by field.
#[test]
fn a_specification_is_an_object() {
    for text in ["[]", "[{}, []]", " [{}]", "null", "1", ""] {
        assert!(Specification::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Specification::parse(b" \n{}").is_ok());
}

/// A frame that opens nothing could be added to any bundle.
#[test]
fn an_opening_opens_a_field() {
    let empty = Frame::Opening(OpeningFrame { receipt: Digest::ZERO, fields: vec![] });
    assert!(Frame::decode(&empty.encode()).is_err());
}
