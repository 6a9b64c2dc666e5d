//! Parsers of one piece of outside bytes: they answer with a value or an error, and what they accept
//! they would write again byte for byte.

use std::path::PathBuf;

use counterfoil::commit::{ChunkOpening, Commitment, Entry, Opening, Shard, merge_shards};
use counterfoil::evidence::{AnchorRecord, Frame, Log};
use counterfoil::journal::{self, Journal};
use counterfoil::keys::{KeyError, KeyFolder};
use counterfoil::primitives::{Address, Digest, keccak256};
use counterfoil::receipt::schema::{BUNDLE, DELEGATION, KINDS, Kind, TREE_HEAD, WordType};
use counterfoil::receipt::{
    Body, LocalSigner, Signature, SignatureError, Signer, Value, from_typed_data, recover, typed_data,
};
use counterfoil::verify::Specification;
use libfuzzer_sys::arbitrary::Unstructured;
use serde_json::Value as Json;

use crate::tampered::high_s_twin;
use crate::{KEYS, sample};

pub fn frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(frame.encode(), bytes);
    }
}

fn journal_file() -> PathBuf {
    std::env::temp_dir().join(format!("counterfoil-fuzz-{}.journal", std::process::id()))
}

pub fn journal(bytes: &[u8]) {
    let path = journal_file();
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    let found = journal::read(&path, "ledger");
    std::fs::remove_file(&path).expect("it was written");
    let Ok(found) = found else { return };
    let kept: usize = found.frames.iter().map(Vec::len).sum();
    assert!(kept + found.dropped_bytes as usize <= bytes.len(), "more was read than is there");
    let _ = Log::from_frames(Address::ZERO, 0, &found.frames);
}

pub fn journal_seeds() -> Vec<Vec<u8>> {
    let path = journal_file();
    let written = |frames: &[Vec<u8>]| {
        let _ = std::fs::remove_file(&path);
        let journal = Journal::create(&path, "ledger").expect("a new file");
        frames.iter().for_each(|frame| journal.append(frame).expect("room"));
        journal.flush().expect("a disk");
        std::fs::read(&path).expect("it was written")
    };
    let seeds = vec![written(&[]), written(&[b"x".to_vec(), b"yz".to_vec()]), written(&sample::RUN.frames)];
    std::fs::remove_file(&path).expect("it was written");
    seeds
}

pub fn entry(bytes: &[u8]) {
    let Ok((entry, is_blinded, root)) = Entry::decode(bytes) else { return };
    if !is_blinded {
        assert_eq!((entry.encode(None), entry.root()), (bytes.to_vec(), root));
    }
}

pub fn entry_seeds() -> Vec<Vec<u8>> {
    let key = Digest::repeat_byte(5);
    let state = sample::state();
    state.entries().iter().flat_map(|entry| [entry.encode(None), entry.encode(Some(&key))]).collect()
}

pub fn opening(bytes: &[u8]) {
    let Ok(opening) = serde_json::from_slice::<Opening>(bytes) else { return };
    let written = serde_json::to_vec(&opening).expect("plain data");
    assert_eq!(serde_json::from_slice::<Opening>(&written).expect("what was written"), opening);
    // Against its own digest, so that the checks behind the first one are reached.
    let _ = opening.verify(&opening.commitment.digest(&Digest::ZERO), &Digest::ZERO);
}

pub fn opening_seeds() -> Vec<Vec<u8>> {
    let (state, data) = (sample::state(), sample::tensor());
    let chunk = ChunkOpening::new(&data, 2).expect("three chunks");
    let blinded = state.prove("bias", Some(&Digest::repeat_byte(5))).expect("an entry");
    let mut whole = state.prove("weight", None).expect("an entry");
    whole.chunk = Some(chunk.clone());
    let bytes = Opening { commitment: Commitment::of_bytes(&data), entry: None, chunk: Some(chunk) };
    [blinded, whole, bytes].iter().map(|opening| serde_json::to_vec(opening).expect("plain data")).collect()
}

