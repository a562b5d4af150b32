//! The table `inspections`.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryResult, QueryableByName,
    pg::Pg,
    sql_types::{BigInt, Integer, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{Database, DbError, schema::inspections};
use crate::model::IntentId;

/// An inspection that whoever claimed it may try now.
#[derive(Debug, Clone, Copy, QueryableByName)]
#[diesel(check_for_backend(Pg))]
pub struct DueInspection {
    /// The upload.
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    pub upload_id: IntentId,
    /// Attempts, this one included: also tells this claim from a later one.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// When the upload was verified.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// Puts an upload into the queue of the scanner.
pub(super) async fn insert(
    upload: IntentId,
    now: DateTime<Utc>,
    connection: &mut AsyncPgConnection,
) -> QueryResult<usize> {
    diesel::insert_into(inspections::table)
        .values((
            inspections::upload_id.eq(upload.uuid()),
            inspections::next_attempt_at.eq(now),
            inspections::created_at.eq(now),
        ))
        .execute(connection)
        .await
}

impl Database {
    /// Claims at most `limit` inspections of uploads in `bucket` that are due at `now`, the most overdue first. Nobody
    /// else gets them before `lease_until`, when they are due again unless they have been removed or put off.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_inspections(
        &self,
        bucket: &str,
        now: DateTime<Utc>,
        lease_until: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<DueInspection>, DbError> {
        self.query(async |connection| {
            diesel::sql_query(
                // An array, because a subquery in IN may be run more than once and then claims more than the limit.
                "UPDATE inspections SET next_attempt_at = $1, attempts = attempts + 1 WHERE upload_id = ANY(ARRAY(\
                 SELECT upload_id FROM inspections WHERE next_attempt_at <= $2 AND NOT EXISTS (\
                 SELECT FROM upload_intents WHERE id = upload_id AND bucket <> $4) \
                 ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED)) \
                 RETURNING upload_id, attempts, created_at",
            )
            .bind::<Timestamptz, _>(lease_until)
            .bind::<Timestamptz, _>(now)
            .bind::<BigInt, _>(limit)
            .bind::<Text, _>(bucket)
            .load(connection)
            .await
        })
        .await
    }

    /// Says when a claimed inspection is due again, and why it had no result. Does nothing when somebody else has claimed
    /// it since.
    ///
    /// # Errors
    /// When the database does not answer; then it is due when its lease ends.
    pub async fn put_off_inspection(
        &self,
        claimed: &DueInspection,
        next_attempt_at: DateTime<Utc>,
        reason: &str,
    ) -> Result<(), DbError> {
        self.query(async |connection| {
            diesel::update(inspections::table)
                .filter(inspections::upload_id.eq(claimed.upload_id.uuid()))
                .filter(inspections::attempts.eq(claimed.attempts))
                .set((inspections::next_attempt_at.eq(next_attempt_at), inspections::last_error.eq(reason)))
                .execute(connection)
                .await
        })
        .await?;
        Ok(())
    }

    /// Forgets the inspection of an upload that needs none any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_inspection(&self, upload: IntentId) -> Result<(), DbError> {
        self.query(async |connection| {
            diesel::delete(inspections::table)
                .filter(inspections::upload_id.eq(upload.uuid()))
                .execute(connection)
                .await
        })
        .await?;
        Ok(())
    }

    /// How many uploads wait for the scanner.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn waiting_inspections(&self) -> Result<i64, DbError> {
        self.query(async |connection| inspections::table.count().get_result(connection).await).await
    }
}
