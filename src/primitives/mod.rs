//! The words every other module speaks: digests, addresses, and errors that carry evidence.

pub use alloy_primitives::{Address, B256 as Digest, keccak256};
use sha2::Digest as _;

/// What every error of a stage tells a caller besides its message.
///
/// The Python shim raises the class that belongs to `code` and fills `.expected`, `.actual` and
/// `.where` from the other three.
pub trait Report: std::error::Error {
    /// Stable identifier of what went wrong, the same in every release.
    fn code(&self) -> &'static str;
    /// What was expected, if the error compares two things.
    fn expected(&self) -> Option<String> {
        None
    }
    /// What was found instead.
    fn actual(&self) -> Option<String> {
        None
    }
    /// Where: a tensor's name, a path, a receipt.
    fn place(&self) -> Option<String> {
        None
    }
}

/// SHA-256 of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hasher = sha2::Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Digest::from(<[u8; 32]>::from(hasher.finalize()))
}

/// HMAC-SHA-256 (RFC 2104) of the parts, one after the other.
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> Digest {
    HmacKey::new(key).code(parts)
}

/// A key of HMAC-SHA-256 for many messages: for short ones, half of the work is the key's.
pub struct HmacKey(hmac::Hmac<sha2::Sha256>);

impl HmacKey {
    /// Does the key's part of the work.
    pub fn new(key: &[u8; 32]) -> HmacKey {
        use hmac::KeyInit;
        HmacKey(hmac::Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The code of the parts, one after the other.
    pub fn code(&self, parts: &[&[u8]]) -> Digest {
        use hmac::Mac;
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        Digest::from(<[u8; 32]>::from(mac.finalize().into_bytes()))
    }
}

/// A reader over untrusted bytes that never reads past their end.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

/// A length that the bytes do not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes expected at offset {offset}, {left} left")]
pub struct Truncated {
    /// Offset of the read.
    pub offset: usize,
    /// Bytes the format demands there.
    pub wanted: usize,
    /// Bytes that are left.
    pub left: usize,
}

impl<'a> Reader<'a> {
    /// Starts reading at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, length: bytes.len() }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that was not read.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let offset = self.length - self.rest.len();
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Truncated {
            offset,
            wanted: count,
            left: self.rest.len(),
        })?;
        self.rest = tail;
        Ok(head)
    }

    /// The next bytes as an array.
    ///
    /// # Errors
    /// [`Truncated`] when fewer than `N` are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        Ok(self.take(N)?.try_into().expect("take returns the length asked for"))
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes, big-endian.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// The next four bytes, big-endian.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The next eight bytes, big-endian.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The next 32 bytes.
    ///
    /// # Errors
    /// [`Truncated`] when fewer are left.
    pub fn digest(&mut self) -> Result<Digest, Truncated> {
        Ok(Digest::from(self.array()?))
    }
}
