//! Keystores from elsewhere and from here, and signatures of signers elsewhere.

use std::path::Path;

use counterfoil::keys::{KeyError, KeystoreError, Password, create_key, load_key};
use counterfoil::primitives::{Address, keccak256};
use counterfoil::receipt::{LocalSigner, SignError, Signature, Signer, recover};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Written by eth-account 0.14 for the key of 32 bytes 0x2a, with the least cost that scrypt has.
const SCRYPT: &str = r#"{"address": "B0E5863D0DDf7e105e409Fee0eCC0123a362e14B", "crypto": {"cipher": "aes-128-ctr", "cipherparams": {"iv": "751ca82346bbcd68f305df50023bdff1"}, "ciphertext": "14b62022421537ecc32740fc22c98d43f8282843d10972474dfc3b968e0a66d1", "kdf": "scrypt", "kdfparams": {"dklen": 32, "n": 2, "r": 8, "p": 1, "salt": "dc15ea09ee4fed88c7600f16b6b48189"}, "mac": "ec6bbdc8b1e7bb3346ccc6285af545dcee7c89e33eac694c7628e2e5265e199d"}, "id": "cc90a17a-49a2-4e14-8477-2c604cbeb09a", "version": 3}"#;
/// The same key by PBKDF2, one round.
const PBKDF2: &str = r#"{"address": "B0E5863D0DDf7e105e409Fee0eCC0123a362e14B", "crypto": {"cipher": "aes-128-ctr", "cipherparams": {"iv": "6f72c4cb9fb5fe371f42ef7f129d1cc8"}, "ciphertext": "b94a9dd277c8b86ee1cda2d2c499c8596036f3a2ed941fee1d30ecc112b8922f", "kdf": "pbkdf2", "kdfparams": {"c": 1, "dklen": 32, "prf": "hmac-sha256", "salt": "f6b816682e2fe433388caa77993530b1"}, "mac": "34a4034f6bd2f3a436167cf507b570fe50da07afd40b36bc176977dcc9b97386"}, "id": "51bc900e-f793-40de-a298-3452a49c55d3", "version": 3}"#;
const PASSWORD: &str = "open sesame";

/// Opens a keystore's text as a file.
fn open(text: &str, password: &str) -> Result<Address, KeyError> {
    open_bytes(text.as_bytes(), password)
}

fn open_bytes(text: &[u8], password: &str) -> Result<Address, KeyError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key.json");
    std::fs::write(&path, text).unwrap();
    set_mode(&path, 0o600);
    load_key(&path, Some(&Password::new(password))).map(|signer| signer.address())
}

fn reason(opened: Result<Address, KeyError>) -> KeystoreError {
    match opened {
        Err(KeyError::Keystore { reason, .. }) => reason,
        other => panic!("expected a refused keystore, found {other:?}"),
    }
}

fn address() -> Address {
    LocalSigner::from_bytes(&[0x2a; 32]).unwrap().address()
}

/// A keystore with one field replaced, or removed.
fn changed(text: &str, place: &str, value: Option<Value>) -> String {
    let mut file: Value = serde_json::from_str(text).unwrap();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    assert!(parent.contains_key(name), "there is no {place}");
    match value {
        Some(value) => parent.insert(name.into(), value),
        None => parent.remove(name),
    };
    file.to_string()
}

/// Source: "Web3 Secret Storage Definition", ethereum.org, test vectors; both hold one key.
#[test]
fn the_vectors_of_the_definition_open() {
    let pbkdf2 = json!({
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262144,
                "dklen": 32,
                "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3
    });
    let scrypt = json!({
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
            "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32,
                "n": 262144,
                "p": 8,
                "r": 1,
                "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"
            },
            "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3
    });
    let expected: Address = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b".parse().unwrap();
    for keystore in [pbkdf2, scrypt] {
        assert_eq!(open(&keystore.to_string(), "testpassword"), Ok(expected));
    }
}

#[test]
fn another_library_s_keystores_open_and_only_with_their_password() {
    for text in [SCRYPT, PBKDF2] {
        assert_eq!(open(text, PASSWORD), Ok(address()));
        for wrong in ["", "open sesame ", "Open sesame", "open sesam\u{e9}"] {
            assert_eq!(reason(open(text, wrong)), KeystoreError::WrongPassword);
        }
        assert_eq!(open(&text.replace("\"crypto\"", "\"Crypto\""), PASSWORD), Ok(address()));
        assert_eq!(open(&changed(text, "/address", None), PASSWORD), Ok(address()));
        assert_eq!(open(&changed(text, "/id", None), PASSWORD), Ok(address()));
    }
}

