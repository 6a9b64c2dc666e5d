//! secp256k1 signatures as Ethereum writes them, in the one encoding that is accepted here.

use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};
#[cfg(feature = "io")]
use k256::elliptic_curve::zeroize::Zeroizing;

use super::body::Body;
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
    /// Neither `r || s` nor `r || s || v`.
    #[error("a signature has 64 or 65 bytes, found {actual}")]
    Length { actual: usize },
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
    /// The signature is that of another key, or over something else.
    #[error("the signer did not sign: its signature is that of {actual}, expected {expected}")]
    OtherSigner { expected: Address, actual: Address },
}

impl Report for SignError {
    fn code(&self) -> &'static str {
        "key"
    }

    fn expected(&self) -> Option<String> {
        match self {
            SignError::OtherSigner { expected, .. } => Some(expected.to_string()),
            _ => None,
        }
    }

    fn actual(&self) -> Option<String> {
        match self {
            SignError::OtherSigner { actual, .. } => Some(actual.to_string()),
            _ => None,
        }
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
    /// Signs a receipt or a tree head. A signer that shows its user what is signed sees it here.
    ///
    /// # Errors
    /// [`SignError::Refused`] when the key is not available.
    fn sign_message(&self, body: &Body) -> Result<Signature, SignError> {
        self.sign(body.digest())
    }
}

impl Signature {
    /// The canonical form of what a signer elsewhere answered, `r || s` or `r || s || v` with v as
    /// 0, 1, 27 or 28, if it is the signature of `signer` over `digest`.
    ///
    /// # Errors
    /// [`SignError::Refused`] when the bytes are no signature, [`SignError::OtherSigner`] when they
    /// are one of somebody else or over other bytes.
    pub fn accept(answer: &[u8], digest: Digest, signer: Address) -> Result<Signature, SignError> {
        let refused = |error: SignatureError| SignError::Refused { detail: error.to_string() };
        let (scalars, odd) = match answer {
            [scalars @ .., v] if answer.len() == 65 => match v {
                0 | 27 => (scalars, Some(0)),
                1 | 28 => (scalars, Some(1)),
                actual => return Err(refused(SignatureError::RecoveryByte { actual: *actual })),
            },
            scalars if answer.len() == 64 => (scalars, None),
            _ => return Err(refused(SignatureError::Length { actual: answer.len() })),
        };
        let given =
            k256::ecdsa::Signature::from_slice(scalars).map_err(|_| refused(SignatureError::Scalar))?;
        let lower = given.normalize_s();
        // With the other s belongs the other point.
        let flipped = u8::from(lower != given);
        let mut refusal = refused(SignatureError::NoKey);
        for odd in odd.map_or(0..2, |odd| odd..odd + 1) {
            let mut bytes = [0; 65];
            bytes[..64].copy_from_slice(&lower.to_bytes());
            bytes[64] = 27 + (odd ^ flipped);
            match recover(digest, &Signature(bytes)) {
                Ok(actual) if actual == signer => return Ok(Signature(bytes)),
                Ok(actual) => refusal = SignError::OtherSigner { expected: signer, actual },
                Err(_) => {}
            }
        }
        Err(refusal)
    }
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
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
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
