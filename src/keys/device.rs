//! The device key: `device.key` in the clear, or `device.json` under a password.
//!
//! `protect` makes the second file durable, opens it again, and only then removes the first. So a
//! process that ends in between leaves both, with one key in them; that is the only case in which
//! both may be there.

use std::path::{Path, PathBuf};

use k256::elliptic_curve::zeroize::Zeroizing;

use super::keystore::{Keystore, encrypt};
use super::secret::{SecretFile, parse_digits, remove_partials, write_digits, write_new};
use super::{KeyError, KeyFolder, Password, random, storage};
use crate::journal::sync_folder_of;
use crate::primitives::Address;
use crate::receipt::{LocalSigner, Signer};

/// Stands for the address of a keystore that names none.
const UNNAMED: &str = "an address that it does not name";

/// What [`KeyFolder::restore`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The key is the device key from now on.
    Installed(Address),
    /// It was the device key before; nothing was changed.
    AlreadyThere(Address),
}

impl KeyFolder {
    /// The device key: `$COUNTERFOIL_KEY` if set, else the file `device.key` or `device.json`, the
    /// former made on first use. The latter needs `$COUNTERFOIL_PASSWORD`.
    ///
    /// # Errors
    /// [`KeyError::Protected`] without a password, [`KeyError::Keystore`], [`KeyError::Invalid`],
    /// [`KeyError::Exposed`], [`KeyError::TwoDeviceKeys`], [`KeyError::Storage`].
    pub fn device_key(&self) -> Result<LocalSigner, KeyError> {
        self.open_device_key(None)
    }

    fn open_device_key(&self, password: Option<&Password>) -> Result<LocalSigner, KeyError> {
        if let Some(text) = std::env::var_os("COUNTERFOIL_KEY") {
            let text = Zeroizing::new(text.into_encoded_bytes());
            let signer = parse_digits(&text).and_then(|secret| LocalSigner::from_bytes(&secret).ok());
            let place = "the environment variable COUNTERFOIL_KEY";
            return signer.ok_or_else(|| KeyError::Invalid { place: place.into() });
        }
        let (plain, keystore) = (self.plain(), self.keystore());
        // In this order, since `protect` makes the second before it removes the first.
        // A link to a stick that is not there is a key that is not there, and no reason to make another.
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        match (is_there(&plain), is_there(&keystore)) {
            (false, false) => match create_key(&plain, None) {
                // Another process made it in between.
                Err(KeyError::Exists { .. }) => load_key(&plain, None),
                made => made,
            },
            (true, false) => load_key(&plain, None),
            (false, true) => load_key(&keystore, password),
            (true, true) => {
                let signer = load_key(&plain, None)?;
                let named = address_in(&keystore)?;
                if named != Some(signer.address()) {
                    let named = named.map_or(UNNAMED.into(), |named| named.to_string());
                    return Err(KeyError::TwoDeviceKeys {
                        folder: self.path().display().to_string(),
                        plain: signer.address(),
                        keystore: named,
                    });
                }
                Ok(signer)
            }
        }
    }

    /// Encrypts the device key, made if there is none: `device.json` is durable and was opened
    /// again before `device.key` is removed. Also ends what an earlier call began.
    ///
    /// # Errors
    /// [`KeyError::NoPassword`], [`KeyError::KeyInEnvironment`], and those of
    /// [`KeyFolder::device_key`]. After any of them the key is as usable as before.
    pub fn protect(&self, password: &Password) -> Result<Address, KeyError> {
        without_environment()?;
        let signer = self.open_device_key(Some(password))?;
        let (plain, keystore) = (self.plain(), self.keystore());
        if !keystore.exists() {
            write_keystore(&keystore, &signer, password)?;
        } else if plain.exists() {
            load_key(&keystore, Some(password))?;
        }
        remove_partials(&plain)?;
        if plain.exists() {
            std::fs::remove_file(&plain).map_err(|error| storage(&plain, &error))?;
            sync_folder_of(&plain)?;
        }
        Ok(signer.address())
    }

    /// Writes a keystore of the device key to a new file. It holds neither lane secrets nor what
    /// was released: a lane that were continued from it could sign a second history.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when the file is there, [`KeyError::NoPassword`], and those of
    /// [`KeyFolder::device_key`].
    pub fn back_up(&self, path: &Path, password: &Password) -> Result<Address, KeyError> {
        if path.exists() {
            return Err(KeyError::Exists { path: path.display().to_string() });
        }
        let signer = self.open_device_key(Some(password))?;
        write_keystore(path, &signer, password)?;
        Ok(signer.address())
    }

