//! The container of a bundle: its manifest, its lengths and its parts.

use crate::builder::*;
use crate::built::*;
use crate::judged::*;
use counterfoil::evidence::bundle::{Manifest, PartKind};
use counterfoil::evidence::{Bundle, BundleError, Source};
use counterfoil::primitives::{Digest, Report, sha256};
use counterfoil::receipt::{Body, Signer};
use counterfoil::verify::{Contents, MAX_DOCUMENT, MAX_RECIPE, MAX_RECIPE_FILES, Status, Verdict};
use std::sync::Arc;

/// Bytes before the manifest.
const BEFORE: usize = 25;

/// A bundle with these bytes for a manifest and zeros for a signature.
fn container(manifest: &[u8], parts: &[u8]) -> Vec<u8> {
    let length = (manifest.len() as u32).to_be_bytes();
    [b"counterfoil.bundle.v1".as_slice(), &length, manifest, &[0; 65], parts].concat()
}

#[test]
fn an_honest_bundle_is_verified_in_these_words() {
    let built = complete();
    let verdict = judge(&built.bundle()).unwrap();
    assert_eq!(verdict.status, Status::Verified, "{:?}", verdict.integrity.broken);
    assert_eq!(verdict.integrity.line, "intact, the run not shown to its end; split view: not excluded");
    assert_eq!(
        verdict.signer.line,
        format!(
            "unpinned {}; revocation not checked; 1 receipts by its session key {}",
            address(OWNER),
            address(SESSION)
        )
    );
    assert_eq!(
        verdict.time.line,
        "self-anchored: all 3 receipts on chain 1 (unconfirmed: name an RPC with --chain or a --trusted-block)"
    );
    assert_eq!(
        verdict.transition.line,
        "structural (gradients not required, parameters every step, checkpoint not required); recipe unpinned"
    );
    assert_eq!(
        verdict.notes,
        [
            format!("the run of {} lane 0 is not shown to its end (no close receipt)", address(OWNER)),
            "1 siblings are missing: they were withheld or erased".into(),
            format!("the bundle was made by {}", address(MAKER)),
        ]
    );
    assert_eq!((verdict.run, verdict.recipe != Digest::ZERO), (built.run, true));
    let plain = built.verdict();
    assert_eq!(plain.notes[..], verdict.notes[..2], "a folder has no exporter");
    assert_eq!(plain.integrity.line, verdict.integrity.line);
}

/// What a changed bundle still says: it was not made by the one who made it, and nothing got better.
fn is_hint(verdict: &Verdict) -> bool {
    let line = &verdict.time.line;
    verdict.time.covered == 0 && line.starts_with("self-anchored: ") && line.ends_with(')')
}

/// Bytes of the manifest, signed again by somebody else.
#[test]
fn a_changed_byte_of_the_manifest_is_refused_whoever_signs_it() {
    let built = complete();
    let honest = built.bundle();
    // Somebody else says to be the maker, so that the signature alone refuses nothing.
    let stranger = Manifest { maker: address(STRANGER), ..manifest_of(&built.parts(), built.run) };
    let encoded = stranger.encode();
    let anchor = encoded.windows(6).position(|window| window == b"0.json").unwrap();
    for position in 0..encoded.len() {
        let mut changed = encoded.clone();
        changed[position] ^= 1 << (position % 3);
        let digest = sha256(&[&changed]);
        let values = [("schema", 1.into()), ("run", built.run.into()), ("manifest", digest.into())];
        let body = Body::new(&counterfoil::receipt::schema::BUNDLE, &values).unwrap();
        let signature = key(STRANGER).sign_message(&body).unwrap().0;
        let mut bytes = honest.clone();
        bytes[BEFORE..BEFORE + encoded.len()].copy_from_slice(&changed);
        bytes[BEFORE + encoded.len()..BEFORE + encoded.len() + 65].copy_from_slice(&signature);
        match judge(&bytes) {
            // The number of an anchor record is a hint like the rest of it.
            Ok(verdict) if position == anchor => assert!(is_hint(&verdict)),
            Ok(verdict) => assert_eq!(verdict.status, Status::Refuted, "byte {position}"),
            Err(error) => assert!(matches!(error, BundleError::Damaged { .. }), "byte {position}: {error}"),
        }
    }
}

