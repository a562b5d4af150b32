//! The tables `webhook_deliveries`, which is the outbox, and `webhook_attempts`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryResult, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    dsl::{max, sql},
    pg::Pg,
    result::Error as DieselError,
    sql_types::{self, BigInt, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Database, DbError,
    schema::{webhook_attempts, webhook_deliveries},
};
use crate::model::IntentId;

/// Channel that processes listen on for new deliveries.
pub const CHANNEL: &str = "presignd_webhooks";

/// Rows that one statement forgets, revives or puts off: many of them must not keep others from the table for long.
const BATCH: i64 = 1_000;

/// How long an event is put off at least that an earlier one of its upload keeps back. When that one is settled it is due
/// at once; this is for whom that was not seen to happen.
const PUT_OFF: TimeDelta = TimeDelta::seconds(30);

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

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be tried, again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    /// The name in the database and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// A delivery that this process alone may try, until its lease ends.
#[derive(Debug, Clone, QueryableByName)]
#[diesel(check_for_backend(Pg))]
pub struct ClaimedDelivery {
    /// Identifies the event.
    #[diesel(sql_type = sql_types::Uuid)]
    pub event_id: Uuid,
    /// Name of the endpoint.
    #[diesel(sql_type = Text)]
    pub endpoint: String,
    /// The upload that it is about.
    #[diesel(sql_type = sql_types::Uuid)]
    pub upload_id: IntentId,
    /// Such as `upload.confirmed`.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// The body.
    #[diesel(sql_type = Text)]
    pub payload: String,
    /// Attempts before this one.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// When anybody may claim it again. Also what tells this claim from any later one.
    #[diesel(sql_type = Timestamptz, column_name = next_attempt_at)]
    pub leased_until: DateTime<Utc>,
}

/// What came of an attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// The status of the answer, or why there was none.
    pub answer: Result<u16, String>,
}

/// What happens to a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterAttempt {
    /// It has arrived.
    Delivered,
    /// It is tried again then.
    RetryAt(DateTime<Utc>),
    /// It is given up.
    Dead,
}

/// Which deliveries a list shows.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only this state.
    pub state: Option<DeliveryState>,
    /// Only this endpoint.
    pub endpoint: Option<String>,
    /// At most this many.
    pub limit: i64,
}

/// A delivery as operators see it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = webhook_deliveries, check_for_backend(Pg))]
pub struct Delivery {
    /// Identifies the event.
    pub event_id: Uuid,
    /// Name of the endpoint.
    pub endpoint: String,
    /// The upload that it is about.
    pub upload_id: Uuid,
    /// Such as `upload.confirmed`.
    pub event_type: String,
    /// `pending`, `delivered` or `dead`.
    pub state: String,
    /// Attempts since it happened or was last retried by hand.
    pub attempts: i32,
    /// When it is tried next, while it is pending.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When it arrived or was given up.
    pub settled_at: Option<DateTime<Utc>>,
}

/// The last attempt of a delivery: its status, or why there was none.
pub type LastAttempt = (Option<i32>, Option<String>);

/// Deliveries of one endpoint in one state.
#[derive(Debug, Clone, QueryableByName)]
#[diesel(check_for_backend(Pg))]
pub struct DeliveryCount {
    /// Name of the endpoint.
    #[diesel(sql_type = Text)]
    pub endpoint: String,
    /// `pending` or `dead`.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
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

/// Pending for the endpoint `$1`, and the first of its upload: while an earlier event of that is on its way, a later one
/// must not overtake it.
const FIRST_OF_ITS_UPLOAD: &str = "endpoint = $1 AND state = 'pending' AND NOT EXISTS ( \
     SELECT 1 FROM webhook_deliveries earlier WHERE earlier.endpoint = due.endpoint \
     AND earlier.upload_id = due.upload_id AND earlier.state = 'pending' AND earlier.event_id < due.event_id)";

impl Database {
    /// Wakes the dispatchers of all processes. Not part of the transaction that wrote the outbox, because not every
    /// database that speaks PostgreSQL's protocol can notify; a dispatcher that is not woken finds the row by polling.
    pub(super) async fn announce_webhooks(&self) {
        self.wake_dispatchers();
        let statement = format!("SELECT pg_notify('{CHANNEL}', '')");
        let told = self.query(async |connection| diesel::sql_query(statement).execute(connection).await).await;
        if let Err(error) = told {
            log::debug!("dispatchers of webhooks were not woken: {error}");
        }
    }

    /// Wakes the dispatcher of this process.
    pub(super) fn wake_dispatchers(&self) {
        self.outbox_changed.send_replace(());
    }

