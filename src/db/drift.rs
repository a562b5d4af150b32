//! The tables `drift_runs` and `drift_objects`.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    dsl::{exists, not},
    pg::Pg,
    result::Error as DieselError,
    sql_types,
};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};
use uuid::Uuid;

use super::{
    Database, DbError, UploadAccount,
    schema::{drift_objects, drift_runs, upload_intents},
};
use crate::model::{IntentId, IntentState};

/// Rows forgotten by one statement, so that none runs into its time limit.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

/// A comparison of a bucket with the uploads, and how far it has come.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = drift_runs, check_for_backend(Pg))]
pub struct DriftRun {
    /// Identifies the run.
    pub id: IntentId,
    /// Last key of the listing that has been compared.
    pub listed_to: Option<String>,
    /// Whether the whole bucket has been.
    pub is_listed: bool,
    /// Last upload whose object has been looked for.
    pub checked_to: Option<IntentId>,
    /// What has been found so far.
    pub counts: serde_json::Value,
}

/// Confirmed uploads whose objects a listing did not show.
#[derive(Debug)]
pub struct UnseenUploads {
    /// Some of them, by id.
    pub uploads: Vec<UploadAccount>,
    /// The last upload that was looked at for them; none when that was the last of all.
    pub checked_to: Option<IntentId>,
}

impl Database {
    /// Begins a run. What earlier ones of the bucket have met is forgotten: they cannot go on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_drift_run(
        &self,
        bucket: &str,
        counts: serde_json::Value,
        now: DateTime<Utc>,
    ) -> Result<DriftRun, DbError> {
        while let Some(earlier) = self.unfinished_drift_run(bucket).await? {
            self.finish_drift_run(earlier.id, now).await?;
        }
        self.query(async |connection| {
            diesel::insert_into(drift_runs::table)
                .values((
                    drift_runs::id.eq(IntentId::at(now).uuid()),
                    drift_runs::bucket.eq(bucket),
                    drift_runs::counts.eq(counts),
                    drift_runs::started_at.eq(now),
                    drift_runs::updated_at.eq(now),
                ))
                .returning(DriftRun::as_returning())
                .get_result(connection)
                .await
        })
        .await
    }

    /// The last run of `bucket` that has not been finished.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unfinished_drift_run(&self, bucket: &str) -> Result<Option<DriftRun>, DbError> {
        self.query(async |connection| {
            drift_runs::table
                .select(DriftRun::as_select())
                .filter(drift_runs::bucket.eq(bucket))
                .filter(drift_runs::finished_at.is_null())
                .order(drift_runs::id.desc())
                .first(connection)
                .await
                .optional()
        })
        .await
    }

    /// Notes how far `run` has come, together with the uploads whose objects it has met since.
    ///
    /// # Errors
    /// When the database does not answer; then the run is where it was.
    pub async fn advance_drift_run(&self, run: &DriftRun, met: &[IntentId], now: DateTime<Utc>) -> Result<(), DbError> {
        let met: Vec<Uuid> = met.iter().map(|id| id.uuid()).collect();
        self.query(async |connection| {
            connection
                .transaction::<_, DieselError, _>(async |connection| {
                    if !met.is_empty() {
                        // A page may be compared again by a run that was interrupted before it was noted.
                        diesel::sql_query(
                            "INSERT INTO drift_objects (run_id, upload_id) SELECT $1, unnest($2) ON CONFLICT DO NOTHING",
                        )
                        .bind::<sql_types::Uuid, _>(run.id.uuid())
                        .bind::<sql_types::Array<sql_types::Uuid>, _>(&met)
                        .execute(connection)
                        .await?;
                    }
                    diesel::update(drift_runs::table)
                        .filter(drift_runs::id.eq(run.id.uuid()))
                        .set((
                            drift_runs::listed_to.eq(run.listed_to.as_deref()),
                            drift_runs::is_listed.eq(run.is_listed),
                            drift_runs::checked_to.eq(run.checked_to.map(IntentId::uuid)),
                            drift_runs::counts.eq(&run.counts),
                            drift_runs::updated_at.eq(now),
                        ))
                        .execute(connection)
                        .await
                })
                .await
        })
        .await?;
        Ok(())
    }

    /// Confirmed uploads of `bucket` whose objects `run` has not met, from where it has come to. Looks at no more than
    /// `limit` uploads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unseen_uploads(&self, run: &DriftRun, bucket: &str, limit: i64) -> Result<UnseenUploads, DbError> {
        let after = run.checked_to.map_or(Uuid::nil(), IntentId::uuid);
        self.query(async |connection| {
            // In two steps, because the uploads that were met are most of them, and need not leave the database.
            let window = upload_intents::table
                .select(upload_intents::id)
                .filter(upload_intents::id.gt(after))
                .order(upload_intents::id)
                .offset(limit - 1)
                .first::<IntentId>(connection)
                .await
                .optional()?;
            let met = drift_objects::table
                .filter(drift_objects::run_id.eq(run.id.uuid()))
                .filter(drift_objects::upload_id.eq(upload_intents::id));
            let uploads = upload_intents::table
                .select(UploadAccount::as_select())
                .filter(upload_intents::id.gt(after))
                .filter(upload_intents::id.le(window.map_or(Uuid::max(), IntentId::uuid)))
                .filter(upload_intents::bucket.eq(bucket))
                .filter(upload_intents::state.eq(IntentState::Confirmed.as_str()))
                .filter(not(exists(met)))
                .order(upload_intents::id)
                .load(connection)
                .await?;
            Ok(UnseenUploads { uploads, checked_to: window })
        })
        .await
    }

    /// Ends a run, and forgets what it has met.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn finish_drift_run(&self, run: IntentId, now: DateTime<Utc>) -> Result<(), DbError> {
        loop {
            let forgotten = self
                .query(async |connection| {
                    let some = drift_objects::table
                        .select(drift_objects::upload_id)
                        .filter(drift_objects::run_id.eq(run.uuid()))
                        .order(drift_objects::upload_id)
                        .limit(FORGOTTEN_AT_ONCE)
                        .load::<Uuid>(connection)
                        .await?;
                    let (Some(first), Some(last)) = (some.iter().min(), some.iter().max()) else { return Ok(0) };
                    diesel::delete(drift_objects::table)
                        .filter(drift_objects::run_id.eq(run.uuid()))
                        .filter(drift_objects::upload_id.between(first, last))
                        .execute(connection)
                        .await
                })
                .await?;
            if forgotten == 0 {
                break;
            }
        }
        self.query(async |connection| {
            diesel::update(drift_runs::table)
                .filter(drift_runs::id.eq(run.uuid()))
                .set(drift_runs::finished_at.eq(now))
                .execute(connection)
                .await
        })
        .await?;
        Ok(())
    }
}
