//! Encoding and decoding of the payloads in a ledger's journal.

use super::{Delegation, TreeHead};
use crate::commit::merkle::CompactRange;
use crate::commit::{Entry, Opening};
use crate::primitives::{Digest, Reader, Report, Truncated, sha256};
use crate::receipt::schema::{DELEGATION, TREE_HEAD};
use crate::receipt::{Blind, Body, Receipt, Signature};

/// Largest payload of one frame, bytes.
pub(super) const MAX_PAYLOAD: u64 = 64 << 20;
/// Most receipts of a log, as in the contract; sums over the logs of a run stay far below 2^64.
const MAX_RECEIPTS: u64 = 1 << 40;
/// Largest body of a receipt, bytes.
const MAX_BODY: usize = 2048;

/// One payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A receipt with its body.
    Receipt(Receipt),
    /// A tree head.
    Head(TreeHead),
    /// Names, dtypes and shapes of a state, shared by many openings.
    Layout(Vec<Entry>),
    /// What lies behind the digests of one receipt.
    Opening(OpeningFrame),
    /// One tensor behind a digest, and nothing of its siblings.
    Part(PartOpening),
    /// Another key's permission to sign.
    Delegation(Delegation),
    /// Receipts that are not shown. Bundles alone hold this frame.
    Withheld(CompactRange),
}

/// One tensor, or one chunk of it, behind the digest of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOpening {
    /// Digest of the receipt.
    pub receipt: Digest,
    /// Position of the field in its type, after the header.
    pub index: u8,
    /// What the digest was blinded with; zero for a public field.
    pub blind: Digest,
    /// The tensor and the hashes that lead to the digest.
    pub opening: Opening,
}

/// Opened fields of one receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpeningFrame {
    /// Digest of the receipt.
    pub receipt: Digest,
    /// Its opened fields.
    pub fields: Vec<FieldOpening>,
}

/// One opened field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldOpening {
    /// Position of the field in its type, after the header.
    pub index: u8,
    /// What the digest was blinded with.
    pub blind: Blind,
    /// Names the state's layout.
    pub layout: Digest,
    /// Roots or bytes.
    pub content: Openable,
}

/// How the dense entries of an opened state are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Openable {
    /// Their roots, 32 bytes each.
    Roots(Vec<u8>),
    /// Their canonical bytes, one after the other.
    Values(Vec<u8>),
}

/// Why a payload is no frame of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame {number} of the ledger is refused: {detail}")]
pub struct FrameError {
    /// Number of the frame in its journal.
    pub number: usize,
    /// What was expected and found.
    pub detail: String,
}

impl FrameError {
    pub(crate) fn at(self, number: usize) -> Self {
        FrameError { number, ..self }
    }
}

impl From<Truncated> for FrameError {
    fn from(error: Truncated) -> Self {
        refused(error.to_string())
    }
}

impl Report for FrameError {
    fn code(&self) -> &'static str {
        "journal-corrupt"
    }

    fn place(&self) -> Option<String> {
        Some(format!("frame {}", self.number))
    }
}

pub(super) fn refused(detail: impl Into<String>) -> FrameError {
    FrameError { number: 0, detail: detail.into() }
}