    /// Changes whenever the outbox may hold something that is due, as far as this process has heard.
    pub fn outbox_changes(&self) -> watch::Receiver<()> {
        self.outbox_changed.subscribe()
    }

    /// Claims up to `limit` deliveries to `endpoint` that are due at `now`, until `lease_end`. No two claims overlap,
    /// in whichever processes; one whose process dies is due again when its lease ends.
    ///
    /// # Errors
    /// When the database does not answer. What was claimed then is due again when the lease ends.
    pub async fn claim_webhooks(
        &self,
        endpoint: &str,
        now: DateTime<Utc>,
        lease_end: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<ClaimedDelivery>, DbError> {
        // Materialized, because a plan that evaluates it more than once would claim more than the limit. The state is
        // asked for again, because somebody may have settled a row after it was found and before it was locked.
        let statement = format!(
            "WITH found AS MATERIALIZED (SELECT event_id, endpoint FROM webhook_deliveries due \
             WHERE {FIRST_OF_ITS_UPLOAD} AND next_attempt_at <= $2 \
             ORDER BY next_attempt_at, event_id LIMIT $4 FOR UPDATE SKIP LOCKED) \
             UPDATE webhook_deliveries claimed SET next_attempt_at = $3 FROM found \
             WHERE claimed.event_id = found.event_id AND claimed.endpoint = found.endpoint \
             AND claimed.state = 'pending' \
             RETURNING claimed.event_id, claimed.endpoint, upload_id, event_type, payload, attempts, next_attempt_at"
        );
        let mut claimed: Vec<ClaimedDelivery> = self
            .query(async |connection| {
                diesel::sql_query(statement)
                    .bind::<Text, _>(endpoint)
                    .bind::<Timestamptz, _>(now)
                    .bind::<Timestamptz, _>(lease_end)
                    .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
                    .load(connection)
                    .await
            })
            .await?;
        claimed.sort_unstable_by_key(|delivery| delivery.event_id);
        Ok(claimed)
    }

    /// Puts off deliveries to `endpoint` that are due at `now` and kept back by an earlier one of their upload, at most as
    /// many as one statement may. They would be looked at with every claim, and a receiver in trouble has many of them.
    /// Gives whether there may be more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_off_webhooks(&self, endpoint: &str, now: DateTime<Utc>) -> Result<bool, DbError> {
        // The earlier one is locked as well: what is settled at this moment keeps nobody back, and has said that the next
        // is due.
        let statement = "\
            WITH kept_back AS MATERIALIZED (SELECT due.event_id, due.endpoint, earlier.next_attempt_at \
            FROM webhook_deliveries due CROSS JOIN LATERAL (SELECT next_attempt_at FROM webhook_deliveries earlier \
            WHERE earlier.endpoint = due.endpoint AND earlier.upload_id = due.upload_id \
            AND earlier.state = 'pending' AND earlier.event_id < due.event_id ORDER BY earlier.event_id LIMIT 1 \
            FOR SHARE SKIP LOCKED) earlier \
            WHERE due.endpoint = $1 AND due.state = 'pending' AND due.next_attempt_at <= $2 \
            ORDER BY due.next_attempt_at LIMIT $4 FOR UPDATE OF due SKIP LOCKED) \
            UPDATE webhook_deliveries later SET next_attempt_at = GREATEST(kept_back.next_attempt_at, $3) \
            FROM kept_back WHERE later.event_id = kept_back.event_id AND later.endpoint = kept_back.endpoint \
            AND later.state = 'pending'";
        let put_off = self.query(async |connection| {
            diesel::sql_query(statement)
                .bind::<Text, _>(endpoint)
                .bind::<Timestamptz, _>(now)
                .bind::<Timestamptz, _>(now + PUT_OFF)
                .bind::<BigInt, _>(BATCH)
                .execute(connection)
                .await
        });
        Ok(i64::try_from(put_off.await?).is_ok_and(|put_off| put_off >= BATCH))
    }

    /// When there may be something to claim for `endpoint`; `None` when nothing waits.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_webhook_at(&self, endpoint: &str) -> Result<Option<DateTime<Utc>>, DbError> {
        #[derive(QueryableByName)]
        struct Next {
            #[diesel(sql_type = Timestamptz)]
            next_attempt_at: DateTime<Utc>,
        }

        let statement = "SELECT next_attempt_at FROM webhook_deliveries WHERE endpoint = $1 AND state = 'pending' \
                         ORDER BY next_attempt_at LIMIT 1";
        let next: Option<Next> = self
            .query(async |connection| {
                diesel::sql_query(statement).bind::<Text, _>(endpoint).get_result(connection).await.optional()
            })
            .await?;
        Ok(next.map(|next| next.next_attempt_at))
    }

