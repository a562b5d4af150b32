//! The table `inspections`.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods as _, QueryResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::schema::inspections;
use crate::model::IntentId;

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
