//! Counting what waits, for the metrics: now and then, and not at each scrape, which anybody can ask for.

use std::time::Duration;

use super::WebhookMetrics;
use crate::{
    config::WebhooksConfig,
    db::{Database, DeliveryState},
};

/// How many polls of the outbox there are between two counts.
const POLLS: u32 = 3;

/// Counts until the task is ended.
pub(super) fn keep(
    config: &WebhooksConfig,
    database: Database,
    metrics: WebhookMetrics,
) -> impl Future<Output = ()> + Send + 'static {
    let endpoints: Vec<String> = config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let interval: Duration = config.poll_interval * POLLS;
    async move {
        loop {
            match database.count_webhooks().await {
                Ok(counts) => {
                    let sum = |wanted: &dyn Fn(&str) -> bool, state: DeliveryState| -> i64 {
                        let in_state = counts.iter().filter(|count| count.state == state.as_str());
                        let counted = in_state.filter(|count| wanted(&count.endpoint));
                        counted.map(|count| count.count).sum()
                    };
                    let set = |label: Option<&str>, wanted: &dyn Fn(&str) -> bool| {
                        metrics.set_waiting(
                            label,
                            sum(wanted, DeliveryState::Pending),
                            sum(wanted, DeliveryState::Dead),
                        );
                    };
                    for endpoint in &endpoints {
                        set(Some(endpoint), &|name| name == endpoint);
                    }
                    set(None, &|name| !endpoints.iter().any(|endpoint| endpoint == name));
                }
                // The dispatchers say so already.
                Err(error) => log::debug!("webhooks were not counted: {error}"),
            }
            tokio::time::sleep(interval).await;
        }
    }
}
