//! Secrets, written in place or in a file of their own.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::Problem;

/// For `#[serde(deserialize_with = …)]` on a [`SecretString`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    // An error of serde's own would quote what was found in place of a string.
    let text = String::deserialize(deserializer).map_err(|_| D::Error::custom("must be a string"))?;
    Ok(SecretString::from(text))
}

/// The same for an optional setting.
pub fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    deserialize(deserializer).map(Some)
}

/// A secret that cannot be used. Never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read as UTF-8.
    #[error("cannot read the secret in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It breaks this rule. A file may have another secret in it than when the configuration was checked.
    #[error("the secret {0}")]
    Unfit(&'static str),
}

impl SecretError {
    /// The problem with the key at `key`, which has `secret` and `secret_file`.
    pub(super) fn problem(&self, key: &str) -> Problem {
        match self {
            Self::Read { .. } => Problem::new(format!("{key}.secret_file"), self.to_string()),
            Self::Unfit(rule) => Problem::new(format!("{key}.secret"), *rule),
        }
    }
}

/// The secret, which is in place or in a file.
///
/// # Errors
/// When there is none or both, or the file cannot be read.
pub(super) fn load(secret: Option<&SecretString>, file: Option<&Path>) -> Result<SecretString, SecretError> {
    match (secret, file) {
        (Some(secret), None) => Ok(secret.clone()),
        (None, Some(path)) => {
            let secret = read_file(path)?;
            // Part of the secret, or one too many: nobody can tell.
            if secret.expose_secret().ends_with(['\r', '\n']) {
                return Err(SecretError::Unfit("must end with at most one line end"));
            }
            Ok(secret)
        }
        (Some(_), Some(_)) | (None, None) => Err(SecretError::Unfit("must be given, or secret_file, but not both")),
    }
}

/// Reads a secret from `path`, without the line end that editors and `echo` add.
///
/// # Errors
/// When the file cannot be read as UTF-8.
pub fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
    Ok(SecretString::from(without_line_end(&text)))
}

/// `text` without the one line end that editors and `echo` put after it.
pub fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}
