//! Tokens for development, signed with a shared secret.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

/// HS256 needs a key of at least its hash's length (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// What a development token says.
#[derive(Debug, Clone, Copy)]
pub struct DevelopmentToken<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// `sub`.
    pub subject: &'a str,
    /// The name and the value of the tenant claim.
    pub tenant: Option<(&'a str, &'a str)>,
    /// The name of the scope claim.
    pub scope_claim: &'a str,
    /// The scopes, written separated by spaces.
    pub scopes: &'a [&'a str],
    /// From now until `exp`, in whole seconds.
    pub lifetime: Duration,
    /// What it is signed with: one that takes a shared secret.
    pub algorithm: Algorithm,
}

/// Why no token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The secret is shorter than HS256 allows.
    #[error("the secret must be at least {MIN_SECRET_BYTES} bytes")]
    SecretTooShort,
    /// The token would expire after the end of the calendar.
    #[error("the lifetime is too long")]
    LifetimeTooLong,
    /// The token cannot be signed.
    #[error("the token cannot be signed")]
    Signing,
}

/// Signs `token`. Meant for the issuer of a development set-up, who is this service itself.
pub fn mint_development_token(
    secret: &SecretString,
    token: &DevelopmentToken<'_>,
    now: DateTime<Utc>,
) -> Result<SecretString, MintError> {
    let secret = secret.expose_secret().as_bytes();
    if secret.len() < MIN_SECRET_BYTES {
        return Err(MintError::SecretTooShort);
    }
    let expires = TimeDelta::from_std(token.lifetime)
        .ok()
        .and_then(|lifetime| now.checked_add_signed(lifetime))
        .ok_or(MintError::LifetimeTooLong)?;

    let mut claims = Map::new();
    // First, so that no choice of names can replace the claims that decide.
    if let Some((name, value)) = token.tenant {
        claims.insert(name.to_owned(), Value::from(value));
    }
    if !token.scopes.is_empty() {
        claims.insert(token.scope_claim.to_owned(), Value::from(token.scopes.join(" ")));
    }
    claims.insert("iss".to_owned(), Value::from(token.issuer));
    claims.insert("aud".to_owned(), Value::from(token.audience));
    claims.insert("sub".to_owned(), Value::from(token.subject));
    claims.insert("iat".to_owned(), Value::from(now.timestamp()));
    claims.insert("exp".to_owned(), Value::from(expires.timestamp()));
    jsonwebtoken::encode(&Header::new(token.algorithm), &claims, &EncodingKey::from_secret(secret))
        .map(SecretString::from)
        .map_err(|_| MintError::Signing)
}
