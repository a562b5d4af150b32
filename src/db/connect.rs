//! Connections that belong to the main runtime, whoever asks for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use diesel::{ConnectionError, ConnectionResult, QueryResult, sql_types::Timestamptz};
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{Object, Pool},
    },
};
use futures_util::FutureExt as _;
use tokio::{runtime::Handle, sync::watch, time::error::Elapsed};

use super::{
    DbError,
    error::is_read_only,
    hosts::{CONNECT_TIMEOUT, Hosts},
};
use crate::config::DatabaseConfig;

/// The most rows that are deleted at once.
const BATCH: usize = 10_000;

/// A connection checked out of a pool.
pub(super) type Connection = Object<AsyncPgConnection>;

/// The pools: one for queries, one for the ledger's writers.
#[derive(Clone)]
pub struct Database {
    pub(super) hosts: Arc<Hosts>,
    queries: Pool<AsyncPgConnection>,
    writers: Pool<AsyncPgConnection>,
    /// Longest wait for what is asked on one connection.
    time_limit: Duration,
    schema_is_ready: Arc<AtomicBool>,
    /// Changes when the outbox may hold something that is due.
    pub(super) outbox_changed: watch::Sender<()>,
    /// Changes when there may be another revocation.
    pub(super) revocations_changed: watch::Sender<()>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("queries", &self.queries.status()).finish_non_exhaustive()
    }
}

impl Database {
    /// Pools for `config`, whose URL is read. Connects to nothing yet: connections are made when they are first needed.
    ///
    /// Connections are made on `runtime`, which has to be the main one. Every actix worker is a runtime of its own,
    /// and a connection's socket is driven by the runtime that made it: made inside a handler it would stall with
    /// that worker and die with it, under everybody else who shares it.
    ///
    /// # Errors
    /// When the URL cannot be read or the certificate authority file cannot be used.
    pub fn new(config: &DatabaseConfig, runtime: &Handle) -> Result<Self, DbError> {
        let hosts = Arc::new(Hosts::new(config).map_err(DbError::Setting)?);
        let pool = |size: usize| {
            Pool::builder(manager(Arc::clone(&hosts), runtime.clone()))
                .max_size(size)
                .wait_timeout(Some(config.acquire_timeout))
                .create_timeout(Some(hosts.patience()))
                .recycle_timeout(Some(CONNECT_TIMEOUT))
                .runtime(deadpool::Runtime::Tokio1)
                .build()
                .map_err(|error| DbError::Failed(error.to_string()))
        };
        let queries = pool(config.max_connections)?;
        // PostgreSQL inside the process serves one connection at a time, which everybody then has to share.
        // Uploads and downloads have writers of their own, and access events have one.
        let writers = if config.max_connections == 1 { queries.clone() } else { pool(2 * config.ledger.writers + 1)? };
        // PostgreSQL ends a slow statement itself; this bound is for a connection that answers nothing at all.
        let time_limit = config.statement_timeout + Duration::from_secs(1);
        let schema_is_ready = Arc::new(AtomicBool::new(true));
        Ok(Self {
            hosts: Arc::clone(&hosts),
            queries,
            writers,
            time_limit,
            schema_is_ready,
            outbox_changed: watch::Sender::new(()),
            revocations_changed: watch::Sender::new(()),
        })
    }

    /// A connection for queries, whatever the schema is like.
    pub(super) async fn connection(&self) -> Result<Connection, DbError> {
        Ok(self.queries.get().await?)
    }

    /// Does `work` on a connection, in bounded time.
    pub(super) async fn query<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, DbError> {
        self.require_schema()?;
        self.unready_query(work).await
    }

    /// The same for what makes the schema ready, and so does not wait for that.
    pub(super) async fn unready_query<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, DbError> {
        let mut connection = self.connection().await?;
        let done = tokio::time::timeout(self.time_limit, work(&mut connection)).await;
        settle(connection, done)
    }

    /// Deletes the rows of `table` whose `column` is before `before`, some at a time: all at once may be more than one
    /// statement has time for. Gives how many they were.
    pub(super) async fn delete_in_batches(
        &self,
        table: &'static str,
        column: &'static str,
        before: DateTime<Utc>,
    ) -> Result<usize, DbError> {
        use diesel_async::RunQueryDsl as _;

        let statement = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY (SELECT ctid FROM {table} WHERE {column} < $1 LIMIT {BATCH}))"
        );
        let mut deleted = 0;
        loop {
            let batch = self
                .query(async |connection| {
                    diesel::sql_query(&statement).bind::<Timestamptz, _>(before).execute(connection).await
                })
                .await?;
            deleted += batch;
            if batch < BATCH {
                return Ok(deleted);
            }
        }
    }

    /// A connection for one of the ledger's writers.
    pub(super) async fn writer(&self) -> Result<Connection, DbError> {
        self.require_schema()?;
        Ok(self.writers.get().await?)
    }

    /// Longest wait for what is asked on one connection.
    pub(super) fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// Says whether the schema can be used, which is assumed of a new value. While it cannot, everything fails as it
    /// does without the database: an answer about a missing table would look like a mistake of the service.
    pub fn set_schema_is_ready(&self, ready: bool) {
        self.schema_is_ready.store(ready, Ordering::Relaxed);
    }

    fn require_schema(&self) -> Result<(), DbError> {
        if self.schema_is_ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(DbError::Unavailable("the schema has not been looked at yet".to_owned()))
    }

    /// Whether the database answers now, and can be written to.
    ///
    /// # Errors
    /// Says why not.
    pub async fn ping(&self) -> Result<(), DbError> {
        use diesel_async::RunQueryDsl as _;

        let question = "SELECT 1 WHERE current_setting('transaction_read_only') = 'off'";
        match self.query(async |connection| diesel::sql_query(question).execute(connection).await).await? {
            0 => Err(DbError::Unavailable("the database takes no writes".to_owned())),
            _ => Ok(()),
        }
    }

    /// Closes all connections once they are idle.
    pub fn close(&self) {
        self.queries.close();
        self.writers.close();
    }
}

/// The outcome of what was `done` on `connection`, which nobody gets again where the next one would fare no better.
pub(super) fn settle<T>(connection: Connection, done: Result<QueryResult<T>, Elapsed>) -> Result<T, DbError> {
    match done {
        Ok(Err(error)) => {
            if is_read_only(&error) {
                drop(Object::take(connection));
            }
            Err(error.into())
        }
        Ok(Ok(done)) => Ok(done),
        Err(_) => {
            // Whatever comes back on it later would be taken for the answer to the next statement.
            drop(Object::take(connection));
            Err(DbError::Unavailable("the database did not answer in time".to_owned()))
        }
    }
}

fn manager(hosts: Arc<Hosts>, runtime: Handle) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let mut settings = ManagerConfig::<AsyncPgConnection>::default();
    // The default would send a "SELECT 1" before every use of a connection.
    settings.recycling_method = RecyclingMethod::Fast;
    settings.custom_setup = Box::new(move |_| {
        // The pool stops waiting after its own time, which does not end a task; this one has bounds of its own.
        let connecting = runtime.spawn(connect(Arc::clone(&hosts)));
        async move { connecting.await.map_err(|error| ConnectionError::BadConnection(error.to_string()))? }.boxed()
    });
    AsyncDieselConnectionManager::new_with_config(String::new(), settings)
}

async fn connect(hosts: Arc<Hosts>) -> ConnectionResult<AsyncPgConnection> {
    let (client, connection) = hosts.connect().await.map_err(ConnectionError::BadConnection)?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}
