//! Trees over files, read and hashed on all cores, with a megabyte of memory for each.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::commit::merkle::CompactRange;
use crate::commit::{Halt, TreeHash, Watch, read_ranges};
use crate::journal::JournalError;
use crate::primitives::Report;

/// Why a file has no tree.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum FileError {
    /// It cannot be opened or read.
    #[error(transparent)]
    Unreadable(#[from] JournalError),
    /// A folder, pipe or device.
    #[error("{} is not a regular file", path.display())]
    NotRegular { path: PathBuf },
    /// It grew or shrank while it was read.
    #[error("{} changed its size while it was read; hash it when nobody writes to it", path.display())]
    Changed { path: PathBuf, expected: u64 },
}

impl Report for FileError {
    fn code(&self) -> &'static str {
        match self {
            FileError::Unreadable(error) => error.code(),
            FileError::NotRegular { .. } => "invalid-input",
            FileError::Changed { .. } => "storage",
        }
    }

    fn expected(&self) -> Option<String> {
        match self {
            FileError::Changed { expected, .. } => Some(format!("{expected} bytes")),
            FileError::NotRegular { .. } => Some("a regular file".into()),
            FileError::Unreadable(error) => error.expected(),
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            FileError::Unreadable(error) => error.place(),
            FileError::NotRegular { path } | FileError::Changed { path, .. } => {
                Some(path.display().to_string())
            }
        }
    }
}

/// Opens a regular file and tells its size in bytes.
///
/// # Errors
/// [`FileError::Unreadable`], [`FileError::NotRegular`].
pub fn open(path: &Path) -> Result<(File, u64), FileError> {
    let failed = |error: std::io::Error| FileError::from(JournalError::of_file(path, &error));
    // Asked before it is opened: opening a pipe waits for its other end.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular { path: path.into() });
    }
    Ok((File::open(path).map_err(failed)?, metadata.len()))
}

impl crate::evidence::Source for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        read_at(self, buffer, offset)
    }
}

/// The size of a file, and the ranges over each 1,024 leaves of its tree.
pub type Ranges<H> = (u64, Vec<CompactRange<H>>);

/// Hashes a file; none if the watch stopped the work.
///
/// # Errors
/// [`FileError`].
pub fn ranges<H: TreeHash + Send>(path: &Path, watch: Watch<'_>) -> Result<Option<Ranges<H>>, FileError> {
    let (file, size) = open(path)?;
    let changed = || FileError::Changed { path: path.into(), expected: size };
    match read_ranges(size, &|bytes, offset| read_at(&file, bytes, offset), watch) {
        // A byte behind the last one, or a shorter file: what was hashed was never there as a whole.
        Ok(_) if read_at(&file, &mut [0], size).is_ok() => Err(changed()),
        Ok(_) if file.metadata().map_or(0, |metadata| metadata.len()) != size => Err(changed()),
        Ok(ranges) => Ok(Some((size, ranges))),
        Err(Halt::Stopped) => Ok(None),
        Err(Halt::Read(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(changed()),
        Err(Halt::Read(error)) => Err(JournalError::of_file(path, &error).into()),
    }
}

/// Reads all these bytes from a place, on any thread.
#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads all these bytes from a place, on any thread.
#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
