//! Monthly partitions of the tables that grow with every request, bounded by ids.
//!
//! A UUID version 7 starts with its time in milliseconds, so a month is a range of ids and the primary key needs no
//! second column. Retention is `DROP TABLE` of a month.

use chrono::{DateTime, Datelike as _, Months, NaiveDate, Utc};
use diesel_async::RunQueryDsl as _;

use super::{Database, DbError};
use crate::model::IntentId;

const TABLES: [&str; 3] = ["upload_intents", "download_intents", "access_events"];

/// Months made ahead of their time, so that a maintenance run that fails for weeks changes nothing.
const MONTHS_AHEAD: u32 = 3;

/// Key of the advisory lock around making a partition: `IF NOT EXISTS` alone lets two processes that start together both
/// find that a table is missing, and fails one of them.
const LOCK: i64 = 0x7072_6573_7061_7274;

/// Longest wait for the lock on a table, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 300;

impl Database {
    /// Makes the partitions of this month and the next three where they are missing. Safe to run from several processes
    /// at once.
    ///
    /// One that cannot be made does not keep back the others: rows of its month go to the default partition.
    ///
    /// # Errors
    /// The last failure: when the database does not answer, or holds rows of such a month in its default partition.
    pub async fn ensure_partitions(&self, now: DateTime<Utc>) -> Result<(), DbError> {
        let mut outcome = Ok(());
        for month in months(now) {
            let Some(ids) = IntentId::month_of(month) else { continue };
            for table in TABLES {
                let create = diesel::sql_query(create_statement(table, month, ids));
                let made = self.unready_query(async |connection| create.execute(connection).await).await;
                outcome = made
                    .map(|_| ())
                    .inspect_err(|error| log::warn!("no partition of {table} for {}: {error}", month.format("%Y-%m")))
                    .and(outcome);
            }
        }
        outcome
    }
}

fn months(now: DateTime<Utc>) -> impl Iterator<Item = NaiveDate> {
    let first = now.date_naive().with_day(1).unwrap_or_default();
    (0..=MONTHS_AHEAD).filter_map(move |ahead| first.checked_add_months(Months::new(ahead)))
}

fn create_statement(table: &str, month: NaiveDate, (first, end): (IntentId, IntentId)) -> String {
    // One statement, and so one transaction for each table: locks on two of them are never held together. Behind whoever
    // waits for the lock on a table, everybody else waits who wants to use it, so nobody waits long for what is months
    // ahead: a dump may hold it for hours.
    format!(
        "DO $$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); PERFORM set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true); \
         CREATE TABLE IF NOT EXISTS {table}_{} PARTITION OF {table} FOR VALUES FROM ('{first}') TO ('{end}'); END $$",
        month.format("%Y_%m")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_months_are_made_across_the_turn_of_the_year() {
        let made: Vec<_> = months("2026-11-30T12:00:00Z".parse().unwrap()).map(|month| month.to_string()).collect();
        assert_eq!(made, ["2026-11-01", "2026-12-01", "2027-01-01", "2027-02-01"]);
        let december = NaiveDate::from_ymd_opt(2026, 12, 1).unwrap();
        assert_eq!(
            create_statement("upload_intents", december, IntentId::month_of(december).unwrap()),
            "DO $$ BEGIN PERFORM pg_advisory_xact_lock(8102650226074022516); \
             PERFORM set_config('lock_timeout', '300', true); \
             CREATE TABLE IF NOT EXISTS upload_intents_2026_12 PARTITION OF upload_intents FOR VALUES FROM \
             ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000'); END $$"
        );
    }
}
