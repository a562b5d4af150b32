//! The keys that signatures are verified with.

use std::path::Path;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RsaParameters, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use secrecy::{ExposeSecret as _, SecretString};

use super::{AuthError, AuthSetupError};
use crate::config::{
    auth::{IssuerConfig, KeySource},
    secret::without_line_end,
};

/// A key together with the only algorithms that it may be used with.
///
/// Which key verifies is decided by the configuration and, within a published set, by `kid`; a key that comes with
/// the token (`jwk`, `jku`, `x5c`, `x5u`) is never looked at (RFC 8725 §3.10).
#[derive(Debug)]
pub(super) struct VerificationKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl VerificationKey {
    /// `key`, for those of `pinned` that it is made for; `None` when that is none of them.
    pub(super) fn new(key: DecodingKey, pinned: &[Algorithm]) -> Option<Self> {
        let fitting = fitting_algorithms(&key);
        let algorithms: Vec<_> = pinned.iter().copied().filter(|algorithm| fitting.contains(algorithm)).collect();
        if algorithms.is_empty() { None } else { Some(Self { key, algorithms }) }
    }

    /// Whether this key may be used with `algorithm`.
    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Checks `signature` (base64url) over `message` (`header.payload` as received).
    pub(super) fn verify(&self, algorithm: Algorithm, message: &str, signature: &str) -> Result<(), AuthError> {
        if !self.allows(algorithm) {
            return Err(AuthError::AlgorithmNotAllowed);
        }
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(AuthError::SignatureInvalid),
        }
    }
}

/// The secret that `issuer` shares with this service, or `None` for an issuer with public keys.
pub async fn shared_secret(issuer: &IssuerConfig) -> Result<Option<SecretString>, AuthSetupError> {
    match issuer.key_source() {
        Some(KeySource::Secret(secret)) => Ok(Some(secret.clone())),
        Some(KeySource::SecretFile(path)) => {
            let contents = SecretString::from(read("secret_file", path).await?);
            let secret = without_line_end(contents.expose_secret());
            let minimum = issuer.minimum_secret_bytes();
            if secret.len() < minimum {
                return Err(AuthSetupError::SecretTooShort { path: path.to_owned(), minimum });
            }
            Ok(Some(SecretString::from(secret)))
        }
        Some(KeySource::PublicKeyFile(_) | KeySource::JwksUrl(_)) | None => Ok(None),
    }
}

/// The public key in the PEM file at `path`, which must fit all of `pinned`.
pub(super) async fn public_key(path: &Path, pinned: &[Algorithm]) -> Result<VerificationKey, AuthSetupError> {
    let pem = read("public_key_file", path).await?;
    if pem.contains("PRIVATE KEY-----") {
        return Err(AuthSetupError::PrivateKey { path: path.to_owned() });
    }
    let key = match pinned.first().map(|algorithm| algorithm.family()) {
        Some(AlgorithmFamily::Rsa) => DecodingKey::from_rsa_pem(pem.as_bytes()).ok(),
        Some(AlgorithmFamily::Ec) => DecodingKey::from_ec_pem(pem.as_bytes()).ok(),
        Some(AlgorithmFamily::Ed) => DecodingKey::from_ed_pem(pem.as_bytes()).ok(),
        Some(AlgorithmFamily::Hmac) | None => None,
    };
    key.and_then(|key| VerificationKey::new(key, pinned))
        .filter(|key| key.algorithms.len() == pinned.len())
        .ok_or_else(|| AuthSetupError::UnusableKey { path: path.to_owned() })
}

async fn read(setting: &'static str, path: &Path) -> Result<String, AuthSetupError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|source| AuthSetupError::Read { setting, path: path.to_owned(), source })
}

/// The algorithms that the type, curve and size of `key` allow; none for a key that is broken or too weak.
fn fitting_algorithms(key: &DecodingKey) -> &'static [Algorithm] {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};

    let parses =
        |algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]| ParsedPublicKey::new(algorithm, bytes).is_ok();
    match (key.family(), key.kind()) {
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(_)) => &[HS256, HS384, HS512],
        (AlgorithmFamily::Rsa, kind) => {
            let bits = match kind {
                DecodingKeyKind::SecretOrDer(der) => RsaParameters::public_modulus_len(der).unwrap_or(0),
                DecodingKeyKind::RsaModulusExponent { n, .. } => bit_length(n),
            };
            // RFC 7518 §3.3 asks for 2048 bits or more; above 8192 a signature takes long enough to be an attack.
            if (2048..=8192).contains(&bits) { &[RS256, RS384, RS512, PS256, PS384, PS512] } else { &[] }
        }
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) if parses(&ECDSA_P256_SHA256_FIXED, point) => {
            &[ES256]
        }
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) if parses(&ECDSA_P384_SHA384_FIXED, point) => {
            &[ES384]
        }
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) if parses(&ED25519, point) => &[EdDSA],
        _ => &[],
    }
}

/// The length of a big-endian number without its leading zeros, in bits.
fn bit_length(number: &[u8]) -> u32 {
    let mut significant = number.iter().skip_while(|byte| **byte == 0);
    let Some(first) = significant.next() else { return 0 };
    let rest = u32::try_from(significant.count()).unwrap_or(u32::MAX);
    rest.saturating_mul(8).saturating_add(8 - first.leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_lengths_ignore_leading_zeros() {
        assert_eq!(bit_length(&[]), 0);
        assert_eq!(bit_length(&[0, 0]), 0);
        assert_eq!(bit_length(&[0, 1, 0xff]), 9);
        assert_eq!(bit_length(&[0xff; 256]), 2048);
    }
}