/// One write: what is written costs a second to open, here and for whoever guesses passwords.
#[test]
fn what_is_written_opens_here_and_is_never_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new.json");
    let password = Password::new("päss \u{1f511}");
    let made = create_key(&path, Some(&password)).unwrap();
    let text = std::fs::read(&path).unwrap();
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(load_key(&path, Some(&password)).map(|signer| signer.address()), Ok(made.address()));
    let exists = KeyError::Exists { path: path.display().to_string() };
    assert_eq!(create_key(&path, None).map(|signer| signer.address()), Err(exists));
    assert_eq!(std::fs::read(&path).unwrap(), text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    let file: Value = serde_json::from_slice(&text).unwrap();
    let parameters = &file["crypto"]["kdfparams"];
    let numbers = ["n", "r", "p", "dklen"].map(|name| parameters[name].as_u64().unwrap());
    assert_eq!(numbers, [1 << 18, 8, 1, 32]);
    assert_eq!(parameters["salt"].as_str().unwrap().len(), 64);
    let id = file["id"].as_str().unwrap();
    assert_eq!((id.len(), &id[14..15]), (36, "4"));
}

#[test]
fn an_empty_password_protects_nothing_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let made = create_key(&folder.path().join("key.json"), Some(&Password::new("")));
    assert_eq!(made.map(|signer| signer.address()), Err(KeyError::NoPassword));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Two that make one key: were the name of the unfinished file shared, the file could end up with
/// the key of the one who was told that it failed.
#[test]
fn of_many_who_make_one_key_one_succeeds_and_the_file_holds_its_key() {
    let folder = TempDir::new().unwrap();
    for round in 0..40 {
        let path = folder.path().join(round.to_string());
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| create_key(&path, None))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect::<Vec<_>>()
        });
        let [winner] = made.as_slice() else { panic!("{} succeeded", made.len()) };
        assert_eq!(load_key(&path, None).unwrap().address(), winner.address());
    }
}

#[test]
fn every_field_that_is_missing_or_of_another_type_is_named() {
    let fields = |kdf: &[&str]| {
        let common = ["/version", "/crypto", "/crypto/cipher", "/crypto/cipherparams", "/crypto/ciphertext"];
        let more = ["/crypto/cipherparams/iv", "/crypto/kdf", "/crypto/kdfparams", "/crypto/mac"];
        let own = kdf.iter().map(|name| format!("/crypto/kdfparams/{name}"));
        common.iter().chain(&more).map(|name| (*name).to_string()).chain(own).collect::<Vec<_>>()
    };
    let cases = [
        (SCRYPT, fields(&["dklen", "n", "r", "p", "salt"])),
        (PBKDF2, fields(&["dklen", "c", "prf", "salt"])),
    ];
    for (text, places) in cases {
        for place in places {
            let others =
                [json!(null), json!([1]), json!({}), json!(true), json!(-1), json!(1.5), json!("zz")];
            let others = others.into_iter().map(Some).chain([None]);
            for other in others {
                let found = reason(open(&changed(text, &place, other.clone()), PASSWORD));
                let (KeystoreError::Field { field, .. } | KeystoreError::Unsupported { field, .. }) = found
                else {
                    panic!("{place} as {other:?}: {found}");
                };
                let dotted = place[1..].replace('/', ".");
                assert!(field.starts_with(&dotted) || dotted.starts_with(field), "{place}: {field}");
            }
        }
    }
    for other in [json!(null), json!(1), json!("12"), json!("zz"), json!([])] {
        let found = reason(open(&changed(SCRYPT, "/address", Some(other)), PASSWORD));
        assert!(matches!(found, KeystoreError::Field { field: "address", .. }), "{found}");
    }
}

#[test]
fn what_is_not_read_here_is_named_and_quoted_in_short() {
    let long = "x".repeat(1000);
    for (place, value, actual) in [
        ("/version", json!(4), "4"),
        ("/crypto/cipher", json!("aes-256-gcm"), "aes-256-gcm"),
        ("/crypto/kdf", json!("argon2id"), "argon2id"),
        ("/crypto/kdf", json!(long), "a text of 1000 bytes"),
        ("/crypto/kdfparams/dklen", json!(64), "64"),
    ] {
        match reason(open(&changed(SCRYPT, place, Some(value)), PASSWORD)) {
            KeystoreError::Unsupported { actual: found, .. } => assert_eq!(found, actual),
            other => panic!("{place}: {other}"),
        }
    }
    let found = reason(open(&changed(PBKDF2, "/crypto/kdfparams/prf", Some(json!("hmac-md5"))), PASSWORD));
    assert!(
        found.to_string().contains("\"hmac-md5\"") && found.to_string().contains("hmac-sha256"),
        "{found}"
    );
    let escape = reason(open(&changed(SCRYPT, "/crypto/kdf", Some(json!("\u{1b}[2J"))), PASSWORD));
    assert!(!escape.to_string().contains('\u{1b}'), "a file must not write to the terminal");
}

