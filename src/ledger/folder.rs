//! The run folder: where the files of a run lie, and how a run begins in one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Field, LedgerError};
use crate::commit::merkle::CompactRange;
use crate::commit::{Entry, Sha256};
use crate::evidence::{AnchorRecord, FrameError, Log};
use crate::files;
use crate::journal::{self, JournalError, sync_folder_of, write_durably};
use crate::keys::KeyFolder;
use crate::primitives::{Address, Digest};
use crate::receipt::{Body, log_id};
use crate::verify::{MAX_DOCUMENT, MAX_RECIPE, MAX_RECIPE_FILES};

/// A folder that holds a run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// What the owner settles when a run begins.
#[derive(Clone, Debug, Default)]
pub struct RunSettings {
    /// Bytes of `spec.json`.
    pub specification: Vec<u8>,
    /// Files of the recipe by their path with `/`.
    pub recipe: BTreeMap<String, Vec<u8>>,
    /// The samples that training draws from.
    pub dataset: Option<Field>,
    /// What makes equal runs of one owner different; 32 random bytes if none.
    pub nonce: Option<Digest>,
}

fn damaged(place: &Path, detail: impl ToString) -> LedgerError {
    LedgerError::Damaged { place: place.display().to_string(), detail: detail.to_string() }
}

fn io_error(path: &Path, error: &std::io::Error) -> LedgerError {
    LedgerError::Journal(JournalError::of_file(path, error))
}

