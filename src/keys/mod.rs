//! Key files: the device key that signs receipts, and the lanes' secrets.
//!
//! They lie in one folder of the user's (`$COUNTERFOIL_HOME`, else `~/.counterfoil`), readable by
//! the user alone, and are never asked for: the first use makes them. Nothing here prints a key.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::primitives::{Digest, Report};
use crate::receipt::{LaneSecret, LocalSigner, SignError};

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum KeyError {
    /// Neither `COUNTERFOIL_HOME` nor `HOME` says where keys lie.
    #[error("set COUNTERFOIL_HOME to the folder that shall hold keys: there is no home folder")]
    NoHome,
    /// The file does not hold 64 hexadecimal digits that are a private key.
    #[error("{place} does not hold a private key (64 hexadecimal digits)")]
    Invalid { place: String },
    /// The file can be read or written by others.
    #[error("{path} is open to other users (mode {mode:o}); type: chmod 600 {path}")]
    Exposed { path: String, mode: u32 },
    /// The lane was begun elsewhere and its secret is not here.
    #[error(
        "the secret of lane {lane} is not in {folder}; continue in a new lane (Run.join), or copy the file there"
    )]
    NoLaneSecret { lane: Digest, folder: String },
    /// Another process writes this lane, perhaps in a copy of the run.
    #[error("lane {lane} is being written by another process, perhaps in a copy of this run; close it there")]
    InUse { lane: Digest },
    /// The operating system refused.
    #[error("{path}: {detail}")]
    Storage { path: String, detail: String },
}

impl From<SignError> for KeyError {
    fn from(_: SignError) -> Self {
        KeyError::Invalid { place: "the key given".into() }
    }
}

impl Report for KeyError {
    fn code(&self) -> &'static str {
        match self {
            KeyError::Storage { .. } => "storage",
            KeyError::InUse { .. } => "locked",
            _ => "key",
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            KeyError::NoHome => None,
            KeyError::Invalid { place } => Some(place.clone()),
            KeyError::Exposed { path, .. } | KeyError::Storage { path, .. } => Some(path.clone()),
            KeyError::NoLaneSecret { lane, .. } | KeyError::InUse { lane } => Some(lane.to_string()),
        }
    }
}

/// The folder in which this user's keys lie.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
}

impl KeyFolder {
    /// `$COUNTERFOIL_HOME`, else `~/.counterfoil`; made when it is missing.
    ///
    /// # Errors
    /// [`KeyError::NoHome`], [`KeyError::Storage`].
    pub fn of_user() -> Result<KeyFolder, KeyError> {
        let path = match (std::env::var_os("COUNTERFOIL_HOME"), std::env::home_dir()) {
            (Some(folder), _) if !folder.is_empty() => PathBuf::from(folder),
            (_, Some(home)) if !home.as_os_str().is_empty() => home.join(".counterfoil"),
            _ => return Err(KeyError::NoHome),
        };
        let folder = KeyFolder { path };
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true);
        for name in ["lanes", "released"] {
            builder.create(folder.path.join(name)).map_err(|error| storage(&folder.path, &error))?;
        }
        Ok(folder)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device key: `$COUNTERFOIL_KEY` if set, else the file `device.key`, made on first use.
    ///
    /// # Errors
    /// [`KeyError::Invalid`], [`KeyError::Exposed`], [`KeyError::Storage`].
    pub fn device_key(&self) -> Result<LocalSigner, KeyError> {
        if let Some(text) = std::env::var_os("COUNTERFOIL_KEY") {
            let place = || KeyError::Invalid { place: "the environment variable COUNTERFOIL_KEY".into() };
            return parse_key(&text.to_string_lossy()).ok_or_else(place);
        }
        let path = self.path.join("device.key");
        if !path.exists() {
            return match create_key(&path) {
                // Another process made it in between.
                Err(_) if path.exists() => load_key(&path),
                made => made,
            };
        }
        load_key(&path)
    }

    /// The secret of a lane that begins here: a new one, or the one that a process made which ended
    /// before it had signed anything with it.
    ///
    /// # Errors
    /// [`KeyError::Storage`], also when receipts of this lane have left the device before.
    pub fn new_lane_secret(&self, log: Digest) -> Result<LaneSecret, KeyError> {
        let path = self.path.join("lanes").join(log.to_string());
        if path.exists() && self.released(log)? == 0 {
            return self.lane_secret(log);
        }
        let secret = random()?;
        write_secret(&path, &secret)?;
        Ok(LaneSecret::new(secret))
    }

