//! The bytes of a journal, and telling a torn tail from damage.
//!
//! The frame's head has a checksum of its own, so that looking for a whole frame behind a damaged
//! place costs eight bytes of checksum a position and not the length that those bytes claim.

use std::path::Path;

use super::{JournalError, MAX_PAYLOAD, Recovered};

const FRAME_HEADER: usize = 12;
const SEARCH_BYTES: usize = 1 << 30;
const MAGIC: &[u8] = b"counterfoil.journal.v1";

pub(super) fn header(purpose: &str) -> Vec<u8> {
    [MAGIC, purpose.as_bytes()].concat()
}

pub(super) fn encode_frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are limited to MAX_PAYLOAD");
    let mut frame = Vec::with_capacity(FRAME_HEADER + payload.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&frame).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What an undamaged frame's head at `offset` says: the payload's bytes, as far as they are there,
/// and its checksum.
fn head_at(bytes: &[u8], offset: usize) -> Option<(&[u8], u32)> {
    let (head, rest) = bytes.get(offset..)?.split_at_checked(FRAME_HEADER)?;
    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let length = word(0) as usize;
    if crc32c::crc32c(&head[..8]) != word(8) || length == 0 || length > MAX_PAYLOAD {
        return None;
    }
    Some((rest.get(..length)?, word(4)))
}

/// The payload of the whole, undamaged frame at `offset`, if there is one.
fn frame_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let (payload, checksum) = head_at(bytes, offset)?;
    (crc32c::crc32c(payload) == checksum).then_some(payload)
}

/// The offset of a whole frame behind the damage at `offset`, if one can be found.
///
/// Bytes that were forged to look like the heads of many long frames would take quadratic time, so
/// the search gives up after [`SEARCH_BYTES`] and reports the place it had reached.
fn later_frame(bytes: &[u8], offset: usize) -> Option<usize> {
    let mut searched = 0;
    (offset + 1..bytes.len()).find(|&later| {
        let Some((payload, checksum)) = head_at(bytes, later) else { return false };
        searched += payload.len();
        searched > SEARCH_BYTES || crc32c::crc32c(payload) == checksum
    })
}

/// Splits a journal into payloads; also returns the length of its whole frames.
///
/// A write that was cut off leaves an unfinished frame and nothing behind it. A whole frame behind
/// a damaged place means that durable bytes were changed, and truncating there would destroy
/// evidence, so that is an error.
pub(super) fn parse(path: &Path, bytes: &[u8], purpose: &str) -> Result<(Recovered, u64), JournalError> {
    let corrupt = |offset: usize, detail: &str| JournalError::Corrupt {
        path: path.to_path_buf(),
        offset: offset as u64,
        detail: detail.into(),
    };
    let mut recovered = Recovered::default();
    let mut offset = 0;
    while let Some(payload) = frame_at(bytes, offset) {
        if offset == 0 {
            if payload != header(purpose) {
                return Err(corrupt(0, &format!("this is not a {purpose} journal of version 1")));
            }
        } else {
            recovered.frames.push(payload.to_vec());
        }
        offset += FRAME_HEADER + payload.len();
    }
    if let Some(later) = later_frame(bytes, offset) {
        return Err(corrupt(offset, &format!("a damaged frame lies before a whole one at byte {later}")));
    }
    if offset == 0 && bytes.len() > FRAME_HEADER + header(purpose).len() {
        return Err(corrupt(0, "the header frame is damaged"));
    }
    recovered.dropped_bytes = (bytes.len() - offset) as u64;
    Ok((recovered, offset as u64))
}
