//! `[callback]`: the keys of the tokens that confirm an upload without a JWT.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    Problem,
    secret::{self, SecretError},
};

/// As long as what HMAC-SHA-256 gives: a shorter key is the weaker part.
const LEAST_SECRET_BYTES: usize = 32;

/// Settings of callback tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackConfig {
    /// The first key signs new tokens, all of them are accepted: rotate by putting a new one in front.
    pub keys: Vec<CallbackKeyConfig>,
}

/// One key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackKeyConfig {
    /// Short name that tokens carry, so that the right key is found after a rotation.
    pub id: String,
    /// The secret itself, at least 32 bytes.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub secret: Option<SecretString>,
    /// File that holds the secret.
    pub secret_file: Option<PathBuf>,
}

impl CallbackKeyConfig {
    /// The secret, read from its file where it is in one.
    ///
    /// # Errors
    /// When it is too short to sign with, or its file cannot be read.
    pub fn load(&self) -> Result<SecretString, SecretError> {
        let secret = secret::load(self.secret.as_ref(), self.secret_file.as_deref())?;
        if secret.expose_secret().len() < LEAST_SECRET_BYTES {
            return Err(SecretError::Unfit("must be at least 32 bytes long"));
        }
        Ok(secret)
    }
}

impl CallbackConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.keys.is_empty() {
            problems.push(Problem::new("callback.keys", "must hold at least one key"));
        }
        for (index, key) in self.keys.iter().enumerate() {
            let at = |field: &str| format!("callback.keys[{index}].{field}");
            if key.id.is_empty() || key.id.len() > 16 || !key.id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                problems.push(Problem::new(at("id"), "must be 1 to 16 ASCII letters and digits"));
            }
            if self.keys.iter().take(index).any(|earlier| earlier.id == key.id) {
                problems.push(Problem::new(at("id"), "must be unique"));
            }
            if let Err(error) = key.load() {
                problems.push(error.problem(&format!("callback.keys[{index}]")));
            }
        }
        problems
    }
}
