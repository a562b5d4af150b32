//! The task of one endpoint: claims what is due, sends it, writes down what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::StatusCode;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    endpoint::{Answer, Endpoint, SendError},
    metrics::{Outcome, WebhookMetrics},
    retry_schedule::RetrySchedule,
};
use crate::{
    clock::Clock,
    config::WebhooksConfig,
    db::{AfterAttempt, Attempt, ClaimedDelivery, Database, DbError},
};

/// What a lease lasts beyond the time limit of a request: for writing down what came of it, and for clocks of several
/// machines that are not the same.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Shortest wait between two looks at the outbox that find nothing, such as while another process holds what is due.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Sends to one endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Dispatcher {
    endpoint: Arc<Endpoint>,
    database: Database,
    clock: Clock,
    metrics: WebhookMetrics,
    schedule: RetrySchedule,
    lease: Duration,
    poll_interval: Duration,
    concurrency: usize,
}

impl Dispatcher {
    pub(super) fn new(
        endpoint: Endpoint,
        config: &WebhooksConfig,
        database: Database,
        clock: Clock,
        metrics: WebhookMetrics,
    ) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            database,
            clock,
            metrics,
            schedule: RetrySchedule::new(config),
            lease: config.timeout + LEASE_MARGIN,
            poll_interval: config.poll_interval,
            concurrency: config.concurrency,
        }
    }

    /// Sends until `stopping` says so, then waits for what is under way.
    pub(super) async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut changes = self.database.outbox_changes();
        let mut under_way = JoinSet::new();
        let mut database_answers = true;
        while !*stopping.borrow() {
            // Before looking: what changes while this looks leads to another look.
            changes.mark_unchanged();
            let wait = match self.claim(&mut under_way).await {
                Ok(wait) => {
                    database_answers = true;
                    wait
                }
                Err(error) => {
                    if database_answers {
                        log::warn!(endpoint = self.endpoint.name(); "webhooks wait for the database: {error}");
                    }
                    database_answers = false;
                    self.poll_interval
                }
            };
            tokio::select! {
                _ = stopping.changed() => {}
                _ = changes.changed() => {}
                // A place is free, and the next event of the same upload may go.
                Some(_) = under_way.join_next() => {}
                () = sleep(wait) => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Starts as much of what is due as there is room for. Gives the time until there may be more.
    async fn claim(&self, under_way: &mut JoinSet<()>) -> Result<Duration, DbError> {
        while under_way.try_join_next().is_some() {}
        let room = self.concurrency.saturating_sub(under_way.len());
        if room == 0 {
            return Ok(self.poll_interval);
        }
        let now = self.clock.now();
        let claimed = self.database.claim_webhooks(self.endpoint.name(), now, now + self.lease, room).await?;
        let all_places_are_taken = claimed.len() == room;
        for delivery in claimed {
            under_way.spawn(self.clone().attempt(delivery));
        }
        if all_places_are_taken {
            return Ok(self.poll_interval);
        }
        let mut next = self.database.next_webhook_at(self.endpoint.name()).await?;
        // Due, and not claimed: kept back, as a rule.
        if next.is_some_and(|next| next <= now) {
            while self.database.put_off_webhooks(self.endpoint.name(), now).await? {}
            next = self.database.next_webhook_at(self.endpoint.name()).await?;
        }
        let wait = next.map_or(self.poll_interval, |next| (next - now).to_std().unwrap_or_default());
        Ok(wait.min(self.poll_interval).max(SHORTEST_WAIT))
    }

    /// One attempt, from the request to the record of what came of it.
    async fn attempt(self, delivery: ClaimedDelivery) {
        let started_at = self.clock.now();
        let began = Instant::now();
        let answer = self.endpoint.post(&delivery, started_at).await;
        let took = began.elapsed();
        let made = usize::try_from(delivery.attempts).unwrap_or_default() + 1;
        let after = self.after(made, &answer, self.clock.now());
        let answer = match answer {
            Ok(answer) => Ok(answer.status.as_u16()),
            Err(error) => Err(error.to_string()),
        };
        let attempt = Attempt { started_at, took, answer };
        match self.database.record_webhook_attempt(&delivery, &attempt, after).await {
            Ok(true) => self.tell(&delivery, made, &attempt, after),
            Ok(false) => log::info!(
                endpoint = delivery.endpoint, event = delivery.event_id.to_string();
                "a webhook took longer than its lease, and is somebody else's"
            ),
            Err(error) => log::warn!(
                endpoint = delivery.endpoint, event = delivery.event_id.to_string();
                "what came of a webhook was not recorded, so it is sent again: {error}"
            ),
        }
    }

    fn after(&self, made: usize, answer: &Result<Answer, SendError>, now: DateTime<Utc>) -> AfterAttempt {
        let retry_after = match answer {
            Ok(answer) if answer.status.is_success() => return AfterAttempt::Delivered,
            // Standard Webhooks: the receiver wants no more of it.
            Ok(answer) if answer.status == StatusCode::GONE => return AfterAttempt::Dead,
            Ok(answer) => answer.retry_after,
            Err(_) => None,
        };
        match self.schedule.wait(made, random(), retry_after) {
            Some(wait) => AfterAttempt::RetryAt(now + wait),
            None => AfterAttempt::Dead,
        }
    }

    fn tell(&self, delivery: &ClaimedDelivery, made: usize, attempt: &Attempt, after: AfterAttempt) {
        let endpoint = self.endpoint.name();
        let event = delivery.event_id.to_string();
        let answer = match &attempt.answer {
            Ok(status) => format!("answered with {status}"),
            Err(error) => error.clone(),
        };
        match after {
            AfterAttempt::Delivered => {
                self.metrics.count(endpoint, Outcome::Delivered);
                log::debug!(endpoint, event; "webhook {} delivered", delivery.event_type);
            }
            AfterAttempt::RetryAt(at) => {
                let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
                self.metrics.count(endpoint, Outcome::Failed);
                log::info!(
                    endpoint, event;
                    "webhook {} not delivered, attempt {made}, next at {at}: {answer}", delivery.event_type
                );
            }
            AfterAttempt::Dead => {
                self.metrics.count(endpoint, Outcome::Dead);
                log::error!(
                    endpoint, event;
                    "webhook {} given up after attempt {made}, \"presignd webhooks retry\" sends it again: {answer}",
                    delivery.event_type
                );
            }
        }
    }
}

/// Without randomness, deliveries that failed together are only more likely to come back together.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
