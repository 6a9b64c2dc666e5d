//! The journal under interruption and damage: what was flushed survives, a torn tail is dropped and
//! said, and damage that a crash cannot explain is never "repaired".

use std::path::{Path, PathBuf};

use counterfoil::journal::{Journal, JournalError, read};
use counterfoil::primitives::Report;

const PURPOSE: &str = "ledger";

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

#[test]
fn a_changed_byte_is_corruption_and_is_never_truncated_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    let last_frame = bytes.len() - (12 + payloads().last().unwrap().len());
    for position in 0..last_frame {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        let refused = Journal::open(&path, PURPOSE).expect_err("a damaged frame before whole ones");
        assert!(matches!(refused, JournalError::Corrupt { .. }), "{refused} at {position}");
        assert_eq!(refused.code(), "journal-corrupt");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "the file was changed");
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
