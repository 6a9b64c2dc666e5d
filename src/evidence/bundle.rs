//! One file with everything that a verifier needs: `docs/format.md`, section 12.
//!
//! A bundle has no byte that nothing binds: its length follows from the manifest, the manifest holds
//! the hash of every part, and whoever made the bundle signs the manifest.

use std::sync::Arc;

use sha2::Digest as _;

use super::frame::MAX_PAYLOAD;
use super::{FrameError, Log, Source};
use crate::primitives::{Address, Digest, Reader, Report, Truncated, sha256};
use crate::receipt::schema::{BUNDLE, SCHEMA_VERSION};
use crate::receipt::{Body, SignError, Signature, SignatureError, Signer, recover};

const TAG: &[u8] = b"counterfoil.bundle.v1";
/// Largest manifest, bytes.
const MAX_MANIFEST: usize = 64 << 20;
/// Bytes that are read and hashed at a time.
const PIECE: usize = 1 << 20;

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// `spec.json`; it has no name.
    Specification = 1,
    /// A file of the recipe, named by its path.
    Recipe = 2,
    /// The frames of a log, named `<worker>/<lane>`.
    Log = 3,
    /// A tensor's canonical bytes, named by its root in hex.
    Object = 4,
    /// An anchor record, named by its file.
    Anchor = 5,
}

const PART_KINDS: [PartKind; 5] =
    [PartKind::Specification, PartKind::Recipe, PartKind::Log, PartKind::Object, PartKind::Anchor];

/// One part, by what the manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it holds.
    pub kind: PartKind,
    /// Its name among the parts of its kind.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// Why a file is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum BundleError {
    /// It does not begin like one.
    #[error("this is no bundle of version 1")]
    NoBundle,
    /// The container is damaged, or holds what no container may.
    #[error("the bundle is damaged at {place}: expected {expected}, found {actual}; ask for it again")]
    Damaged { place: String, expected: String, actual: String },
    /// It cannot be read.
    #[error("the bundle cannot be read: {detail}")]
    Unreadable { detail: String },
}

impl From<std::io::Error> for BundleError {
    fn from(error: std::io::Error) -> Self {
        BundleError::Unreadable { detail: error.to_string() }
    }
}

impl Report for BundleError {
    fn code(&self) -> &'static str {
        match self {
            BundleError::NoBundle => "invalid-input",
            BundleError::Damaged { .. } => "journal-corrupt",
            BundleError::Unreadable { .. } => "storage",
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            BundleError::Damaged { expected, .. } => Some(expected.clone()),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            BundleError::Damaged { actual, .. } => Some(actual.clone()),
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            BundleError::Damaged { place, .. } => Some(place.clone()),
            _ => None,
        }
    }
}

fn damaged(place: &str, expected: impl ToString, actual: impl ToString) -> BundleError {
    let (expected, actual) = (expected.to_string(), actual.to_string());
    BundleError::Damaged { place: place.into(), expected, actual }
}

impl From<Truncated> for BundleError {
    fn from(error: Truncated) -> Self {
        damaged("the manifest", format!("{} bytes at {}", error.wanted, error.offset), error.left)
    }
}

/// The list of a bundle's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The run.
    pub run: Digest,
    /// Whoever makes the bundle and signs this list. A signature alone names whatever key fits it.
    pub maker: Address,
    /// The parts in the order in which they lie in the file.
    pub parts: Vec<Part>,
}

