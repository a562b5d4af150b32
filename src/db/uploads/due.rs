//! The sweeper's part of `upload_intents`: what is due, and who looks at it.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryResult, SelectableHelper as _,
    dsl::sql,
    sql_types::{self, BigInt, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl as _;

use super::UploadIntent;
use crate::{
    db::{Database, DbError, schema::upload_intents},
    model::IntentId,
};

/// Counting stops here: beyond it, "very many" is all that anybody needs to know.
const MOST_COUNTED: i64 = 100_000;

/// How much waits for the sweeper.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    /// Uploads that are due, counted up to 100,000.
    pub due: i64,
    /// Since when the oldest of them is.
    pub oldest: Option<DateTime<Utc>>,
}

impl Database {
    /// Takes at most `limit` uploads of `bucket` that are due, the longest due first, and keeps everybody else away from
    /// them until `lease_end`. Whoever dies over them loses nothing: then they are due again. In any order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take_due_uploads(
        &self,
        bucket: &str,
        now: DateTime<Utc>,
        lease_end: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<UploadIntent>, DbError> {
        // An array, because a subquery in IN may be run more than once and then takes more than the limit.
        let taken = sql::<Bool>("id = ANY(ARRAY(SELECT due.id FROM upload_intents due WHERE due.look_at <= ")
            .bind::<Timestamptz, _>(now)
            .sql(" AND due.bucket = ")
            .bind::<Text, _>(bucket.to_owned())
            .sql(" ORDER BY due.look_at LIMIT ")
            .bind::<BigInt, _>(limit)
            .sql(" FOR UPDATE SKIP LOCKED))");
        let ids = self.query(async |connection| {
            diesel::update(upload_intents::table)
                .filter(taken)
                .set(upload_intents::look_at.eq(lease_end))
                .returning(upload_intents::id)
                .get_results(connection)
                .await
        });
        let ids: Vec<IntentId> = ids.await?.into_iter().map(IntentId::from_uuid).collect();
        // A statement of its own: a row that cannot be read would keep all that were taken with it from ever being looked at.
        self.readable_uploads(&ids).await
    }

    /// Says when to look at an upload again that was taken until `lease_end`; never, for `None`. Changes nothing if
    /// anybody has changed that time since, and says so: who renewed or settled the upload knows better.
    ///
    /// # Errors
    /// When the database does not answer; then it is looked at when the lease has ended.
    pub async fn look_again(
        &self,
        id: IntentId,
        lease_end: DateTime<Utc>,
        at: Option<DateTime<Utc>>,
    ) -> Result<bool, DbError> {
        let changed = self.query(async |connection| {
            diesel::update(upload_intents::table)
                .filter(upload_intents::id.eq(id.uuid()))
                .filter(upload_intents::look_at.eq(lease_end))
                .set(upload_intents::look_at.eq(at))
                .execute(connection)
                .await
        });
        Ok(changed.await? > 0)
    }

    /// Uploads of `bucket` that are due, the longest due first, after the one that was due at a time and has an id.
    /// Takes none of them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn due_uploads(
        &self,
        bucket: &str,
        now: DateTime<Utc>,
        after: Option<(DateTime<Utc>, IntentId)>,
        limit: i64,
    ) -> Result<Vec<(DateTime<Utc>, UploadIntent)>, DbError> {
        let mut query = upload_intents::table
            .select((sql::<Timestamptz>("look_at"), UploadIntent::as_select()))
            .filter(upload_intents::look_at.le(now))
            .filter(upload_intents::bucket.eq(bucket))
            .order((upload_intents::look_at, upload_intents::id))
            .limit(limit)
            .into_boxed();
        if let Some((at, id)) = after {
            query = query.filter(
                sql::<Nullable<Bool>>("(look_at, id) > (")
                    .bind::<Timestamptz, _>(at)
                    .sql(", ")
                    .bind::<sql_types::Uuid, _>(id.uuid())
                    .sql(")"),
            );
        }
        self.query(async |connection| query.load(connection).await).await
    }

    /// How much of `bucket` waits for the sweeper.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn backlog(&self, bucket: &str, now: DateTime<Utc>) -> Result<Backlog, DbError> {
        self.query(async |connection| -> QueryResult<Backlog> {
            let due = upload_intents::table
                .select(upload_intents::look_at)
                .filter(upload_intents::look_at.le(now))
                .filter(upload_intents::bucket.eq(bucket));
            let oldest: Option<Option<DateTime<Utc>>> =
                due.order(upload_intents::look_at).first(connection).await.optional()?;
            let Some(oldest) = oldest.flatten() else { return Ok(Backlog::default()) };
            let counted: Count = diesel::sql_query(
                "SELECT count(*) AS due FROM \
                 (SELECT 1 FROM upload_intents WHERE look_at <= $1 AND bucket = $2 LIMIT $3) AS counted",
            )
            .bind::<Timestamptz, _>(now)
            .bind::<Text, _>(bucket)
            .bind::<BigInt, _>(MOST_COUNTED)
            .get_result(connection)
            .await?;
            Ok(Backlog { due: counted.due, oldest: Some(oldest) })
        })
        .await
    }
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    due: i64,
}
