//! Receipts and commitments against values that other programs computed.
//!
//! The constants come from Python: digests and signatures of receipts from eth-account 0.14.0, which was
//! given the types as docs/format.md prints them, run and log ids from eth-abi and eth-utils, the rest
//! from hashlib, hmac and struct. Nothing was copied from this library's own output.

use counterfoil::commit::{
    Block, CHUNK, ChunkOpening, CommitError, Commitment, CommitmentKind, Content, Entry, Opening, ProofError,
    Sha256, ShardError, State, bytes_root, merge_shards, merkle,
};
use counterfoil::primitives::{Address, Digest, Report};
use counterfoil::receipt::schema::{BUNDLE, DELEGATION, HEADER, KINDS, Kind, TREE_HEAD, WordType};
use counterfoil::receipt::{
    Blind, Body, LaneSecret, LocalSigner, Receipt, ReceiptError, SignError, Signature, SignatureError,
    Signer, Value, from_typed_data, log_id, policy_digest, recover, run_id, typed_data,
};

fn digest(text: &str) -> Digest {
    text.parse().expect("64 hexadecimal digits")
}

fn signer() -> LocalSigner {
    LocalSigner::from_bytes(&[0x2a; 32]).expect("a key")
}

fn kind_of(name: &str) -> &'static Kind {
    if name == TREE_HEAD.name { &TREE_HEAD } else { Kind::from_name(name).expect("a kind") }
}

/// Field i of a type holds the largest number of its width less i, or the byte i + 1 throughout.
fn filled(kind: &'static Kind) -> Body {
    let value = |(index, word): (usize, WordType)| match word {
        WordType::Unsigned(bits) => Value::from((u64::MAX >> (64 - bits)) - index as u64),
        WordType::Address => Address::repeat_byte(index as u8 + 1).into(),
        WordType::Bytes32 => Digest::repeat_byte(index as u8 + 1).into(),
        WordType::Notice(_) => unreachable!("no receipt has one"),
    };
    let fields = kind.all_fields().enumerate();
    let values: Vec<(&str, Value)> =
        fields.map(|(index, field)| (field.name, value((index, field.word)))).collect();
    Body::new(kind, &values).expect("every value fits")
}

