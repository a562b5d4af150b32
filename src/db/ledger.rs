//! The ledger: intents are written in groups, and nobody is answered before the commit.
//!
//! Handlers put a row, or the rows of a batch, into a bounded queue. Each writer takes all that is queued, without
//! waiting for more, and writes it as one statement. Under load the groups grow by themselves, because rows arrive
//! while the last group is being committed; without load a row travels alone and at once. The rows of a batch always
//! stand in one statement: all of them are committed, or none is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    AccessEvent, Database, DbError, DownloadIntent, UploadIntent, access_events, connect::settle, downloads, uploads,
};
use crate::config::DatabaseConfig;

/// Writes intents in groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    uploads: Queue<UploadIntent>,
    downloads: Queue<DownloadIntent>,
    events: Queue<AccessEvent>,
    counters: Arc<Counters>,
    event_counters: Arc<Counters>,
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
    /// Access events that were committed, of those that go through the ledger.
    pub events: u64,
    /// Access events that were not: nobody waits for them, so they are lost.
    pub lost_events: u64,
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
        let (counters, event_counters) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        let mut writers = Vec::new();
        let each = config.ledger.writers;
        let ledger = Self {
            uploads: Queue::start(database, config, runtime, &counters, each, &mut writers),
            downloads: Queue::start(database, config, runtime, &counters, each, &mut writers),
            events: Queue::start(database, config, runtime, &event_counters, 1, &mut writers),
            counters,
            event_counters,
        };
        (ledger, LedgerWriters(writers))
    }

    /// Writes an upload intent; gives it back once it is committed.
    ///
    /// # Errors
    /// [`DbError::Overloaded`] at once when the queue is full. After [`DbError::Unavailable`] the row may or may not
    /// be there; nobody was given a URL for it.
    pub async fn record_upload(&self, intent: Box<UploadIntent>) -> Result<Box<UploadIntent>, DbError> {
        self.uploads.write_one(intent).await
    }

    /// Writes upload intents, all of them or none.
    ///
    /// # Errors
    /// As [`Ledger::record_upload`]. A row that the database refuses fails all.
    pub async fn record_uploads(&self, intents: impl IntoIterator<Item = UploadIntent>) -> Result<(), DbError> {
        let intents: Vec<_> = intents.into_iter().map(Box::new).collect();
        if intents.is_empty() { Ok(()) } else { self.uploads.write(intents).await.map(drop) }
    }

    /// Writes a download intent; gives it back once it is committed.
    ///
    /// # Errors
    /// As [`Ledger::record_upload`].
    pub async fn record_download(&self, intent: Box<DownloadIntent>) -> Result<Box<DownloadIntent>, DbError> {
        self.downloads.write_one(intent).await
    }

    /// Has an access event written, and does not wait for that. What is turned away must not cost more than what is let
    /// in: where the queue is full, or the database does not take it, the event is counted as lost.
    pub fn note(&self, event: AccessEvent) {
        if let Err(error) = self.events.enqueue(vec![Box::new(event)]) {
            self.event_counters.failed_rows.fetch_add(1, Ordering::Relaxed);
            log::debug!("an access event is lost: {error}");
        }
    }

    /// What it has done so far.
    pub fn status(&self) -> LedgerStatus {
        LedgerStatus {
            queued: self.uploads.len() + self.downloads.len(),
            groups: self.counters.groups.load(Ordering::Relaxed),
            rows: self.counters.rows.load(Ordering::Relaxed),
            failed_rows: self.counters.failed_rows.load(Ordering::Relaxed),
            events: self.event_counters.rows.load(Ordering::Relaxed),
            lost_events: self.event_counters.failed_rows.load(Ordering::Relaxed),
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

impl GroupRow for AccessEvent {
    async fn insert(rows: &[&Self], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
        access_events::insert(rows, connection).await
    }
}

/// Rows on their way that are written together, and who waits for them. They travel back to their handler, which signs
/// what was committed.
struct Entry<R> {
    rows: Vec<Box<R>>,
    queued_at: Instant,
    reply: oneshot::Sender<WriteResult<R>>,
}

/// The rows, once they are committed.
type WriteResult<R> = Result<Vec<Box<R>>, DbError>;

/// The queue is bounded by rows, not by entries: a batch takes as much room as its rows would alone.
#[derive(Debug)]
struct Queue<R> {
    entries: mpsc::UnboundedSender<Entry<R>>,
    room: Arc<Semaphore>,
    capacity: usize,
}

impl<R> Clone for Queue<R> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), room: Arc::clone(&self.room), capacity: self.capacity }
    }
}

/// What `rows` take of a queue for `capacity` rows. A batch that is larger than the whole queue is let in when nothing
/// else is waiting, or it would never be.
fn places(rows: usize, capacity: usize) -> usize {
    rows.min(capacity)
}