/// If these were tried, the test would be killed for memory, or take hours.
#[test]
fn a_file_cannot_ask_for_much_memory_or_time() {
    for (text, changes) in [
        (SCRYPT, vec![("n", 1u64 << 40)]),
        (SCRYPT, vec![("n", 1 << 63)]),
        (SCRYPT, vec![("n", 1 << 21)]),
        (SCRYPT, vec![("n", 1 << 20), ("r", 9)]),
        (SCRYPT, vec![("r", 1 << 40)]),
        (SCRYPT, vec![("r", 1 << 23)]),
        (SCRYPT, vec![("p", 17)]),
        (SCRYPT, vec![("p", u64::MAX)]),
        (SCRYPT, vec![("p", 16), ("r", 1 << 20)]),
        (SCRYPT, vec![("n", u64::MAX / 2 + 1), ("r", 1 << 22), ("p", 16)]),
        (PBKDF2, vec![("c", 10_000_001)]),
        (PBKDF2, vec![("c", u64::MAX)]),
        (PBKDF2, vec![("c", 1 << 32)]),
    ] {
        let change = |text: String, (name, value): &(&str, u64)| {
            changed(&text, &format!("/crypto/kdfparams/{name}"), Some(json!(value)))
        };
        let file = changes.iter().fold(text.to_string(), change);
        let found = reason(open(&file, PASSWORD));
        assert!(matches!(found, KeystoreError::TooCostly { .. }), "{changes:?}: {found}");
    }
    for (name, value) in [("n", 0), ("n", 1), ("n", 3), ("n", (1 << 20) + 1), ("r", 0), ("p", 0)] {
        let found = reason(open(
            &changed(SCRYPT, &format!("/crypto/kdfparams/{name}"), Some(json!(value))),
            PASSWORD,
        ));
        assert!(matches!(found, KeystoreError::Field { .. }), "{name} = {value}: {found}");
    }
}

#[test]
fn lengths_are_checked() {
    for (place, digits) in [
        ("/crypto/ciphertext", 0),
        ("/crypto/ciphertext", 66),
        ("/crypto/ciphertext", 20_000),
        ("/crypto/mac", 62),
        ("/crypto/mac", 66),
        ("/crypto/cipherparams/iv", 30),
        ("/crypto/cipherparams/iv", 34),
        ("/crypto/kdfparams/salt", 3),
    ] {
        let found = reason(open(&changed(SCRYPT, place, Some(json!("1".repeat(digits)))), PASSWORD));
        assert!(matches!(found, KeystoreError::Field { .. }), "{place} of {digits} digits: {found}");
    }
    let padded = format!("{}{SCRYPT}", " ".repeat(64 << 10));
    assert!(open(&padded, PASSWORD).is_err());
    let long = changed(SCRYPT, "/id", Some(json!("1".repeat(64 << 10))));
    assert!(matches!(reason(open(&long, PASSWORD)), KeystoreError::Field { field: "the file", .. }));
}

#[test]
fn a_broken_text_is_no_keystore() {
    for end in 1..SCRYPT.len() {
        let found = reason(open(&SCRYPT[..end], PASSWORD));
        assert!(matches!(found, KeystoreError::Json { .. }), "cut at {end}: {found}");
    }
    assert!(matches!(open("", PASSWORD), Err(KeyError::Invalid { .. })));
    let deep = format!("{{\"a\":{}", "[".repeat(60_000));
    let deeper = "{\"a\":".repeat(12_000);
    let behind = format!("{SCRYPT}{SCRYPT}");
    let number = SCRYPT.replace("\"n\": 2", "\"n\": 1e999");
    for text in [deep, deeper, behind, number] {
        assert!(matches!(reason(open(&text, PASSWORD)), KeystoreError::Json { .. }));
    }
    let mut bytes = SCRYPT.as_bytes().to_vec();
    bytes[20] = 0xff;
    assert!(matches!(reason(open_bytes(&bytes, PASSWORD)), KeystoreError::Json { .. }));
}

/// Readers differ in which of two they take, and in whether capital letters make another name.
#[test]
fn a_name_that_stands_twice_is_refused() {
    for (once, twice) in [
        ("\"version\": 3", "\"version\": 3, \"version\": 3"),
        ("\"version\": 3", "\"version\": 3, \"unheard of\": 1, \"unheard of\": 1"),
        ("\"n\": 2", "\"n\": 2, \"N\": 4"),
        ("\"version\": 3", "\"version\": 3, \"Crypto\": {}"),
    ] {
        assert!(SCRYPT.contains(once));
        let found = reason(open(&SCRYPT.replacen(once, twice, 1), PASSWORD));
        assert!(
            matches!(found, KeystoreError::Json { problem: "a name stands twice", .. }),
            "{twice}: {found}"
        );
    }
}