#[test]
fn a_bundle_cut_anywhere_or_longer_by_a_byte_is_refused() {
    let honest = complete().bundle();
    for length in 0..honest.len() {
        let expected_none = length < BEFORE;
        let found = refusal(&honest[..length]);
        assert_eq!(found == BundleError::NoBundle, expected_none, "{length} bytes: {found}");
        if !expected_none {
            assert_eq!(found.code(), "journal-corrupt");
        }
    }
    let size = honest.len();
    assert_eq!(
        refusal(&[honest.clone(), vec![0]].concat()),
        damaged("its end", format!("{size} bytes"), format!("{} bytes", size + 1))
    );
    assert_eq!(
        refusal(&honest[..size - 1]),
        damaged("its end", format!("{size} bytes"), format!("{} bytes", size - 1))
    );
    let mut other = honest;
    other[20] = b'2';
    assert_eq!(refusal(&other), BundleError::NoBundle);
}

#[test]
fn a_refusal_reports_its_code_place_and_both_ends() {
    let error = damaged("the manifest", "this", "that");
    assert_eq!(error.code(), "journal-corrupt");
    let report = [error.place(), error.expected(), error.actual()];
    assert_eq!(report, ["the manifest", "this", "that"].map(|text| Some(text.to_string())));
    assert_eq!(
        error.to_string(),
        "the bundle is damaged at the manifest: expected this, found that; ask for it again"
    );
    for (error, code) in [
        (BundleError::NoBundle, "invalid-input"),
        (BundleError::Unreadable { detail: "x".into() }, "storage"),
    ] {
        assert_eq!(error.code(), code);
        assert_eq!([error.place(), error.expected(), error.actual()], [None, None, None]);
    }
}

/// A file of zeros behind some bytes: nobody allocates what it claims to hold.
struct Claims {
    bytes: Vec<u8>,
    /// Reads from here on fail.
    broken_at: u64,
}

impl Source for Claims {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        if offset + buffer.len() as u64 > self.broken_at {
            return Err(std::io::Error::other("the disk is gone"));
        }
        for (index, byte) in buffer.iter_mut().enumerate() {
            *byte = self.bytes.get(offset as usize + index).copied().unwrap_or_default();
        }
        Ok(())
    }
}

fn open_claims(bytes: Vec<u8>, size: u64, broken_at: u64) -> BundleError {
    let opened = Bundle::open(Arc::new(Claims { bytes, broken_at }), size);
    opened.map(|_| ()).expect_err("a bundle that is not there")
}

#[test]
fn lengths_that_nothing_backs_are_refused_before_they_are_believed() {
    let with_length = |length: u32| [b"counterfoil.bundle.v1".as_slice(), &length.to_be_bytes()].concat();
    let limit = 64 << 20;
    for (length, size) in [(u32::MAX, 1 << 40), (limit + 1, 1 << 40), (100, 189), (0, 89)] {
        assert_eq!(
            open_claims(with_length(length), size, u64::MAX),
            damaged("the manifest's length", format!("at most {size} bytes"), length)
        );
    }
    assert_eq!(
        open_claims(with_length(limit), 1 << 40, u64::MAX),
        damaged("the manifest", "its end", format!("{} more bytes", limit - 56))
    );
    assert_eq!(
        open_claims(with_length(100), 190, u64::MAX),
        damaged("the manifest", "its end", "44 more bytes")
    );
    assert_eq!(
        open_claims(with_length(0), 90, u64::MAX),
        damaged("the manifest", "32 bytes at 0", "0"),
        "an empty manifest in a file that ends with the signature"
    );
    // Four thousand million parts, of which none is there.
    let many = [[0; 52].as_slice(), &u32::MAX.to_be_bytes()].concat();
    assert_eq!(refusal(&container(&many, &[])), damaged("the manifest", "1 bytes at 56", "0"));
}

#[test]
fn what_cannot_be_read_is_an_error_of_the_disk() {
    let honest = complete().bundle();
    let size = honest.len() as u64;
    let manifest = u64::from(u32::from_be_bytes(honest[21..25].try_into().unwrap()));
    for broken_at in [0, 25, 25 + manifest, 90 + manifest, size - 1] {
        let error = open_claims(honest.clone(), size, broken_at);
        assert_eq!(error, BundleError::Unreadable { detail: "the disk is gone".into() }, "{broken_at}");
    }
    assert_eq!(open_claims(honest, size, 0).to_string(), "the bundle cannot be read: the disk is gone");
}

