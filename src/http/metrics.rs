//! What is counted, in Prometheus's text format.

use std::sync::{Arc, atomic::Ordering};

use actix_web::{HttpResponse, web};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use tokio::sync::Mutex;

use super::{ApiError, State};
use crate::domain::EventCounts;

/// Bucket bounds in seconds: issuing takes a few milliseconds, confirming asks the store.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The registry and what is in it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    scraping: Arc<Mutex<()>>,
    requests: HistogramVec,
    events: IntCounterVec,
    ledger_queue: IntGauge,
    ledger_groups: IntCounter,
    ledger_rows: IntCounter,
    ledger_failed_rows: IntCounter,
    access_events: IntCounter,
    access_events_lost: IntCounter,
    s3_requests: IntGauge,
    sessions: IntGauge,
    sessions_assumed: IntCounter,
    sessions_failed: IntCounter,
    policy_reloads: IntCounter,
    policy_failures: IntCounter,
    sweeper_looks: IntCounter,
    sweeper_confirmed: IntCounter,
    sweeper_rejected: IntCounter,
    sweeper_expired: IntCounter,
    sweeper_deleted: IntCounter,
    sweeper_multiparts: IntCounter,
    sweeper_failed: IntCounter,
    sweeper_due: IntGauge,
    sweeper_oldest: IntGauge,
    streams: IntGauge,
    stream_bytes: IntCounter,
    streams_resumed: IntCounter,
    streams_broken: IntCounter,
    sniff_warned: IntCounter,
    sniff_rejected: IntCounter,
    inspections: IntCounterVec,
    inspections_given_up: IntCounter,
    inspections_waiting: IntGauge,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two metrics have one name, which a test would see.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("presignd".to_owned()), None)?;
        let requests = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from a request's head to its answer.")
                .buckets(BUCKETS.to_vec()),
            &["method", "route", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let events = IntCounterVec::new(
            Opts::new(
                "events_total",
                "Records of storage events by what became of them; refused and failed are calls.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(events.clone()))?;
        let attempts = Opts::new("inspection_attempts_total", "Times that the scanner was asked, by what came of it.");
        let inspections = IntCounterVec::new(attempts, &["outcome"])?;
        registry.register(Box::new(inspections.clone()))?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            requests,
            events,
            scraping: Arc::default(),
            ledger_queue: gauge("ledger_queued_intents", "Intents waiting for a writer.")?,
            ledger_groups: counter("ledger_groups_total", "Statements that committed a group of intents.")?,
            ledger_rows: counter("ledger_intents_total", "Intents that were committed.")?,
            ledger_failed_rows: counter("ledger_failed_intents_total", "Intents that were not committed.")?,
            access_events: counter("access_events_total", "Refusals that were written into the audit.")?,
            access_events_lost: counter(
                "access_events_lost_total",
                "Refusals that were not, for want of room or time.",
            )?,
            s3_requests: gauge("s3_requests_under_way", "Requests to the store that have not ended.")?,
            sessions: gauge("sts_sessions", "Sessions held, one for each network and access.")?,
            sessions_assumed: counter("sts_assumed_total", "Calls of AssumeRole that gave a session.")?,
            sessions_failed: counter("sts_failed_total", "Calls of AssumeRole that failed.")?,
            policy_reloads: counter("policy_reloads_total", "Changes of the policy file that took effect.")?,
            policy_failures: counter("policy_failures_total", "Changes of the policy file that were refused.")?,
            sweeper_looks: counter("sweeper_looks_total", "Looks of this process at uploads that were due.")?,
            sweeper_confirmed: counter("sweeper_confirmed_total", "Uploads that the sweeper found finished.")?,
            sweeper_rejected: counter("sweeper_rejected_total", "Uploads that the sweeper found broken promises in.")?,
            sweeper_expired: counter("sweeper_expired_total", "Uploads whose time the sweeper found run out.")?,
            sweeper_deleted: counter("sweeper_deleted_objects_total", "Objects that the sweeper removed.")?,
            sweeper_multiparts: counter("sweeper_aborted_multiparts_total", "Multipart uploads that were aborted.")?,
            sweeper_failed: counter("sweeper_failed_total", "Looks that failed and will be repeated.")?,
            sweeper_due: gauge("sweeper_due_uploads", "Uploads that were due at the last round, up to 100000.")?,
            sweeper_oldest: gauge("sweeper_oldest_due_seconds", "For how long the oldest of them had been due.")?,
            streams: gauge("streams_running", "Downloads that pass through this process.")?,
            stream_bytes: counter("stream_bytes_total", "Bytes of files that passed through this process.")?,
            streams_resumed: counter("stream_resumptions_total", "Reads taken up where the store broke them off.")?,
            streams_broken: counter("streams_broken_total", "Streams that ended before their last byte.")?,
            sniff_warned: counter("sniff_warned_total", "Files of another type than declared that were let through.")?,
            sniff_rejected: counter("sniff_rejected_total", "Files of another type than declared that were rejected.")?,
            inspections,
            inspections_given_up: counter("inspections_given_up_total", "Uploads rejected for want of a verdict.")?,
            inspections_waiting: gauge("inspections_waiting", "Uploads that wait for the scanner, of all processes.")?,
            registry,
        })
    }

    /// Where other rooms add what they count.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request. `route` is the pattern, never the path: ids in it would make a series each.
    pub(super) fn observe(&self, method: &str, route: &str, status: &str, seconds: f64) {
        self.requests.with_label_values(&[method, route, status]).observe(seconds);
    }

    /// Counts what became of a call with storage events.
    pub(super) fn count_events(&self, taken: Result<&EventCounts, &ApiError>) {
        let count = |outcome: &str, count: usize| {
            self.events.with_label_values(&[outcome]).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        };
        match taken {
            Ok(counts) => {
                count("confirmed", counts.confirmed);
                count("rejected", counts.rejected);
                count("pending", counts.pending);
                count("ignored", counts.ignored);
            }
            Err(error) if error.code().status().is_server_error() => count("failed", 1),
            Err(_) => count("refused", 1),
        }
    }
}

