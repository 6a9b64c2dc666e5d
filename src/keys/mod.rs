//! Key files: the device key that signs receipts, and the lanes' secrets.
//!
//! They lie in one folder of the user's (`$COUNTERFOIL_HOME`, else `~/.counterfoil`), readable by
//! the user alone, and are never asked for: the first use makes them. Nothing here prints a key or
//! a password, or asks for one.

mod device;
mod keystore;
mod secret;

use std::path::{Path, PathBuf};

use k256::elliptic_curve::zeroize::Zeroizing;

pub use device::{Restored, create_key, generate_key, load_key};
pub use keystore::KeystoreError;

use crate::journal::{JournalError, sync_folder_of, write_durably};
use crate::primitives::{Address, Digest, Report};
use crate::receipt::{LaneSecret, SignError};
use secret::{SecretFile, write_digits};

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
    /// The keystore does not open.
    #[error("{path}: {reason}")]
    Keystore { path: String, reason: KeystoreError },
    /// A keystore, and no password for it.
    #[error("{path} is protected; set COUNTERFOIL_PASSWORD to its password")]
    Protected { path: String },
    /// No password was given, or an empty one.
    #[error("a password is needed: set COUNTERFOIL_PASSWORD (an empty one protects nothing)")]
    NoPassword,
    /// The files of the key folder would be changed while another key is used.
    #[error("COUNTERFOIL_KEY is set and comes before the key folder; unset it first")]
    KeyInEnvironment,
    /// Two device keys, of which nobody can say which one is meant.
    #[error(
        "{folder} holds two device keys: device.key with {plain} and device.json with {keystore}; \
         move the one that you do not use to another folder"
    )]
    TwoDeviceKeys { folder: String, plain: Address, keystore: String },
    /// A key would replace another one.
    #[error(
        "{path} holds the key of {there}, which is not replaced by that of {restored}; move it elsewhere first"
    )]
    OtherDeviceKey { path: String, restored: Address, there: String },
    /// The file is there, and a key is never written over another file.
    #[error("{path} exists; name another file")]
    Exists { path: String },
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

impl From<JournalError> for KeyError {
    fn from(error: JournalError) -> Self {
        KeyError::Storage { path: error.place().unwrap_or_default(), detail: error.to_string() }
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

    fn expected(&self) -> Option<String> {
        match self {
            KeyError::TwoDeviceKeys { plain, .. } => Some(plain.to_string()),
            KeyError::OtherDeviceKey { restored, .. } => Some(restored.to_string()),
            KeyError::Keystore { reason, .. } => match reason {
                KeystoreError::Unsupported { expected, .. } | KeystoreError::Field { expected, .. } => {
                    Some((*expected).into())
                }
                KeystoreError::TooCostly { expected, .. } => Some(expected.to_string()),
                KeystoreError::Address { expected, .. } => Some(expected.to_string()),
                _ => None,
            },
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            KeyError::TwoDeviceKeys { keystore: actual, .. }
            | KeyError::OtherDeviceKey { there: actual, .. } => Some(actual.clone()),
            KeyError::Keystore { reason, .. } => match reason {
                KeystoreError::Unsupported { actual, .. } => Some(actual.clone()),
                KeystoreError::TooCostly { actual, .. } => Some(actual.to_string()),
                KeystoreError::Address { actual, .. } => Some(actual.to_string()),
                _ => None,
            },
            _ => None,
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            KeyError::NoHome | KeyError::NoPassword => None,
            KeyError::KeyInEnvironment => Some("COUNTERFOIL_KEY".into()),
            KeyError::Invalid { place: path }
            | KeyError::Exposed { path, .. }
            | KeyError::Keystore { path, .. }
            | KeyError::Protected { path }
            | KeyError::TwoDeviceKeys { folder: path, .. }
            | KeyError::OtherDeviceKey { path, .. }
            | KeyError::Exists { path }
            | KeyError::Storage { path, .. } => Some(path.clone()),
            KeyError::NoLaneSecret { lane, .. } | KeyError::InUse { lane } => Some(lane.to_string()),
        }
    }
}

/// What a keystore is opened with. It has no `Debug`, `Display` or serialisation on purpose, and
/// its bytes are erased when it goes.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes a password as it is, without any normal form of its characters, as wallets do.
    pub fn new(text: &str) -> Password {
        Password(Zeroizing::new(text.as_bytes().to_vec()))
    }

    /// `$COUNTERFOIL_PASSWORD`, unless it is empty or not set.
    pub fn from_environment() -> Option<Password> {
        let text = std::env::var_os("COUNTERFOIL_PASSWORD").filter(|text| !text.is_empty())?;
        Some(Password(Zeroizing::new(text.into_encoded_bytes())))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
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
            let path = folder.path.join(name);
            if !path.is_dir() {
                builder.create(&path).map_err(|error| storage(&path, &error))?;
                sync_folder_of(&path)?;
                sync_folder_of(&folder.path)?;
            }
        }
        Ok(folder)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of a lane that begins here: a new one, or the one that a process made which ended
    /// before it had signed anything with it.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when receipts of this lane have left the device before,
    /// [`KeyError::Storage`].
    pub fn new_lane_secret(&self, log: Digest) -> Result<LaneSecret, KeyError> {
        let path = self.path.join("lanes").join(log.to_string());
        // Also when the secret was forgotten: another beginning would be a second history.
        if self.released(log)? > 0 {
            return Err(KeyError::Exists { path: path.display().to_string() });
        }
        if path.exists() {
            return self.lane_secret(log);
        }
        let secret = random()?;
        write_digits(&path, &secret)?;
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
        Ok(LaneSecret::new(*SecretFile::read(&path)?.digits()?))
    }
}

impl KeyFolder {
    /// Whether the secret of a lane is here.
    pub fn has_lane(&self, log: Digest) -> bool {
        self.path.join("lanes").join(log.to_string()).exists()
    }

    /// Removes the secret of a lane for ever; how many of its receipts left the device is kept.
    ///
    /// # Errors
    /// [`KeyError::Storage`].
    pub fn forget_lane(&self, log: Digest) -> Result<(), KeyError> {
        let path = self.path.join("lanes").join(log.to_string());
        secret::remove_partials(&path)?;
        std::fs::remove_file(&path).map_err(|error| storage(&path, &error))?;
        Ok(sync_folder_of(&path)?)
    }

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

    /// Notes that at least this many receipts of a lane may leave this device.
    ///
    /// # Errors
    /// [`KeyError::Storage`].
    pub fn set_released(&self, log: Digest, size: u64) -> Result<(), KeyError> {
        let path = self.released_path(log);
        // A writer and somebody who exports may both come here; the number never becomes smaller.
        let guard = self.path.join("released").join(".lock");
        let guard = std::fs::File::create(&guard).and_then(|file| file.lock().map(|()| file));
        let _guard = guard.map_err(|error| storage(&path, &error))?;
        if self.released(log)? < size {
            write_durably(&path, &[format!("{size}\n").as_bytes()])?;
        }
        Ok(())
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
