//! secp256k1 signatures as Ethereum writes them, in the one encoding that is accepted here.

use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};

use crate::primitives::{Address, Digest, Report, keccak256};

/// `r || s || v`: v is 27 or 28 and s lies in the lower half of the group order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 65]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Signature(0x{})", alloy_primitives::hex::encode(self.0))
    }
}

/// Why a signature names no signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum SignatureError {
    /// The recovery byte is neither 27 nor 28.
    #[error("recovery byte is {actual}, expected 27 or 28")]
    RecoveryByte { actual: u8 },
    /// r or s is zero or not below the group order.
    #[error("r or s is not a non-zero scalar of secp256k1")]
    Scalar,
    /// s lies in the upper half, so that a second valid encoding of the signature exists.
    #[error("s lies in the upper half of the group order (malleable)")]
    HighS,
    /// No public key gives this signature.
    #[error("no public key belongs to this signature")]
    NoKey,
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum SignError {
    /// 32 bytes that are zero or not below the group order.
    #[error("these 32 bytes are not a secp256k1 private key")]
    InvalidKey,
    /// The signer refused or failed.
    #[error("the signer did not sign: {detail}")]
    Refused {
        /// What the signer said.
        detail: String,
    },
}

impl Report for SignError {
    fn code(&self) -> &'static str {
        "key"
    }
}

/// Whoever can sign a digest for one address.
pub trait Signer: Send + Sync {
    /// The address that [`recover`] finds in the signatures.
    fn address(&self) -> Address;
    /// Signs a 32-byte digest as it is.
    ///
    /// # Errors
    /// [`SignError::Refused`] when the key is not available.
    fn sign(&self, digest: Digest) -> Result<Signature, SignError>;
}

/// A private key in this process. It has no `Debug`, `Display` or serialisation on purpose.
#[derive(Clone)]
pub struct LocalSigner {
    key: SigningKey,
    address: Address,
}

impl LocalSigner {
    /// Takes a private key.
    ///
    /// # Errors
    /// [`SignError::InvalidKey`] when the bytes are no valid scalar.
    pub fn from_bytes(secret: &[u8; 32]) -> Result<LocalSigner, SignError> {
        let key = SigningKey::from_slice(secret).map_err(|_| SignError::InvalidKey)?;
        let address = address_of(key.verifying_key());
        Ok(LocalSigner { key, address })
    }

    #[cfg(feature = "io")]
    /// The private key's bytes, for the key file alone.
    pub(crate) fn to_bytes(&self) -> [u8; 32] {
        self.key.to_bytes().into()
    }
}

impl Signer for LocalSigner {
    fn address(&self) -> Address {
        self.address
    }

    /// Deterministic nonces (RFC 6979), low s.
    fn sign(&self, digest: Digest) -> Result<Signature, SignError> {
        // k256 normalises s for this curve, and every verifier here refuses the other form.
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest.as_slice());
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + (recovery.to_byte() & 1);
        Ok(Signature(bytes))
    }
}

/// The address whose key signed `digest`.
///
/// # Errors
/// Every encoding but the canonical one is refused, see [`SignatureError`].
///
/// # Source
/// EIP-2 (low s), the Ethereum yellow paper, appendix F (recovery).
pub fn recover(digest: Digest, signature: &Signature) -> Result<Address, SignatureError> {
    let recovery = match signature.0[64] {
        27 => RecoveryId::new(false, false),
        28 => RecoveryId::new(true, false),
        actual => return Err(SignatureError::RecoveryByte { actual }),
    };
    let scalars =
        k256::ecdsa::Signature::from_slice(&signature.0[..64]).map_err(|_| SignatureError::Scalar)?;
    if bool::from(k256::elliptic_curve::scalar::IsHigh::is_high(&*scalars.s())) {
        return Err(SignatureError::HighS);
    }
    let key = VerifyingKey::recover_from_prehash(digest.as_slice(), &scalars, recovery)
        .map_err(|_| SignatureError::NoKey)?;
    Ok(address_of(&key))
}

fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..])
}