    /// The secret of a lane that was begun here.
    ///
    /// # Errors
    /// [`KeyError::NoLaneSecret`], [`KeyError::Invalid`], [`KeyError::Exposed`].
    pub fn lane_secret(&self, log: Digest) -> Result<LaneSecret, KeyError> {
        let path = self.path.join("lanes").join(log.to_string());
        if !path.exists() {
            return Err(KeyError::NoLaneSecret { lane: log, folder: self.path.display().to_string() });
        }
        Ok(LaneSecret::new(read_secret(&path)?))
    }
}

impl KeyFolder {
    /// How many receipts of a lane have left this device.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] when the file holds no number.
    pub fn released(&self, log: Digest) -> Result<u64, KeyError> {
        let path = self.released_path(log);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            read => read.map_err(|error| storage(&path, &error))?,
        };
        text.trim().parse().map_err(|_| KeyError::Invalid { place: path.display().to_string() })
    }

    /// Notes that this many receipts of a lane may leave this device.
    ///
    /// # Errors
    /// [`KeyError::Storage`].
    pub fn set_released(&self, log: Digest, size: u64) -> Result<(), KeyError> {
        let path = self.released_path(log);
        let partial = path.with_extension("partial");
        let written = std::fs::File::create(&partial)
            .and_then(|mut file| writeln!(file, "{size}").and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&partial, &path));
        written.map_err(|error| storage(&path, &error))
    }

    /// Keeps every other process of this user from writing the same lane, also in a copy of its run,
    /// as long as the file lives and is not unlocked.
    ///
    /// # Errors
    /// [`KeyError::InUse`], [`KeyError::Storage`].
    pub fn lock_lane(&self, log: Digest) -> Result<std::fs::File, KeyError> {
        let path = self.path.join("lanes").join(log.to_string());
        let file = std::fs::File::open(&path).map_err(|error| storage(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(KeyError::InUse { lane: log }),
            Err(std::fs::TryLockError::Error(error)) => Err(storage(&path, &error)),
        }
    }

    fn released_path(&self, log: Digest) -> PathBuf {
        self.path.join("released").join(log.to_string())
    }
}

/// Makes a new key in a new file.
///
/// # Errors
/// [`KeyError::Storage`], also when the file exists.
pub fn create_key(path: &Path) -> Result<LocalSigner, KeyError> {
    let signer = generate_key()?;
    write_secret(path, &signer.to_bytes())?;
    Ok(signer)
}

/// A new key that is not stored anywhere.
///
/// # Errors
/// [`KeyError::Storage`] when the operating system gives no random bytes.
pub fn generate_key() -> Result<LocalSigner, KeyError> {
    loop {
        // One in 2^128 draws is not below the group order.
        if let Ok(signer) = LocalSigner::from_bytes(&random()?) {
            return Ok(signer);
        }
    }
}

/// The key in a file of 64 hexadecimal digits.
///
/// # Errors
/// [`KeyError::Invalid`], [`KeyError::Exposed`], [`KeyError::Storage`].
pub fn load_key(path: &Path) -> Result<LocalSigner, KeyError> {
    let invalid = |_| KeyError::Invalid { place: path.display().to_string() };
    LocalSigner::from_bytes(&read_secret(path)?).map_err(invalid)
}

fn parse_key(text: &str) -> Option<LocalSigner> {
    let digits = text.trim();
    let bytes = alloy_primitives::hex::decode_to_array::<_, 32>(digits).ok()?;
    LocalSigner::from_bytes(&bytes).ok()
}

/// 32 random bytes of the operating system.
pub(crate) fn random() -> Result<[u8; 32], KeyError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Storage {
        path: "the system's random source".into(),
        detail: error.to_string(),
    })?;
    Ok(bytes)
}

fn storage(path: &Path, error: &std::io::Error) -> KeyError {
    KeyError::Storage { path: path.display().to_string(), detail: error.to_string() }
}

/// Writes a new file that is whole as soon as it has its name; an existing one is not replaced.
fn write_secret(path: &Path, secret: &[u8; 32]) -> Result<(), KeyError> {
    let failed = |error: std::io::Error| storage(path, &error);
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&partial).map_err(failed)?;
    let text = alloy_primitives::hex::encode(secret) + "\n";
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&partial, path));
    let _ = std::fs::remove_file(&partial);
    linked.map_err(failed)
}

fn read_secret(path: &Path) -> Result<[u8; 32], KeyError> {
    let file = std::fs::File::open(path).map_err(|error| storage(path, &error))?;
    #[cfg(unix)]
    {
        let metadata = file.metadata().map_err(|error| storage(path, &error))?;
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata) & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.display().to_string(), mode });
        }
    }
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).map_err(|error| storage(path, &error))?;
    let invalid = |_| KeyError::Invalid { place: path.display().to_string() };
    alloy_primitives::hex::decode_to_array(text.trim()).map_err(invalid)
}
