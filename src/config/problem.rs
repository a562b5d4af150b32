//! What is wrong with a setting.

use std::fmt;

/// A setting that a rule refuses. Where it was written (file and line, or environment variable) is known to the
/// loader, which adds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, such as `auth.issuers[0].algorithms`.
    pub key: String,
    /// What is allowed, and what is there instead unless that is a secret.
    pub rule: String,
}

impl Problem {
    /// A problem with `key`.
    pub fn new(key: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { key: key.into(), rule: rule.into() }
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.rule)
    }
}