/// Kind, digest, signature by the key 2a2a..: eth-account's `encode_typed_data` and `sign_message`.
const SIGNED: [(&str, &str, &str); 17] = [
    (
        "genesis",
        "148e0617c37faf8dcf50808b4f4877f8bb39afb1e8ff1e567a05fba74490aa65",
        "b6dcd13a96ff15d99e31bae715170af721b7839189bc2b8e797c4cf257cd379a6aae9a760c76631cb3bc6f30704732cd54dd53a40613d1c7198dd860ea07f0d81c",
    ),
    (
        "join",
        "2f6c146cd6c52179ecace568a6b05bee1fbd142a1aec31921f23b239c297fa7c",
        "a72d76cc553f5af83a02897c187a50ef404e8ac5f00633635eee9cf7e6e328f23a6b0a8762ea18472fe5a2fed4a18144cc8f013a6c0b4fe3880b5ebc65aceefa1c",
    ),
    (
        "step",
        "6ec3e3a4718375657b8d31d4b7c3a422544ee15114bdf8eddd8ffcd61be0c7dc",
        "64399c2bdd1274b91094da8d2ee484a91c400a93926cc7c507cde06911dde78412d72c4fec5e6c223ee7a91d0a2bcc4a56e222f86b8b7197e3e2f062a38a6d501c",
    ),
    (
        "checkpoint",
        "8b8c8c8f2cb607bf75eadaaee543593bd86f95f3789ad8131c871656794fd811",
        "f68d75af8aa00006434bbdeafe608e9ee1aff6db45850fbbf161f8c96be1518559f45c10034dac09d8a906d0d6c03c9f70abb9e5ce8ea4e9a80439dd9be1517e1c",
    ),
    (
        "resume",
        "729aff9f45d4bbbb453aad3c48a01df6d37ee84f2d4979d17e2d614c00e4586c",
        "a3ab7535501426a80a5c4938e300dfe4271283c9aa3bc395d17943fd1afe7d787df67030363e1587deb06d463535d9a7c491a34b98c14877c9e9514346a0c0721c",
    ),
    (
        "close",
        "273af704b07a59cb9196f72c6c7c5226af66792c08943ab5db2961705af63743",
        "5410e829cbd386eed3eb767173515e476f6341394edf5f65c7003f6a07d3af8b0980ff702bc9032ca3d7044053cafeca84edea41fb8bdc24ae3630fb3a29b0d31c",
    ),
    (
        "policy",
        "6d2a192729eb2042a3ec85311aaba03adf2ce062d386c49e7abd404d17b53e9f",
        "1beca312903124328256e2085af5318d5398b2d81a436740cb4ebd9c2ecd82d64fa7d32f466d6dffcab95035ed31cc4bf72982af2bb820212e6828cf98c42d5c1c",
    ),
    (
        "tree-head",
        "f278ad66446408031fcb03577b0db6f16722695158082086e15e679ecd3d2a73",
        "7b15031821c5259f9ab6a975cc488c0c272f61495fa631e57e7363820d3884c2413073e82cb0582aaf16e814fd658706c07b356fa09ac463e08feedc189ef6051b",
    ),
    (
        "round",
        "92befe2906993e63e306029e6dd693f84e8fff2758b7885e198759f73ffb737b",
        "d981e53d955a73f4af9585d895cbe26fcde899095c7d3636efa3dfa3cb27c09129b13e88d179a3a25ea6fe016f1e3cfaaedc55b4ec7c0973144637d6bc5fb3a11c",
    ),
    (
        "aggregation",
        "d02e7434e2ef18f8c9468b7cf204364218f2b251405970abf36780310f63cad7",
        "a333649bd9bc5ee251db571cd220195c32877b2d8539ebbc3f05b2495da3b61d771a03638094572e28055d8f51d3fc8067b4d8e6d193e75f1f80b44eaff305c91c",
    ),
    (
        "replay",
        "222f30747ff56c3a42aa84950277fd9b0fc1c3832bb37b445e2dff389d0485a5",
        "ca142623daee1920a991965a4dad98543f176f64c06e632ce58b2ec156ffafbb79f229e4e2b531373ebd649d3e589eb0b5e7e39770a4f7401f5d2e4448ea9d4b1c",
    ),
    (
        "fingerprint",
        "a8c99202ec9e53709794276bdf4fd79d440aa97b4334f035d848262a6c161fe8",
        "e51805f2279097adbd798ad041ccc0c6bd5ef97eb5222a36c378ccc55f19824177fc58de276cb59d4035be51461f5d64b1e856b12e9851b2dc5e307f5466f5d41b",
    ),
    (
        "preference-set",
        "35d810f43a99ac307fcc31738bf5104bfc9d0b51a8b8bdd9d95952d44bdf9e89",
        "d47ea08d154be2c84676a5668bf2eaf6884701613abcc63363fc4aa813943e9736878ff84d297b7d160bd19a24298105c4189a04180367c1a12b9262ff25cb8b1c",
    ),
    (
        "evaluation",
        "92e676df33dfa95e985275e5f61d55ab342f4be58bc458873ffc6d7f762be94f",
        "7372dba11ee3d9b35dbfc861f780331a4d8c915fa3e3b0e5a9fa00b3c466eb7141383f890ff1ec7f7968a8b7ea798d3ca6bba19b8322e9a46f510a28ccd113951c",
    ),
    (
        "release",
        "d8ae1d28fe067f9fe3f11d7b175d82b6b4085779ebbf581c7c8d0e457592c37d",
        "db4ed9fe7f67290688506fe4b06f0b99e0815846d0cd2cd8ce7dbd14c9ce830f30d9fa1d063f2d03585a99b74b2d1290ebee4abd17e33775efc689f71f33bc711c",
    ),
    (
        "output",
        "96bd77ce4b197eefb1239611adca7db648d8bfc2db8c1826e01960d3639652f6",
        "1154662f227eb3a7db98fa08c08c7c17afdad6c4c86755deda36afc104b28ad25762e390e2a4fbd37849a6263a9eacafaed58427a5663808344fa5f09231bee41c",
    ),
    (
        "observed-head",
        "961e9f44e16ef3464aec1c1c0cef542a2da9748f43f6265573c9cff59b35ab4d",
        "d79a3356c7275476d4b9038334edb1eec09f2f0e1660534b005ef44fb783d9290f1694b28e9ad1049521f38d66d94f6c7622c323c342c5aaceb7f67779970ea21b",
    ),
];

/// A wrong type string, width, order, domain or nonce gives another digest or signature.
#[test]
fn wallets_compute_the_same_digests_and_signatures() {
    let owner = signer();
    assert_eq!(owner.address().to_checksum(None), "0xB0E5863D0DDf7e105e409Fee0eCC0123a362e14B");
    for (name, expected, signature) in SIGNED {
        let body = filled(kind_of(name));
        assert_eq!(body.digest(), digest(expected), "{name}");
        let signed = owner.sign(body.digest()).expect("a local key signs");
        assert_eq!(format!("{signed:?}"), format!("Signature(0x{signature})"), "{name}");
        assert_eq!(recover(body.digest(), &signed), Ok(owner.address()));
    }
    let implemented = KINDS.iter().filter(|kind| !kind.fields.is_empty()).count();
    assert_eq!(SIGNED.len(), implemented + 1, "every kind and the tree head stand above");
}

/// A wallet shows fields in the order they come in; the notice must stand above the fields it explains.
#[test]
fn typed_data_keeps_the_order_of_the_type() {
    for kind in KINDS.iter().filter(|kind| !kind.fields.is_empty()).chain([&TREE_HEAD, &DELEGATION, &BUNDLE])
    {
        let written = typed_data(&Body::new(kind, &[]).unwrap());
        let (_, message) = written.split_once("\"message\":").unwrap();
        let places = kind.all_fields().map(|field| message.find(&format!("\"{}\":", field.name)).unwrap());
        assert!(places.is_sorted(), "{}: {message}", kind.type_name);
    }
}

