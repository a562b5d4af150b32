//! PostgreSQL inside the process.
//!
//! The engine is PostgreSQL 17 compiled to WebAssembly. It serves **one connection at a time**: left to itself it
//! accepts a second one and answers it nothing until the first has ended, and it stops for good when a client resets
//! its connection or sends what is not its protocol. So clients reach it through a gate that admits one of them at a
//! time, makes the others wait for their turn and refuses them after [`TURN_TIMEOUT`] with SQLSTATE 53300
//! (`too_many_connections`), and lets the engine see nothing but orderly sessions.
//!
//! Each admitted connection starts a fresh backend. What a connection leaves behind is in the data directory, which
//! another process must not open meanwhile; the engine locks it. Compiled code is cached in the user's cache directory.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use pglite_oxide::PgliteServer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::DevError;

/// How long a connection waits for the one before it to end.
pub const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to say what it wants.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest startup message that PostgreSQL itself takes, in bytes.
const MAX_STARTUP_BYTES: u32 = 10_000;

/// Protocol 3.0, or a later minor version, which the engine negotiates down.
const PROTOCOL_3: u32 = 3;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// A running PostgreSQL. Dropping it closes the gate at once; [`EmbeddedPostgres::shutdown`] also waits for the engine.
pub struct EmbeddedPostgres {
    database_url: String,
    stop: watch::Sender<bool>,
    gate: JoinHandle<()>,
}

impl fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedPostgres").field("database_url", &self.database_url).finish_non_exhaustive()
    }
}

impl EmbeddedPostgres {
    /// Starts PostgreSQL on the current runtime, on a free port of 127.0.0.1.
    ///
    /// What is in `data_dir` is there again at the next start. Without one the database is temporary.
    pub async fn start(data_dir: Option<&Path>) -> Result<Self, DevError> {
        Self::start_with(data_dir, TURN_TIMEOUT).await
    }

    async fn start_with(data_dir: Option<&Path>, turn_timeout: Duration) -> Result<Self, DevError> {
        let runtime = Handle::current();
        let builder = match data_dir {
            Some(path) => PgliteServer::builder().path(path),
            None => PgliteServer::builder().temporary().relaxed_durability(true),
        }
        .database("postgres");
        let engine = runtime
            .spawn_blocking(move || builder.start())
            .await
            .map_err(|error| DevError::Postgres { reason: error.to_string() })?
            .map_err(|error| DevError::Postgres { reason: format!("{error:#}") })?;
        let upstream =
            engine.tcp_addr().ok_or_else(|| DevError::Postgres { reason: "it does not listen on TCP".to_owned() })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = |source| DevError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let database_url = engine.database_url().replacen(&upstream.to_string(), &address.to_string(), 1);
        let (stop, stopping) = watch::channel(false);
        let gate = Gate { upstream, turn: Semaphore::new(1), turn_timeout, stopping };
        let gate = runtime.spawn(keep_gate(listener, engine, Arc::new(gate), runtime.clone()));
        Ok(Self { database_url, stop, gate })
    }

    /// The URL for clients, as `postgresql://postgres@127.0.0.1:<port>/<database>?sslmode=disable`.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Cuts the connections that are still open and waits until the engine has written what it holds.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        // The task fails only when its runtime goes away, and then the engine is gone too.
        let _ = (&mut self.gate).await;
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

struct Gate {
    upstream: SocketAddr,
    turn: Semaphore,
    turn_timeout: Duration,
    stopping: watch::Receiver<bool>,
}

async fn keep_gate(listener: TcpListener, engine: PgliteServer, gate: Arc<Gate>, runtime: Handle) {
    let mut stopping = gate.stopping.clone();
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let gate = Arc::clone(&gate);
                    clients.spawn_on(async move { gate.admit(client).await }, &runtime);
                }
                // Out of file descriptors, most likely: trying again at once would only spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = clients.join_next() => {}
            _ = stopping.changed() => break,
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
    // Joins the engine's thread, which ends once its last connection has.
    let stopped = runtime.spawn_blocking(move || engine.shutdown()).await;
    if !matches!(stopped, Ok(Ok(()))) {
        log::warn!("embedded PostgreSQL did not stop in order");
    }
}

impl Gate {
    /// Sees one client through: its wish, its turn, its session.
    async fn admit(&self, mut client: TcpStream) {
        let mut stopping = self.stopping.clone();
        let _ = client.set_nodelay(true);
        let startup = tokio::select! {
            startup = timeout(STARTUP_TIMEOUT, read_startup(&mut client)) => startup,
            _ = stopping.changed() => return,
        };
        let Ok(Ok(Some(startup))) = startup else { return };
        let turn = tokio::select! {
            turn = timeout(self.turn_timeout, self.turn.acquire()) => turn,
            _ = stopping.changed() => return,
        };
        let Ok(Ok(_turn)) = turn else {
            // The client is being turned away; whether it hears of it is its own affair.
            let _ = client.write_all(&too_many_connections()).await;
            return;
        };
        let Ok(engine) = TcpStream::connect(self.upstream).await else { return };
        let _ = engine.set_nodelay(true);
        pass_on(client, engine, &startup, stopping).await;
    }
}