    /// Writes down an attempt and what follows from it, together. `false` when the claim was lost: its lease has ended
    /// and somebody else has claimed or settled the delivery, so this attempt counts for nothing.
    ///
    /// # Errors
    /// When the database does not answer; the delivery is due again when the lease ends.
    pub async fn record_webhook_attempt(
        &self,
        claimed: &ClaimedDelivery,
        attempt: &Attempt,
        after: AfterAttempt,
    ) -> Result<bool, DbError> {
        let ended_at = attempt.started_at + attempt.took;
        let (state, next_attempt_at) = match after {
            AfterAttempt::Delivered => (DeliveryState::Delivered, None),
            AfterAttempt::RetryAt(at) => (DeliveryState::Pending, Some(at)),
            AfterAttempt::Dead => (DeliveryState::Dead, None),
        };
        let settled_at = (state != DeliveryState::Pending).then_some(ended_at);
        let (status, error) = match &attempt.answer {
            Ok(status) => (Some(i32::from(*status)), None),
            Err(error) => (None, Some(error)),
        };
        self.query(async |connection| {
            connection
                .transaction::<_, DieselError, _>(async |connection| {
                    let held = diesel::update(webhook_deliveries::table)
                        .filter(webhook_deliveries::event_id.eq(claimed.event_id))
                        .filter(webhook_deliveries::endpoint.eq(&claimed.endpoint))
                        .filter(webhook_deliveries::state.eq(DeliveryState::Pending.as_str()))
                        .filter(webhook_deliveries::next_attempt_at.eq(claimed.leased_until))
                        .set((
                            webhook_deliveries::state.eq(state.as_str()),
                            webhook_deliveries::attempts.eq(webhook_deliveries::attempts + 1),
                            webhook_deliveries::next_attempt_at.eq(next_attempt_at),
                            webhook_deliveries::settled_at.eq(settled_at),
                        ))
                        .execute(connection)
                        .await?;
                    if held == 0 {
                        return Ok(false);
                    }
                    if state != DeliveryState::Pending {
                        release_next(claimed, attempt.started_at, connection).await?;
                    }
                    // Counted on from earlier ones, also from those before a retry by hand.
                    let earlier: Option<i32> = webhook_attempts::table
                        .select(max(webhook_attempts::attempt))
                        .filter(webhook_attempts::event_id.eq(claimed.event_id))
                        .filter(webhook_attempts::endpoint.eq(&claimed.endpoint))
                        .first(connection)
                        .await?;
                    diesel::insert_into(webhook_attempts::table)
                        .values((
                            webhook_attempts::event_id.eq(claimed.event_id),
                            webhook_attempts::endpoint.eq(&claimed.endpoint),
                            webhook_attempts::attempt.eq(earlier.unwrap_or_default() + 1),
                            webhook_attempts::started_at.eq(attempt.started_at),
                            webhook_attempts::duration_ms
                                .eq(i32::try_from(attempt.took.as_millis()).unwrap_or(i32::MAX)),
                            webhook_attempts::status.eq(status),
                            webhook_attempts::error.eq(error),
                        ))
                        .execute(connection)
                        .await?;
                    Ok(true)
                })
                .await
        })
        .await
    }