/// Reads a regular file of at most `limit` bytes; none when there is none.
///
/// A stranger's folder may hold links and devices where files belong; those are refused.
///
/// # Errors
/// [`LedgerError::Damaged`] for what is no regular file or too large.
fn read_regular(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LedgerError> {
    let Some(mut file) = open_regular(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|error| io_error(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(damaged(path, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

fn open_regular(path: &Path) -> Result<Option<File>, LedgerError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            File::open(path).map(Some).map_err(|error| io_error(path, &error))
        }
        Ok(_) => Err(damaged(path, "not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, &error)),
    }
}

/// Where an object lies in a run folder.
fn object_path(folder: &Path, root: &Digest) -> PathBuf {
    folder.join("objects").join(alloy_primitives::hex::encode(root))
}

impl RunFolder {
    /// Makes the folder of a new run with its specification and recipe.
    ///
    /// # Errors
    /// [`LedgerError::Exists`] when the folder is there and not empty.
    pub fn create(path: &Path, settings: &RunSettings) -> Result<RunFolder, LedgerError> {
        let is_taken =
            std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) || path.is_file();
        if is_taken {
            return Err(LedgerError::Exists { path: path.display().to_string() });
        }
        let size: usize = settings.recipe.values().map(Vec::len).sum();
        if settings.recipe.len() > MAX_RECIPE_FILES || size as u64 > MAX_RECIPE {
            let what = format!("a recipe of {} files", settings.recipe.len());
            return Err(LedgerError::TooLarge { what, expected: MAX_RECIPE, actual: size as u64 });
        }
        let folder = RunFolder { path: path.to_path_buf() };
        for name in ["objects", "anchors", "workers"] {
            folder.make(&path.join(name))?;
        }
        for (name, contents) in &settings.recipe {
            let file = path.join("recipe").join(name);
            folder.make(file.parent().unwrap_or(path))?;
            write_durably(&file, &[contents])?;
        }
        write_durably(&path.join("spec.json"), &[&settings.specification])?;
        Ok(folder)
    }

    /// Takes the folder of an existing run.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when it holds no `spec.json`.
    pub fn open(path: &Path) -> Result<RunFolder, LedgerError> {
        let folder = RunFolder { path: path.to_path_buf() };
        folder.specification().map(|_| folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of `spec.json`.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`], [`LedgerError::Damaged`].
    pub fn specification(&self) -> Result<Vec<u8>, LedgerError> {
        let path = self.path.join("spec.json");
        read_regular(&path, MAX_DOCUMENT)?
            .ok_or_else(|| LedgerError::NotFound { path: path.display().to_string() })
    }

    /// The folder of one lane.
    pub fn lane(&self, worker: Address, lane: u32) -> PathBuf {
        self.path.join("workers").join(format!("{worker:#x}")).join(lane.to_string())
    }

    /// Makes a folder of the run. Its name is durable on return, and so are those above it: up to the
    /// run's own, which a process may have made that ended before it could say so, and beyond where
    /// they were missing.
    pub(super) fn make(&self, path: &Path) -> Result<(), LedgerError> {
        let above: Vec<&Path> = path.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
        let is_new = |folder: &&Path| folder.starts_with(&self.path) || !folder.exists();
        let new = above.iter().take_while(|folder| is_new(folder)).count();
        std::fs::create_dir_all(path).map_err(|error| io_error(path, &error))?;
        above[..new].iter().try_for_each(|folder| Ok(sync_folder_of(folder)?))
    }

    /// All lanes that have a journal, in order of their names.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] for a folder that is named like no worker or lane.
    pub fn lanes(&self) -> Result<Vec<(Address, u32)>, LedgerError> {
        let mut lanes = Vec::new();
        let is_folder = |path: &PathBuf| path.is_dir();
        for worker in list(&self.path.join("workers"))?.into_iter().filter(is_folder) {
            let address: Address = parse_name(&worker, |address| format!("{address:#x}"))?;
            for lane in list(&worker)?.into_iter().filter(is_folder) {
                let number: u32 = parse_name(&lane, u32::to_string)?;
                if lane.join("journal").exists() {
                    lanes.push((address, number));
                }
            }
        }
        lanes.sort();
        Ok(lanes)
    }

    /// One lane's journal, as it stands, with the bytes of an unfinished last frame.
    ///
    /// # Errors
    /// [`LedgerError::Journal`], [`LedgerError::Frame`].
    pub fn log(&self, worker: Address, lane: u32) -> Result<Log, LedgerError> {
        let path = self.lane(worker, lane).join("journal");
        let begin = |file: Arc<File>| (Log::new(worker, lane, file), 0, None);
        let take = |found: &mut (Log, usize, Option<FrameError>), offset, payload: &[u8]| {
            let (log, number, refused) = found;
            if refused.is_none() {
                *refused = log.take(offset, payload).err().map(|error| error.at(*number));
            }
            *number += 1;
        };
        let ((mut log, _, refused), dropped_bytes) = journal::scan(&path, "ledger", begin, take)?;
        refused.map_or(Ok(()), Err)?;
        if log.shown() as u64 != log.size() {
            return Err(damaged(
                &self.lane(worker, lane),
                "a journal withholds receipts, as only bundles do",
            ));
        }
        log.dropped_bytes = dropped_bytes;
        Ok(log)
    }

    /// Makes what was read of a log durable and notes that it may leave this device, if the log is
    /// written here: another process may be about to lose it.
    ///
    /// # Errors
    /// [`LedgerError::Journal`], [`LedgerError::Key`].
    pub fn release(&self, log: &Log, keys: &KeyFolder) -> Result<(), LedgerError> {
        let run = self.genesis()?.bytes32("run");
        let id = log_id(run, log.worker, log.lane);
        if keys.has_lane(id) {
            let path = self.lane(log.worker, log.lane).join("journal");
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| io_error(&path, &error))?;
            keys.set_released(id, log.size())?;
        }
        Ok(())
    }

    /// The body of the run's genesis receipt, which nobody checked yet.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when no lane 0 begins with one.
    pub fn genesis(&self) -> Result<Body, LedgerError> {
        for (worker, lane) in self.lanes()?.into_iter().filter(|(_, lane)| *lane == 0) {
            if let Some(genesis) = self.log(worker, lane)?.genesis() {
                return Ok(genesis);
            }
        }
        Err(LedgerError::NotFound { path: format!("a genesis receipt in {}", self.path.display()) })
    }

    /// The recipe's files; empty when the run has none.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when there are too many or they are too large.
    pub fn recipe(&self) -> Result<BTreeMap<String, Vec<u8>>, LedgerError> {
        let root = self.path.join("recipe");
        let (mut files, mut folders, mut left) = (BTreeMap::new(), vec![root.clone()], MAX_RECIPE);
        while let Some(folder) = folders.pop() {
            for path in list(&folder)? {
                if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    folders.push(path);
                } else if let Some(contents) = read_regular(&path, left)? {
                    left -= contents.len() as u64;
                    let name = path.strip_prefix(&root).map_err(|error| damaged(&path, error))?;
                    let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
                    files.insert(parts.join("/"), contents);
                }
            }
            if files.len() + folders.len() > MAX_RECIPE_FILES {
                return Err(damaged(&root, format!("more than {MAX_RECIPE_FILES} files")));
            }
        }
        Ok(files)
    }

    /// The anchor records, by their file names.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] for a file that is no record.
    pub fn anchors(&self) -> Result<Vec<(String, AnchorRecord)>, LedgerError> {
        let mut records = Vec::new();
        for path in list(&self.path.join("anchors"))? {
            let bytes = read_regular(&path, MAX_DOCUMENT)?.unwrap_or_default();
            // Not the parser's own words: they quote the file, which may be anybody's.
            let refused = |error: serde_json::Error| {
                damaged(&path, format!("no anchor record, line {} column {}", error.line(), error.column()))
            };
            let record = serde_json::from_slice(&bytes).map_err(refused)?;
            records.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), record));
        }
        Ok(records)
    }

    /// Stores a tensor's canonical bytes under their root, unless they are there.
    ///
    /// # Errors
    /// [`LedgerError::Journal`] when they cannot be written.
    pub fn store_object(&self, root: &Digest, bytes: &[u8]) -> Result<(), LedgerError> {
        let path = object_path(&self.path, root);
        match path.exists() {
            // Whoever wrote it may have been told that its name could not be made durable.
            true => Ok(sync_folder_of(&path)?),
            false => Ok(write_durably(&path, &[bytes])?),
        }
    }

    /// The bytes of a tensor's object, if they are the tensor's; none when the object is missing.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when something else lies there.
    pub fn object(&self, tensor: &Entry) -> Result<Option<Vec<u8>>, LedgerError> {
        let path = object_path(&self.path, &tensor.root());
        let Some(bytes) = read_regular(&path, tensor.size())? else { return Ok(None) };
        let actual = crate::commit::bytes_root(&bytes);
        if actual != tensor.root() {
            return Err(damaged(&path, format!("its bytes have the root {actual}")));
        }
        Ok(Some(bytes))
    }

    /// The root over what is stored for a tensor; none when the object is missing, zero when what
    /// lies there cannot be the tensor: no file, or one of another size.
    pub fn object_root(&self, tensor: &Entry) -> Option<Digest> {
        let path = object_path(&self.path, &tensor.root());
        match open_regular(&path) {
            Ok(None) => None,
            Ok(Some(file)) if file.metadata().is_ok_and(|metadata| metadata.len() == tensor.size()) => {
                let found = files::ranges::<Sha256>(&path, &mut |_| true).ok().flatten();
                Some(found.map_or(Digest::ZERO, |(_, ranges)| CompactRange::joined(ranges).root()))
            }
            _ => Some(Digest::ZERO),
        }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    if std::fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(damaged(folder, "a link where a folder belongs"));
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(folder, &error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|error| io_error(folder, &error))?;
    // What an interrupted write left behind has no meaning.
    paths.retain(|path| path.extension().is_none_or(|extension| extension != "partial"));
    paths.sort();
    Ok(paths)
}

/// One worker or lane has one name: `00` beside `0` would be a second ledger of the same lane.
fn parse_name<T: std::str::FromStr>(path: &Path, name_of: impl Fn(&T) -> String) -> Result<T, LedgerError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parsed = name.parse().ok().filter(|parsed| name_of(parsed) == name);
    parsed.ok_or_else(|| damaged(path, "this folder is named like no worker and no lane"))
}
