//! Monthly partitions of the tables that grow with every request, bounded by ids.
//!
//! A UUID version 7 starts with its time in milliseconds, so a month is a range of ids and the primary key needs no
//! second column. Retention is `DROP TABLE` of a month.

use chrono::{DateTime, Datelike as _, Months, NaiveDate, Utc};
use diesel::{OptionalExtension as _, QueryableByName, result::Error as DieselError, sql_types};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};

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

/// Rows that have left a default partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedRows {
    /// The partition that they were in.
    pub from: String,
    /// The partition of their month, which was made for them.
    pub to: String,
    /// How many they are.
    pub rows: usize,
}

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

    /// Makes the partition of the first month of which a default partition holds rows, and moves them to it. None where
    /// the default partitions are empty. Whoever wants to use the table waits until it is done, however long that is.
    ///
    /// # Errors
    /// When the database does not answer, somebody else uses the table all the time, or this role does not own it.
    /// Nothing has changed then, and repeating is safe.
    pub async fn move_from_default(&self) -> Result<Option<MovedRows>, DbError> {
        for table in TABLES {
            if let Some(month) = self.first_month_in_default(table).await? {
                return self.move_month(table, month).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn first_month_in_default(&self, table: &str) -> Result<Option<NaiveDate>, DbError> {
        #[derive(QueryableByName)]
        struct First {
            #[diesel(sql_type = sql_types::Uuid)]
            id: IntentId,
        }

        let statement = format!("SELECT id FROM {table}_default ORDER BY id LIMIT 1");
        let first: Option<First> = self
            .unready_query(async |connection| diesel::sql_query(statement).get_result(connection).await.optional())
            .await?;
        let Some(First { id }) = first else { return Ok(None) };
        let issued_at =
            id.issued_at().ok_or_else(|| DbError::Failed(format!("{table}_default: {id} has no time in it")))?;
        Ok(Some(issued_at.date_naive()))
    }

    async fn move_month(&self, table: &str, month: NaiveDate) -> Result<MovedRows, DbError> {
        let (first, end) =
            IntentId::month_of(month).ok_or_else(|| DbError::Failed(format!("{table}: {month} is in no month")))?;
        let (from, to) = (format!("{table}_default"), partition(table, month));
        let mut connection = self.connection().await?;
        let rows = connection
            .transaction::<_, DieselError, _>(async |connection| {
                // A statement on a row that is about to move would find it gone, and one that adds a row to the default
                // partition would be refused in the end. So all of them wait, before they look for the partition.
                for prepare in [
                    "SET LOCAL statement_timeout = 0".to_owned(),
                    "SET LOCAL lock_timeout = '2s'".to_owned(),
                    format!("SELECT pg_advisory_xact_lock({LOCK})"),
                    format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE"),
                    format!("LOCK TABLE {from} IN ACCESS EXCLUSIVE MODE"),
                    format!("CREATE TABLE {to} (LIKE {table} INCLUDING ALL EXCLUDING COMMENTS)"),
                ] {
                    diesel::sql_query(prepare).execute(connection).await?;
                }
                let rows = diesel::sql_query(format!(
                    "WITH moved AS (DELETE FROM {from} WHERE id >= '{first}' AND id < '{end}' RETURNING *) \
                     INSERT INTO {to} SELECT * FROM moved"
                ))
                .execute(connection)
                .await?;
                diesel::sql_query(format!(
                    "ALTER TABLE {table} ATTACH PARTITION {to} FOR VALUES FROM ('{first}') TO ('{end}')"
                ))
                .execute(connection)
                .await?;
                Ok(rows)
            })
            .await?;
        Ok(MovedRows { from, to, rows })
    }
}

fn months(now: DateTime<Utc>) -> impl Iterator<Item = NaiveDate> {
    let first = now.date_naive().with_day(1).unwrap_or_default();
    (0..=MONTHS_AHEAD).filter_map(move |ahead| first.checked_add_months(Months::new(ahead)))
}

fn partition(table: &str, month: NaiveDate) -> String {
    format!("{table}_{}", month.format("%Y_%m"))
}

fn create_statement(table: &str, month: NaiveDate, (first, end): (IntentId, IntentId)) -> String {
    let partition = partition(table, month);
    // One statement, and so one transaction for each table: locks on two of them are never held together. Behind whoever
    // waits for the lock on a table, everybody else waits who wants to use it, so nobody waits long for what is months
    // ahead: a dump may hold it for hours. And nobody waits for what would be refused after all rows were read.
    // Looked for first, because a role that owns nothing may not even try to make what is there.
    format!(
        "DO $$ BEGIN IF to_regclass('{partition}') IS NOT NULL THEN RETURN; END IF; \
         PERFORM pg_advisory_xact_lock({LOCK}); PERFORM set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true); \
         IF EXISTS (SELECT 1 FROM {table}_default WHERE id >= '{first}' AND id < '{end}') THEN \
         RAISE EXCEPTION '{table}_default holds rows of it: presignd migrate --repartition moves them'; END IF; \
         CREATE TABLE IF NOT EXISTS {partition} PARTITION OF {table} FOR VALUES FROM ('{first}') TO ('{end}'); END $$"
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
            "DO $$ BEGIN IF to_regclass('upload_intents_2026_12') IS NOT NULL THEN RETURN; END IF; \
             PERFORM pg_advisory_xact_lock(8102650226074022516); \
             PERFORM set_config('lock_timeout', '300', true); \
             IF EXISTS (SELECT 1 FROM upload_intents_default WHERE id >= '01a22ee6-b000-0000-0000-000000000000' \
             AND id < '01a2ce8b-d400-0000-0000-000000000000') THEN \
             RAISE EXCEPTION 'upload_intents_default holds rows of it: presignd migrate --repartition moves them'; END IF; \
             CREATE TABLE IF NOT EXISTS upload_intents_2026_12 PARTITION OF upload_intents FOR VALUES FROM \
             ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000'); END $$"
        );
    }
}
