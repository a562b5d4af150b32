//! `[log]`: what is written to standard error.

use serde::Deserialize;

use super::Problem;

/// Settings of the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Text for people or one JSON object a line for machines.
    pub format: LogFormat,
    /// `env_logger` directives such as `"info"` or `"warn,presignd=debug"`; `RUST_LOG` sets it too.
    pub filter: String,
    /// Whether every request gets a line (target `presignd::access`, level info).
    #[serde(deserialize_with = "super::switch::deserialize")]
    pub access: bool,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: `time`, `level`, `target`, `message` and the line's fields.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned(), access: true }
    }
}

impl LogConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        match env_filter::Builder::new().try_parse(&self.filter) {
            Ok(_) => Vec::new(),
            Err(error) => vec![Problem::new("log.filter", error.to_string())],
        }
    }
}