impl Manifest {
    /// The bytes of the manifest.
    pub fn encode(&self) -> Vec<u8> {
        let count = (self.parts.len() as u32).to_be_bytes();
        let mut bytes = [self.run.as_slice(), self.maker.as_slice(), &count].concat();
        for part in &self.parts {
            bytes.push(part.kind as u8);
            bytes.extend((part.name.len() as u16).to_be_bytes());
            bytes.extend(part.name.as_bytes());
            bytes.extend(part.size.to_be_bytes());
            bytes.extend(part.digest);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, BundleError> {
        let mut reader = Reader::new(bytes);
        let (run, maker, count) = (reader.digest()?, Address::from(reader.array()?), reader.u32()?);
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..count {
            let number = reader.u8()?;
            let kind = PART_KINDS.into_iter().find(|kind| *kind as u8 == number);
            let kind = kind.ok_or_else(|| damaged("the manifest", "a part of kind 1 to 5", number))?;
            let length = reader.u16()?.into();
            let name = std::str::from_utf8(reader.take(length)?)
                .map_err(|error| damaged("the manifest", "names in UTF-8", error))?;
            let part = Part { kind, name: name.into(), size: reader.u64()?, digest: reader.digest()? };
            if !is_canonical(&part) {
                let place = format!("the manifest, part {} of kind {number}", parts.len());
                return Err(damaged(&place, "a name of its kind", format!("{:?}", part.name)));
            }
            if let Some(last) = parts.last().filter(|last| (last.kind, &last.name) >= (kind, &part.name)) {
                let expected = format!("a part behind {:?}", last.name);
                return Err(damaged("the manifest", expected, format!("{:?}", part.name)));
            }
            parts.push(part);
        }
        match reader.rest() {
            [] if parts.first().is_some_and(|part| part.kind == PartKind::Specification) => {
                Ok(Manifest { run, maker, parts })
            }
            [] => Err(damaged("the manifest", "spec.json first", "another part")),
            rest => Err(damaged("the manifest", "its end", format!("{} more bytes", rest.len()))),
        }
    }

    fn body(&self, encoded: &[u8]) -> Body {
        let values = [
            ("schema", u64::from(SCHEMA_VERSION).into()),
            ("run", self.run.into()),
            ("manifest", sha256(&[encoded]).into()),
        ];
        Body::new(&BUNDLE, &values).expect("the fields of BundleV1")
    }

    /// The beginning of a bundle: everything before the parts. `signer` is the maker.
    ///
    /// # Errors
    /// What the signer reports.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
        let encoded = self.encode();
        let signature = signer.sign_message(&self.body(&encoded))?;
        Ok([TAG, &(encoded.len() as u32).to_be_bytes(), &encoded, &signature.0].concat())
    }
}

/// One name for one thing: a second spelling would be a second part, and a path could lead out of
/// the folder into which a recipe is laid to be run.
fn is_canonical(part: &Part) -> bool {
    match part.kind {
        PartKind::Specification => part.name.is_empty(),
        PartKind::Recipe => {
            let is_plain = |piece: &str| {
                !piece.is_empty()
                    && piece != "."
                    && piece != ".."
                    && !piece.contains(['\\', ':'])
                    && !piece.contains(char::is_control)
            };
            part.name.len() <= 1024 && part.name.split('/').all(is_plain)
        }
        PartKind::Log => log_of(&part.name).is_some(),
        PartKind::Object => object_root(&part.name).is_some(),
        PartKind::Anchor => {
            let number = part.name.strip_suffix(".json").unwrap_or_default();
            number.parse::<u64>().is_ok_and(|parsed| parsed.to_string() == number)
        }
    }
}

/// The name of a log's part.
pub fn log_name(worker: Address, lane: u32) -> String {
    format!("{worker:#x}/{lane}")
}

fn log_of(name: &str) -> Option<(Address, u32)> {
    let (worker, lane) = name.split_once('/')?;
    let (worker, lane) = (worker.parse().ok()?, lane.parse().ok()?);
    (log_name(worker, lane) == name).then_some((worker, lane))
}

/// The name of an object's part.
pub fn object_name(root: &Digest) -> String {
    alloy_primitives::hex::encode(root)
}

fn object_root(name: &str) -> Option<Digest> {
    let root: Digest = name.parse().ok()?;
    (object_name(&root) == name).then_some(root)
}

/// A bundle whose container is whole; what its parts say is not believed yet.
pub struct Bundle {
    source: Arc<dyn Source>,
    manifest: Manifest,
    /// Where each part begins.
    offsets: Vec<u64>,
    /// Who signed the manifest.
    signer: Result<Address, SignatureError>,
}

impl Bundle {
    /// Reads the manifest and compares every part with its hash.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(source: Arc<dyn Source>, size: u64) -> Result<Bundle, BundleError> {
        let mut head = [0; TAG.len() + 4];
        if size < head.len() as u64 {
            return Err(BundleError::NoBundle);
        }
        source.read_at(0, &mut head)?;
        let (tag, length) = head.split_at(TAG.len());
        if tag != TAG {
            return Err(BundleError::NoBundle);
        }
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let begin = (head.len() + length + 65) as u64;
        if length > MAX_MANIFEST || begin > size {
            return Err(damaged("the manifest's length", format!("at most {size} bytes"), length));
        }
        let mut encoded = vec![0; length];
        source.read_at(head.len() as u64, &mut encoded)?;
        let mut signature = Signature([0; 65]);
        source.read_at((head.len() + length) as u64, &mut signature.0)?;
        let manifest = Manifest::decode(&encoded)?;
        let mut end = begin;
        let mut offsets = Vec::with_capacity(manifest.parts.len());
        for part in &manifest.parts {
            offsets.push(end);
            end = end.saturating_add(part.size);
        }
        if end != size {
            return Err(damaged("its end", format!("{end} bytes"), format!("{size} bytes")));
        }
        let signer = recover(manifest.body(&encoded).digest(), &signature);
        let bundle = Bundle { source, manifest, offsets, signer };
        for (part, offset) in bundle.manifest.parts.iter().zip(&bundle.offsets) {
            let actual = bundle.digest_of(*offset, part.size)?;
            if actual != part.digest {
                return Err(damaged(&format!("the part {:?}", part.name), part.digest, actual));
            }
        }
        Ok(bundle)
    }

