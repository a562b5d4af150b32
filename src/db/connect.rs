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
use rustls::{
    ClientConfig,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject as _},
    },
};
use rustls_platform_verifier::Verifier;
use secrecy::ExposeSecret as _;
use tokio::{runtime::Handle, sync::watch, time::error::Elapsed};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DbError, error::is_read_only};
use crate::config::DatabaseConfig;

/// Longest wait for PostgreSQL to answer a new connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most rows that are deleted at once.
const BATCH: usize = 10_000;

/// A connection checked out of a pool.
pub(super) type Connection = Object<AsyncPgConnection>;

/// The pools: one for queries, one for the ledger's writers.
#[derive(Clone)]
pub struct Database {
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
        options(config).map_err(|error| DbError::Failed(format!("database.url: {}", describe(&error))))?;
        let tls = tls(config)?;
        let pool = |size: usize| {
            Pool::builder(manager(config, tls.clone(), runtime.clone()))
                .max_size(size)
                .wait_timeout(Some(config.acquire_timeout))
                .create_timeout(Some(CONNECT_TIMEOUT))
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

fn manager(
    config: &DatabaseConfig,
    tls: Arc<ClientConfig>,
    runtime: Handle,
) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let mut settings = ManagerConfig::<AsyncPgConnection>::default();
    // The default would send a "SELECT 1" before every use of a connection.
    settings.recycling_method = RecyclingMethod::Fast;
    let config = config.clone();
    settings.custom_setup = Box::new(move |_| {
        // The pool stops waiting after this time, which does not end a task: without a bound of its own it would hold
        // a socket for ever towards a server that takes connections and says nothing.
        let connecting = runtime.spawn(tokio::time::timeout(CONNECT_TIMEOUT, connect(config.clone(), tls.clone())));
        let bad = |reason: String| ConnectionError::BadConnection(reason);
        async move {
            let connected = connecting.await.map_err(|error| bad(error.to_string()))?;
            connected.map_err(|_| bad("no connection in time".to_owned()))?
        }
        .boxed()
    });
    AsyncDieselConnectionManager::new_with_config(String::new(), settings)
}

async fn connect(config: DatabaseConfig, tls: Arc<ClientConfig>) -> ConnectionResult<AsyncPgConnection> {
    let bad = |error: tokio_postgres::Error| ConnectionError::BadConnection(describe(&error));
    let connector = MakeRustlsConnect::new((*tls).clone());
    let (client, connection) = options(&config).map_err(bad)?.connect(connector).await.map_err(bad)?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

pub(super) fn options(config: &DatabaseConfig) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
    let mut options: tokio_postgres::Config = config.url.expose_secret().parse()?;
    options.connect_timeout(CONNECT_TIMEOUT);
    // After a failover a name may lead to the old primary for a while.
    if !config.url.expose_secret().contains("target_session_attrs") {
        options.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if options.get_application_name().is_none() {
        options.application_name("presignd");
    }
    // Session settings ride in the start-up message and cost no round trip.
    let given = options.get_options().map(|given| format!("{given} ")).unwrap_or_default();
    options.options(format!(
        "{given}-c statement_timeout={0} -c idle_in_transaction_session_timeout={0} -c timezone=UTC",
        config.statement_timeout.as_millis()
    ));
    Ok(options)
}

/// The error without its values: tokio-postgres's own text may quote parts of the URL.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("cannot connect{cause}")
}

/// Verifies the server against the system's certificate authorities and the configured one. Whether TLS is used at
/// all is `sslmode`'s to say; what is never done is to encrypt towards a server that nobody verified.
pub(super) fn tls(config: &DatabaseConfig) -> Result<Arc<ClientConfig>, DbError> {
    let failed = |error: String| DbError::Failed(format!("TLS towards the database: {error}"));
    let mut extra: Vec<CertificateDer<'static>> = Vec::new();
    if let Some(path) = &config.tls_ca_file {
        let unusable = |error| {
            let path = path.display();
            DbError::Failed(format!("database.tls_ca_file: {path} must hold certificates in PEM: {error}"))
        };
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        extra = certificates.map_err(unusable)?;
        if extra.is_empty() {
            return Err(unusable(pem::Error::NoItemsFound));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|error| failed(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}