/// A message that ethers, viem or MetaMask reads otherwise than eth-account: a number above 2^53, a zero
/// address, the notice, a digest or a half of a signature that begins with zeros.
#[test]
fn three_more_wallet_libraries_sign_the_same_bytes() {
    let file: serde_json::Value = serde_json::from_str(include_str!("vectors/wallets.json")).expect("JSON");
    let owner = signer();
    for vector in file["vectors"].as_array().expect("a list") {
        let name = &vector["name"];
        assert_eq!(vector["params"][0], owner.address().to_checksum(None));
        let body = from_typed_data(&vector["params"][1]).expect("a message of this library");
        assert_eq!(vector["digest"], body.digest().to_string(), "{name}");
        let signed = owner.sign_message(&body).expect("a local key signs");
        let expected = format!("Signature({})", vector["signature"].as_str().expect("text"));
        assert_eq!(format!("{signed:?}"), expected, "{name}");
        assert_eq!(recover(body.digest(), &signed), Ok(owner.address()), "{name}");
    }
}

/// A field that is read from another word than it was written to.
#[test]
fn a_body_gives_back_what_was_put_in() {
    for (name, ..) in SIGNED {
        let body = filled(kind_of(name));
        assert_eq!(body.kind().name, name);
        for (index, (field, value)) in body.fields().enumerate() {
            let byte = index as u8 + 1;
            match field.word {
                WordType::Unsigned(bits) => {
                    let number = (u64::MAX >> (64 - bits)) - index as u64;
                    assert_eq!((value, body.unsigned(field.name)), (Value::Unsigned(number), number));
                }
                WordType::Address => {
                    assert_eq!(body.address(field.name), Address::repeat_byte(byte));
                    assert_eq!(value, Value::Address(Address::repeat_byte(byte)));
                }
                WordType::Bytes32 => {
                    assert_eq!(body.bytes32(field.name), Digest::repeat_byte(byte));
                    assert_eq!(value, Value::Digest(Digest::repeat_byte(byte)));
                }
                WordType::Notice(_) => unreachable!("no receipt has one"),
            }
        }
        assert_eq!(Body::decode(body.kind(), &body.encode()), Ok(body));
    }
}

/// One receipt would have two encodings if padding were ignored.
#[test]
fn padding_must_be_zero_and_every_byte_of_a_field_may_be_set() {
    let step = kind_of("step");
    let size = step.all_fields().count() * 32;
    for (index, field) in step.all_fields().enumerate() {
        let width = match field.word {
            WordType::Unsigned(bits) => usize::from(bits) / 8,
            WordType::Address => 20,
            WordType::Bytes32 => 32,
            WordType::Notice(_) => unreachable!("no receipt has one"),
        };
        for byte in 0..32 {
            let mut bytes = vec![0; size];
            bytes[32 * index + byte] = 1;
            let decoded = Body::decode(step, &bytes);
            assert_eq!(decoded.is_ok(), byte >= 32 - width, "{} byte {byte}", field.name);
            if let Err(error) = decoded {
                let expected = field.word.solidity();
                assert_eq!(error, ReceiptError::Range { kind: "step", field: field.name, expected });
                assert_eq!(error.place(), Some(format!("step.{}", field.name)));
            }
        }
    }
    for wrong in [size - 32, size - 1, size + 1, size + 32] {
        let error = Body::decode(step, &vec![0; wrong]).expect_err("another length");
        assert_eq!(error, ReceiptError::Length { kind: "step", expected: size, actual: wrong });
        assert_eq!((error.code(), error.place().as_deref()), ("invalid-input", Some("step")));
    }
}

/// A value that is silently dropped or cut would be signed as something else.
#[test]
fn values_that_do_not_belong_are_refused() {
    let join = kind_of("join");
    let refused = |values: &[(&str, Value)]| Body::new(join, values).expect_err("a value does not belong");
    for wrong in
        [("step", 1.into()), ("role", Digest::ZERO.into()), ("secret", 1.into()), ("worker", 1.into())]
    {
        let error = refused(&[wrong]);
        assert_eq!(error, ReceiptError::Field { kind: "join", field: wrong.0.into() });
        assert_eq!(error.place(), Some(format!("join.{}", wrong.0)));
    }
    assert!(Body::new(join, &[("role", 65_535.into())]).is_ok());
    let expected = ReceiptError::Range { kind: "join", field: "role", expected: "uint16".into() };
    assert_eq!(refused(&[("role", 65_536.into())]), expected);
}

/// A reserved kind that is found would be decoded with no field of its own.
#[test]
fn reserved_kinds_are_not_implemented() {
    let numbers = [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18];
    for number in 0..=21 {
        let found = Kind::from_number(number);
        assert_eq!(found.is_some(), numbers.contains(&number), "{number}");
        assert!(found.is_none_or(|kind| kind.number == number && Kind::from_name(kind.name) == found));
    }
    assert_eq!(Kind::from_name("transform"), None);
    assert_eq!(TREE_HEAD.all_fields().count(), TREE_HEAD.fields.len(), "a head has no receipt's header");
    assert_eq!(kind_of("join").all_fields().count(), HEADER.len() + 3);
}

