//! The tables `webhook_deliveries`, which is the outbox, and `webhook_attempts`.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods as _, QueryResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{Database, schema::webhook_deliveries};
use crate::model::IntentId;

/// Channel that processes listen on for new deliveries.
pub const CHANNEL: &str = "presignd_webhooks";

/// An event on its way to one endpoint.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Identifies the event, for all endpoints and attempts.
    pub event_id: Uuid,
    /// Name of the endpoint in the configuration.
    pub endpoint: String,
    /// The upload that it is about.
    pub upload_id: IntentId,
    /// Such as `upload.confirmed`.
    pub event_type: &'static str,
    /// The body.
    pub payload: String,
    /// When it happened.
    pub created_at: DateTime<Utc>,
}

/// Puts events into the outbox.
pub(super) async fn insert(deliveries: &[NewDelivery], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
    if deliveries.is_empty() {
        return Ok(0);
    }
    let rows: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            (
                webhook_deliveries::event_id.eq(delivery.event_id),
                webhook_deliveries::endpoint.eq(&delivery.endpoint),
                webhook_deliveries::upload_id.eq(delivery.upload_id.uuid()),
                webhook_deliveries::event_type.eq(delivery.event_type),
                webhook_deliveries::payload.eq(&delivery.payload),
                webhook_deliveries::next_attempt_at.eq(delivery.created_at),
                webhook_deliveries::created_at.eq(delivery.created_at),
            )
        })
        .collect();
    diesel::insert_into(webhook_deliveries::table).values(rows).execute(connection).await
}

impl Database {
    /// Wakes the dispatchers of all processes. Not part of the transaction that wrote the outbox, because not every
    /// database that speaks PostgreSQL's protocol can notify; a dispatcher that is not woken finds the row by polling.
    pub(super) async fn announce_webhooks(&self) {
        let statement = format!("SELECT pg_notify('{CHANNEL}', '')");
        let told = self.query(async |connection| diesel::sql_query(statement).execute(connection).await).await;
        if let Err(error) = told {
            log::debug!("dispatchers of webhooks were not woken: {error}");
        }
    }
}
