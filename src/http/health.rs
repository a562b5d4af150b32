//! Whether the process lives, and whether everything that it needs answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{HttpResponse, web};
use serde::Serialize;
use tokio::sync::Mutex;

use super::{ApiError, State, extract::ClientAddress};
use crate::{auth::Authenticator, domain::Service};

/// How long an answer is good for: probes of several kinds, and anybody who finds the path, then cost the database
/// and the store one question a second.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Longest wait for each part.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the parts, at most once a second.
#[derive(Debug)]
pub struct Readiness {
    service: Service,
    authenticator: Authenticator,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

/// What each part answered: `ok`, or what is wrong in a word that tells nobody outside anything about the inside.
#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    database: &'static str,
    storage: &'static str,
    keys: &'static str,
}

impl Readiness {
    /// Readiness of these parts.
    pub fn new(service: Service, authenticator: Authenticator) -> Self {
        Self { service, authenticator, last: Mutex::new(None) }
    }

    async fn report(&self) -> Arc<Report> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.ask().await);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    async fn ask(&self) -> Report {
        let database = tokio::time::timeout(PATIENCE, self.service.database.ping());
        let storage = tokio::time::timeout(PATIENCE, self.service.store.ping());
        let (database, storage) = tokio::join!(database, storage);
        let keys = self.authenticator.ready();
        let [database, storage, keys] = [
            verdict("database", database.map(|answer| answer.map_err(|error| error.to_string()))),
            verdict("storage", storage.map(|answer| answer.map_err(|error| error.to_string()))),
            verdict("keys", Ok::<_, tokio::time::error::Elapsed>(keys)),
        ];
        Report { ready: [database, storage, keys].iter().all(|part| *part == OK), database, storage, keys }
    }
}

const OK: &str = "ok";

fn verdict<E>(part: &str, answer: Result<Result<(), String>, E>) -> &'static str {
    match answer {
        Ok(Ok(())) => OK,
        Ok(Err(reason)) => {
            log::warn!("not ready: {part}: {reason}");
            "unavailable"
        }
        Err(_) => {
            log::warn!("not ready: {part}: no answer in time");
            "unavailable"
        }
    }
}

/// `GET /healthz`
///
/// Says as whom it sees the one who asks, so that an operator can tell whether proxies are configured right.
pub(super) async fn alive(address: Result<ClientAddress, ApiError>) -> HttpResponse {
    // Whoever cannot be told is not ill: a probe of the orchestrator may come past the proxy.
    let address = address.ok().map(|address| address.0);
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok", "client_address": address }))
}

/// `GET /readyz`
pub(super) async fn ready(state: web::Data<State>) -> HttpResponse {
    let report = state.readiness.report().await;
    let mut response = if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    if !report.ready {
        response.insert_header((actix_web::http::header::RETRY_AFTER, "2"));
    }
    response.json(&*report)
}