/// The mac does not cover the counter's start: without the address, a damaged file would open to
/// a key that nobody has ever seen.
#[test]
fn no_flipped_byte_opens_to_another_key() {
    let mut refused = 0;
    for text in [SCRYPT, PBKDF2] {
        for place in 0..text.len() {
            for flip in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[place] ^= flip;
                match open_bytes(&bytes, PASSWORD) {
                    Ok(found) => assert_eq!(found, address(), "byte {place} with {flip:#x}"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 7000, "only {refused} were refused");
    let other = changed(SCRYPT, "/crypto/cipherparams/iv", Some(json!("00".repeat(16))));
    assert!(
        matches!(reason(open(&other, PASSWORD)), KeystoreError::Address { expected, .. } if expected == address())
    );
}

#[test]
fn a_keystore_may_be_carried_and_a_plain_key_may_not() {
    let folder = TempDir::new().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "2a".repeat(32)).unwrap();
    set_mode(&plain, 0o644);
    assert!(matches!(load_key(&plain, None), Err(KeyError::Exposed { mode: 0o644, .. })));
    set_mode(&plain, 0o600);
    assert_eq!(load_key(&plain, None).map(|signer| signer.address()), Ok(address()));
    let keystore = folder.path().join("keystore");
    std::fs::write(&keystore, SCRYPT).unwrap();
    set_mode(&keystore, 0o644);
    let opened = load_key(&keystore, Some(&Password::new(PASSWORD)));
    assert_eq!(opened.map(|signer| signer.address()), Ok(address()));
}

fn set_mode(path: &Path, mode: u32) {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, permissions).unwrap();
}

/// n - s, big-endian.
fn other_half(s: &[u8]) -> [u8; 32] {
    let order = alloy_primitives::U256::from_str_radix(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        16,
    );
    (order.unwrap() - alloy_primitives::U256::from_be_slice(s)).to_be_bytes()
}

#[test]
fn every_usual_form_of_a_signature_becomes_the_one_that_is_accepted_here() {
    for seed in 1..60u8 {
        let signer = LocalSigner::from_bytes(&[seed; 32]).unwrap();
        let digest = keccak256([seed]);
        let signature = signer.sign(digest).unwrap();
        let parity = signature.0[64] - 27;
        let low = &signature.0[..64];
        let high = [&signature.0[..32], &other_half(&signature.0[32..64])].concat();
        let forms = [
            low.to_vec(),
            [low, &[parity]].concat(),
            [low, &[parity + 27]].concat(),
            high.clone(),
            [&high[..], &[1 - parity]].concat(),
            [&high[..], &[28 - parity]].concat(),
        ];
        for form in forms {
            let accepted = Signature::accept(&form, digest, signer.address()).unwrap();
            assert_eq!(accepted, signature);
            assert_eq!(recover(digest, &accepted), Ok(signer.address()));
        }
    }
}

#[test]
fn a_signature_of_another_or_over_something_else_is_refused() {
    let signer = LocalSigner::from_bytes(&[3; 32]).unwrap();
    let other = LocalSigner::from_bytes(&[4; 32]).unwrap();
    let digest = keccak256("signed");
    let signature = signer.sign(digest).unwrap().0;
    let mut turned = signature;
    turned[64] = 55 - turned[64];
    for (answer, over) in [
        (other.sign(digest).unwrap().0.to_vec(), digest),
        (other.sign(digest).unwrap().0[..64].to_vec(), digest),
        (signature.to_vec(), keccak256("not signed")),
        (turned.to_vec(), digest),
    ] {
        match Signature::accept(&answer, over, signer.address()) {
            Err(SignError::OtherSigner { expected, actual }) => {
                assert_eq!(expected, signer.address());
                assert_ne!(actual, expected);
            }
            found => panic!("{found:?}"),
        }
    }
    let with = |range: std::ops::Range<usize>, value: u8| {
        let mut bytes = signature;
        bytes[range].fill(value);
        bytes.to_vec()
    };
    let shapes = [
        vec![],
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        with(0..32, 0),
        with(32..64, 0),
        with(0..32, 0xff),
        with(32..64, 0xff),
        with(64..65, 2),
        with(64..65, 29),
        with(64..65, 0xff),
    ];
    for answer in shapes {
        let found = Signature::accept(&answer, digest, signer.address());
        assert!(matches!(found, Err(SignError::Refused { .. })), "{} bytes: {found:?}", answer.len());
    }
}
