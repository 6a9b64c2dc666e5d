//! Keystore version 3: a private key under a password, as Ethereum wallets write it.
//!
//! A file comes from anywhere, so every number in it is checked before any memory or time is spent
//! on it, and what a message quotes of it is short and escaped.
//!
//! # Source
//! "Web3 Secret Storage Definition", version 3, ethereum.org.

use std::collections::BTreeMap;
use std::fmt;

use aes::Aes128;
use ctr::cipher::{KeyIvInit, StreamCipher};
use k256::elliptic_curve::subtle::ConstantTimeEq;
use k256::elliptic_curve::zeroize::Zeroizing;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::json;

use super::{KeyError, Password, random};
use crate::primitives::Address;
use crate::receipt::{LocalSigner, Signer};

/// Most bytes of a keystore file; wallets write less than one kilobyte.
pub(super) const MAX_FILE: usize = 64 << 10;
/// Most memory that scrypt may take: four times what wallets ask for.
const MAX_MEMORY: u64 = 1 << 30;
/// Most passes of scrypt over its memory.
const MAX_PASSES: u64 = 16;
/// Most rounds of PBKDF2: ten times what wallets ask for.
const MAX_ROUNDS: u64 = 10_000_000;

/// The cost of what is written here: 256 MiB and about a second, geth's standard.
const LOG_N: u8 = 18;
const R: u32 = 8;
const P: u32 = 1;

/// Why a keystore does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum KeystoreError {
    /// The bytes are no JSON object, or one in which a name stands twice.
    #[error("it is no keystore: {problem} at line {line}, column {column}")]
    Json { problem: &'static str, line: usize, column: usize },
    /// A field is missing or holds something else.
    #[error("it is a damaged keystore: {field} must be {expected}")]
    Field { field: &'static str, expected: &'static str },
    /// The file asks for something that is not read here.
    #[error("its {field} is {actual:?}; this version reads {expected}")]
    Unsupported { field: &'static str, expected: &'static str, actual: String },
    /// A number would cost more than a file may ask for.
    #[error("its {field} is {actual}; at most {expected} is accepted")]
    TooCostly { field: &'static str, expected: u64, actual: u64 },
    /// The system does not give the memory that scrypt needs.
    #[error("opening it needs {bytes} bytes of memory, which this system does not give")]
    Memory { bytes: u64 },
    /// The derived key does not fit the ciphertext.
    #[error("wrong password, or the file was changed after it was written")]
    WrongPassword,
    /// What was decrypted is zero or not below the group order.
    #[error("what it holds is no private key")]
    NoKey,
    /// The key has another address than the file says.
    #[error("it names the address {expected}, and its key has {actual}: the file was damaged or changed")]
    Address { expected: Address, actual: Address },
}

/// What a keystore says, within the limits that are accepted here.
pub(super) struct Keystore {
    /// The address it names; nothing vouches for it before the key was decrypted.
    pub(super) address: Option<Address>,
    derivation: Derivation,
    salt: Vec<u8>,
    nonce: [u8; 16],
    ciphertext: Vec<u8>,
    mac: [u8; 32],
}

enum Derivation {
    Scrypt { log_n: u8, r: u32, p: u32 },
    Pbkdf2 { rounds: u32 },
}

impl Keystore {
    /// Reads a keystore's text; takes no memory that the text asks for.
    pub(super) fn parse(text: &[u8]) -> Result<Keystore, KeystoreError> {
        if text.len() > MAX_FILE {
            return Err(KeystoreError::Field { field: "the file", expected: "64 KiB long at most" });
        }
        let file: Node = serde_json::from_slice(text).map_err(|error| {
            let problem = match error.classify() {
                serde_json::error::Category::Data => "a name stands twice",
                _ => "its JSON breaks off or is invalid",
            };
            KeystoreError::Json { problem, line: error.line(), column: error.column() }
        })?;
        let version = file.number("version")?;
        if version != 3 {
            let actual = version.to_string();
            return Err(KeystoreError::Unsupported { field: "version", expected: "3", actual });
        }
        file.only("crypto.cipher", "aes-128-ctr")?;
        let ciphertext = file.hexadecimal("crypto.ciphertext", "1 to 32 bytes in hexadecimal")?;
        if !(1..=32).contains(&ciphertext.len()) {
            let (field, expected) = ("crypto.ciphertext", "1 to 32 bytes in hexadecimal");
            return Err(KeystoreError::Field { field, expected });
        }
        let address = match file.find("address") {
            None => None,
            Some(_) => Some(Address::from(file.array("address", "20 bytes in hexadecimal")?)),
        };
        Ok(Keystore {
            address,
            derivation: Derivation::read(&file)?,
            salt: file.hexadecimal("crypto.kdfparams.salt", "bytes in hexadecimal")?,
            nonce: file.array("crypto.cipherparams.iv", "16 bytes in hexadecimal")?,
            ciphertext,
            mac: file.array("crypto.mac", "32 bytes in hexadecimal")?,
        })
    }

    /// Decrypts the key.
    pub(super) fn open(&self, password: &Password) -> Result<LocalSigner, KeystoreError> {
        let derived = self.derivation.derive(password, &self.salt)?;
        if !bool::from(mac(&derived, &self.ciphertext).ct_eq(&self.mac)) {
            return Err(KeystoreError::WrongPassword);
        }
        // Early wallets left out leading zeros of the key.
        let mut secret = Zeroizing::new([0; 32]);
        let place = &mut secret[32 - self.ciphertext.len()..];
        place.copy_from_slice(&self.ciphertext);
        apply_cipher(&derived, &self.nonce, place);
        let signer = LocalSigner::from_bytes(&secret).map_err(|_| KeystoreError::NoKey)?;
        match self.address {
            Some(expected) if expected != signer.address() => {
                Err(KeystoreError::Address { expected, actual: signer.address() })
            }
            _ => Ok(signer),
        }
    }
}

/// The text of a new keystore that holds this key.
pub(super) fn encrypt(signer: &LocalSigner, password: &Password) -> Result<String, KeyError> {
    let random: [[u8; 32]; 2] = [random()?, random()?];
    let (salt, (nonce, id)) = (random[0], random[1].split_at(16));
    let derived = Derivation::Scrypt { log_n: LOG_N, r: R, p: P }
        .derive(password, &salt)
        .map_err(|reason| KeyError::Keystore { path: "the new keystore".into(), reason })?;
    let mut bytes = signer.to_bytes();
    apply_cipher(&derived, nonce.try_into().expect("16 bytes"), &mut bytes[..]);
    let hex = |bytes: &[u8]| alloy_primitives::hex::encode(bytes);
    let keystore = json!({
        "version": 3,
        "id": uuid(id.try_into().expect("16 bytes")),
        "address": hex(signer.address().as_slice()),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": hex(nonce) },
            "ciphertext": hex(&bytes[..]),
            "kdf": "scrypt",
            "kdfparams": { "dklen": 32, "n": 1u64 << LOG_N, "p": P, "r": R, "salt": hex(&salt) },
            "mac": hex(&mac(&derived, &bytes[..])),
        },
    });
    Ok(keystore.to_string() + "\n")
}

