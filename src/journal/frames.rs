//! The bytes of a journal, and telling a torn group from damage.
//!
//! The disk may keep any part of a group of frames that was not synchronised: later pages and not
//! earlier ones, too. So each frame says how far before it its group begins. A group is written when
//! everything before it is durable, so a whole frame whose group begins behind a damaged place proves
//! that durable bytes were changed, and frames of the group in which the damage lies prove nothing.
//!
//! The frame's head has a checksum of its own, so that looking for a whole frame behind a damaged
//! place costs twelve bytes of checksum a position and not the length that those bytes claim.

use std::path::Path;

use super::{JournalError, MAX_PAYLOAD, Recovered};

pub(super) const FRAME_HEADER: usize = 16;
/// Most bytes of one group: a frame is taken as long as no more than [`MAX_PAYLOAD`] are waiting.
const MAX_GROUP: usize = MAX_PAYLOAD + FRAME_HEADER + MAX_PAYLOAD;
const SEARCH_BYTES: usize = 1 << 30;
const MAGIC: &[u8] = b"counterfoil.journal.v1";

pub(super) fn header(purpose: &str) -> Vec<u8> {
    [MAGIC, purpose.as_bytes()].concat()
}

/// A frame that stands `back` bytes behind the beginning of its group.
pub(super) fn encode_frame(payload: &[u8], back: usize) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are limited to MAX_PAYLOAD");
    let back = u32::try_from(back).expect("groups are limited to MAX_GROUP");
    let mut frame = Vec::with_capacity(FRAME_HEADER + payload.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&back.to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&frame).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

struct Frame<'a> {
    /// Offset at which its group begins.
    group: usize,
    payload: &'a [u8],
    checksum: u32,
}

