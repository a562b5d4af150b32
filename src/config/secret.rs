//! Secrets, written in place or in a file of their own.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error as _};

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

/// A secret that could not be read. Never holds the secret.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret in {}: {source}", path.display())]
pub struct SecretFileError {
    path: PathBuf,
    source: std::io::Error,
}

/// Reads a secret from `path`, without the line end that editors and `echo` add.
///
/// # Errors
/// When the file cannot be read as UTF-8.
pub fn read_file(path: &Path) -> Result<SecretString, SecretFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| SecretFileError { path: path.to_owned(), source })?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}
