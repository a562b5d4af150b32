//! Outgoing webhooks: what the outbox holds is posted to its endpoints, signed as Standard Webhooks 1.0 says, until
//! each has taken it.
//!
//! Delivery is at least once: a process that dies between the endpoint's answer and the record of it leaves a delivery
//! that is made again. Every attempt carries the same `webhook-id`, by which receivers tell.

mod address_guard;
mod census;
mod dispatcher;
mod endpoint;
mod metrics;
mod retry_schedule;
mod signature;

use std::{fmt, time::Duration};

use reqwest::Url;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

pub use metrics::WebhookMetrics;

use crate::{
    clock::Clock,
    config::{Config, WebhooksConfig, secret::SecretError},
    db::Database,
};
use address_guard::AddressGuard;
use dispatcher::Dispatcher;
use endpoint::Endpoint;

/// Why webhooks cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSetupError {
    /// A signing key cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file does not hold what it held when the configuration was checked.
    #[error("webhook endpoint {0:?}: the URL or a key cannot be used")]
    Endpoint(String),
    /// The HTTP client cannot be made.
    #[error("webhooks: {0}")]
    Client(#[from] reqwest::Error),
}

/// Refuses a URL whose host is an address that `config` lets nothing be sent to. What a name leads to is not asked.
///
/// # Errors
/// Says which address, and what would let it through.
pub fn check_address(url: &str, config: &WebhooksConfig) -> Result<(), impl fmt::Display + use<>> {
    let guard = AddressGuard::new(&config.allowed_networks);
    Url::parse(url).map_or(Ok(()), |url| guard.check_host(&url))
}

/// The tasks that send webhooks: one for each endpoint, so that one that is slow or down delays no other.
#[derive(Debug)]
pub struct Webhooks {
    stop: watch::Sender<bool>,
    dispatchers: JoinSet<()>,
    /// Ends with this value, at once.
    companions: JoinSet<()>,
}

impl Webhooks {
    /// Starts sending to the endpoints of `config`, on `runtime`.
    ///
    /// # Errors
    /// When an endpoint of the configuration cannot be used.
    pub fn start(
        config: &Config,
        database: &Database,
        clock: &Clock,
        metrics: &WebhookMetrics,
        runtime: &Handle,
    ) -> Result<Self, WebhookSetupError> {
        let (stop, stopping) = watch::channel(false);
        let mut webhooks = Self { stop, dispatchers: JoinSet::new(), companions: JoinSet::new() };
        if config.webhooks.endpoints.is_empty() {
            return Ok(webhooks);
        }
        let guard = AddressGuard::new(&config.webhooks.allowed_networks);
        for endpoint in &config.webhooks.endpoints {
            let endpoint = Endpoint::new(endpoint, &config.webhooks, guard.clone())?;
            metrics.show(endpoint.name());
            let dispatcher =
                Dispatcher::new(endpoint, &config.webhooks, database.clone(), clock.clone(), metrics.clone());
            webhooks.dispatchers.spawn_on(dispatcher.run(stopping.clone()), runtime);
        }
        let census = census::keep(&config.webhooks, database.clone(), metrics.clone());
        webhooks.companions.spawn_on(census, runtime);
        Ok(webhooks)
    }

    /// Stops in order: nothing more is claimed, and attempts under way finish, within `limit`. One that does not is cut
    /// off and made again when its lease has ended, by whichever process then runs.
    pub async fn stop(mut self, limit: Duration) {
        self.companions.abort_all();
        self.stop.send_replace(true);
        let finished = tokio::time::timeout(limit, async { while self.dispatchers.join_next().await.is_some() {} });
        if finished.await.is_err() {
            log::warn!("webhooks under way were cut off; they are sent again later");
        }
    }
}