/// `GET /metrics`
pub(super) async fn show(state: web::Data<State>) -> HttpResponse {
    let metrics = &state.metrics;
    // What has come since the last scrape is added below; two scrapes at once would both add it.
    let _alone = metrics.scraping.lock().await;
    let ledger = state.service.ledger.status();
    let sessions = state.service.sessions.status().await;
    let policies = state.service.policies.status();
    let sweeper = state.service.sweep_progress.status();
    let sniffed = &state.service.sniffed;
    let reads = state.service.reader.status();
    metrics.streams.set(i64::try_from(reads.running).unwrap_or(i64::MAX));
    if let Some(inspection) = &state.service.inspection {
        let status = inspection.status();
        metrics.inspections_waiting.set(i64::try_from(status.waiting).unwrap_or(i64::MAX));
        for (outcome, total) in [("clean", status.clean), ("infected", status.infected), ("failed", status.failed)] {
            let counter = metrics.inspections.with_label_values(&[outcome]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        let given_up = &metrics.inspections_given_up;
        given_up.inc_by(status.given_up.saturating_sub(given_up.get()));
    }
    metrics.ledger_queue.set(i64::try_from(ledger.queued).unwrap_or(i64::MAX));
    metrics.s3_requests.set(i64::try_from(state.service.store.requests_under_way()).unwrap_or(i64::MAX));
    metrics.sessions.set(i64::try_from(sessions.cached).unwrap_or(i64::MAX));
    metrics.sweeper_due.set(sweeper.due);
    metrics.sweeper_oldest.set(i64::try_from(sweeper.oldest_due.as_secs()).unwrap_or(i64::MAX));
    for (counter, total) in [
        (&metrics.ledger_groups, ledger.groups),
        (&metrics.ledger_rows, ledger.rows),
        (&metrics.ledger_failed_rows, ledger.failed_rows),
        (&metrics.access_events, ledger.events),
        (&metrics.access_events_lost, ledger.lost_events),
        (&metrics.sessions_assumed, sessions.assumed),
        (&metrics.sessions_failed, sessions.failed),
        (&metrics.policy_reloads, policies.reloads_total),
        (&metrics.policy_failures, policies.failures_total),
        (&metrics.sweeper_looks, sweeper.looked),
        (&metrics.sweeper_confirmed, sweeper.confirmed),
        (&metrics.sweeper_rejected, sweeper.rejected),
        (&metrics.sweeper_expired, sweeper.expired),
        (&metrics.sweeper_deleted, sweeper.deleted),
        (&metrics.sweeper_multiparts, sweeper.multiparts_aborted),
        (&metrics.sweeper_failed, sweeper.failed),
        (&metrics.stream_bytes, reads.bytes),
        (&metrics.streams_resumed, reads.resumed),
        (&metrics.streams_broken, reads.broken),
        (&metrics.sniff_warned, sniffed.warned.load(Ordering::Relaxed)),
        (&metrics.sniff_rejected, sniffed.rejected.load(Ordering::Relaxed)),
    ] {
        counter.inc_by(total.saturating_sub(counter.get()));
    }
    match TextEncoder::new().encode_to_string(&metrics.registry.gather()) {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => {
            log::error!("metrics: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}
