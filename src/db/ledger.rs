//! The ledger: intents are written in groups, and nobody is answered before the commit.
//!
//! Handlers put a row into a bounded queue. Each writer takes all that is queued, without waiting for more, and
//! writes it as one statement. Under load the groups grow by themselves, because rows arrive while the last group
//! is being committed; without load a row travels alone and at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::Object;
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc, oneshot},
    task::JoinHandle,
};

use super::{Database, DbError, DownloadIntent, UploadIntent, downloads, uploads};
use crate::config::DatabaseConfig;

/// Writes intents in groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    uploads: Queue<UploadIntent>,
    downloads: Queue<DownloadIntent>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    groups: AtomicU64,
    rows: AtomicU64,
    failed_rows: AtomicU64,
}

/// What the ledger has done, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct LedgerStatus {
    /// Rows waiting for a writer.
    pub queued: usize,
    /// Statements that committed.
    pub groups: u64,
    /// Rows that were committed.
    pub rows: u64,
    /// Rows that were not.
    pub failed_rows: u64,
}

/// The writers. They end when every [`Ledger`] is gone and the queues are empty.
#[derive(Debug)]
pub struct LedgerWriters(Vec<JoinHandle<()>>);

impl LedgerWriters {
    /// Waits until everything that was queued is written.
    pub async fn drained(self) {
        for writer in self.0 {
            if let Err(error) = writer.await {
                log::error!("a ledger writer ended badly: {error}");
            }
        }
    }
}

impl Ledger {
    /// Starts the writers on `runtime`, which has to be the main one: a writer must not stall with an actix worker.
    pub fn start(database: &Database, config: &DatabaseConfig, runtime: &Handle) -> (Self, LedgerWriters) {
        let counters = Arc::new(Counters::default());
        let mut writers = Vec::new();
        let ledger = Self {
            uploads: Queue::start(database, config, runtime, &counters, &mut writers),
            downloads: Queue::start(database, config, runtime, &counters, &mut writers),
            counters,
        };
        (ledger, LedgerWriters(writers))
    }

    /// Writes an upload intent; gives it back once it is committed.
    ///
    /// # Errors
    /// [`DbError::Overloaded`] at once when the queue is full. After [`DbError::Unavailable`] the row may or may not
    /// be there; nobody was given a URL for it.
    pub async fn record_upload(&self, intent: Box<UploadIntent>) -> Result<Box<UploadIntent>, DbError> {
        self.uploads.write(intent).await
    }

    /// Writes a download intent; gives it back once it is committed.
    ///
    /// # Errors
    /// As [`Ledger::record_upload`].
    pub async fn record_download(&self, intent: Box<DownloadIntent>) -> Result<Box<DownloadIntent>, DbError> {
        self.downloads.write(intent).await
    }

    /// What it has done so far.
    pub fn status(&self) -> LedgerStatus {
        LedgerStatus {
            queued: self.uploads.len() + self.downloads.len(),
            groups: self.counters.groups.load(Ordering::Relaxed),
            rows: self.counters.rows.load(Ordering::Relaxed),
            failed_rows: self.counters.failed_rows.load(Ordering::Relaxed),
        }
    }
}

/// A row that can be written together with others of its kind.
trait GroupRow: Send + Sync + Sized + 'static {
    /// Writes all of `rows` with one statement.
    fn insert(rows: &[&Self], connection: &mut AsyncPgConnection) -> impl Future<Output = QueryResult<usize>> + Send;
}

impl GroupRow for UploadIntent {
    async fn insert(rows: &[&Self], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
        uploads::insert(rows, connection).await
    }
}

impl GroupRow for DownloadIntent {
    async fn insert(rows: &[&Self], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
        downloads::insert(rows, connection).await
    }
}

/// A row on its way, and who waits for it. The row travels back to its handler, which signs what was committed.
struct Entry<R> {
    row: Box<R>,
    queued_at: Instant,
    reply: oneshot::Sender<Result<Box<R>, DbError>>,
}