/// The payload of a layout's frame.
pub(crate) fn encode_layout(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![b'L'];
    for entry in entries {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        entry.encode_into(&mut bytes, false, Digest::ZERO);
        let length = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    bytes
}

/// The name of a layout: the hash of its frame.
pub(crate) fn layout_digest(payload: &[u8]) -> Digest {
    sha256(&[payload])
}

impl Frame {
    /// The layout of these entries and its name.
    pub fn layout(entries: &[Entry]) -> (Frame, Digest) {
        let frame = Frame::Layout(entries.iter().map(Entry::without_root).collect());
        let digest = layout_digest(&frame.encode());
        (frame, digest)
    }

    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Frame::Receipt(receipt) => {
                bytes.push(b'R');
                bytes.extend_from_slice(&receipt.kind.to_be_bytes());
                bytes.extend_from_slice(&receipt.leaf());
                bytes.extend_from_slice(&receipt.body);
            }
            Frame::Head(head) => {
                bytes.push(b'H');
                bytes.extend_from_slice(&head.signature.0);
                bytes.extend_from_slice(&head.body.encode());
            }
            Frame::Layout(entries) => bytes = encode_layout(entries),
            Frame::Opening(opening) => {
                bytes.push(b'O');
                bytes.extend_from_slice(opening.receipt.as_slice());
                for field in &opening.fields {
                    field.encode_into(&mut bytes);
                }
            }
            Frame::Part(part) => {
                bytes.push(b'P');
                bytes.extend_from_slice(part.receipt.as_slice());
                bytes.push(part.index);
                bytes.extend_from_slice(part.blind.as_slice());
                bytes.extend(serde_json::to_vec(&part.opening).expect("an opening is plain data"));
            }
            Frame::Delegation(delegation) => {
                bytes.push(b'D');
                bytes.extend_from_slice(&delegation.signature.0);
                bytes.extend_from_slice(&delegation.body.encode());
            }
            Frame::Withheld(range) => {
                bytes.push(b'W');
                bytes.extend_from_slice(&range.begin().to_be_bytes());
                bytes.extend_from_slice(&range.count().to_be_bytes());
                range.write(&mut bytes);
            }
        }
        bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`FrameError`] for anything that [`Frame::encode`] does not write.
    pub fn decode(payload: &[u8]) -> Result<Frame, FrameError> {
        let mut reader = Reader::new(payload);
        match reader.u8()? {
            b'R' => {
                let kind = reader.u16()?;
                let (digest, signature) = (reader.digest()?, Signature(reader.array()?));
                let body = reader.rest().to_vec();
                if body.len() > MAX_BODY {
                    return Err(refused(format!("a body of {} bytes, at most {MAX_BODY} fit", body.len())));
                }
                Ok(Frame::Receipt(Receipt { kind, digest, signature, body }))
            }
            b'H' => {
                let signature = Signature(reader.array()?);
                let body = Body::decode(&TREE_HEAD, reader.rest()).map_err(|e| refused(e.to_string()))?;
                Ok(Frame::Head(TreeHead { body, signature }))
            }
            b'D' => {
                let signature = Signature(reader.array()?);
                let body = Body::decode(&DELEGATION, reader.rest()).map_err(|e| refused(e.to_string()))?;
                Ok(Frame::Delegation(Delegation { body, signature }))
            }
            b'P' => {
                let (receipt, index, blind) = (reader.digest()?, reader.u8()?, reader.digest()?);
                let text = reader.rest();
                let opening: Opening = serde_json::from_slice(text).map_err(|error| {
                    refused(format!("no opening, line {} column {}", error.line(), error.column()))
                })?;
                let part = Frame::Part(PartOpening { receipt, index, blind, opening });
                match part.encode() == payload {
                    true => Ok(part),
                    false => Err(refused("its JSON is not in canonical form")),
                }
            }
            b'W' => {
                let (first, count) = (reader.u64()?, reader.u64()?);
                let last = first.checked_add(count).filter(|last| count > 0 && *last <= MAX_RECEIPTS);
                let last = last.ok_or_else(|| refused("a run of no receipts, or of too many"))?;
                let range = CompactRange::read(&mut reader, first, last)?;
                match reader.is_empty() {
                    true => Ok(Frame::Withheld(range)),
                    false => Err(refused("bytes follow the hashes of withheld receipts")),
                }
            }
            b'L' => {
                let mut entries = Vec::new();
                while !reader.is_empty() {
                    let length = reader.u32()? as usize;
                    let (entry, is_blinded, root) =
                        Entry::decode(reader.take(length)?).map_err(|error| refused(error.to_string()))?;
                    if is_blinded || root != Digest::ZERO {
                        return Err(refused("a layout holds a root"));
                    }
                    if entries
                        .last()
                        .is_some_and(|last: &Entry| last.name.as_bytes() >= entry.name.as_bytes())
                    {
                        return Err(refused("a layout is not sorted by name"));
                    }
                    entries.push(entry);
                }
                Ok(Frame::Layout(entries))
            }
            b'O' => {
                let (receipt, mut fields) = (reader.digest()?, Vec::new());
                while !reader.is_empty() {
                    let field = FieldOpening::decode(&mut reader)?;
                    if fields.iter().any(|known: &FieldOpening| known.index == field.index) {
                        return Err(refused(format!("field {} is opened twice", field.index)));
                    }
                    fields.push(field);
                }
                if fields.is_empty() {
                    return Err(refused("an opening of no field"));
                }
                Ok(Frame::Opening(OpeningFrame { receipt, fields }))
            }
            other => Err(refused(format!("type byte {other:#04x}, expected one of R H L O P D W"))),
        }
    }
}

impl FieldOpening {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        let (form, payload) = match &self.content {
            Openable::Roots(payload) => (0, payload),
            Openable::Values(payload) => (1, payload),
        };
        bytes.push(self.index);
        bytes.extend_from_slice(self.blind.blind.as_slice());
        bytes.extend_from_slice(self.blind.entry_key.as_slice());
        bytes.extend_from_slice(self.layout.as_slice());
        bytes.push(form);
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<FieldOpening, FrameError> {
        let index = reader.u8()?;
        let blind = Blind { blind: reader.digest()?, entry_key: reader.digest()? };
        let layout = reader.digest()?;
        let form = reader.u8()?;
        let length = reader.u32()? as usize;
        let payload = reader.take(length)?.to_vec();
        let content = match form {
            0 => Openable::Roots(payload),
            1 => Openable::Values(payload),
            other => return Err(refused(format!("an opening of form {other}, expected 0 or 1"))),
        };
        Ok(FieldOpening { index, blind, layout, content })
    }
}