    /// How many deliveries are pending and dead, for each endpoint that has any.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_webhooks(&self) -> Result<Vec<DeliveryCount>, DbError> {
        // Two statements in one, because each state has a partial index of its own.
        let statement = "SELECT endpoint, state, count(*) FROM webhook_deliveries WHERE state = 'pending' GROUP BY 1, 2 \
                         UNION ALL \
                         SELECT endpoint, state, count(*) FROM webhook_deliveries WHERE state = 'dead' GROUP BY 1, 2";
        self.query(async |connection| diesel::sql_query(statement).load(connection).await).await
    }

    /// The deliveries that `filter` lets through, newest first, each with its last attempt.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn webhooks(&self, filter: &DeliveryFilter) -> Result<Vec<(Delivery, LastAttempt)>, DbError> {
        let of_last_attempt = |column: &str| {
            format!(
                "(SELECT {column} FROM webhook_attempts WHERE webhook_attempts.event_id = webhook_deliveries.event_id \
                 AND webhook_attempts.endpoint = webhook_deliveries.endpoint ORDER BY attempt DESC LIMIT 1)"
            )
        };
        let (status, error) = (of_last_attempt("status"), of_last_attempt("error"));
        let mut query = webhook_deliveries::table
            .select((Delivery::as_select(), (sql::<Nullable<Integer>>(&status), sql::<Nullable<Text>>(&error))))
            .order((webhook_deliveries::event_id.desc(), webhook_deliveries::endpoint))
            .limit(filter.limit)
            .into_boxed();
        if let Some(state) = filter.state {
            query = query.filter(webhook_deliveries::state.eq(state.as_str()));
        }
        if let Some(endpoint) = &filter.endpoint {
            query = query.filter(webhook_deliveries::endpoint.eq(endpoint));
        }
        self.query(async |connection| query.load(connection).await).await
    }

    /// Makes dead deliveries pending and due at `now`, with all their attempts before them: those of `event`, or all;
    /// of `endpoint`, or all. Gives their number.
    ///
    /// # Errors
    /// When the database does not answer; some may have been revived by then.
    pub async fn revive_webhooks(
        &self,
        event: Option<Uuid>,
        endpoint: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<usize, DbError> {
        let mut revived = 0;
        loop {
            // Those that die again meanwhile are left alone: a receiver that wants none would keep this going.
            let batch = self
                .query(async |connection| {
                    diesel::sql_query(
                        "WITH found AS MATERIALIZED (SELECT event_id, endpoint FROM webhook_deliveries \
                         WHERE state = 'dead' AND settled_at <= $1 \
                         AND ($2 IS NULL OR event_id = $2) AND ($3 IS NULL OR endpoint = $3) LIMIT $4) \
                         UPDATE webhook_deliveries dead \
                         SET state = 'pending', attempts = 0, next_attempt_at = $1, settled_at = NULL FROM found \
                         WHERE dead.event_id = found.event_id AND dead.endpoint = found.endpoint \
                         AND dead.state = 'dead'",
                    )
                    .bind::<Timestamptz, _>(now)
                    .bind::<Nullable<sql_types::Uuid>, _>(event)
                    .bind::<Nullable<Text>, _>(endpoint)
                    .bind::<BigInt, _>(BATCH)
                    .execute(connection)
                    .await
                })
                .await?;
            if batch == 0 {
                break;
            }
            revived += batch;
        }
        if revived > 0 {
            self.announce_webhooks().await;
        }
        Ok(revived)
    }

    /// Forgets what was delivered before `before`, and what came of its attempts. Gives the number of deliveries.
    ///
    /// # Errors
    /// When the database does not answer; some may have been forgotten by then.
    pub async fn forget_delivered_webhooks(&self, before: DateTime<Utc>) -> Result<usize, DbError> {
        let mut forgotten = 0;
        loop {
            let batch = self
                .query(async |connection| {
                    diesel::sql_query(
                        "WITH found AS MATERIALIZED (SELECT event_id, endpoint FROM webhook_deliveries \
                         WHERE state = 'delivered' AND settled_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED), \
                         old AS (DELETE FROM webhook_deliveries USING found \
                         WHERE webhook_deliveries.event_id = found.event_id \
                         AND webhook_deliveries.endpoint = found.endpoint RETURNING found.event_id, found.endpoint), \
                         attempts AS (DELETE FROM webhook_attempts USING old \
                         WHERE webhook_attempts.event_id = old.event_id AND webhook_attempts.endpoint = old.endpoint) \
                         SELECT count(*) FROM old",
                    )
                    .bind::<Timestamptz, _>(before)
                    .bind::<BigInt, _>(BATCH)
                    .get_result::<Count>(connection)
                    .await
                })
                .await?;
            if batch.count == 0 {
                return Ok(forgotten);
            }
            forgotten += usize::try_from(batch.count).unwrap_or_default();
        }
    }
}

/// The event that the settled one kept back, if there is one, is due at `now`.
async fn release_next(
    settled: &ClaimedDelivery,
    now: DateTime<Utc>,
    connection: &mut AsyncPgConnection,
) -> QueryResult<usize> {
    diesel::sql_query(
        "UPDATE webhook_deliveries SET next_attempt_at = $3 WHERE endpoint = $1 AND state = 'pending' \
         AND event_id = (SELECT event_id FROM webhook_deliveries WHERE endpoint = $1 AND upload_id = $2 \
         AND state = 'pending' ORDER BY event_id LIMIT 1) AND attempts = 0 AND next_attempt_at > $3",
    )
    .bind::<Text, _>(&settled.endpoint)
    .bind::<sql_types::Uuid, _>(settled.upload_id.uuid())
    .bind::<Timestamptz, _>(now)
    .execute(connection)
    .await
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}
