//! The bytes of a journal, and telling a torn group from damage.
//!
//! The disk may keep any part of a group of frames that was not synchronised: later pages and not
//! earlier ones, too. So each frame says how far before it its group begins. A group is written when
//! everything before it is durable, so a whole frame whose group begins behind a damaged place proves
//! that durable bytes were changed, and frames of the group in which the damage lies prove nothing.
//!
//! The frame's head has a checksum of its own, so that looking for a whole frame behind a damaged
//! place costs twelve bytes of checksum a position and not the length that those bytes claim.

use std::io::Read;
use std::path::Path;

use super::{JournalError, MAX_PAYLOAD};

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

/// What an undamaged frame's head says.
struct Head {
    length: usize,
    /// Bytes from the beginning of its group to the frame.
    back: u64,
    checksum: u32,
}

impl Head {
    /// The head of a frame at `offset` of the file, if these bytes are one.
    fn parse(bytes: &[u8], offset: u64) -> Option<Head> {
        let head = bytes.get(..FRAME_HEADER)?;
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (length, back) = (word(0) as usize, u64::from(word(4)));
        let is_head = crc32c::crc32c(&head[..12]) == word(12) && length > 0 && length <= MAX_PAYLOAD;
        (is_head && back <= offset).then_some(Head { length, back, checksum: word(8) })
    }

    fn is_of(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.checksum
    }
}

/// Why `rest`, the bytes from `damage` on, cannot be a group that was written when the power failed.
///
/// Bytes that were forged to look like the heads of many long frames would take quadratic time, so
/// the search gives up after [`SEARCH_BYTES`]: what cannot be told is not truncated.
fn proof_of_change(rest: &[u8], damage: u64) -> Option<String> {
    if rest.len() > MAX_GROUP {
        return Some(format!("more than the {MAX_GROUP} bytes of an unfinished write follow"));
    }
    let (mut at, mut searched) = (1, 0);
    while at < rest.len() {
        let offset = damage + at as u64;
        let head = Head::parse(&rest[at..], offset);
        let frame = head.and_then(|head| Some((rest[at + FRAME_HEADER..].get(..head.length)?, head)));
        let Some((payload, head)) = frame else {
            at += 1;
            continue;
        };
        searched += payload.len();
        if searched > SEARCH_BYTES {
            return Some(format!("the search for a whole frame behind it ended at byte {offset}"));
        }
        match head.is_of(payload) {
            true if at as u64 > head.back => {
                return Some(format!(
                    "a damaged frame lies before a whole one at byte {offset}, which was written later"
                ));
            }
            // What looks like a frame in its payload is none.
            true => at += FRAME_HEADER + payload.len(),
            false => at += 1,
        }
    }
    None
}

/// Where the whole frames of a journal end.
pub(super) struct Scanned {
    /// Length of the whole frames.
    pub(super) whole: u64,
    /// Offset at which the group of the last of them begins: only what follows it may be a write that
    /// nobody synchronised.
    pub(super) group: u64,
    /// Bytes behind them, of an unfinished write.
    pub(super) dropped: u64,
}

/// Hands each payload and its offset to `take`, the header's excepted, one at a time in memory.
pub(super) fn scan(
    path: &Path,
    bytes: &mut impl Read,
    purpose: &str,
    take: &mut dyn FnMut(u64, &[u8]),
) -> Result<Scanned, JournalError> {
    let failed = |error: std::io::Error| JournalError::of_file(path, &error);
    let corrupt =
        |offset: u64, detail: String| Err(JournalError::Corrupt { path: path.to_path_buf(), offset, detail });
    let (mut whole, mut group, mut frame) = (0, 0, Vec::new());
    loop {
        frame.clear();
        bytes.by_ref().take(FRAME_HEADER as u64).read_to_end(&mut frame).map_err(failed)?;
        let Some(head) = Head::parse(&frame, whole) else { break };
        bytes.by_ref().take(head.length as u64).read_to_end(&mut frame).map_err(failed)?;
        let payload = &frame[FRAME_HEADER..];
        if payload.len() < head.length || !head.is_of(payload) {
            break;
        }
        if whole > 0 {
            take(whole + FRAME_HEADER as u64, payload);
        } else if payload != header(purpose) {
            return corrupt(0, format!("this is not a {purpose} journal of version 1"));
        }
        (whole, group) = (whole + frame.len() as u64, whole - head.back);
    }
    // What was read of a damaged frame, and all behind it.
    bytes.by_ref().take(MAX_GROUP as u64 + 1).read_to_end(&mut frame).map_err(failed)?;
    if let Some(proof) = proof_of_change(&frame, whole) {
        return corrupt(whole, proof);
    }
    // The header frame was durable before anything followed it.
    if whole == 0 && frame.len() > FRAME_HEADER + header(purpose).len() {
        return corrupt(0, "the header frame is damaged".into());
    }
    Ok(Scanned { whole, group, dropped: frame.len() as u64 })
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

    fn parsed(mut bytes: &[u8]) -> Result<(Scanned, usize), JournalError> {
        let mut frames = 0;
        let scanned = scan(Path::new("journal"), &mut bytes, "ledger", &mut |_, _| frames += 1)?;
        Ok((scanned, frames))
    }

    /// The bug: an earlier page of an unsynchronised group is lost, a later one kept, and the run is
    /// called corrupt.
    #[test]
    fn a_group_that_lost_an_earlier_page_is_torn_and_without_back_it_reads_as_corruption() {
        let (bytes, begins) = torn(|back| back, 0..50);
        let (found, frames) = parsed(&bytes).expect("a torn group");
        assert_eq!((found.whole, frames), (begins as u64, 3));
        assert_eq!(found.dropped, (bytes.len() - begins) as u64);
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
        assert_eq!(parsed(&bytes).expect("a torn group").0.whole, begins as u64);
    }

    /// The bug: a head that points before the file's first byte is subtracted below zero.
    #[test]
    fn a_group_that_would_begin_before_the_file_is_no_frame() {
        let mut bytes = encode_frame(&header("ledger"), 0);
        let whole = bytes.len();
        bytes.extend(encode_frame(b"payload", whole + 1));
        assert_eq!(parsed(&bytes).expect("an unfinished frame").0.whole, whole as u64);
    }

    /// The bug: a tail that no interrupted write can have left is cut off as one.
    #[test]
    fn a_damaged_end_longer_than_a_group_is_not_a_torn_one() {
        let mut bytes = encode_frame(&header("ledger"), 0);
        bytes.resize(bytes.len() + MAX_GROUP + 1, 0);
        assert!(matches!(parsed(&bytes), Err(JournalError::Corrupt { .. })));
    }
}