/// Reads the startup message, having declined encryption where it was asked for. `None` for a request to cancel,
/// which could not be served while the query that it is about runs.
async fn read_startup(client: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    loop {
        let length = client.read_u32().await?;
        let code = client.read_u32().await?;
        if !(8..=MAX_STARTUP_BYTES).contains(&length) {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut rest = vec![0; usize::try_from(length - 8).unwrap_or_default()];
        client.read_exact(&mut rest).await?;
        match code {
            SSL_REQUEST | GSSENC_REQUEST => client.write_all(b"N").await?,
            CANCEL_REQUEST => return Ok(None),
            _ if code >> 16 == PROTOCOL_3 => {
                return Ok(Some([&length.to_be_bytes()[..], &code.to_be_bytes()[..], &rest[..]].concat()));
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Copies both ways until both have ended. However the client goes, the engine sees it close its end, can write all it
/// has to say, and closes last: a failed read or write would end the engine and not just the session.
async fn pass_on(mut client: TcpStream, mut engine: TcpStream, startup: &[u8], mut stopping: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let mut cut = stopping.clone();
    let requests = async {
        if to_engine.write_all(startup).await.is_ok() {
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_engine) => {}
                _ = stopping.changed() => {}
            }
        }
        let _ = to_engine.shutdown().await;
    };
    let responses = async {
        tokio::select! {
            _ = tokio::io::copy(&mut from_engine, &mut to_client) => {}
            _ = cut.changed() => {}
        }
        let _ = tokio::io::copy(&mut from_engine, &mut tokio::io::sink()).await;
    };
    tokio::pin!(responses);
    tokio::select! {
        () = requests => responses.await,
        () = &mut responses => {}
    }
}

/// `ErrorResponse` of the PostgreSQL protocol,
/// <https://www.postgresql.org/docs/17/protocol-message-formats.html>.
fn too_many_connections() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C53300\0Mthe embedded PostgreSQL serves one connection at a time\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap_or_default();
    [&b"E"[..], &length.to_be_bytes()[..], &fields[..]].concat()
}

#[cfg(test)]
mod tests {
    use tokio_postgres::{Client, NoTls};

    use super::*;

    async fn connect(url: &str) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let driver = Handle::current().spawn(async move {
            let _ = connection.await;
        });
        Ok((client, driver))
    }

    async fn one(client: &Client) -> i32 {
        client.query_one("SELECT 1", &[]).await.unwrap().get(0)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_there_again_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let postgres = EmbeddedPostgres::start(Some(directory.path())).await.unwrap();
        let (client, _) = connect(postgres.database_url()).await.unwrap();
        client.batch_execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").await.unwrap();
        // The client is still connected: a shutdown does not wait for it.
        postgres.shutdown().await;
        assert!(client.simple_query("SELECT 1").await.is_err());

        let postgres = EmbeddedPostgres::start(Some(directory.path())).await.unwrap();
        let (client, _) = connect(postgres.database_url()).await.unwrap();
        assert_eq!(client.query_one("SELECT id FROM kept", &[]).await.unwrap().get::<_, i32>(0), 7);
        postgres.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_connection_waits_for_the_first_to_end() {
        let postgres = EmbeddedPostgres::start(None).await.unwrap();
        let url = postgres.database_url().to_owned();
        let (first, driver) = connect(&url).await.unwrap();
        let second = Handle::current().spawn(async move { one(&connect(&url).await.unwrap().0).await });
        assert_eq!(one(&first).await, 1);
        assert!(!second.is_finished());
        drop(first);
        driver.await.unwrap();
        assert_eq!(second.await.unwrap(), 1);
        postgres.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_whose_turn_does_not_come_is_refused_by_name() {
        let postgres = EmbeddedPostgres::start_with(None, Duration::from_millis(50)).await.unwrap();
        let (first, _) = connect(postgres.database_url()).await.unwrap();
        let refused = connect(postgres.database_url()).await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "53300");
        assert_eq!(one(&first).await, 1);
        postgres.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_that_break_off_or_talk_nonsense_do_not_end_the_engine() {
        let postgres = EmbeddedPostgres::start(None).await.unwrap();
        let address = postgres.database_url().split(['@', '/']).nth(3).unwrap().to_owned();

        let mut stranger = TcpStream::connect(&address).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(stranger.read(&mut [0; 1]).await.unwrap_or_default(), 0);

        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(parameters.len() + 8).unwrap();
        let startup = [&length.to_be_bytes()[..], &0x0003_0000_u32.to_be_bytes()[..], parameters].concat();
        for _ in 0..2 {
            let mut client = TcpStream::connect(&address).await.unwrap();
            client.write_all(&startup).await.unwrap();
            client.read_u8().await.unwrap();
            client.write_all(b"Q\0\0\0\xffSELECT 'cut off").await.unwrap();
            client.set_zero_linger().unwrap();
            drop(client);
        }

        let (client, _) = connect(postgres.database_url()).await.unwrap();
        assert_eq!(one(&client).await, 1);
        postgres.shutdown().await;
    }
}
