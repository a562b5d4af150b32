//! What is counted. Labels are names of configured endpoints and fixed words, so their number is bounded.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// The label of all endpoints together that the configuration does not have. No name can be the same.
const UNCONFIGURED: &str = "(not configured)";

/// What came of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Delivered,
    Failed,
    Dead,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Delivered, Self::Failed, Self::Dead];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }
}

/// Counters and gauges of webhooks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookMetrics {
    attempts: IntCounterVec,
    pending: IntGaugeVec,
    dead: IntGaugeVec,
}

impl WebhookMetrics {
    /// Registers everything with `registry`.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let attempts = Opts::new("webhook_attempts_total", "Attempts of this process, by what came of them.");
        let attempts = IntCounterVec::new(attempts, &["endpoint", "outcome"])?;
        registry.register(Box::new(attempts.clone()))?;
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["endpoint"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            attempts,
            pending: gauge("webhook_pending_deliveries", "Deliveries in the outbox, of all processes together.")?,
            dead: gauge("webhook_dead_deliveries", "Deliveries that were given up and wait for a retry by hand.")?,
        })
    }

    /// Shows `endpoint` from the start, with zeros: a series that appears with its first failure has no rate.
    pub(super) fn show(&self, endpoint: &str) {
        for outcome in Outcome::ALL {
            self.attempts.with_label_values(&[endpoint, outcome.as_str()]);
        }
        self.set_waiting(Some(endpoint), 0, 0);
    }

    pub(super) fn count(&self, endpoint: &str, outcome: Outcome) {
        self.attempts.with_label_values(&[endpoint, outcome.as_str()]).inc();
    }

    /// Sets what waits for `endpoint`, or for all that are not configured.
    pub(super) fn set_waiting(&self, endpoint: Option<&str>, pending: i64, dead: i64) {
        let label = [endpoint.unwrap_or(UNCONFIGURED)];
        self.pending.with_label_values(&label).set(pending);
        self.dead.with_label_values(&label).set(dead);
    }
}
