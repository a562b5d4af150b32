//! `[web]`: the page for people.

use serde::Deserialize;

use super::switch;

/// Settings of the web page.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Whether the service shows a page at `/` on which people upload, list and download their files.
    #[serde(deserialize_with = "switch::deserialize")]
    pub enabled: bool,
}
