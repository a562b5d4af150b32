//! Whole numbers that may also come as text, because environment variables are text.

use serde::{Deserialize, Deserializer, de};

/// For `#[serde(deserialize_with = …)]`: a whole number, or its decimal digits in a string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(usize),
        Text(String),
    }
    let rule = || de::Error::custom("must be a whole number, 0 or more");
    match Written::deserialize(deserializer).map_err(|_| rule())? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => text.parse().map_err(|_| rule()),
    }
}

/// The same for an optional setting.
pub fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    deserialize(deserializer).map(Some)
}
