//! The journal under interruption and damage: what was flushed survives, a torn tail is dropped and
//! said, and damage that a crash cannot explain is never "repaired". `tests/crash` does the same to a
//! ledger, with a disk that loses what was not synchronised.

use std::path::{Path, PathBuf};

use counterfoil::journal::{Journal, JournalError, MAX_JOURNAL, read, repair};
use counterfoil::primitives::Report;
use proptest::prelude::*;

const PURPOSE: &str = "ledger";
const FRAME_HEADER: usize = 16;
const SECTOR: usize = 512;

fn payloads() -> Vec<Vec<u8>> {
    (0..20u8).map(|number| vec![number; 1 + 5 * usize::from(number)]).collect()
}

fn written(folder: &Path) -> PathBuf {
    let path = folder.join("journal");
    let journal = Journal::create(&path, PURPOSE).unwrap();
    for payload in payloads() {
        journal.append(&payload).unwrap();
    }
    journal.flush().unwrap();
    path
}

#[test]
fn a_cut_at_any_byte_loses_only_what_lies_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(written(folder.path())).unwrap();
    let path = folder.path().join("cut");
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let (journal, recovered) = Journal::open(&path, PURPOSE).unwrap();
        let whole = recovered.frames.len();
        assert_eq!(recovered.frames, payloads()[..whole], "cut at {cut}");
        journal.append(b"after").unwrap();
        drop(journal);
        let again = read(&path, PURPOSE).unwrap();
        assert_eq!(again.frames.len(), whole + 1, "what follows a recovery is readable, cut at {cut}");
        assert_eq!(again.dropped_bytes, 0);
    }
}

/// A journal of several groups: its bytes, and the offset at which the last one begins.
fn grouped(path: &Path, groups: &[Vec<Vec<u8>>]) -> (Vec<u8>, usize) {
    let journal = Journal::create(path, PURPOSE).unwrap();
    let mut begins = 0;
    for group in groups {
        begins = std::fs::metadata(path).unwrap().len() as usize;
        for payload in group {
            journal.append(payload).unwrap();
        }
        journal.flush().unwrap();
    }
    drop(journal);
    (std::fs::read(path).unwrap(), begins)
}

#[test]
fn a_changed_byte_is_corruption_and_is_never_truncated_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (bytes, begins) = grouped(&path, &[payloads(), payloads(), vec![b"the last group".to_vec()]]);
    for position in 0..begins {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        for refused in [Journal::open(&path, PURPOSE).err(), repair(&path, PURPOSE).err()] {
            let refused = refused.expect("a damaged frame before a group that was written later");
            assert!(matches!(refused, JournalError::Corrupt { .. }), "{refused} at {position}");
            assert_eq!(refused.code(), "journal-corrupt");
        }
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "the file was changed");
    }
}

/// What may be found of a group that was being written when the power failed: any of its sectors,
/// with zeros or anything else instead of the others, and with or without the size it would have.
fn after_power_failure(bytes: &[u8], begins: usize, kept: usize, fill: u8, is_cut: bool) -> Vec<u8> {
    let mut found = bytes.to_vec();
    let (first, last) = (begins / SECTOR, (bytes.len() - 1) / SECTOR);
    let mut end = begins;
    for sector in first..=last {
        let range = (sector * SECTOR).max(begins)..((sector + 1) * SECTOR).min(bytes.len());
        if kept >> (sector - first) & 1 == 1 {
            end = range.end;
        } else {
            found[range].fill(fill);
        }
    }
    if is_cut {
        found.truncate(end);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The bug: a lost page before a kept one reads as corruption, or costs a frame that was durable.
    #[test]
    fn any_lost_sectors_of_the_last_group_leave_the_durable_frames_and_a_prefix(
        durable in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..5), 0..4),
        last in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..700), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let before: Vec<Vec<u8>> = durable.iter().flatten().cloned().collect();
        let all: Vec<Vec<u8>> = before.iter().chain(&last).cloned().collect();
        let (bytes, begins) = grouped(&path, &[durable, vec![last.clone()]].concat());
        // A process that stood still for a second would have written the group as two.
        let offset = bytes.len() - FRAME_HEADER - all.last().unwrap().len();
        let back = u32::from_be_bytes(bytes[offset + 4..offset + 8].try_into().unwrap());
        prop_assume!(offset - back as usize == begins);
        let sectors = (bytes.len() - 1) / SECTOR - begins / SECTOR + 1;
        for kept in 0..1usize << sectors {
            for (fill, is_cut) in [(0, false), (0, true), (0xff, false)] {
                std::fs::write(&path, after_power_failure(&bytes, begins, kept, fill, is_cut)).unwrap();
                let found = read(&path, PURPOSE).unwrap().frames;
                prop_assert!(found.len() >= before.len(), "{} of {}", found.len(), before.len());
                prop_assert_eq!(&found[..], &all[..found.len()]);
            }
        }
        std::fs::write(&path, after_power_failure(&bytes, begins, 0b10, 0, false)).unwrap();
        let (journal, recovered) = Journal::open(&path, PURPOSE).unwrap();
        journal.append(b"after").unwrap();
        drop(journal);
        let again = read(&path, PURPOSE).unwrap();
        prop_assert_eq!(again.frames, [&recovered.frames[..], &[b"after".to_vec()]].concat());
        prop_assert_eq!(again.dropped_bytes, 0);
    }
}

