//! `[database]`: PostgreSQL and the ledger in front of it.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Problem, duration, number, secret};

/// Settings of the database connections.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:5432/name`; `DATABASE_URL` sets it too. `sslmode=require` verifies the server.
    #[serde(deserialize_with = "secret::deserialize")]
    pub url: SecretString,
    /// PEM file of the certificate authority to trust besides the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Connections for queries, besides one for each ledger writer. With 1 everything shares a single connection.
    #[serde(deserialize_with = "number::deserialize")]
    pub max_connections: usize,
    /// Longest wait for a connection.
    #[serde(deserialize_with = "duration::deserialize")]
    pub acquire_timeout: Duration,
    /// PostgreSQL's `statement_timeout` on every connection.
    #[serde(deserialize_with = "duration::deserialize")]
    pub statement_timeout: Duration,
    /// Whether `serve` applies pending migrations at start instead of refusing to start.
    #[serde(deserialize_with = "super::switch::deserialize")]
    pub migrate_on_start: bool,
    /// The group commit of intents.
    pub ledger: LedgerConfig,
}

/// Settings of the group commit.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Writer tasks for uploads, and as many for downloads, each with its own connection. One commits larger groups and
    /// so costs less for each intent; more help where a commit takes long.
    #[serde(deserialize_with = "number::deserialize")]
    pub writers: usize,
    /// Intents waiting for a writer before new ones are refused with 503.
    #[serde(deserialize_with = "number::deserialize")]
    pub queue: usize,
    /// Most intents written by one statement.
    #[serde(deserialize_with = "number::deserialize")]
    pub max_batch: usize,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: SecretString::from(""),
            tls_ca_file: None,
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            migrate_on_start: false,
            ledger: LedgerConfig::default(),
        }
    }
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { writers: 1, queue: 8192, max_batch: 256 }
    }
}

impl DatabaseConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, key: &str, rule: &str| {
            if !holds {
                problems.push(Problem::new(key, rule));
            }
        };
        let url = self.url.expose_secret();
        require(
            url.starts_with("postgres://") || url.starts_with("postgresql://"),
            "database.url",
            "must be set (here or as DATABASE_URL) and start with \"postgres://\" or \"postgresql://\"",
        );
        require((1..=1000).contains(&self.max_connections), "database.max_connections", "must be 1 to 1000");
        require(!self.acquire_timeout.is_zero(), "database.acquire_timeout", "must be longer than 0");
        // PostgreSQL counts it in whole milliseconds, of which 0 means no limit.
        require(
            (Duration::from_millis(1)..=Duration::from_hours(24)).contains(&self.statement_timeout),
            "database.statement_timeout",
            "must be 1ms to 24h",
        );
        require((1..=64).contains(&self.ledger.writers), "database.ledger.writers", "must be 1 to 64");
        require((1..=1_000_000).contains(&self.ledger.queue), "database.ledger.queue", "must be 1 to 1000000");
        require((1..=4096).contains(&self.ledger.max_batch), "database.ledger.max_batch", "must be 1 to 4096");
        problems
    }
}