impl<'a> Frame<'a> {
    /// The frame with an undamaged head at `offset`, if its payload has all its bytes.
    fn with_head_at(bytes: &'a [u8], offset: usize) -> Option<Frame<'a>> {
        let (head, rest) = bytes.get(offset..)?.split_at_checked(FRAME_HEADER)?;
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let length = word(0) as usize;
        if crc32c::crc32c(&head[..12]) != word(12) || length == 0 || length > MAX_PAYLOAD {
            return None;
        }
        let group = offset.checked_sub(word(4) as usize)?;
        Some(Frame { group, payload: rest.get(..length)?, checksum: word(8) })
    }

    /// The whole, undamaged frame at `offset`, if there is one.
    fn at(bytes: &'a [u8], offset: usize) -> Option<Frame<'a>> {
        Frame::with_head_at(bytes, offset).filter(Frame::is_whole)
    }

    fn is_whole(&self) -> bool {
        crc32c::crc32c(self.payload) == self.checksum
    }

    fn size(&self) -> usize {
        FRAME_HEADER + self.payload.len()
    }
}

/// Why the bytes from `damage` on cannot be a group that was written when the power failed.
///
/// Bytes that were forged to look like the heads of many long frames would take quadratic time, so
/// the search gives up after [`SEARCH_BYTES`]: what cannot be told is not truncated.
fn proof_of_change(bytes: &[u8], damage: usize) -> Option<String> {
    if bytes.len() - damage > MAX_GROUP {
        return Some(format!("more than the {MAX_GROUP} bytes of an unfinished write follow"));
    }
    let (mut offset, mut searched) = (damage + 1, 0);
    while offset < bytes.len() {
        let Some(frame) = Frame::with_head_at(bytes, offset) else {
            offset += 1;
            continue;
        };
        searched += frame.payload.len();
        if searched > SEARCH_BYTES {
            return Some(format!("the search for a whole frame behind it ended at byte {offset}"));
        }
        match frame.is_whole() {
            true if frame.group > damage => {
                return Some(format!(
                    "a damaged frame lies before a whole one at byte {offset}, which was written later"
                ));
            }
            // What looks like a frame in its payload is none.
            true => offset += frame.size(),
            false => offset += 1,
        }
    }
    None
}

/// What the bytes of a journal are.
pub(super) struct Parsed {
    pub(super) recovered: Recovered,
    /// Length of the whole frames.
    pub(super) whole: usize,
    /// Offset at which the group of the last of them begins: only what follows it may be a write that
    /// nobody synchronised.
    pub(super) group: usize,
}

/// Splits a journal into payloads.
pub(super) fn parse(path: &Path, bytes: &[u8], purpose: &str) -> Result<Parsed, JournalError> {
    let corrupt = |offset: usize, detail: String| JournalError::Corrupt {
        path: path.to_path_buf(),
        offset: offset as u64,
        detail,
    };
    let mut recovered = Recovered::default();
    let (mut whole, mut group) = (0, 0);
    while let Some(frame) = Frame::at(bytes, whole) {
        if whole > 0 {
            recovered.frames.push(frame.payload.to_vec());
        } else if frame.payload != header(purpose) {
            return Err(corrupt(0, format!("this is not a {purpose} journal of version 1")));
        }
        (whole, group) = (whole + frame.size(), frame.group);
    }
    if let Some(proof) = proof_of_change(bytes, whole) {
        return Err(corrupt(whole, proof));
    }
    // The header frame was durable before anything followed it.
    if whole == 0 && bytes.len() > FRAME_HEADER + header(purpose).len() {
        return Err(corrupt(0, "the header frame is damaged".into()));
    }
    recovered.dropped_bytes = (bytes.len() - whole) as u64;
    Ok(Parsed { recovered, whole, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and two groups of three frames, the second one without the bytes `lost`.
    fn torn(back_of: impl Fn(usize) -> usize, lost: std::ops::Range<usize>) -> (Vec<u8>, usize) {
        let mut bytes = encode_frame(&header("ledger"), 0);
        let mut begins = 0;
        for _ in 0..2 {
            begins = bytes.len();
            for number in 0..3u8 {
                let back = back_of(bytes.len() - begins);
                bytes.extend(encode_frame(&[number + 1; 100], back));
            }
        }
        bytes[begins..][lost].fill(0);
        (bytes, begins)
    }

    fn parsed(bytes: &[u8]) -> Result<Parsed, JournalError> {
        parse(Path::new("journal"), bytes, "ledger")
    }

    /// The bug: an earlier page of an unsynchronised group is lost, a later one kept, and the run is
    /// called corrupt.
    #[test]
    fn a_group_that_lost_an_earlier_page_is_torn_and_without_back_it_reads_as_corruption() {
        let (bytes, begins) = torn(|back| back, 0..50);
        let found = parsed(&bytes).expect("a torn group");
        assert_eq!((found.whole, found.recovered.frames.len()), (begins, 3));
        assert_eq!(found.recovered.dropped_bytes, (bytes.len() - begins) as u64);
        let (planted, begins) = torn(|_| 0, 0..50);
        let refused = parsed(&planted).err().expect("every frame claims to have begun a group");
        assert!(matches!(refused, JournalError::Corrupt { offset, .. } if offset == begins as u64));
    }

    /// The bug: a group that was synchronised before the last one is truncated away.
    #[test]
    fn damage_before_the_last_group_is_corruption() {
        let (whole, begins) = torn(|back| back, 0..0);
        for position in 0..begins {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            assert!(matches!(parsed(&bytes), Err(JournalError::Corrupt { .. })), "byte {position}");
        }
    }

    /// The bug: a batch that holds a journal by value makes a torn group look changed.
    #[test]
    fn a_frame_inside_the_payload_of_a_frame_proves_nothing() {
        let mut bytes = encode_frame(&header("ledger"), 0);
        let begins = bytes.len();
        bytes.extend(encode_frame(&[1; 100], 0));
        let inner = encode_frame(&[2; 100], 0);
        bytes.extend(encode_frame(&inner, bytes.len() - begins));
        bytes[begins] ^= 1;
        assert_eq!(parsed(&bytes).expect("a torn group").whole, begins);
    }

    /// The bug: a head that points before the file's first byte is subtracted below zero.
    #[test]
    fn a_group_that_would_begin_before_the_file_is_no_frame() {
        let mut bytes = encode_frame(&header("ledger"), 0);
        let whole = bytes.len();
        bytes.extend(encode_frame(b"payload", whole + 1));
        assert_eq!(parsed(&bytes).expect("an unfinished frame").whole, whole);
    }

    /// The bug: a tail that no interrupted write can have left is cut off as one.
    #[test]
    fn a_damaged_end_longer_than_a_group_is_not_a_torn_one() {
        let mut bytes = encode_frame(&header("ledger"), 0);
        bytes.resize(bytes.len() + MAX_GROUP + 1, 0);
        assert!(matches!(parsed(&bytes), Err(JournalError::Corrupt { .. })));
    }
}
