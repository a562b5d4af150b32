//! Migrations, compiled into the binary.

use std::{collections::BTreeSet, time::Duration};

use diesel::{
    QueryResult,
    sql_types::{Bool, Text},
};
use diesel_async::{
    AsyncPgConnection, RunQueryDsl as _, async_connection_wrapper::AsyncConnectionWrapper,
    pooled_connection::deadpool::Object,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::{Database, DbError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Key of the advisory lock that keeps processes that start together from migrating at once.
const LOCK: i64 = 0x7072_6573_6967_6e64;

/// How often it is tried.
const LOCK_RETRY: Duration = Duration::from_millis(200);

/// How the database's schema stands to this binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    /// They fit.
    Current,
    /// These migrations have not been applied yet.
    Pending(Vec<String>),
    /// A newer binary has applied migrations that this one does not know.
    Newer(Vec<String>),
}

impl Database {
    /// Compares the schema with this binary's migrations.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schema_state(&self) -> Result<SchemaState, DbError> {
        let known = versions().map_err(|error| DbError::Failed(error.to_string()))?;
        let applied = self.applied_migrations().await?;
        let newer: Vec<_> = applied.difference(&known).cloned().collect();
        let pending: Vec<_> = known.difference(&applied).cloned().collect();
        Ok(if !newer.is_empty() {
            SchemaState::Newer(newer)
        } else if pending.is_empty() {
            SchemaState::Current
        } else {
            SchemaState::Pending(pending)
        })
    }

    /// The versions that have been applied. Only reads, and waits for no lock: diesel's own question wants to create
    /// the table first, which a role that owns nothing may not, and whoever waits for a migration that builds an index
    /// concurrently is waited for by it.
    async fn applied_migrations(&self) -> Result<BTreeSet<String>, DbError> {
        #[derive(diesel::QueryableByName)]
        struct Table {
            #[diesel(sql_type = Bool)]
            exists: bool,
        }

        #[derive(diesel::QueryableByName)]
        struct Applied {
            #[diesel(sql_type = Text)]
            version: String,
        }

        self.unready_query(async |connection| {
            let table = "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS exists";
            let table: Table = diesel::sql_query(table).get_result(connection).await?;
            if !table.exists {
                return Ok(BTreeSet::new());
            }
            let applied = diesel::sql_query("SELECT version FROM __diesel_schema_migrations");
            let applied: Vec<Applied> = applied.load(connection).await?;
            Ok(applied.into_iter().map(|applied| applied.version).collect())
        })
        .await
    }

    /// Applies what is pending and returns the versions applied. Safe to run from several processes at once.
    ///
    /// # Errors
    /// When a migration fails; those before it stay applied.
    pub async fn migrate(&self) -> Result<Vec<String>, DbError> {
        let applied = self
            .with_harness(|harness| {
                Ok(harness.run_pending_migrations(MIGRATIONS)?.into_iter().map(|version| version.to_string()).collect())
            })
            .await?;
        Ok(applied)
    }

    /// Takes back the last `count` migrations, newest first, and returns their versions. Loses the data in them.
    ///
    /// # Errors
    /// When a migration fails; those before it stay taken back.
    pub async fn revert(&self, count: usize) -> Result<Vec<String>, DbError> {
        self.with_harness(move |harness| {
            let mut reverted = Vec::new();
            while reverted.len() < count && !harness.applied_migrations()?.is_empty() {
                reverted.push(harness.revert_last_migration(MIGRATIONS)?.to_string());
            }
            Ok(reverted)
        })
        .await
    }

    /// Runs `work` on one connection under the advisory lock.
    ///
    /// diesel's migrations block their thread, so they get one that is meant for it.
    async fn with_harness<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Harness) -> diesel::migration::Result<T> + Send + 'static,
    {
        // Not for anybody else afterwards, however this ends: with the session go its lock and its settings.
        let mut connection = Object::take(self.connection().await?);
        // Waiting for another process, or for an index to be built, may take longer than any request's statement.
        diesel::sql_query("SET statement_timeout = 0").execute(&mut connection).await?;
        let mut is_told = false;
        // Asked again and again: who waits in a statement is waited for by an index that is built concurrently.
        while !has_lock(&mut connection).await? {
            if !is_told {
                log::info!("another process is at the migrations: waiting for it");
                is_told = true;
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
        let worked = tokio::task::spawn_blocking(move || {
            let mut harness = Harness::from(connection);
            work(&mut harness).map_err(|error| DbError::Failed(error.to_string()))
        })
        .await;
        worked.map_err(|error| DbError::Failed(error.to_string()))?
    }
}

async fn has_lock(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    #[derive(diesel::QueryableByName)]
    struct Lock {
        #[diesel(sql_type = Bool)]
        taken: bool,
    }

    let lock: Lock =
        diesel::sql_query(format!("SELECT pg_try_advisory_lock({LOCK}) AS taken")).get_result(connection).await?;
    Ok(lock.taken)
}

type Harness = AsyncConnectionWrapper<AsyncPgConnection>;

fn versions() -> diesel::migration::Result<BTreeSet<String>> {
    let migrations = diesel::migration::MigrationSource::<diesel::pg::Pg>::migrations(&MIGRATIONS)?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).collect())
}