impl Derivation {
    fn read(file: &Node) -> Result<Derivation, KeystoreError> {
        let name = file.text("crypto.kdf", "scrypt or pbkdf2")?;
        match name {
            "scrypt" | "pbkdf2" => {}
            _ => return Err(unsupported("crypto.kdf", "scrypt and pbkdf2", name)),
        }
        let length = file.number("crypto.kdfparams.dklen")?;
        if length != 32 {
            return Err(unsupported("crypto.kdfparams.dklen", "32", &length.to_string()));
        }
        if name == "pbkdf2" {
            file.only("crypto.kdfparams.prf", "hmac-sha256")?;
            return Ok(Derivation::Pbkdf2 { rounds: file.at_most("crypto.kdfparams.c", MAX_ROUNDS)? });
        }
        let n = file.number("crypto.kdfparams.n")?;
        if n < 2 || !n.is_power_of_two() {
            let (field, expected) = ("crypto.kdfparams.n", "a power of two from 2 on");
            return Err(KeystoreError::Field { field, expected });
        }
        let p = file.at_most("crypto.kdfparams.p", MAX_PASSES)?;
        let r = file.at_most("crypto.kdfparams.r", MAX_MEMORY / 128)?;
        // Beside its n blocks, scrypt holds one for each pass.
        let memory = n.saturating_add(p.into()).saturating_mul(128 * u64::from(r));
        if memory > MAX_MEMORY {
            let (field, expected) = ("memory, 128 * n * r bytes,", MAX_MEMORY);
            return Err(KeystoreError::TooCostly { field, expected, actual: memory });
        }
        Ok(Derivation::Scrypt { log_n: n.trailing_zeros() as u8, r, p })
    }

