//! One durable append-only log of frames, used by ledgers and by the development chain.
//!
//! A frame is durable when the file was synchronised after it was written. Waiting for the disk at
//! every frame would cost a training step its time, so appends return at once and a background
//! thread synchronises at the latest one second or 256 frames later (group commit); [`Journal::flush`]
//! waits for it. After a failed write nothing more is written: the disk's contents are unknown then,
//! and the next writer writes the last group a second time, because a system that failed to
//! synchronise pages may show them as written without having done so.

mod frames;

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::primitives::Report;
use frames::{FRAME_HEADER, Scanned, encode_frame, header};

/// Longest wait before an appended frame is made durable.
pub const GROUP_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Most frames that may wait for the disk together.
pub const GROUP_COMMIT_FRAMES: u64 = 256;
/// Largest journal that is read, bytes.
pub const MAX_JOURNAL: u64 = 4 << 30;
/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// Largest payload of one frame, bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Why a journal could not be written, read or recovered.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum JournalError {
    /// Another process (or another handle of this one) holds the writer's lock.
    #[error("{path} is being written by another process; close it there, or take another lane")]
    Locked { path: PathBuf },
    /// A journal was to be created where a file already lies.
    #[error("{path} exists already; open it instead of creating it")]
    Exists { path: PathBuf },
    /// There is no such file or folder.
    #[error("{path} does not exist")]
    NotFound { path: PathBuf },
    /// The disk, the quota or the size limit is exhausted. What was flushed before is safe.
    #[error(
        "no room left while writing {path}: {detail}; receipts up to the last flush are safe, free space and reopen"
    )]
    StorageFull { path: PathBuf, detail: String },
    /// Any other failure of the operating system.
    #[error("{path}: {detail}")]
    Storage { path: PathBuf, detail: String },
    /// The bytes are damaged in a place that an interrupted write cannot explain.
    #[error(
        "{path} is corrupt at byte {offset}: {detail}; restore the file from a copy, nothing was changed"
    )]
    Corrupt { path: PathBuf, offset: u64, detail: String },
    /// The file is or would become larger than what is read back.
    #[error("{path} has {size} bytes, at most {MAX_JOURNAL} are read; continue in a new lane (Run.join)")]
    TooLarge { path: PathBuf, size: u64 },
    /// A frame is empty or larger than [`MAX_PAYLOAD`].
    #[error("a frame of {size} bytes was offered, 1 to {MAX_PAYLOAD} fit")]
    FrameSize { size: usize },
    /// The journal was opened before this process was forked from its writer.
    #[error("{path} was opened by process {writer}; a forked child cannot write it")]
    Forked { path: PathBuf, writer: u32 },
}

impl JournalError {
    /// What the operating system said about a file.
    pub fn of_file(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, NotFound, QuotaExceeded, StorageFull};
        let (path, detail) = (path.to_path_buf(), error.to_string());
        match error.kind() {
            NotFound => JournalError::NotFound { path },
            StorageFull | QuotaExceeded | FileTooLarge => JournalError::StorageFull { path, detail },
            _ => JournalError::Storage { path, detail },
        }
    }
}

impl Report for JournalError {
    fn code(&self) -> &'static str {
        match self {
            JournalError::Locked { .. } => "locked",
            JournalError::Exists { .. } => "exists",
            JournalError::NotFound { .. } => "not-found",
            JournalError::StorageFull { .. } | JournalError::TooLarge { .. } => "storage-full",
            JournalError::Storage { .. } => "storage",
            JournalError::Corrupt { .. } => "journal-corrupt",
            JournalError::FrameSize { .. } => "invalid-input",
            JournalError::Forked { .. } => "locked",
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            JournalError::Corrupt { path, offset, .. } => {
                Some(format!("{} at byte {offset}", path.display()))
            }
            JournalError::FrameSize { .. } => None,
            JournalError::Locked { path }
            | JournalError::Exists { path }
            | JournalError::NotFound { path }
            | JournalError::StorageFull { path, .. }
            | JournalError::TooLarge { path, .. }
            | JournalError::Storage { path, .. }
            | JournalError::Forked { path, .. } => Some(path.display().to_string()),
        }
    }
}

/// What was found in a journal.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Payloads of all whole frames after the header, in order.
    pub frames: Vec<Vec<u8>>,
    /// Bytes of an unfinished last write.
    pub dropped_bytes: u64,
}