/// What eth-account took when it signed `resume` above.
#[test]
fn typed_data_is_what_wallets_take() {
    let shown: serde_json::Value = serde_json::from_str(&typed_data(&filled(kind_of("resume")))).unwrap();
    let member = |name: &str, word: &str| serde_json::json!({"name": name, "type": word});
    let hex = |byte: u8, count: usize| format!("0x{}", format!("{byte:02x}").repeat(count));
    let expected = serde_json::json!({
        "types": {
            "EIP712Domain": [member("name", "string"), member("version", "string"), member("salt", "bytes32")],
            "ResumeV1": [
                member("schema", "uint16"), member("run", "bytes32"), member("worker", "address"),
                member("lane", "uint32"), member("sequence", "uint64"), member("previous", "bytes32"),
                member("delegation", "bytes32"), member("time", "uint64"), member("step", "uint64"),
                member("reason", "uint32"), member("droppedBytes", "uint64"),
            ],
        },
        "primaryType": "ResumeV1",
        "domain": {
            "name": "Counterfoil",
            "version": "1",
            // eth_utils.keccak(b"counterfoil.receipts.v1")
            "salt": SALT,
        },
        "message": {
            "schema": "65535", "run": hex(2, 32), "worker": hex(3, 20), "lane": "4294967292",
            "sequence": "18446744073709551611", "previous": hex(6, 32), "delegation": hex(7, 32),
            "time": "18446744073709551608", "step": "18446744073709551607", "reason": "4294967286",
            "droppedBytes": "18446744073709551605",
        },
    });
    assert_eq!(shown, expected);
}

const SALT: &str = "0x78b1994a128d8ec52b0ddd14f60a6338953cb0f17d6570d16828c199706a1ab6";

