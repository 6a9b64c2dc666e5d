//! The bytes of a journal: `length || CRC-32C || payload`, and telling a torn tail from damage.

use std::path::Path;

use super::{JournalError, MAX_PAYLOAD, Recovered};

const FRAME_HEADER: usize = 8;
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
    frame.extend_from_slice(payload);
    frame
}

/// The payload of the whole, undamaged frame at `offset`, if there is one.
fn frame_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let (head, rest) = bytes.get(offset..)?.split_at_checked(FRAME_HEADER)?;
    let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_be_bytes(head[4..].try_into().expect("four bytes"));
    if length == 0 || length > MAX_PAYLOAD {
        return None;
    }
    let payload = rest.get(..length)?;
    (crc32c::crc32c(payload) == crc).then_some(payload)
}

/// The offset of a whole frame behind the damage at `offset`, if one can be found.
///
/// Bytes that were made to look like many long frames would take quadratic time, so the search
/// gives up after [`SEARCH_BYTES`] and reports the place it had reached.
fn later_frame(bytes: &[u8], offset: usize) -> Option<usize> {
    let mut searched = 0;
    (offset + 1..bytes.len()).find(|&later| {
        let claimed = bytes[later..].first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        if claimed <= MAX_PAYLOAD && later + FRAME_HEADER + claimed <= bytes.len() {
            searched += claimed;
        }
        searched > SEARCH_BYTES || frame_at(bytes, later).is_some()
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