    fn digest_of(&self, mut offset: u64, size: u64) -> Result<Digest, BundleError> {
        let (mut hasher, mut piece) = (sha2::Sha256::new(), vec![0; PIECE.min(size as usize)]);
        let end = offset + size;
        while offset < end {
            let length = piece.len().min((end - offset) as usize);
            self.source.read_at(offset, &mut piece[..length])?;
            hasher.update(&piece[..length]);
            offset += length as u64;
        }
        Ok(Digest::from(<[u8; 32]>::from(hasher.finalize())))
    }

    /// The run that the manifest names.
    pub fn run(&self) -> Digest {
        self.manifest.run
    }

    /// Who says to have made the bundle.
    pub fn maker(&self) -> Address {
        self.manifest.maker
    }

    /// Who signed the manifest.
    ///
    /// # Errors
    /// [`SignatureError`] when the signature names nobody.
    pub fn signer(&self) -> Result<Address, SignatureError> {
        self.signer
    }

    /// The parts of a kind, with their bytes' places.
    fn parts(&self, kind: PartKind) -> impl Iterator<Item = (&Part, u64)> {
        let all = self.manifest.parts.iter().zip(self.offsets.iter().copied());
        all.filter(move |(part, _)| part.kind == kind)
    }

    /// The bytes of a part.
    fn bytes(&self, part: &Part, offset: u64) -> Result<Vec<u8>, BundleError> {
        let mut bytes = vec![0; part.size as usize];
        self.source.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The parts of a kind that are read as a whole, by name.
    ///
    /// # Errors
    /// [`BundleError`] when together they are larger than `limit` bytes or cannot be read.
    pub fn files(&self, kind: PartKind, limit: u64) -> Result<Vec<(String, Vec<u8>)>, BundleError> {
        let total = self.parts(kind).fold(0, |sum: u64, (part, _)| sum.saturating_add(part.size));
        if total > limit {
            return Err(damaged(&format!("the parts {kind:?}"), format!("at most {limit} bytes"), total));
        }
        self.parts(kind).map(|(part, offset)| Ok((part.name.clone(), self.bytes(part, offset)?))).collect()
    }

    /// The stored bytes of the tensor with this root, when they are here and of this size.
    ///
    /// # Errors
    /// [`BundleError::Unreadable`].
    pub fn object(&self, root: &Digest, size: u64) -> Result<Option<Vec<u8>>, BundleError> {
        let Some(index) = self.object_index(root) else { return Ok(None) };
        let part = &self.manifest.parts[index];
        (part.size == size).then(|| self.bytes(part, self.offsets[index])).transpose()
    }

    /// Whether something lies here under this root.
    pub fn has_object(&self, root: &Digest) -> bool {
        self.object_index(root).is_some()
    }

    fn object_index(&self, root: &Digest) -> Option<usize> {
        let wanted = (PartKind::Object, object_name(root));
        let of = |part: &Part| (part.kind, part.name.clone());
        self.manifest.parts.binary_search_by_key(&wanted, of).ok()
    }

    /// The roots of the tensors whose bytes are here.
    pub fn objects(&self) -> impl Iterator<Item = Digest> {
        self.parts(PartKind::Object).filter_map(|(part, _)| object_root(&part.name))
    }

    /// Reads every log; one that holds what no log may is a name and an error.
    pub fn logs(&self) -> impl Iterator<Item = Result<Log, (String, FrameError)>> {
        self.parts(PartKind::Log).map(|(part, offset)| {
            let (worker, lane) = log_of(&part.name).expect("names are canonical");
            let mut log = Log::new(worker, lane, Arc::clone(&self.source));
            let read = self.read_log(&mut log, offset, part.size);
            read.map_err(|error| (part.name.clone(), error)).map(|()| log)
        })
    }

    fn read_log(&self, log: &mut Log, mut offset: u64, size: u64) -> Result<(), FrameError> {
        let end = offset + size;
        for number in 0.. {
            let refused = |detail: String| FrameError { number, detail };
            let unreadable = |error: std::io::Error| refused(error.to_string());
            let left = end - offset;
            if left == 0 {
                break;
            }
            let mut length = [0; 4];
            if left < 4 {
                return Err(refused(format!("a frame of {left} bytes")));
            }
            self.source.read_at(offset, &mut length).map_err(unreadable)?;
            let length = u32::from_be_bytes(length);
            if u64::from(length) > (left - 4).min(MAX_PAYLOAD) {
                return Err(refused(format!("a payload of {length} bytes, {} are left", left - 4)));
            }
            let mut payload = vec![0; length as usize];
            self.source.read_at(offset + 4, &mut payload).map_err(unreadable)?;
            log.take(offset + 4, &payload).map_err(|error| error.at(number))?;
            offset += 4 + u64::from(length);
        }
        match log.unclaimed() {
            0 => Ok(()),
            count => Err(FrameError { number: 0, detail: format!("{count} frames that no receipt needs") }),
        }
    }
}