/// Two encoded shards, the first one's length before them.
pub fn shard(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let (one, two) = rest.split_at((u16::from_be_bytes(*length) as usize).min(rest.len()));
    let mut shards = Vec::new();
    for bytes in [one, two] {
        if let Ok(shard) = Shard::decode(bytes) {
            assert_eq!(shard.encode(), bytes);
            shards.push(shard);
        }
    }
    let _ = merge_shards(&shards);
}

pub fn shard_seeds() -> Vec<Vec<u8>> {
    let data = sample::tensor();
    let pair = |at: usize| {
        let shard =
            |bytes: &[u8], offset| Shard::new(bytes, offset, &mut |_| true).ok().flatten().expect("a shard");
        let (one, two) = (shard(&data[..at], 0), shard(&data[at..], at as u64));
        assert_eq!(merge_shards(&[two.clone(), one.clone()]), Ok(Commitment::of_bytes(&data)));
        let one = one.encode();
        [&(one.len() as u16).to_be_bytes()[..], &one, &two.encode()].concat()
    };
    [0, 1, 1024, 1500, 2999].map(pair).to_vec()
}

/// Where the header of a block holds the root of its receipts, bytes.
const RECEIPTS_ROOT: usize = 157;

pub fn anchor(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<AnchorRecord>(bytes) else { return };
    let written = serde_json::to_vec(&record).expect("plain data");
    assert_eq!(serde_json::from_slice::<AnchorRecord>(&written).expect("what was written"), record);
    if let Some(mut proof) = record.proof.clone() {
        // Whoever makes up a block chooses the hashes that lead to its header, nodes and receipts.
        if let Some(node) = proof.nodes.first().filter(|_| proof.header.len() > RECEIPTS_ROOT + 32) {
            let mut header = proof.header.to_vec();
            header[RECEIPTS_ROOT..RECEIPTS_ROOT + 32].copy_from_slice(keccak256(node).as_slice());
            proof.header = header.into();
        }
        let _ = proof.check(&AnchorRecord { block_hash: keccak256(&proof.header), ..record.clone() });
    }
}

pub fn anchor_seeds() -> Vec<Vec<u8>> {
    let proven = include_bytes!("../../tests/vectors/anchored.json").to_vec();
    vec![serde_json::to_vec(&crate::chains::anchored().record).expect("plain data"), proven]
}

pub fn specification(bytes: &[u8]) {
    let Ok(specification) = Specification::parse(bytes) else { return };
    specification.floor().digest();
    for kind in KINDS.iter().filter(|kind| !kind.fields.is_empty()) {
        let public = kind.fields.iter().filter(|field| specification.is_public(kind, field.name));
        assert!(public.count() <= specification.public.len());
    }
}

pub fn specification_seeds() -> Vec<Vec<u8>> {
    let more =
        br#"{"name":"run","policy":{"batch":2,"checkpoint":50},"public":["genesis.dataset"],"n":[1.5]}"#;
    vec![b"{}".to_vec(), more.to_vec(), sample::RUN.specification.clone()]
}

fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| !kind.fields.is_empty()).chain([&TREE_HEAD, &DELEGATION, &BUNDLE])
}

/// The first byte chooses the kind.
pub fn body(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Some(kind) = kinds().nth(usize::from(*first)) else { return };
    let Ok(body) = Body::decode(kind, rest) else { return };
    assert_eq!(body.encode(), rest);
    // A notice follows from the kind.
    let given = body.fields().filter(|(field, _)| !matches!(field.word, WordType::Notice(_)));
    let values: Vec<(&str, Value)> = given.map(|(field, value)| (field.name, value)).collect();
    assert_eq!(Body::new(kind, &values), Ok(body.clone()));
    typed_data(&body);
    body.digest();
}

pub fn body_seeds() -> Vec<Vec<u8>> {
    let filled = |(number, kind): (usize, &'static Kind)| {
        let mut bytes = vec![number as u8];
        bytes.extend(Body::new(kind, &[("schema", 1.into())]).expect("a body").encode());
        bytes
    };
    kinds().enumerate().map(filled).collect()
}

/// Typed data as a signer elsewhere shows it.
pub fn statement(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice(bytes) else { return };
    let Ok(body) = from_typed_data(&document) else { return };
    let written: Json = serde_json::from_str(&typed_data(&body)).expect("typed data is JSON");
    assert_eq!(written, document);
    let decoded = Body::decode(body.kind(), &body.encode()).expect("what was written");
    assert_eq!((decoded.digest(), &decoded), (body.digest(), &body));
}