/// Ids as `abi.encode` in a contract computes them.
#[test]
fn ids_of_runs_logs_and_policies() {
    let worker = Address::repeat_byte(0x11);
    assert_eq!(
        run_id(worker, Digest::repeat_byte(0x22), 3, Digest::repeat_byte(0x44)),
        digest("e1d7002a08890e68abbcd8aac3bb0d53779c8900b78e97a4a4fba408d2f51824")
    );
    assert_eq!(
        log_id(Digest::repeat_byte(0x55), worker, 6),
        digest("6fbbfcd0b87d0c3d55aa2609480f16839cd58aaccc3607e4652b57a72f045054")
    );
    assert_eq!(
        policy_digest(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        digest("db535163d519acc1e1056e282c0d54b3de8fe5f53e45817c81c34d8301873bfc")
    );
}

/// A blind that misses a part of its context is shared by two fields, and opening one opens both.
#[test]
fn blinds_follow_the_page() {
    let secret = LaneSecret::new([9; 32]);
    assert_eq!(
        secret.public_hash(),
        digest("10d29bb8d25a4a1f876f9dbf1b5e6a729b99803a7eef08139c205b973c2b50ad")
    );
    let step = kind_of("step");
    let field = step.fields.iter().find(|field| field.name == "gradients").expect("a field");
    let log = (Digest::repeat_byte(0x55), Address::repeat_byte(0x11), 6);
    let expected = Blind {
        blind: digest("938a1e4f93cac7d804606d7ac69b46acb6f8f462e207dc42862aa4604f6eff22"),
        entry_key: digest("c000db98c5c6f646a8f86233ca5bc7abe1bac2177dd42a1644ed696b5448d9bb"),
    };
    assert_eq!(secret.blind(log, 7, step, field), expected);
    assert_eq!(expected.entry_key(), Some(&expected.entry_key));
    assert_eq!(Blind::default().entry_key(), None, "a public field has no key");
}

#[test]
fn a_leaf_is_the_digest_and_the_signature() {
    let signature = Signature(std::array::from_fn(|index| index as u8));
    let receipt = Receipt { kind: 3, digest: Digest::repeat_byte(0xaa), signature, body: vec![1] };
    let leaf = receipt.leaf();
    assert_eq!((&leaf[..32], &leaf[32..]), (&[0xaa; 32][..], &signature.0[..]));
}

/// Zero and numbers from the group order on are no scalars; the order is that of SEC 2.
#[test]
fn scalars_outside_the_group_are_refused() {
    let order: [u8; 32] =
        alloy_primitives::hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    let error = LocalSigner::from_bytes(&order).err().expect("the order is no key");
    assert_eq!((error.clone(), error.code()), (SignError::InvalidKey, "key"));
    assert!(LocalSigner::from_bytes(&[0; 32]).is_err());
    let message = Digest::repeat_byte(1);
    let good = signer().sign(message).expect("a local key signs");
    for range in [0..32, 32..64] {
        for wrong in [[0; 32], order, [0xff; 32]] {
            let mut other = good;
            other.0[range.clone()].copy_from_slice(&wrong);
            assert_eq!(recover(message, &other), Err(SignatureError::Scalar));
        }
    }
    for actual in [0, 1, 26, 29, 255] {
        let mut other = good;
        other.0[64] = actual;
        assert_eq!(recover(message, &other), Err(SignatureError::RecoveryByte { actual }));
    }
    // No point of the curve has x = 5: 5^3 + 7 is no square modulo the field's prime.
    let mut nowhere = good;
    nowhere.0[..32].copy_from_slice(&Digest::left_padding_from(&[5]).0);
    assert_eq!(recover(message, &nowhere), Err(SignatureError::NoKey));
}

/// 3,000 bytes, of which byte i is (7 i + i / 256) mod 251.
fn data() -> Vec<u8> {
    (0..3000).map(|index| ((7 * index + index / 256) % 251) as u8).collect()
}

#[test]
fn bytes_have_the_commitment_that_hashlib_gives() {
    let commitment = Commitment::of_bytes(&data());
    assert_eq!((commitment.kind, commitment.count, commitment.size), (CommitmentKind::Bytes, 3, 3000));
    assert_eq!(commitment.root, digest("f1d3c1e61cc6ba2ccc1fa260f97bda3ae001fc3d9c026f22c19b0f506bf29e8a"));
    assert_eq!(
        commitment.digest(&Digest::repeat_byte(1)),
        digest("e5fb78f42c8504b419ba9308bec4dea0cf2dfd18d1a6c517ccff205c7fac73bf")
    );
}

fn blocks() -> Vec<Block> {
    let block = |offset: [u64; 2], shape: [u64; 2], byte| Block {
        offset: offset.into(),
        shape: shape.into(),
        root: Digest::repeat_byte(byte),
    };
    vec![block([0, 2], [2, 1], 0x0b), block([0, 0], [2, 2], 0x0a)]
}

fn entries() -> Vec<Entry> {
    vec![
        Entry { name: "unused".into(), content: Content::Absent },
        Entry { name: "tied".into(), content: Content::Alias { target: "bias".into() } },
        Entry::dense("scale", "U8", &[], Digest::repeat_byte(8)).expect("an entry"),
        Entry::sharded("columns", "BF16", &[2, 3], &blocks()).expect("an entry"),
        Entry::dense("bias", "F32", &[3], Digest::repeat_byte(7)).expect("an entry"),
    ]
}

/// Every kind of entry, plain and blinded, in one tree of five leaves.
#[test]
fn a_state_has_the_commitment_that_hashlib_gives() {
    let state = State::new(entries()).expect("a state");
    let names: Vec<&str> = state.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["bias", "columns", "scale", "tied", "unused"]);
    let plain = state.commitment();
    assert_eq!((plain.kind, plain.count, plain.size), (CommitmentKind::State, 5, 25));
    assert_eq!(plain.root, digest("2d137686466f8e4e1dded7ada0a27203639f35c0d591f29f95713e809c70e8fa"));
    assert_eq!(
        plain.digest(&Digest::ZERO),
        digest("59f0609a1c6496efea9fea3687773e2293e0eade4aec3544712fcbc38cc9a9c8")
    );
    let blinded = state.blinded(&Digest::repeat_byte(5));
    assert_eq!(blinded.root, digest("ba8242b9c1bfcd67c6427d6c8e1630ee0598c3a8a86e96038ea176705e9958b4"));
    assert_eq!(
        blinded.digest(&Digest::repeat_byte(6)),
        digest("c66761e20b9a6251cf9d56d24786290a53fd5fdaaedcc8d04c822cd58db95cf5")
    );
    assert_eq!(
        state.entries()[1].root(),
        digest("3f46a6e6e5803d82077c883a81f7a571d10fc57b5c3be2fe882f71697e6b56ab")
    );
    assert_eq!(
        alloy_primitives::hex::encode(state.entries()[0].encode(None)),
        "636f756e746572666f696c2e656e7472792e7631000000046269617303463332010000000000000003000000000000000c\
         07070707070707070707070707070707070707070707070707070707070707070000"
    );
}

#[test]
fn what_an_entry_says_about_itself() {
    let all = entries();
    let said = |entry: &Entry| (entry.has_root(), entry.is_dense(), entry.size());
    let said: Vec<_> = all.iter().map(said).collect();
    let nothing = (false, false, 0);
    assert_eq!(said, [nothing, nothing, (true, true, 1), (true, false, 12), (true, true, 12)]);
    for entry in all {
        let mut changed = entry.clone();
        changed.set_root(Digest::repeat_byte(3));
        assert_eq!(changed.root() == Digest::repeat_byte(3), entry.has_root());
        for key in [None, Some(Digest::repeat_byte(5))] {
            let bytes = entry.encode(key.as_ref());
            let (decoded, is_blinded, _) = Entry::decode(&bytes).expect("what was written");
            assert_eq!((is_blinded, decoded == entry), (key.is_some(), key.is_none() || !entry.has_root()));
        }
    }
}

