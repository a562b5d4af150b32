//! The table `upload_copies`.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;

use super::{Database, DbError, schema::upload_copies};
use crate::model::{IntentId, ObjectKey};

impl Database {
    /// Notes that a copy is about to be made, so that it can be found if nobody says what became of it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_copy(&self, upload: IntentId, copy: &ObjectKey, now: DateTime<Utc>) -> Result<(), DbError> {
        self.query(async |connection| {
            diesel::insert_into(upload_copies::table)
                .values((
                    upload_copies::upload_id.eq(upload.uuid()),
                    upload_copies::object_key.eq(copy.as_str()),
                    upload_copies::created_at.eq(now),
                ))
                .execute(connection)
                .await
        })
        .await?;
        Ok(())
    }

    /// Forgets a copy, which is the confirmed one or has been removed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_copy(&self, upload: IntentId, copy: &ObjectKey) -> Result<(), DbError> {
        self.query(async |connection| {
            diesel::delete(upload_copies::table)
                .filter(upload_copies::upload_id.eq(upload.uuid()))
                .filter(upload_copies::object_key.eq(copy.as_str()))
                .execute(connection)
                .await
        })
        .await?;
        Ok(())
    }

    /// The copies of `upload` of which nobody said what became of them, with the time at which they were begun.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn copies_of(&self, upload: IntentId) -> Result<Vec<(ObjectKey, DateTime<Utc>)>, DbError> {
        self.query(async |connection| {
            upload_copies::table
                .select((upload_copies::object_key, upload_copies::created_at))
                .filter(upload_copies::upload_id.eq(upload.uuid()))
                .load(connection)
                .await
        })
        .await
    }
}
