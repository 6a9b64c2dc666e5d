//! What `disk.c` noted, and a power failure: what was not synchronised may be gone.
//!
//! The simulation takes changes back instead of holding them back. So the program under test reads
//! what it wrote from ordinary files, a SIGKILL by anyone at any moment needs no hand-over, and one
//! piece of code decides what survives, for kills from inside and from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::random::Random;

const SECTOR: u64 = 512;
const HEAD: usize = 48;

/// Compiles the layer that notes changes; none without a C compiler.
pub(crate) fn compile(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/disk.c");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

struct Note {
    kind: u8,
    inode: u64,
    values: [u64; 3],
    bytes: Vec<u8>,
}

/// A folder whose files forget, and the notes of what they would forget.
pub(crate) struct Disk {
    pub(crate) root: PathBuf,
    log: PathBuf,
    library: PathBuf,
}

impl Disk {
    /// An empty disk in `folder`.
    pub(crate) fn new(folder: &Path, library: &Path) -> Disk {
        let root = folder.join("disk");
        fs::create_dir(&root).unwrap();
        Disk { root, log: folder.join("changes"), library: library.to_path_buf() }
    }

    /// Has a program write to this disk.
    pub(crate) fn hold(&self, program: &mut Command) {
        program.env("LD_PRELOAD", &self.library).env("DISK_ROOT", &self.root).env("DISK_LOG", &self.log);
    }

    fn notes(&self) -> Vec<Note> {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let (mut notes, mut at) = (Vec::new(), 0);
        while let Some(head) = bytes.get(at..at + HEAD) {
            let number = |place: usize| u64::from_ne_bytes(head[place * 8..][..8].try_into().unwrap());
            // A killed process may have left half a note, before a change that then did not happen.
            let Some(content) = bytes.get(at + HEAD..at + HEAD + number(5) as usize) else { break };
            notes.push(Note {
                kind: number(0) as u8,
                inode: number(1),
                values: [number(2), number(3), number(4)],
                bytes: content.to_vec(),
            });
            at += HEAD + content.len();
        }
        notes
    }

    /// Whether the planted fault was reached.
    pub(crate) fn has_failed_a_call(&self) -> bool {
        self.notes().iter().any(|note| note.kind == b'F')
    }

    /// The power fails and comes back.
    pub(crate) fn fail_power(&self, random: &mut Random) {
        let notes = self.notes();
        let mut paths = BTreeMap::new();
        inodes(&self.root, &mut paths);
        let kept_names: Vec<PathBuf> = self.kept_names();
        for path in &kept_names {
            paths.insert(fs::metadata(path).unwrap().ino(), path.clone());
        }
        let mut changes: BTreeMap<u64, Vec<&Note>> = BTreeMap::new();
        let mut names: BTreeMap<u64, Vec<(usize, &Note)>> = BTreeMap::new();
        for (number, note) in notes.iter().enumerate() {
            match note.kind {
                b'I' => drop(changes.remove(&note.inode)),
                b'W' | b'T' | b'S' | b'E' => changes.entry(note.inode).or_default().push(note),
                b'D' => drop(names.remove(&note.inode)),
                b'F' => {}
                _ => names.entry(note.inode).or_default().push((number, note)),
            }
        }
        for (inode, changes) in changes {
            if let Some(path) = paths.get(&inode) {
                lose_bytes(path, &changes, random);
            }
        }
        let mut lost = Vec::new();
        for pending in names.into_values() {
            // The changes of one folder reach the disk in their order.
            let count = pending.len() as u64;
            let some = random.below(count + 1);
            let kept = random.one_of(&[0, count, some]);
            lost.extend_from_slice(&pending[kept as usize..]);
        }
        lost.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        for (_, note) in lost {
            self.lose_name(note);
        }
        let _ = fs::remove_file(&self.log);
        for path in kept_names {
            let _ = fs::remove_file(path);
        }
    }

    fn kept_name(&self, number: u64) -> PathBuf {
        self.log.with_extension(number.to_string())
    }

    fn kept_names(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.log.parent().unwrap()).unwrap();
        let is_kept = |path: &PathBuf| path.file_stem() == self.log.file_stem() && *path != self.log;
        folder.map(|entry| entry.unwrap().path()).filter(is_kept).collect()
    }

    /// Takes back a name that was made, moved or removed; the change may not have happened at all.
    fn lose_name(&self, note: &Note) {
        let path_of = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
        let inode_of = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.ino());
        let path = path_of(&note.bytes);
        match note.kind {
            b'C' => drop(fs::remove_file(path)),
            b'M' => drop(fs::remove_dir_all(path)),
            b'U' if note.values[0] != 0 && !path.exists() => {
                fs::hard_link(self.kept_name(note.values[0]), path).unwrap();
            }
            b'R' => {
                let middle = note.bytes.iter().position(|byte| *byte == 0).unwrap();
                let (from, to) = (path_of(&note.bytes[..middle]), path_of(&note.bytes[middle + 1..]));
                if inode_of(&to) == note.values[0] {
                    fs::rename(&to, from).unwrap();
                    if note.values[1] != 0 {
                        fs::hard_link(self.kept_name(note.values[1]), to).unwrap();
                    }
                }
            }
            _ => {}
        }
    }
}