#[derive(Debug)]
struct Queue<R>(mpsc::Sender<Entry<R>>);

impl<R> Clone for Queue<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: GroupRow> Queue<R> {
    fn start(
        database: &Database,
        config: &DatabaseConfig,
        runtime: &Handle,
        counters: &Arc<Counters>,
        writers: &mut Vec<JoinHandle<()>>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(config.ledger.queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..config.ledger.writers {
            let writer = Writer::<R> {
                database: database.clone(),
                queue: Arc::clone(&receiver),
                max_batch: config.ledger.max_batch,
                time_limit: database.time_limit(),
                counters: Arc::clone(counters),
            };
            writers.push(runtime.spawn(writer.run()));
        }
        Self(sender)
    }

    async fn write(&self, row: Box<R>) -> Result<Box<R>, DbError> {
        let ended = || DbError::Unavailable("the ledger has stopped".to_owned());
        let (reply, written) = oneshot::channel();
        self.0.try_send(Entry { row, queued_at: Instant::now(), reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DbError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ended(),
        })?;
        written.await.map_err(|_| ended())?
    }

    fn len(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

struct Writer<R> {
    database: Database,
    queue: Arc<Mutex<mpsc::Receiver<Entry<R>>>>,
    max_batch: usize,
    time_limit: Duration,
    counters: Arc<Counters>,
}

impl<R: GroupRow> Writer<R> {
    async fn run(self) {
        let mut group = Vec::with_capacity(self.max_batch);
        // The lock is held while waiting for rows, not while writing: an idle writer keeps back only idle writers.
        while self.queue.lock().await.recv_many(&mut group, self.max_batch).await > 0 {
            self.refuse_outdated(&mut group);
            if !group.is_empty() {
                self.write(&mut group).await;
            }
        }
    }

    /// What has waited as long as a statement may take is not tried any more. A database that hangs makes every group
    /// in the queue wait for its own time limit, and the last of them would be answered minutes later.
    fn refuse_outdated(&self, group: &mut Vec<Entry<R>>) {
        for entry in group.extract_if(.., |entry| entry.queued_at.elapsed() > self.time_limit) {
            self.reply(entry, Err(DbError::Unavailable("the ledger's queue did not move in time".to_owned())));
        }
    }

    async fn write(&self, group: &mut Vec<Entry<R>>) {
        let rows: Vec<&R> = group.iter().map(|entry| &*entry.row).collect();
        match self.insert(&rows).await {
            Ok(()) => group.drain(..).for_each(|entry| self.reply(entry, Ok(()))),
            // One row may have spoilt the statement for all: each gets its own, so that only that one fails.
            Err(DbError::RowRefused(_) | DbError::Failed(_)) if group.len() > 1 => {
                for entry in group.drain(..) {
                    let result = self.insert(&[&*entry.row]).await;
                    self.reply(entry, result);
                }
            }
            Err(error) => {
                log::warn!("{} intents were not written: {error}", group.len());
                group.drain(..).for_each(|entry| self.reply(entry, Err(error.clone())));
            }
        }
    }

    async fn insert(&self, rows: &[&R]) -> Result<(), DbError> {
        let mut connection = self.database.writer().await?;
        let Ok(inserted) = tokio::time::timeout(self.time_limit, R::insert(rows, &mut connection)).await else {
            // Whatever comes back on this connection later would be taken for the answer to the next statement.
            drop(Object::take(connection));
            return Err(DbError::Unavailable("the database did not answer in time".to_owned()));
        };
        inserted?;
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn reply(&self, entry: Entry<R>, result: Result<(), DbError>) {
        let counter = if result.is_ok() { &self.counters.rows } else { &self.counters.failed_rows };
        counter.fetch_add(1, Ordering::Relaxed);
        // A handler whose client went away no longer waits; the row stays, and no URL exists for it.
        let _ = entry.reply.send(result.map(|()| entry.row));
    }
}
