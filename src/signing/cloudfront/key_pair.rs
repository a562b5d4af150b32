//! A key pair whose public half CloudFront knows.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use chrono::{DateTime, Utc};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};

/// Bytes of an RSA 2048 modulus, the one size that CloudFront takes.
const RSA_MODULUS_LEN: usize = 256;

/// The private half of a key pair, and the id that CloudFront gave to the public half.
pub struct KeyPair {
    id: String,
    active_from: Option<DateTime<Utc>>,
    private_key: PrivateKey,
}

enum PrivateKey {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
}

/// Why a private key cannot be used. Never holds anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyPairError {
    /// Ids stand in URLs and cookies as they are.
    #[error("must be the id of a public key in CloudFront, such as \"K2JCJMDEHXQW5F\"")]
    Id,
    /// Not a private key.
    #[error("must hold a private key in PEM, not encrypted")]
    Pem,
    /// Not a key that CloudFront takes.
    #[error("must be an RSA key of 2048 bits or an ECDSA key on the curve P-256 (prime256v1)")]
    Unsupported,
}

impl KeyPair {
    /// The key in `pem` (PKCS #8, PKCS #1 or SEC 1), known to CloudFront as `id`, that signs from `active_from` on.
    ///
    /// # Errors
    /// When CloudFront would not take it.
    pub fn from_pem(
        id: impl Into<String>,
        active_from: Option<DateTime<Utc>>,
        pem: &SecretString,
    ) -> Result<Self, KeyPairError> {
        let id = id.into();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(KeyPairError::Id);
        }
        let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| KeyPairError::Pem)?;
        let private_key = PrivateKey::from_der(&der).ok_or(KeyPairError::Unsupported)?;
        Ok(Self { id, active_from, private_key })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.active_from.is_none_or(|from| from <= now)
    }

    /// A signature over the SHA-256 of `message`: PKCS #1 v1.5 by RSA, DER by ECDSA.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.private_key {
            PrivateKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            PrivateKey::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

impl PrivateKey {
    fn from_der(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let ecdsa = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let (rsa, ecdsa) = match der {
            PrivateKeyDer::Pkcs1(der) => (RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(), None),
            PrivateKeyDer::Sec1(der) => (None, EcdsaKeyPair::from_private_key_der(ecdsa, der.secret_sec1_der()).ok()),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                (RsaKeyPair::from_pkcs8(der).ok(), EcdsaKeyPair::from_pkcs8(ecdsa, der).ok())
            }
            _ => (None, None),
        };
        match (rsa, ecdsa) {
            (Some(key), _) => (key.public_modulus_len() == RSA_MODULUS_LEN).then(|| Self::Rsa(Box::new(key))),
            (None, key) => key.map(|key| Self::Ecdsa(Box::new(key))),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("id", &self.id).field("active_from", &self.active_from).finish_non_exhaustive()
    }
}
