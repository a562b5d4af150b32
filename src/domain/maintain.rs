//! Keeping house: partitions ahead of time, outdated idempotency keys and delivered webhooks out of the way.

use std::time::Duration;

use super::Service;
use crate::db::DbError;

/// How often. Partitions exist months ahead, so any of many runs may fail.
const INTERVAL: Duration = Duration::from_hours(1);

impl Service {
    /// One round.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn maintain(&self) -> Result<(), DbError> {
        let now = self.clock.now();
        let mut outcome = self.database.ensure_partitions(now).await;
        // What fails keeps back nothing else.
        for (what, forgotten) in [
            ("delivered webhooks", self.database.forget_delivered_webhooks(now - self.outbox.retention()).await),
            ("outdated idempotency keys", self.database.forget_old_idempotency_keys(now).await),
            ("outdated tickets", self.database.forget_old_tickets(now).await),
        ] {
            let forgotten = forgotten.map(|forgotten| log::debug!("maintenance: {forgotten} {what} removed"));
            outcome = outcome.and(forgotten);
        }
        outcome
    }

    /// A round now and one every hour, until the task is ended.
    pub async fn maintain_for_ever(self) -> ! {
        loop {
            if let Err(error) = self.maintain().await {
                log::warn!("maintenance failed and will be tried again: {error}");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
