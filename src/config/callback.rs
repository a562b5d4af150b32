//! `[callback]`: the keys of the tokens that confirm an upload without a JWT.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Problem, secret};

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
    /// When the file cannot be read.
    pub fn load(&self) -> Result<SecretString, secret::SecretFileError> {
        match (&self.secret, &self.secret_file) {
            (None, Some(path)) => secret::read_file(path),
            (Some(secret), _) => Ok(secret.clone()),
            (None, None) => Ok(SecretString::from("")),
        }
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
            if key.secret.is_some() == key.secret_file.is_some() {
                problems.push(Problem::new(at("secret"), "must be given, or secret_file, but not both"));
                continue;
            }
            match key.load() {
                Ok(secret) if secret.expose_secret().len() >= 32 => {}
                Ok(_) => problems.push(Problem::new(at("secret"), "must be at least 32 bytes long")),
                Err(error) => problems.push(Problem::new(at("secret_file"), error.to_string())),
            }
        }
        problems
    }
}
