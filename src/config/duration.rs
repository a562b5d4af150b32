//! Durations written as `"5m"`, `"1h 30m"` or `"250ms"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// For `#[serde(with = …)]` and `deserialize_with` on a [`Duration`]: a string with a unit, never a bare number,
/// because nobody remembers whether that would be seconds or milliseconds.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)
        .map_err(|_| de::Error::custom("must be a duration in quotes with a unit, such as \"5m\""))?;
    parse(&text).map_err(de::Error::custom)
}

/// The same for an optional setting.
pub fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserialize(deserializer).map(Some)
}

/// Parses `"5m"`, `"1h 30m"` or `"250ms"`.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("must be a duration such as \"30s\", \"5m\" or \"1h\", not {text:?}"))
}