/// The writer of one journal; the only one while it lives.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    flusher: Option<std::thread::JoinHandle<()>>,
    process: u32,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    size: u64,
    torn: bool,
    appended: u64,
    durable: u64,
    flush_wanted: bool,
    closing: bool,
    failure: Option<JournalError>,
}

impl Journal {
    /// Creates an empty journal; the file and its name are durable on return.
    ///
    /// # Errors
    /// [`JournalError::Exists`] when `path` exists, [`JournalError::NotFound`] when its folder does
    /// not, else what the operating system reports.
    pub fn create(path: &Path, purpose: &str) -> Result<Journal, JournalError> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => JournalError::Exists { path: path.to_path_buf() },
            _ => JournalError::of_file(path, &error),
        };
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
        lock(&file, path)?;
        let head = encode_frame(&header(purpose), 0);
        (&file).write_all(&head).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        sync_folder_of(path)?;
        Ok(Journal::start(path, file, head.len() as u64, false))
    }

    /// Opens a journal for writing. What is recovered is durable on return; an unfinished last write
    /// is cut off before the first frame is written, so that a caller who finds that too little is
    /// left can leave the file as it is.
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another writer lives, [`JournalError::Corrupt`] when the damage
    /// is not a torn tail, else what the operating system reports.
    pub fn open(path: &Path, purpose: &str) -> Result<(Journal, Recovered), JournalError> {
        let (file, recovered, size) = recover(path, purpose)?;
        let torn = recovered.dropped_bytes > 0;
        Ok((Journal::start(path, file, size, torn), recovered))
    }

    fn start(path: &Path, file: File, size: u64, torn: bool) -> Journal {
        let shared = Arc::new(Shared {
            path: path.to_path_buf(),
            file,
            state: Mutex::new(State { size, torn, ..State::default() }),
            changed: Condvar::new(),
        });
        let flusher = std::thread::Builder::new()
            .name("counterfoil-journal".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run_flusher()
            })
            .expect("the operating system starts a thread");
        Journal { shared, flusher: Some(flusher), process: std::process::id() }
    }

    /// Appends a frame; it is durable at the latest [`GROUP_COMMIT_INTERVAL`] or
    /// [`GROUP_COMMIT_FRAMES`] frames later.
    ///
    /// # Errors
    /// [`JournalError::FrameSize`] for an empty or oversized payload, and any earlier failure of the
    /// disk: after one, nothing is written any more.
    pub fn append(&self, payload: &[u8]) -> Result<(), JournalError> {
        if payload.is_empty() || payload.len() > MAX_PAYLOAD {
            return Err(JournalError::FrameSize { size: payload.len() });
        }
        self.check_process()?;
        let mut state = self.shared.lock();
        // A writer that outruns the disk waits here instead of filling memory.
        while state.failure.is_none() && state.buffer.len() > MAX_PAYLOAD {
            state.flush_wanted = true;
            self.shared.changed.notify_all();
            state = self.shared.wait(state);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let size = state.size + (FRAME_HEADER + payload.len()) as u64;
        check_size(&self.shared.path, size)?;
        state.size = size;
        // The buffer is the group: it is handed to the disk as a whole, after the one before it was
        // synchronised.
        let frame = encode_frame(payload, state.buffer.len());
        state.buffer.extend_from_slice(&frame);
        state.appended += 1;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Returns when every frame appended before is durable.
    ///
    /// # Errors
    /// The failure that kept frames from the disk.
    pub fn flush(&self) -> Result<(), JournalError> {
        self.check_process()?;
        let mut state = self.shared.lock();
        let target = state.appended;
        while state.failure.is_none() && state.durable < target {
            state.flush_wanted = true;
            self.shared.changed.notify_all();
            state = self.shared.wait(state);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }

    /// Whether this process opened the journal, and is not a forked child of the one that did.
    pub(crate) fn is_own(&self) -> bool {
        std::process::id() == self.process
    }

    /// Refuses a forked child of the process that opened the journal.
    pub(crate) fn check_process(&self) -> Result<(), JournalError> {
        if self.is_own() {
            return Ok(());
        }
        Err(JournalError::Forked { path: self.shared.path.clone(), writer: self.process })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // In a forked child the flusher does not exist and the frames are the parent's.
        if !self.is_own() {
            return;
        }
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(flusher) = self.flusher.take() {
            let _ = flusher.join();
        }
        // Forked data loaders may still hold the file open, and with it the lock.
        let _ = self.shared.file.unlock();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn run_flusher(&self) {
        let mut state = self.lock();
        loop {
            while state.buffer.is_empty() && !state.closing {
                state.flush_wanted = false;
                state = self.wait(state);
            }
            if state.buffer.is_empty() {
                return;
            }
            let deadline = std::time::Instant::now() + GROUP_COMMIT_INTERVAL;
            while !state.flush_wanted
                && !state.closing
                && state.appended - state.durable < GROUP_COMMIT_FRAMES
            {
                let Some(left) = deadline.checked_duration_since(std::time::Instant::now()) else { break };
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
            let (buffer, target) = (std::mem::take(&mut state.buffer), state.appended);
            let torn = std::mem::take(&mut state.torn).then(|| state.size - buffer.len() as u64);
            drop(state);
            let written = torn
                .map_or(Ok(()), |whole| cut(&self.file, whole))
                .and_then(|()| (&self.file).write_all(&buffer))
                .and_then(|()| self.file.sync_data());
            state = self.lock();
            state.flush_wanted = false;
            match written {
                Ok(()) => state.durable = target,
                Err(error) => state.failure = Some(JournalError::of_file(&self.path, &error)),
            }
            self.changed.notify_all();
            if state.failure.is_some() {
                return;
            }
        }
    }
}

/// Reads a journal without locking or changing it, as it stands at this moment: hands each payload and
/// its offset in the file to `take`, one at a time. Returns also the bytes of an unfinished last write.
///
/// # Errors
/// [`JournalError::NotFound`], [`JournalError::Corrupt`], or what the operating system reports.
pub fn scan<T>(
    path: &Path,
    purpose: &str,
    begin: impl Fn(Arc<File>) -> T,
    take: impl Fn(&mut T, u64, &[u8]),
) -> Result<(T, u64), JournalError> {
    let failed = |error: std::io::Error| JournalError::of_file(path, &error);
    let attempt = || {
        check_regular(path)?;
        let file = Arc::new(File::open(path).map_err(failed)?);
        let size = file.metadata().map_err(failed)?.len();
        let mut bytes = BufReader::with_capacity(READ_BYTES, &*file).take(size);
        let mut found = begin(Arc::clone(&file));
        let mut take = |offset: u64, payload: &[u8]| take(&mut found, offset, payload);
        let scanned = frames::scan(path, &mut bytes, purpose, &mut take)?;
        Ok((found, scanned.dropped))
    };
    // A writer that cut off a torn end while the file was being read leaves a reader with bytes of
    // before and after; it does so once.
    attempt().or_else(|error| match error {
        JournalError::Corrupt { .. } => attempt(),
        other => Err(other),
    })
}

/// Reads all payloads of a journal, as [`scan`] does.
///
/// # Errors
/// As [`scan`].
pub fn read(path: &Path, purpose: &str) -> Result<Recovered, JournalError> {
    let keep = |frames: &mut Vec<Vec<u8>>, _, payload: &[u8]| frames.push(payload.to_vec());
    let (frames, dropped_bytes) = scan(path, purpose, |_| Vec::new(), keep)?;
    Ok(Recovered { frames, dropped_bytes })
}

/// Cuts off an unfinished last write under the writer's lock, as the next writer would, and tells how
/// many bytes it had.
///
/// # Errors
/// As [`Journal::open`].
pub fn repair(path: &Path, purpose: &str) -> Result<u64, JournalError> {
    let (file, recovered, whole) = recover(path, purpose)?;
    if recovered.dropped_bytes > 0 {
        cut(&file, whole).map_err(|error| JournalError::of_file(path, &error))?;
    }
    Ok(recovered.dropped_bytes)
}

/// Locks a journal, makes its whole frames durable, and returns their length; what follows them is
/// left there.
fn recover(path: &Path, purpose: &str) -> Result<(File, Recovered, u64), JournalError> {
    let failed = |error: std::io::Error| JournalError::of_file(path, &error);
    check_regular(path)?;
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    lock(&file, path)?;
    let mut frames = Vec::new();
    let mut keep = |_, payload: &[u8]| frames.push(payload.to_vec());
    let mut bytes = BufReader::with_capacity(READ_BYTES, &file);
    let Scanned { whole, group, dropped } = frames::scan(path, &mut bytes, purpose, &mut keep)?;
    let recovered = Recovered { frames, dropped_bytes: dropped };
    let head = encode_frame(&header(purpose), 0);
    // The last group may have been written by a process that ended, or that was told that it could
    // not be synchronised. After that a system may count its pages as written although they are
    // not, so they are written again.
    let mut last = head;
    if whole > 0 {
        last = vec![0; (whole - group) as usize];
        file.seek(SeekFrom::Start(group)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
    }
    file.seek(SeekFrom::Start(group)).map_err(failed)?;
    file.write_all(&last).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    if whole == 0 {
        sync_folder_of(path)?;
    }
    Ok((file, recovered, group + last.len() as u64))
}

fn cut(file: &File, length: u64) -> std::io::Result<()> {
    file.set_len(length).and_then(|()| file.sync_all())
}

/// Replaces a journal by one without the frames that `unwanted` names, under the writer's lock; returns
/// their number. A crash leaves the old journal or the new one.
///
/// # Errors
/// [`JournalError::Locked`], [`JournalError::Corrupt`], or what the operating system reports.
pub fn remove(path: &Path, purpose: &str, unwanted: &dyn Fn(&[u8]) -> bool) -> Result<u64, JournalError> {
    let failed = |error: std::io::Error| JournalError::of_file(path, &error);
    check_regular(path)?;
    let file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
    lock(&file, path)?;
    let frames = read(path, purpose)?.frames;
    // Each frame is durable when the file has its name: none belongs to a group that may be torn.
    let kept = frames.iter().filter(|payload| !unwanted(payload)).map(|payload| encode_frame(payload, 0));
    let kept: Vec<Vec<u8>> = [encode_frame(&header(purpose), 0)].into_iter().chain(kept).collect();
    let removed = frames.len() + 1 - kept.len();
    write_durably(path, &kept.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok(removed as u64)
}

/// A stranger's folder may hold a pipe, a link or an endless file where a journal belongs.
fn check_regular(path: &Path) -> Result<(), JournalError> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| JournalError::of_file(path, &error))?;
    if !metadata.is_file() {
        let detail = "not a regular file".into();
        return Err(JournalError::Corrupt { path: path.to_path_buf(), offset: 0, detail });
    }
    check_size(path, metadata.len())
}

fn check_size(path: &Path, size: u64) -> Result<(), JournalError> {
    if size > MAX_JOURNAL {
        return Err(JournalError::TooLarge { path: path.to_path_buf(), size });
    }
    Ok(())
}

/// Writes a whole file so that a crash leaves either nothing or all of it under `path`.
///
/// # Errors
/// What the operating system reports.
pub fn write_durably(path: &Path, parts: &[&[u8]]) -> Result<(), JournalError> {
    let failed = |error: std::io::Error| JournalError::of_file(path, &error);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{number}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&partial)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        std::fs::rename(&partial, path)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(failed(error));
    }
    sync_folder_of(path)
}

/// Makes the name of a file or folder durable.
///
/// # Errors
/// What the operating system reports.
pub fn sync_folder_of(path: &Path) -> Result<(), JournalError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| JournalError::of_file(folder, &error))?;
    Ok(())
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(JournalError::Locked { path: path.to_path_buf() }),
        Err(std::fs::TryLockError::Error(error)) => Err(JournalError::of_file(path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug: a forked child, which has no flusher, writes its parent's journal or frees its lock.
    #[test]
    fn a_handle_of_another_process_neither_writes_nor_unlocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, "ledger").unwrap();
        let flusher = journal.flusher.take();
        journal.process += 1;
        assert!(matches!(journal.append(b"frame"), Err(JournalError::Forked { .. })));
        assert!(matches!(journal.flush(), Err(JournalError::Forked { .. })));
        let shared = Arc::clone(&journal.shared);
        drop(journal);
        assert!(matches!(Journal::open(&path, "ledger"), Err(JournalError::Locked { .. })));
        shared.lock().closing = true;
        shared.changed.notify_all();
        flusher.expect("a writer has a flusher").join().unwrap();
    }
}