/// Blocks that overlap, leave a hole or reach outside would let one element have two values.
#[test]
fn blocks_must_tile_their_tensor() {
    let block = |offset: &[u64], shape: &[u64]| Block {
        offset: offset.into(),
        shape: shape.into(),
        root: Digest::ZERO,
    };
    let sharded = |blocks: &[Block]| Entry::sharded("columns", "U8", &[2, 3], blocks).map(|_| ());
    let fits = [
        vec![block(&[0, 0], &[2, 3])],
        vec![block(&[0, 0], &[1, 3]), block(&[1, 0], &[1, 3])],
        vec![block(&[0, 0], &[2, 1]), block(&[0, 1], &[1, 2]), block(&[1, 1], &[1, 2])],
    ];
    for blocks in fits {
        assert_eq!(sharded(&blocks), Ok(()));
    }
    let wrong = [
        vec![],
        vec![block(&[0, 0], &[2, 2])],
        vec![block(&[0, 0], &[2, 3]), block(&[1, 2], &[1, 1])],
        vec![block(&[0, 0], &[2, 2]), block(&[0, 1], &[2, 1])],
        vec![block(&[0, 0], &[2, 4])],
        vec![block(&[1, 0], &[2, 3])],
        vec![block(&[0, u64::MAX], &[2, 3])],
        vec![block(&[0, 0], &[2, 3]), block(&[0, 0], &[0, 3])],
        vec![block(&[0], &[6])],
        vec![block(&[0, 0], &[2])],
    ];
    for blocks in wrong {
        assert!(matches!(sharded(&blocks), Err(CommitError::Parts { name, .. }) if name == "columns"));
    }
    let rows = |count: u64| {
        let blocks: Vec<Block> = (0..count).map(|row| block(&[row], &[1])).collect();
        Entry::sharded("rows", "U8", &[count], &blocks).is_ok()
    };
    assert!(rows(4096) && !rows(4097), "4,096 blocks fit");
}

#[test]
fn shards_that_do_not_meet_are_refused() {
    let shard = |from: usize, to: usize| {
        let shard = counterfoil::commit::Shard::new(&data()[from..to], from as u64, &mut |_| true);
        shard.expect("it fits").expect("no watch stops it")
    };
    // Another worker reads the bytes that surround the whole kilobytes where they are.
    for (from, to) in [(0, 3000), (1500, 3000), (500, 2100), (1024, 2048), (10, 20)] {
        let known = shard(from, to);
        assert_eq!(counterfoil::commit::Shard::decode(&known.encode()), Ok(known), "{from}..{to}");
    }
    let merged = |shards: &[counterfoil::commit::Shard]| merge_shards(shards);
    assert_eq!(merged(&[shard(1500, 3000), shard(0, 1500)]), Ok(Commitment::of_bytes(&data())));
    assert_eq!(merged(&[]), Ok(Commitment::of_bytes(&[])));
    let gap = merged(&[shard(0, 1500), shard(1501, 3000)]).expect_err("byte 1,500 is missing");
    assert_eq!(gap, ShardError::Gap { expected: 1500, actual: 1501 });
    let (expected, actual) = (gap.expected(), gap.actual());
    assert_eq!((expected.as_deref(), actual.as_deref()), (Some("byte 1500"), Some("byte 1501")));
    assert_eq!(gap.place().as_deref(), Some("byte 1500"));
    assert_eq!(
        merged(&[shard(0, 1500), shard(1499, 3000)]),
        Err(ShardError::Gap { expected: 1500, actual: 1499 })
    );
    assert_eq!(merged(&[shard(1, 3000)]), Err(ShardError::Gap { expected: 0, actual: 1 }));
    let beyond = counterfoil::commit::Shard::new(&[0; 2], u64::MAX - 1, &mut |_| true);
    assert_eq!(beyond, Err(ShardError::TooLarge { offset: u64::MAX - 1, size: 2 }));
}

/// A chunk that opens at another place, with other bytes or in a tensor of another size.
#[test]
fn a_chunk_opens_where_it_stands_and_nowhere_else() {
    let data = data();
    let (size, root) = (data.len() as u64, bytes_root(&data));
    for index in 0..3 {
        let chunk = ChunkOpening::new(&data, index).expect("three chunks");
        let begin = index as usize * CHUNK;
        assert_eq!(&chunk.bytes[..], &data[begin..data.len().min(begin + CHUNK)]);
        assert_eq!(chunk.verify(size, &root), Ok(()));
        for other in (0..4).filter(|other| *other != index) {
            assert!(ChunkOpening { index: other, ..chunk.clone() }.verify(size, &root).is_err());
        }
        let mut shorter = chunk.clone();
        shorter.bytes = chunk.bytes.slice(1..);
        assert!(matches!(shorter.verify(size, &root), Err(ProofError::Opening { .. })));
        assert!(matches!(chunk.verify(size, &Digest::ZERO), Err(ProofError::RootMismatch { .. })));
    }
    assert_eq!(
        ChunkOpening::new(&data, 3).expect_err("there are three"),
        ProofError::IndexOutOfRange { index: 3, size: 3 }
    );
}