#[test]
fn sizes_of_parts_that_run_over_the_end_are_refused() {
    let built = complete();
    let parts = built.parts();
    for size in [u64::MAX, u64::MAX - 5, 1 << 63, 0] {
        let mut manifest = manifest_of(&parts, built.run);
        let others: u64 = manifest.parts.iter().skip(1).map(|part| part.size).sum();
        manifest.parts[0].size = size;
        let mut bytes = manifest.sign(&key(MAKER)).unwrap();
        let end = (bytes.len() as u64 + others).saturating_add(size);
        parts.iter().for_each(|(_, _, part)| bytes.extend(part));
        let found = format!("{} bytes", bytes.len());
        assert_eq!(refusal(&bytes), damaged("its end", format!("{end} bytes"), found));
    }
}

#[test]
fn a_part_with_other_bytes_is_named() {
    let built = complete();
    let parts = built.parts();
    let mut manifest = manifest_of(&parts, built.run);
    let honest = std::mem::replace(&mut manifest.parts[1].digest, Digest::repeat_byte(1));
    let mut bytes = manifest.sign(&key(MAKER)).unwrap();
    parts.iter().for_each(|(_, _, part)| bytes.extend(part));
    assert_eq!(refusal(&bytes), damaged("the part \"code/recipe.py\"", Digest::repeat_byte(1), honest));
}

/// A large part is hashed in pieces; each piece must count.
#[test]
fn a_part_of_more_than_a_piece_is_bound_to_its_last_byte() {
    let piece = 1 << 20;
    for size in [piece - 1, piece, piece + 1, 2 * piece + 7] {
        let parts: Vec<PartBytes> = vec![
            (PartKind::Specification, String::new(), b"{}".to_vec()),
            (PartKind::Recipe, "large".into(), vec![7; size]),
        ];
        let honest = pack(Digest::ZERO, &parts, MAKER);
        let open = |bytes: Vec<u8>| Bundle::open(Arc::new(bytes.clone()), bytes.len() as u64).map(|_| ());
        assert_eq!(open(honest.clone()), Ok(()), "{size} bytes");
        let begin = honest.len() - size;
        for place in [0, size / 2, size - 1] {
            let mut changed = honest.clone();
            changed[begin + place] ^= 1;
            assert!(open(changed).is_err(), "byte {place} of {size}");
        }
    }
}

#[test]
fn parts_stand_in_one_order_and_once() {
    let built = rich();
    let honest = built.parts();
    assert_eq!(judge(&pack(built.run, &honest, MAKER)).unwrap().status, Status::Verified);
    for index in 1..honest.len() - 1 {
        let mut swapped = honest.clone();
        swapped.swap(index, index + 1);
        let (behind, name) = (&honest[index + 1].1, &honest[index].1);
        assert_eq!(
            refusal(&pack(built.run, &swapped, MAKER)),
            damaged("the manifest", format!("a part behind {behind:?}"), format!("{name:?}"))
        );
        let mut doubled = honest.clone();
        doubled.insert(index, honest[index].clone());
        assert_eq!(
            refusal(&pack(built.run, &doubled, MAKER)),
            damaged("the manifest", format!("a part behind {name:?}"), format!("{name:?}"))
        );
    }
    let first = damaged("the manifest", "spec.json first", "another part");
    assert_eq!(refusal(&pack(built.run, &honest[1..], MAKER)), first);
    assert_eq!(refusal(&pack(built.run, &[], MAKER)), first);
    let again = [honest[..1].to_vec(), honest.clone()].concat();
    assert_eq!(
        refusal(&pack(built.run, &again, MAKER)),
        damaged("the manifest", "a part behind \"\"", "\"\"")
    );
}

