//! `[webhooks]`: who is told what became of uploads.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Problem, duration, number, secret};
use crate::model::EventType;

/// Settings of outgoing webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Who is told.
    pub endpoints: Vec<WebhookEndpointConfig>,
    /// Private, loopback and link-local networks that endpoints may lie in all the same.
    pub allowed_networks: Vec<IpNet>,
    /// Longest wait for an endpoint's answer, from looking up its name to the last byte.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Attempts before a delivery is given up and lies dead until somebody retries it by hand.
    #[serde(deserialize_with = "number::deserialize")]
    pub max_attempts: usize,
    /// Wait before the second attempt; each further one doubles it, with jitter.
    #[serde(deserialize_with = "duration::deserialize")]
    pub first_retry: Duration,
    /// Longest wait between two attempts.
    #[serde(deserialize_with = "duration::deserialize")]
    pub longest_retry: Duration,
    /// How often the outbox is looked at when nothing wakes the dispatcher.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// Deliveries of one endpoint that are under way at the same time in one process.
    #[serde(deserialize_with = "number::deserialize")]
    pub concurrency: usize,
}

/// One endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpointConfig {
    /// Name in the outbox. An endpoint that is renamed loses what is on its way to it.
    pub name: String,
    /// Where events are posted to.
    pub url: String,
    /// Signing keys. Every one signs: rotate by adding a new one, then taking the old one away once all receivers have
    /// it.
    pub keys: Vec<WebhookKeyConfig>,
    /// Types of events; by default the end of every upload.
    #[serde(default = "default_events")]
    pub events: Vec<EventType>,
    /// Only uploads under these policies; empty for all.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Only uploads of these tenants; empty for all.
    #[serde(default)]
    pub tenants: Vec<String>,
}

/// One signing key, in the form of Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookKeyConfig {
    /// The key itself.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub secret: Option<SecretString>,
    /// File that holds the key.
    pub secret_file: Option<PathBuf>,
}

fn default_events() -> Vec<EventType> {
    EventType::DEFAULT.to_vec()
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            allowed_networks: Vec::new(),
            timeout: Duration::from_secs(15),
            max_attempts: 16,
            first_retry: Duration::from_secs(5),
            longest_retry: Duration::from_hours(4),
            poll_interval: Duration::from_secs(5),
            concurrency: 8,
        }
    }
}

impl WebhooksConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}
