//! Files that hold secrets: 64 hexadecimal digits, or a keystore. Bytes that were read are erased
//! from memory when they go out of scope.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use k256::elliptic_curve::zeroize::Zeroizing;

use super::keystore::MAX_FILE;
use super::{KeyError, random, storage};
use crate::journal::sync_folder_of;

/// The bytes of a file, and who else may read them.
pub(super) struct SecretFile {
    path: String,
    bytes: Zeroizing<Vec<u8>>,
    mode: u32,
}

impl SecretFile {
    /// Reads a file, one byte more than a keystore may have at most.
    pub(super) fn read(path: &Path) -> Result<SecretFile, KeyError> {
        let failed = |error: std::io::Error| storage(path, &error);
        let file = File::open(path).map_err(failed)?;
        #[cfg(unix)]
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().map_err(failed)?) & 0o777;
        #[cfg(not(unix))]
        let mode = 0;
        // As large as it can become: a vector that grows leaves its old bytes behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(SecretFile { path: path.display().to_string(), bytes, mode })
    }

    /// The text, if it is that of a keystore.
    pub(super) fn keystore(&self) -> Option<&[u8]> {
        let text = self.bytes.trim_ascii_start();
        text.starts_with(b"{").then_some(text)
    }

    /// The secret that stands in plain digits, which nobody else may read.
    pub(super) fn digits(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        if self.mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: self.path.clone(), mode: self.mode });
        }
        parse_digits(&self.bytes).ok_or_else(|| KeyError::Invalid { place: self.path.clone() })
    }
}

/// Removes what an interrupted write of this file left behind.
pub(super) fn remove_partials(path: &Path) -> Result<(), KeyError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let begin = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    for entry in std::fs::read_dir(folder).map_err(|error| storage(folder, &error))? {
        let name = entry.map_err(|error| storage(folder, &error))?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&begin) && name.ends_with(".partial") {
            let partial = folder.join(name);
            std::fs::remove_file(&partial).map_err(|error| storage(&partial, &error))?;
        }
    }
    Ok(())
}

pub(super) fn parse_digits(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    alloy_primitives::hex::decode_to_array(text.trim_ascii()).ok().map(Zeroizing::new)
}

/// Writes a new file of 64 hexadecimal digits.
pub(super) fn write_digits(path: &Path, secret: &[u8; 32]) -> Result<(), KeyError> {
    let mut text = Zeroizing::new([0; 65]);
    alloy_primitives::hex::encode_to_slice(secret, &mut text[..64]).expect("two digits a byte");
    text[64] = b'\n';
    write_new(path, &text[..])
}

/// Writes a new file that is whole and durable as soon as it has its name; an existing one is not
/// replaced.
pub(super) fn write_new(path: &Path, text: &[u8]) -> Result<(), KeyError> {
    let failed = |error: std::io::Error| storage(path, &error);
    // A name of chance: two processes in two containers can have one number.
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", alloy_primitives::hex::encode(&random()?[..8])));
    let partial = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&partial).map_err(failed)?;
    let named = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| {
        match std::fs::hard_link(&partial, path) {
            // A file system without links, such as that of most memory sticks.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && !path.exists() => {
                std::fs::rename(&partial, path)
            }
            linked => linked,
        }
    });
    let _ = std::fs::remove_file(&partial);
    named.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.display().to_string() },
        _ => failed(error),
    })?;
    Ok(sync_folder_of(path)?)
}