/// The files below a folder.
fn inodes(folder: &Path, found: &mut BTreeMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => inodes(&path, found),
            false => drop(found.insert(fs::metadata(&path).unwrap().ino(), path)),
        }
    }
}

/// Takes back, sector by sector and from the last change to the first, what was not synchronised.
fn lose_bytes(path: &Path, changes: &[&Note], random: &mut Random) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let chance_of_keeping = random.one_of(&[0, 10, 50, 90, 100]);
    let mut settled = BTreeSet::new();
    // The size that is certain; the size with what came back; where a kept cut ends older changes.
    let first = changes.iter().find(|change| matches!(change.kind, b'W' | b'T'));
    let mut certain = first.map_or(size, |change| change.values[2]);
    let (mut restored, mut limit) = (0, u64::MAX);
    let (mut is_synchronised, mut was_synchronised) = (false, false);
    for change in changes.iter().rev() {
        let [offset, length, before] = change.values;
        match change.kind {
            b'S' => {
                if !was_synchronised {
                    certain = offset;
                }
                (is_synchronised, was_synchronised) = (true, true);
            }
            b'E' => is_synchronised = false,
            b'W' => {
                let end = (offset + length).min(limit);
                for sector in offset / SECTOR..end.div_ceil(SECTOR) {
                    if settled.contains(&sector) {
                        continue;
                    }
                    if is_synchronised || random.below(100) < chance_of_keeping {
                        settled.insert(sector);
                        continue;
                    }
                    let (start, end) = ((sector * SECTOR).max(offset), ((sector + 1) * SECTOR).min(end));
                    let mut old = vec![0; end.saturating_sub(start) as usize];
                    let known = change.bytes.get((start - offset) as usize..).unwrap_or_default();
                    let known = &known[..known.len().min(old.len())];
                    old[..known.len()].copy_from_slice(known);
                    file.write_all_at(&old, start).unwrap();
                }
            }
            _ if is_synchronised || random.below(2) == 0 => limit = limit.min(offset),
            _ => {
                restored = restored.max(before);
                for (place, byte) in (offset..before).zip(&change.bytes) {
                    if !settled.contains(&(place / SECTOR)) {
                        file.write_all_at(&[*byte], place).unwrap();
                    }
                }
            }
        }
    }
    let whole = size.max(restored);
    let kept = settled.last().map_or(0, |sector| ((sector + 1) * SECTOR).min(size));
    let least = certain.max(restored).min(whole);
    let end = kept.max(least);
    let between = least + random.below(end - least + 1);
    file.set_len(random.one_of(&[whole, end, between])).unwrap();
}