    fn derive(&self, password: &Password, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let mut derived = Zeroizing::new([0; 32]);
        match *self {
            Derivation::Pbkdf2 { rounds } => {
                pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password.as_bytes(), salt, rounds, &mut derived[..]);
            }
            Derivation::Scrypt { log_n, r, p } => {
                let bytes = (128 * u64::from(r)) << log_n;
                // scrypt ends the process when it gets no memory, so it is asked for here first.
                if usize::try_from(bytes).map_or(true, |n| Vec::<u8>::new().try_reserve_exact(n).is_err()) {
                    return Err(KeystoreError::Memory { bytes });
                }
                let parameters = scrypt::Params::new(log_n, r, p).expect("checked when it was read");
                scrypt::scrypt(password.as_bytes(), salt, &parameters, &mut derived[..])
                    .expect("32 bytes can be derived");
            }
        }
        Ok(derived)
    }
}

/// AES-128 in counter mode: encrypts and decrypts.
fn apply_cipher(derived: &[u8; 32], nonce: &[u8; 16], bytes: &mut [u8]) {
    let key: &[u8; 16] = derived[..16].try_into().expect("half of 32 bytes");
    ctr::Ctr128BE::<Aes128>::new(key.into(), nonce.into()).apply_keystream(bytes);
}

fn mac(derived: &[u8; 32], ciphertext: &[u8]) -> [u8; 32] {
    let mut hasher = alloy_primitives::Keccak256::new();
    hasher.update(&derived[16..]);
    hasher.update(ciphertext);
    hasher.finalize().0
}

/// A random identifier.
///
/// # Source
/// RFC 9562, section 5.4.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = 0x40 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let digits = alloy_primitives::hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn unsupported(field: &'static str, expected: &'static str, actual: &str) -> KeystoreError {
    // A stranger's file decides what stands here, and a key that slipped in must not be shown.
    let actual = match actual.len() {
        0..=32 => actual.to_owned(),
        length => format!("a text of {length} bytes"),
    };
    KeystoreError::Unsupported { field, expected, actual }
}

/// JSON in which no name stands twice; names in lower case, since some wallets write `Crypto`, and
/// all of them take one for the other.
enum Node {
    Text(String),
    Number(u64),
    Object(BTreeMap<String, Node>),
    Other,
}

impl Node {
    /// The node at a dotted path.
    fn find(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, name| match node {
            Node::Object(members) => members.get(name),
            _ => None,
        })
    }

    fn text(&self, field: &'static str, expected: &'static str) -> Result<&str, KeystoreError> {
        match self.find(field) {
            Some(Node::Text(text)) => Ok(text),
            _ => Err(KeystoreError::Field { field, expected }),
        }
    }

    fn only(&self, field: &'static str, expected: &'static str) -> Result<(), KeystoreError> {
        match self.text(field, expected)? {
            text if text == expected => Ok(()),
            other => Err(unsupported(field, expected, other)),
        }
    }

    fn number(&self, field: &'static str) -> Result<u64, KeystoreError> {
        match self.find(field) {
            Some(Node::Number(number)) => Ok(*number),
            _ => Err(KeystoreError::Field { field, expected: "a whole number" }),
        }
    }

    /// A number from 1 on.
    fn at_most(&self, field: &'static str, expected: u64) -> Result<u32, KeystoreError> {
        match self.number(field)? {
            0 => Err(KeystoreError::Field { field, expected: "1 or more" }),
            actual if actual > expected => Err(KeystoreError::TooCostly { field, expected, actual }),
            number => Ok(number as u32),
        }
    }

    fn hexadecimal(&self, field: &'static str, expected: &'static str) -> Result<Vec<u8>, KeystoreError> {
        let text = self.text(field, expected)?;
        alloy_primitives::hex::decode(text).map_err(|_| KeystoreError::Field { field, expected })
    }

    fn array<const N: usize>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<[u8; N], KeystoreError> {
        let bytes = self.hexadecimal(field, expected)?;
        bytes.try_into().map_err(|_| KeystoreError::Field { field, expected })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, node)) = entries.next_entry::<String, Node>()? {
            if members.insert(name.to_ascii_lowercase(), node).is_some() {
                return Err(serde::de::Error::custom("twice"));
            }
        }
        Ok(Node::Object(members))
    }
}
