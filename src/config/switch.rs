//! Switches that may also come as text, because environment variables are text.

use serde::{Deserialize, Deserializer, de};

/// For `#[serde(deserialize_with = …)]`: `true` or `false`, also in quotes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Switch(bool),
        Text(String),
    }
    let rule = || de::Error::custom("must be true or false");
    match Written::deserialize(deserializer).map_err(|_| rule())? {
        Written::Switch(switch) => Ok(switch),
        Written::Text(text) => text.parse().map_err(|_| rule()),
    }
}
