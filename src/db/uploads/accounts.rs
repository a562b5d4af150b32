//! What rows of `upload_intents` say about objects in the bucket.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    pg::Pg,
    sql_types::{self, Array},
};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use crate::{
    db::{Database, DbError, schema::upload_intents},
    model::{ETag, IntentId, IntentState, ObjectKey},
};

/// What an upload has to do with objects in the bucket.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = upload_intents, check_for_backend(Pg))]
pub struct UploadAccount {
    /// Identifies the upload.
    pub id: IntentId,
    /// Bucket of its objects.
    pub bucket: String,
    /// Where it stands.
    pub state: IntentState,
    /// Key that the client writes to.
    pub object_key: ObjectKey,
    /// Key of the verified object where it is a copy.
    pub stored_key: Option<ObjectKey>,
    /// `ETag` of the verified object.
    pub etag: Option<ETag>,
    /// Version of the verified object.
    pub version_id: Option<String>,
    /// The store's id of its multipart upload.
    pub multipart_upload_id: Option<String>,
    /// When the sweeper looks at it next.
    pub look_at: Option<DateTime<Utc>>,
}

impl UploadAccount {
    /// Where the verified object lies.
    pub fn verified_key(&self) -> &ObjectKey {
        self.stored_key.as_ref().unwrap_or(&self.object_key)
    }

    /// Whether an object under `key` in `bucket` is one of this upload's.
    pub fn owns(&self, bucket: &str, key: &ObjectKey) -> bool {
        self.bucket == bucket
            && (*key == self.object_key || self.stored_key.as_ref() == Some(key) || self.object_key.has_copy(key))
    }
}

impl Database {
    /// What is known of the uploads with these ids.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn upload_accounts(&self, ids: &[IntentId]) -> Result<Vec<UploadAccount>, DbError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let (Some(first), Some(last)) = (ids.iter().min().copied(), ids.iter().max().copied()) else {
            return Ok(Vec::new());
        };
        self.query(async |connection| {
            upload_intents::table
                .select(UploadAccount::as_select())
                .filter(upload_intents::id.eq_any(&ids))
                // For the planner: which months it need not look into.
                .filter(upload_intents::id.between(first, last))
                .load(connection)
                .await
        })
        .await
    }

    /// Which of `spans`, each from an id to below another, have any upload. Told by where they begin.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn spans_with_uploads(&self, spans: &[(IntentId, IntentId)]) -> Result<Vec<IntentId>, DbError> {
        #[derive(QueryableByName)]
        struct Span {
            #[diesel(sql_type = sql_types::Uuid)]
            first: IntentId,
        }

        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let (first, end): (Vec<Uuid>, Vec<Uuid>) = spans.iter().map(|(first, end)| (first.uuid(), end.uuid())).unzip();
        let spans: Vec<Span> = self
            .query(async |connection| {
                diesel::sql_query(
                    "SELECT first FROM unnest($1, $2) AS span (first, below) WHERE EXISTS \
                     (SELECT 1 FROM upload_intents WHERE id >= span.first AND id < span.below)",
                )
                .bind::<Array<sql_types::Uuid>, _>(first)
                .bind::<Array<sql_types::Uuid>, _>(end)
                .load(connection)
                .await
            })
            .await?;
        Ok(spans.into_iter().map(|span| span.first).collect())
    }

    /// The oldest upload that is known at all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn oldest_upload(&self) -> Result<Option<IntentId>, DbError> {
        self.query(async |connection| {
            upload_intents::table
                .select(upload_intents::id)
                .order(upload_intents::id)
                .first(connection)
                .await
                .optional()
        })
        .await
    }
}
