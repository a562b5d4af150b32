//! `[capabilities]`: paths that stand for a user, for clients that can send no `Authorization` header.

use std::time::Duration;

use serde::Deserialize;

use super::{Problem, duration};

/// The longest life that may be configured: a capability stands in a path, and paths are easily seen.
const LONGEST: Duration = Duration::from_hours(1);

/// Settings of capabilities.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CapabilitiesConfig {
    /// Longest life of a capability; a request may ask for less.
    #[serde(deserialize_with = "duration::deserialize")]
    pub expires_in: Duration,
}

impl Default for CapabilitiesConfig {
    fn default() -> Self {
        Self { expires_in: LONGEST }
    }
}

impl CapabilitiesConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        if (Duration::from_secs(1)..=LONGEST).contains(&self.expires_in) {
            return Vec::new();
        }
        vec![Problem::new("capabilities.expires_in", "must be 1s to 1h")]
    }
}