pub fn statement_seeds() -> Vec<Vec<u8>> {
    let written = |kind| {
        let body = Body::new(kind, &[("schema", 1.into())]).expect("a body");
        let document = typed_data(&body);
        let parsed = serde_json::from_str(&document).expect("typed data is JSON");
        assert_eq!(from_typed_data(&parsed), Ok(body.clone()));
        document.into_bytes()
    };
    kinds().map(written).collect()
}

/// A keystore beside a plain device key: it is read, and no key is derived from it.
pub fn keystore(bytes: &[u8]) {
    assert_eq!(std::env::var_os("COUNTERFOIL_HOME"), Some(KEYS.into()), "the device's own keys stay alone");
    let folder = KeyFolder::of_user().expect("a folder");
    let (plain, path) = (folder.path().join("device.key"), folder.path().join("device.json"));
    if !plain.exists() {
        let _ = std::fs::remove_file(&path);
        folder.device_key().expect("a new key");
    }
    let named = |text: &[u8]| {
        std::fs::write(&path, text).expect("the folder is writable");
        match folder.device_key() {
            Ok(signer) => Ok(signer.address().to_string()),
            Err(KeyError::TwoDeviceKeys { keystore, .. }) => Ok(keystore),
            Err(KeyError::Keystore { reason, .. }) => Err(Some(reason)),
            Err(KeyError::Invalid { .. }) => Err(None),
            Err(other) => panic!("{other}"),
        }
    };
    let found = named(bytes);
    if let (Ok(_), Ok(value)) = (&found, serde_json::from_slice::<serde_json::Value>(bytes)) {
        assert_eq!(named(value.to_string().as_bytes()), found, "another order and other spaces say the same");
    }
}

pub fn keystore_seeds() -> Vec<Vec<u8>> {
    let keystore = |kdf: &str, parameters: &str| {
        let (word, nonce) = ("5a".repeat(32), "a5".repeat(16));
        format!(
            r#"{{"address":"{}","crypto":{{"cipher":"aes-128-ctr","cipherparams":{{"iv":"{nonce}"}},"ciphertext":"{word}","kdf":"{kdf}","kdfparams":{{"dklen":32,{parameters},"salt":"{word}"}},"mac":"{word}"}},"version":3}}"#,
            "5a".repeat(20)
        )
        .into_bytes()
    };
    vec![keystore("scrypt", r#""n":2,"r":8,"p":1"#), keystore("pbkdf2", r#""c":1,"prf":"hmac-sha256""#)]
}

/// A digest and a signature, then a key that signs the digest.
pub fn signature(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let (Ok(digest), Ok(signature), Ok(key)) = (input.arbitrary(), input.arbitrary(), input.arbitrary())
    else {
        return;
    };
    let (digest, key): (Digest, [u8; 32]) = (Digest::new(digest), key);
    let only_encoding = |signature: &Signature, signer: Address| {
        let twin = Signature(high_s_twin(&signature.0).expect("its s is below the order"));
        assert_eq!(recover(digest, &twin), Err(SignatureError::HighS));
        let mut other = *signature;
        other.0[64] ^= 27 ^ 28;
        assert_ne!(recover(digest, &other), Ok(signer));
        other.0[64] = signature.0[64] - 27;
        assert!(recover(digest, &other).is_err());
    };
    let signature = Signature(signature);
    if let Ok(signer) = recover(digest, &signature) {
        only_encoding(&signature, signer);
    }
    if let Ok(signer) = LocalSigner::from_bytes(&key) {
        let signature = signer.sign(digest).expect("a local key signs");
        assert_eq!(recover(digest, &signature), Ok(signer.address()));
        only_encoding(&signature, signer.address());
    }
}

pub fn signature_seeds() -> Vec<Vec<u8>> {
    let receipt = sample::RUN.log.read(0).expect("a receipt").receipt;
    vec![[receipt.digest.as_slice(), &receipt.signature.0, &[7; 32]].concat()]
}