/// An opening whose parts belong to another kind of commitment would show nothing.
#[test]
fn openings_hold_exactly_their_parts() {
    let data = data();
    let mut all = entries();
    all.push(Entry::dense("weight", "U8", &[3000], bytes_root(&data)).expect("an entry"));
    let state = State::new(all).expect("a state");
    let (key, blind) = (Digest::repeat_byte(5), Digest::repeat_byte(6));
    let chunk = ChunkOpening::new(&data, 1).expect("three chunks");
    for entry in state.entries() {
        for key in [None, Some(&key)] {
            let opening = state.prove(&entry.name, key).expect("an entry");
            let signed = key.map_or(state.commitment(), |key| state.blinded(key)).digest(&blind);
            assert_eq!(opening.verify(&signed, &blind), Ok(Some(entry.clone())));
            let with_chunk = Opening { chunk: Some(chunk.clone()), ..opening.clone() };
            assert_eq!(with_chunk.verify(&signed, &blind).is_ok(), entry.name == "weight", "{}", entry.name);
            let mut other = opening.clone();
            let part = other.entry.as_mut().expect("an entry is opened");
            part.blind = if key.is_some() { None } else { Some(blind) };
            assert!(other.verify(&signed, &blind).is_err(), "a blind where none belongs, or none");
            let mut other = opening.clone();
            other.entry.as_mut().expect("an entry is opened").root.0[0] ^= 1;
            assert!(other.verify(&signed, &blind).is_err(), "another root");
            assert!(Opening { entry: None, ..opening }.verify(&signed, &blind).is_err());
        }
    }
    assert!(state.prove("missing", None).is_err());
    let commitment = Commitment::of_bytes(&data);
    let opening = Opening { commitment, entry: None, chunk: Some(chunk) };
    assert_eq!(opening.verify(&commitment.digest(&blind), &blind), Ok(None));
    assert!(Opening { chunk: None, ..opening }.verify(&commitment.digest(&blind), &blind).is_err());
}