impl<R: GroupRow> Queue<R> {
    fn start(
        database: &Database,
        config: &DatabaseConfig,
        runtime: &Handle,
        counters: &Arc<Counters>,
        count: usize,
        writers: &mut Vec<JoinHandle<()>>,
    ) -> Self {
        let (entries, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let capacity = config.ledger.queue;
        let room = Arc::new(Semaphore::new(capacity));
        for _ in 0..count {
            let writer = Writer::<R> {
                database: database.clone(),
                queue: Arc::clone(&receiver),
                room: Arc::clone(&room),
                capacity,
                max_batch: config.ledger.max_batch,
                time_limit: database.time_limit(),
                counters: Arc::clone(counters),
            };
            writers.push(runtime.spawn(writer.run()));
        }
        Self { entries, room, capacity }
    }

    async fn write_one(&self, row: Box<R>) -> Result<Box<R>, DbError> {
        self.write(vec![row]).await?.pop().ok_or_else(stopped)
    }

    async fn write(&self, rows: Vec<Box<R>>) -> Result<Vec<Box<R>>, DbError> {
        self.enqueue(rows)?.await.map_err(|_| stopped())?
    }

    fn enqueue(&self, rows: Vec<Box<R>>) -> Result<oneshot::Receiver<WriteResult<R>>, DbError> {
        let (reply, written) = oneshot::channel();
        // The writer gives the places back when it takes the entry.
        let places = u32::try_from(places(rows.len(), self.capacity)).map_err(|_| DbError::Overloaded)?;
        self.room.try_acquire_many(places).map_err(|_| DbError::Overloaded)?.forget();
        self.entries.send(Entry { rows, queued_at: Instant::now(), reply }).map_err(|_| stopped())?;
        Ok(written)
    }

    fn len(&self) -> usize {
        self.capacity - self.room.available_permits()
    }
}

fn stopped() -> DbError {
    DbError::Unavailable("the ledger has stopped".to_owned())
}

struct Writer<R> {
    database: Database,
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Entry<R>>>>,
    room: Arc<Semaphore>,
    capacity: usize,
    max_batch: usize,
    time_limit: Duration,
    counters: Arc<Counters>,
}

impl<R: GroupRow> Writer<R> {
    async fn run(self) {
        let mut group = Vec::with_capacity(self.max_batch);
        while self.take(&mut group).await {
            self.refuse_outdated(&mut group);
            if !group.is_empty() {
                self.write(&mut group).await;
            }
        }
    }

    /// Waits for an entry, and takes all that are there then, up to `max_batch` rows; the last may be a batch that goes
    /// beyond. False when nothing can come any more. The queue is locked while waiting, not while writing: an idle
    /// writer keeps back only idle writers.
    async fn take(&self, group: &mut Vec<Entry<R>>) -> bool {
        let mut queue = self.queue.lock().await;
        let Some(first) = queue.recv().await else { return false };
        let mut rows = 0;
        let mut next = Some(first);
        while let Some(entry) = next {
            rows += entry.rows.len();
            self.room.add_permits(places(entry.rows.len(), self.capacity));
            group.push(entry);
            next = if rows < self.max_batch { queue.try_recv().ok() } else { None };
        }
        true
    }

    /// What has waited as long as a statement may take is not tried any more. A database that hangs makes every group
    /// in the queue wait for its own time limit, and the last of them would be answered minutes later.
    fn refuse_outdated(&self, group: &mut Vec<Entry<R>>) {
        for entry in group.extract_if(.., |entry| entry.queued_at.elapsed() > self.time_limit) {
            self.reply(entry, Err(DbError::Unavailable("the ledger's queue did not move in time".to_owned())));
        }
    }

    async fn write(&self, group: &mut Vec<Entry<R>>) {
        match self.insert(group).await {
            Ok(()) => group.drain(..).for_each(|entry| self.reply(entry, Ok(()))),
            // One row may have spoilt the statement for all: each entry gets its own, so that only that one fails.
            Err(DbError::RowRefused(_) | DbError::Failed(_)) if group.len() > 1 => {
                let mut is_away = None;
                for entry in group.drain(..) {
                    let result = match &is_away {
                        // Each would wait for its own time limit, and the queue behind all of them.
                        Some(error) => Err(DbError::clone(error)),
                        None => self.insert(std::slice::from_ref(&entry)).await,
                    };
                    if let Err(error) = &result {
                        log::warn!("{} rows were not written: {error}", entry.rows.len());
                        if matches!(error, DbError::Unavailable(_)) {
                            is_away = Some(error.clone());
                        }
                    }
                    self.reply(entry, result);
                }
            }
            Err(error) => {
                log::warn!(
                    "{} rows were not written: {error}",
                    group.iter().map(|entry| entry.rows.len()).sum::<usize>()
                );
                group.drain(..).for_each(|entry| self.reply(entry, Err(error.clone())));
            }
        }
    }

    async fn insert(&self, group: &[Entry<R>]) -> Result<(), DbError> {
        let rows: Vec<&R> = group.iter().flat_map(|entry| &entry.rows).map(AsRef::as_ref).collect();
        let mut connection = self.database.writer().await?;
        let inserted = tokio::time::timeout(self.time_limit, R::insert(&rows, &mut connection)).await;
        settle(connection, inserted)?;
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn reply(&self, entry: Entry<R>, result: Result<(), DbError>) {
        let counter = if result.is_ok() { &self.counters.rows } else { &self.counters.failed_rows };
        counter.fetch_add(u64::try_from(entry.rows.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // A handler whose client went away no longer waits; the row stays, and no URL exists for it.
        let _ = entry.reply.send(result.map(|()| entry.rows));
    }
}