#[test]
fn a_manifest_holds_nothing_but_its_parts() {
    let built = complete();
    let encoded = manifest_of(&built.parts(), built.run).encode();
    let rest: Vec<u8> = built.parts().into_iter().flat_map(|(_, _, bytes)| bytes).collect();
    let longer = [encoded.as_slice(), &[0; 3]].concat();
    assert_eq!(refusal(&container(&longer, &rest)), damaged("the manifest", "its end", "3 more bytes"));
    for number in [0, 6, 255] {
        let mut other = encoded.clone();
        other[56] = number;
        let expected = damaged("the manifest", "a part of kind 1 to 5", number);
        assert_eq!(refusal(&container(&other, &rest)), expected);
    }
    let mut no_text = encoded.clone();
    // The first letter of `code/recipe.py`, behind the part without a name.
    no_text[56 + 43 + 3] = 0xff;
    let found = refusal(&container(&no_text, &rest));
    assert_eq!(found.expected(), Some("names in UTF-8".into()), "{found}");
    let mut fewer = encoded.clone();
    fewer[55] -= 1;
    assert!(matches!(refusal(&container(&fewer, &rest)), BundleError::Damaged { .. }));
    let unsigned = judge(&container(&encoded, &rest)).unwrap();
    assert_eq!(
        (unsigned.integrity.broken[0].edge.as_str(), unsigned.integrity.broken[0].actual.as_str()),
        ("bundle: manifest <- signature", "recovery byte is 0, expected 27 or 28")
    );
    assert_eq!((unsigned.status, unsigned.integrity.broken.len()), (Status::Refuted, 1));
    assert!(!unsigned.notes.iter().any(|note| note.contains("made by")), "nobody made it");
}

#[test]
fn documents_larger_than_a_verifier_reads_are_refused() {
    let contents = |parts: &[PartBytes]| {
        let bytes = pack(Digest::ZERO, parts, MAKER);
        let bundle = Bundle::open(Arc::new(bytes.clone()), bytes.len() as u64).unwrap();
        Contents::of_bundle(&bundle).map(|_| ())
    };
    let specification = |size: u64| vec![(PartKind::Specification, String::new(), vec![b' '; size as usize])];
    assert_eq!(contents(&specification(MAX_DOCUMENT)), Ok(()));
    assert_eq!(
        contents(&specification(MAX_DOCUMENT + 1)),
        Err(damaged("the parts Specification", "at most 1048576 bytes", 1_048_577))
    );
    let recipe = |size: u64| {
        let file = |name: &str, size: u64| (PartKind::Recipe, name.to_string(), vec![0; size as usize]);
        [specification(2), vec![file("a", 9), file("b", size - 9)]].concat()
    };
    assert_eq!(contents(&recipe(MAX_RECIPE)), Ok(()));
    assert_eq!(
        contents(&recipe(MAX_RECIPE + 1)),
        Err(damaged("the parts Recipe", "at most 16777216 bytes", 16_777_217))
    );
}

#[test]
fn the_manifest_names_the_run() {
    let built = complete();
    let other = Digest::repeat_byte(4);
    let bytes = pack(other, &built.parts(), MAKER);
    assert_eq!(bundle_edges(&bytes), [edge("bundle: run", built.run, other)]);
    let bundle = Bundle::open(Arc::new(bytes.clone()), bytes.len() as u64).unwrap();
    assert_eq!((bundle.run(), bundle.signer()), (other, Ok(address(MAKER))));
}

/// The bug: a bundle counts as made by somebody whose key never signed it.
#[test]
fn a_maker_who_did_not_sign_the_manifest_made_nothing() {
    let built = complete();
    let parts = built.parts();
    let mut bytes = manifest_of(&parts, built.run).sign(&key(STRANGER)).unwrap();
    parts.iter().for_each(|(_, _, part)| bytes.extend(part));
    let verdict = judge(&bytes).unwrap();
    let unsigned = edge("bundle: manifest <- signature", address(MAKER), address(STRANGER));
    assert_eq!(edges_of(&verdict), [unsigned]);
    assert!(!verdict.notes.iter().any(|note| note.contains("made by")), "{:?}", verdict.notes);
}

/// The bug: a recipe of so many files that nobody reads them before pinning it.
#[test]
fn a_recipe_has_a_limited_number_of_files() {
    let with = |count: usize| {
        let mut run = Run::short();
        run.recipe.extend((0..count).map(|number| (format!("{number:03}.py"), Vec::new())));
        bundle_edges(&run.build().bundle())
    };
    assert_eq!(with(MAX_RECIPE_FILES), []);
    let found = MAX_RECIPE_FILES + 1;
    assert_eq!(with(found), [edge("bundle: recipe", format!("at most {MAX_RECIPE_FILES} files"), found)]);
}