/// The bug: opening destroys the end of a journal whose caller finds that too little is left.
#[test]
fn a_torn_end_is_cut_off_by_the_first_frame_or_by_repair_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let torn = &std::fs::read(&path).unwrap()[..600];
    std::fs::write(&path, torn).unwrap();
    let (journal, recovered) = Journal::open(&path, PURPOSE).unwrap();
    assert!(recovered.dropped_bytes > 0);
    assert!(matches!(repair(&path, PURPOSE), Err(JournalError::Locked { .. })));
    drop(journal);
    assert_eq!(std::fs::read(&path).unwrap(), torn, "opened and left");
    assert_eq!(repair(&path, PURPOSE).unwrap(), recovered.dropped_bytes);
    let whole = torn.len() - recovered.dropped_bytes as usize;
    assert_eq!(std::fs::read(&path).unwrap(), torn[..whole]);
    assert_eq!(repair(&path, PURPOSE).unwrap(), 0);
}

/// The bug: a reader sees bytes of before and after, and calls a run that is being written corrupt.
#[test]
fn a_reader_beside_a_writer_sees_whole_frames_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let frame_of = |number: u32| vec![number as u8; 1 + (number as usize * 37) % 3000];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..8 {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 1).unwrap();
                let (journal, recovered) = Journal::open(&path, PURPOSE).unwrap();
                for number in recovered.frames.len() as u32..(round + 1) * 50 {
                    journal.append(&frame_of(number)).unwrap();
                    if number % 7 == 0 {
                        journal.flush().unwrap();
                    }
                }
            }
        });
        while !writer.is_finished() {
            let frames = read(&path, PURPOSE).expect("a journal that is being written").frames;
            for (number, frame) in frames.iter().enumerate().skip(payloads().len()) {
                assert_eq!(*frame, frame_of(number as u32), "frame {number}");
            }
        }
    });
    assert_eq!(read(&path, PURPOSE).unwrap().frames.len(), 400);
}

#[test]
fn a_journal_above_the_limit_is_neither_read_nor_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(MAX_JOURNAL + 1).unwrap();
    let refused =
        [read(&path, PURPOSE).err(), Journal::open(&path, PURPOSE).err(), repair(&path, PURPOSE).err()];
    for refused in refused {
        assert!(matches!(refused, Some(JournalError::TooLarge { size, .. }) if size == MAX_JOURNAL + 1));
    }
}

#[test]
fn appended_frames_become_durable_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::create(&path, PURPOSE).unwrap();
    journal.append(b"waits for the group commit").unwrap();
    let begun = std::time::Instant::now();
    while read(&path, PURPOSE).unwrap().frames.is_empty() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "the group commit never came");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let first = Journal::create(&path, PURPOSE).unwrap();
    assert!(matches!(Journal::open(&path, PURPOSE), Err(JournalError::Locked { .. })));
    assert!(matches!(Journal::create(&path, PURPOSE), Err(JournalError::Exists { .. })));
    drop(first);
    assert!(Journal::open(&path, PURPOSE).is_ok());
}

#[test]
fn frames_of_another_purpose_or_of_no_size_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    assert!(matches!(read(&path, "devchain"), Err(JournalError::Corrupt { offset: 0, .. })));
    let (journal, _) = Journal::open(&path, PURPOSE).unwrap();
    assert!(matches!(journal.append(b""), Err(JournalError::FrameSize { size: 0 })));
    assert!(matches!(read(&folder.path().join("none"), PURPOSE), Err(JournalError::NotFound { .. })));
}

#[test]
fn many_threads_append_and_nothing_is_lost_or_torn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::create(&path, PURPOSE).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..200u8 {
                    journal.append(&[thread, number]).unwrap();
                    if number % 50 == 0 {
                        journal.flush().unwrap();
                    }
                }
            });
        }
    });
    drop(journal);
    let frames = read(&path, PURPOSE).unwrap().frames;
    assert_eq!(frames.len(), 800);
    for thread in 0..4u8 {
        let own: Vec<u8> = frames.iter().filter(|frame| frame[0] == thread).map(|frame| frame[1]).collect();
        assert_eq!(own, (0..200).collect::<Vec<u8>>(), "order within a thread");
    }
}