    /// Makes the key in a keystore this folder's device key, encrypted anew with the same password.
    ///
    /// # Errors
    /// [`KeyError::OtherDeviceKey`] when there is another one, which stays;
    /// [`KeyError::KeyInEnvironment`], [`KeyError::Keystore`], [`KeyError::Invalid`] when the file
    /// is no keystore.
    pub fn restore(&self, path: &Path, password: &Password) -> Result<Restored, KeyError> {
        without_environment()?;
        let signer = open_keystore(path, &SecretFile::read(path)?, password)?;
        let address = signer.address();
        let (plain, keystore) = (self.plain(), self.keystore());
        let (there, known) = if plain.exists() {
            let known = load_key(&plain, None)?.address();
            (plain, Some(known))
        } else if keystore.exists() {
            let known = address_in(&keystore)?;
            (keystore, known)
        } else {
            write_keystore(&keystore, &signer, password)?;
            return Ok(Restored::Installed(address));
        };
        if known == Some(address) {
            return Ok(Restored::AlreadyThere(address));
        }
        Err(KeyError::OtherDeviceKey {
            path: there.display().to_string(),
            restored: address,
            there: known.map_or(UNNAMED.into(), |known| known.to_string()),
        })
    }

    fn plain(&self) -> PathBuf {
        self.path().join("device.key")
    }

    fn keystore(&self) -> PathBuf {
        self.path().join("device.json")
    }
}

/// Makes a new key in a new file: a keystore if there is a password, else 64 hexadecimal digits.
///
/// # Errors
/// [`KeyError::Exists`], [`KeyError::NoPassword`] for an empty one, [`KeyError::Storage`].
pub fn create_key(path: &Path, password: Option<&Password>) -> Result<LocalSigner, KeyError> {
    let signer = generate_key()?;
    match password {
        Some(password) => write_keystore(path, &signer, password)?,
        None => write_digits(path, &signer.to_bytes())?,
    }
    Ok(signer)
}

/// A new key that is not stored anywhere.
///
/// # Errors
/// [`KeyError::Storage`] when the operating system gives no random bytes.
pub fn generate_key() -> Result<LocalSigner, KeyError> {
    loop {
        // One in 2^128 draws is not below the group order.
        if let Ok(signer) = LocalSigner::from_bytes(&Zeroizing::new(random()?)) {
            return Ok(signer);
        }
    }
}

/// The key in a file of 64 hexadecimal digits or in a keystore, told apart by what they hold. A
/// keystore opens with the password, else with `$COUNTERFOIL_PASSWORD`, and may be open to others:
/// it is made to be carried.
///
/// # Errors
/// [`KeyError::Protected`] when there is no password, [`KeyError::Keystore`],
/// [`KeyError::Invalid`], [`KeyError::Exposed`], [`KeyError::Storage`].
pub fn load_key(path: &Path, password: Option<&Password>) -> Result<LocalSigner, KeyError> {
    let file = SecretFile::read(path)?;
    if file.keystore().is_none() {
        let invalid = |_| KeyError::Invalid { place: path.display().to_string() };
        return LocalSigner::from_bytes(&*file.digits()?).map_err(invalid);
    }
    let environment = Password::from_environment();
    let password = password.or(environment.as_ref());
    let password = password.ok_or_else(|| KeyError::Protected { path: path.display().to_string() })?;
    open_keystore(path, &file, password)
}

fn open_keystore(path: &Path, file: &SecretFile, password: &Password) -> Result<LocalSigner, KeyError> {
    parse_keystore(path, file)?.open(password).map_err(|reason| refused(path, reason))
}

fn parse_keystore(path: &Path, file: &SecretFile) -> Result<Keystore, KeyError> {
    let text = file.keystore().ok_or_else(|| KeyError::Invalid { place: path.display().to_string() })?;
    Keystore::parse(text).map_err(|reason| refused(path, reason))
}

fn refused(path: &Path, reason: super::KeystoreError) -> KeyError {
    KeyError::Keystore { path: path.display().to_string(), reason }
}

/// The address that a keystore names, without opening it.
fn address_in(path: &Path) -> Result<Option<Address>, KeyError> {
    Ok(parse_keystore(path, &SecretFile::read(path)?)?.address)
}

/// Writes a new keystore and opens it again.
fn write_keystore(path: &Path, signer: &LocalSigner, password: &Password) -> Result<(), KeyError> {
    if password.as_bytes().is_empty() {
        return Err(KeyError::NoPassword);
    }
    write_new(path, encrypt(signer, password)?.as_bytes())?;
    // It names an address, so it opens to this key or not at all.
    let opened = SecretFile::read(path).and_then(|file| open_keystore(path, &file, password));
    if opened.is_err() {
        // A file that nobody can open must not stand in the place of a key.
        let _ = std::fs::remove_file(path);
    }
    opened.map(drop)
}

fn without_environment() -> Result<(), KeyError> {
    match std::env::var_os("COUNTERFOIL_KEY") {
        Some(_) => Err(KeyError::KeyInEnvironment),
        None => Ok(()),
    }
}
