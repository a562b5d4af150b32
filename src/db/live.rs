//! Whether the database does what will be asked of it.

use chrono::{DateTime, Utc};
use diesel::{QueryableByName, sql_types::Timestamptz};
use diesel_async::RunQueryDsl as _;

use super::{Database, DbError};

/// Every table that is written at run time.
const TABLES: [&str; 12] = [
    "access_events",
    "download_intents",
    "download_tickets",
    "drift_objects",
    "drift_runs",
    "idempotency_keys",
    "inspections",
    "revocations",
    "upload_copies",
    "upload_intents",
    "webhook_attempts",
    "webhook_deliveries",
];

/// The one of them that is only added to, so that its role needs to do no more.
const ADDED_TO: &str = "access_events";

#[derive(Debug, QueryableByName)]
struct Instant {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

impl Database {
    /// The time by the database's clock.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn now(&self) -> Result<DateTime<Utc>, DbError> {
        let now: Instant = self
            .query(async |connection| diesel::sql_query("SELECT clock_timestamp() AS now").get_result(connection).await)
            .await?;
        Ok(now.now)
    }

    /// Whether rows may be added, and changed and removed except where that is never done, tried with none: privileges
    /// and a read-only database show all the same, and nothing has to be taken back.
    ///
    /// # Errors
    /// Says which statement failed.
    pub async fn may_write(&self) -> Result<(), DbError> {
        for table in TABLES {
            let mut statements = vec![format!("INSERT INTO {table} SELECT * FROM {table} WHERE false")];
            if table != ADDED_TO {
                statements.push(format!("SELECT FROM {table} WHERE false FOR UPDATE"));
                statements.push(format!("DELETE FROM {table} WHERE false"));
            }
            for statement in statements {
                self.query(async move |connection| diesel::sql_query(statement).execute(connection).await).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_is_left_out() {
        let schema = include_str!("schema.rs");
        let tables: Vec<&str> = schema
            .split("diesel::table! {")
            .skip(1)
            .filter_map(|table| table.lines().find(|line| line.ends_with(") {"))?.trim().split(' ').next())
            .collect();
        assert_eq!(tables, TABLES);
    }
}