/// What differs first is what a replay reports.
#[test]
fn states_differ_first_where_they_differ() {
    let dense =
        |name: &str, byte| Entry::dense(name, "U8", &[1], Digest::repeat_byte(byte)).expect("an entry");
    let state = |entries: &[(&str, u8)]| {
        State::new(entries.iter().map(|(name, byte)| dense(name, *byte)).collect()).expect("a state")
    };
    let one = state(&[("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!(one.first_difference(&one), None);
    for (entries, expected) in [
        (vec![("a", 1), ("b", 9), ("c", 9)], ("b", Some(2), Some(9))),
        (vec![("a", 1), ("c", 3)], ("b", Some(2), None)),
        (vec![("a", 1), ("aa", 4), ("b", 2), ("c", 3)], ("aa", None, Some(4))),
        (vec![("a", 1), ("b", 2)], ("c", Some(3), None)),
    ] {
        let other = state(&entries);
        let (name, ours, theirs) = one.first_difference(&other).expect("they differ");
        let byte = |entry: Option<&Entry>| entry.map(|entry| entry.root().0[0]);
        assert_eq!((name, byte(ours), byte(theirs)), expected);
        let (name, ours, theirs) = other.first_difference(&one).expect("they differ");
        assert_eq!((name, byte(theirs), byte(ours)), expected);
    }
}

#[test]
fn a_state_is_refused_for_its_names_and_its_size() {
    let dense = |name: &str, extent| Entry::dense(name, "U8", &[extent], Digest::ZERO).expect("an entry");
    let twice = State::new(vec![dense("a", 1), dense("b", 1), dense("a", 2)]).expect_err("a is there twice");
    assert_eq!(twice, CommitError::DuplicateName { name: "a".into() });
    assert_eq!((twice.code(), twice.place().as_deref()), ("invalid-input", Some("a")));
    assert!(State::new(vec![dense("a", u64::MAX - 1), dense("b", 1)]).is_ok());
    let large = State::new(vec![dense("a", u64::MAX), dense("b", 1)]);
    assert_eq!(large, Err(CommitError::TooLarge { count: 2 }));
    let unnamed = State::new(vec![Entry { name: "\n".into(), content: Content::Absent }]);
    assert!(matches!(unnamed, Err(CommitError::Tensor(_))));
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |letter| LETTERS.find(letter).expect("a letter of base64") as u32;
    let text = text.trim_end_matches('=');
    let mut bits = 0u32;
    let mut bytes = Vec::new();
    for (index, letter) in text.chars().enumerate() {
        bits = bits << 6 | digit(letter);
        if index % 4 > 0 {
            bytes.push((bits >> (6 - 2 * (index % 4))) as u8);
        }
    }
    bytes
}

/// The vectors of transparency-dev/merkle: honest proofs, and every way in which one can be wrong.
#[test]
fn proofs_are_judged_as_transparency_logs_judge_them() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("vectors/rfc9162_proofs.json")).expect("JSON");
    let hash = |value: &serde_json::Value| Digest::try_from(&base64(value.as_str()?)[..]).ok();
    let proof = |case: &serde_json::Value| -> Option<Vec<Digest>> {
        case["proof"].as_array().map_or(Some(Vec::new()), |proof| proof.iter().map(hash).collect())
    };
    let number = |case: &serde_json::Value, name: &str| case[name].as_u64().expect("a number");
    let mut judged = 0;
    // Some vectors have words where hashes stand, because nothing should look at them; here a hash has
    // 32 bytes by its type.
    for case in vectors["inclusion"].as_array().expect("a list") {
        let (Some(leaf), Some(root), Some(proof)) =
            (hash(&case["leafHash"]), hash(&case["root"]), proof(case))
        else {
            continue;
        };
        let (index, size) = (number(case, "leafIdx"), number(case, "treeSize"));
        let answer = merkle::verify_inclusion::<Sha256>(&leaf, index, size, &proof, &root);
        assert_eq!(answer.is_err(), case["wantErr"] == true, "{}: {answer:?}", case["file"]);
        judged += 1;
    }
    for case in vectors["consistency"].as_array().expect("a list") {
        let (Some(old), Some(new), Some(proof)) = (hash(&case["root1"]), hash(&case["root2"]), proof(case))
        else {
            continue;
        };
        let (m, n) = (number(case, "size1"), number(case, "size2"));
        let answer = merkle::verify_consistency(m, n, &proof, &old, &new);
        assert_eq!(answer.is_err(), case["wantErr"] == true, "{}: {answer:?}", case["file"]);
        judged += 1;
    }
    assert!(judged > 140, "only {judged} vectors were read");
}

/// Proofs that are made verify, for every place in every small tree, and name what is wrong otherwise.
#[test]
fn proofs_hold_in_every_small_tree() {
    let leaves: Vec<Digest> = merkle::leaf_hashes(&(0..20u8).map(|number| vec![number]).collect::<Vec<_>>());
    for n in 1..=leaves.len() {
        let (tree, size) = (&leaves[..n], n as u64);
        let root = merkle::root(tree);
        for index in 0..size {
            let proof = merkle::inclusion_proof::<Sha256>(tree, index).expect("inside");
            let leaf = &leaves[index as usize];
            assert_eq!(merkle::verify_inclusion::<Sha256>(leaf, index, size, &proof, &root), Ok(()));
            let long = [proof, vec![Digest::ZERO]].concat();
            let (expected, actual) = (long.len() - 1, long.len());
            let error = merkle::verify_inclusion::<Sha256>(leaf, index, size, &long, &root);
            assert_eq!(error, Err(ProofError::WrongLength { expected, actual }));
        }
        for index in [size, size + 1] {
            let outside = ProofError::IndexOutOfRange { index, size };
            assert_eq!(merkle::inclusion_proof::<Sha256>(tree, index), Err(outside.clone()));
            assert_eq!(merkle::verify_inclusion::<Sha256>(&root, index, size, &[], &root), Err(outside));
        }
        for m in 1..=size {
            let old = merkle::root(&leaves[..m as usize]);
            let proof = merkle::consistency_proof(tree, m).expect("0 < m <= n");
            assert_eq!(merkle::verify_consistency(m, size, &proof, &old, &root), Ok(()));
            let wrong = merkle::verify_consistency(m, size, &proof, &Digest::ZERO, &root);
            assert!(matches!(wrong, Err(ProofError::RootMismatch { .. })));
            let wrong = merkle::verify_consistency(m, size, &proof, &old, &Digest::ZERO);
            assert!(matches!(wrong, Err(ProofError::RootMismatch { .. })));
            let long = [proof, vec![Digest::ZERO]].concat();
            let wrong = merkle::verify_consistency(m, size, &long, &old, &root);
            assert!(matches!(wrong, Err(ProofError::WrongLength { .. })));
        }
        for m in [0, size + 1] {
            let sizes = ProofError::Sizes { m, n: size };
            assert_eq!(merkle::consistency_proof(tree, m), Err(sizes.clone()));
            assert_eq!(merkle::verify_consistency(m, size, &[], &root, &root), Err(sizes));
        }
    }
}

/// Python raises its errors from these parts: one that is lost leaves the caller without a clue.
#[test]
fn refusals_say_what_was_expected_and_found() {
    let parts = |error: &dyn Report| (error.code(), error.expected(), error.actual(), error.place());
    let text = |text: &str| Some(text.to_string());
    let unknown = Entry::dense("w", "F99", &[1], Digest::ZERO).expect_err("no such dtype");
    let (code, expected, actual, place) = parts(&unknown);
    assert_eq!((code, actual, place), ("unsupported-dtype", text("F99"), text("w")));
    assert!(expected.is_some_and(|tags| tags.starts_with("BOOL U8 I8 ")));
    let alias = Entry { name: "b".into(), content: Content::Alias { target: "a".into() } };
    let lonely = State::new(vec![alias]).expect_err("its target is missing");
    assert_eq!(parts(&lonely), ("invalid-input", None, None, text("b")));
    let garbage = Entry::decode(b"counterfoil.entry.v2").expect_err("another tag");
    assert_eq!(parts(&garbage), ("invalid-input", None, None, None));
    let (one, two) = (Digest::repeat_byte(1), Digest::repeat_byte(2));
    for (error, expected, actual, place) in [
        (ProofError::WrongLength { expected: 3, actual: 4 }, text("3"), text("4"), None),
        (
            ProofError::RootMismatch { expected: one, actual: two },
            Some(one.to_string()),
            Some(two.to_string()),
            None,
        ),
        (ProofError::IndexOutOfRange { index: 5, size: 5 }, None, None, text("leaf 5 of 5")),
        (ProofError::Sizes { m: 2, n: 1 }, None, None, text("sizes 2 and 1")),
    ] {
        assert_eq!(parts(&error), ("proof", expected, actual, place));
    }
    let large = ShardError::TooLarge { offset: 1, size: u64::MAX };
    assert_eq!(parts(&large), ("invalid-input", None, None, None));
}
