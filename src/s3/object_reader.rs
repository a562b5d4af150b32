//! Reading objects for clients: in pieces, as fast as they are taken, and over broken connections.
//!
//! The connection to the store is driven by the main runtime, and its bytes reach whoever reads through a channel that
//! holds a few pieces. A reader that takes nothing keeps the next piece from being read; one that is gone ends the read.

use std::{
    ops::{Range, RangeInclusive},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::{operation::get_object::GetObjectOutput, primitives::ByteStream};
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time,
};

use super::{
    ObjectBody, ObjectStore, S3Error,
    error::{CHANGED, unless},
};
use crate::{
    config::DeliveryConfig,
    model::{ETag, ObjectKey},
};

/// How often one read is taken up again after the store has broken it off.
const RESUMPTIONS: u32 = 8;

/// Wait before the first of them; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Pieces that wait for whoever reads, each as large as a read from the socket: one would make both sides wait for each
/// other with every piece.
const PIECES: usize = 4;

/// An object as it was confirmed. Nothing else under its key is ever read.
#[derive(Debug, Clone)]
pub struct PinnedObject {
    /// The key.
    pub key: ObjectKey,
    /// The confirmed tag.
    pub etag: ETag,
    /// The confirmed version, where the bucket is versioned.
    pub version_id: Option<String>,
    /// The confirmed size in bytes.
    pub size: u64,
}

impl PinnedObject {
    fn is_all(&self, range: &Range<u64>) -> bool {
        *range == (0..self.size)
    }

    /// Refuses an answer that is about another object or other positions than these: not every store heeds a condition
    /// or a range, and what it sends instead must never be put between bytes of the right object.
    fn expect(&self, range: &Range<u64>, answer: &GetObjectOutput) -> Result<(), ReadError> {
        if answer.e_tag().and_then(|etag| ETag::parse(etag).ok()).as_ref() != Some(&self.etag) {
            return Err(ReadError::Changed);
        }
        let expected = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), self.size);
        let is_range = self.is_all(range) || answer.content_range() == Some(expected.as_str());
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        if is_range && length == Some(range.end - range.start) {
            return Ok(());
        }
        let reason = "the answer has other bytes than were asked for".to_owned();
        Err(S3Error::Refused { operation: ObjectBody::OPERATION, reason }.into())
    }
}

/// Why a read gave no more bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The object is gone, or is no longer the one that was confirmed.
    #[error("the object is not the confirmed one any more")]
    Changed,
    /// The store.
    #[error(transparent)]
    Store(#[from] S3Error),
}

/// Reads objects, so many at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ObjectReader {
    store: ObjectStore,
    runtime: Handle,
    places: Arc<Semaphore>,
    capacity: usize,
    stall_timeout: Duration,
    counts: Arc<ReadCounts>,
}

/// What has been read for clients.
#[derive(Debug, Default)]
struct ReadCounts {
    bytes: AtomicU64,
    resumed: AtomicU64,
    broken: AtomicU64,
}

/// What the readers of this process have done, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct ReadStatus {
    /// Places taken.
    pub running: usize,
    /// Bytes that were handed on.
    pub bytes: u64,
    /// Times that a read was taken up again where the store had broken it off.
    pub resumed: u64,
    /// Reads that ended before their last byte, whoever's fault that was.
    pub broken: u64,
}

/// The right to read one object at a time, for as long as it lives.
#[derive(Debug)]
pub struct ReadPlace {
    reader: ObjectReader,
    _place: OwnedSemaphorePermit,
}

impl ObjectReader {
    /// Reads from `store` within the bounds of `config`. Connections live on `runtime`, the main one.
    pub fn new(store: ObjectStore, config: &DeliveryConfig, runtime: Handle) -> Self {
        Self {
            store,
            runtime,
            places: Arc::new(Semaphore::new(config.streams)),
            capacity: config.streams,
            stall_timeout: config.stall_timeout,
            counts: Arc::default(),
        }
    }

    /// A place, if there is one left.
    pub fn place(&self) -> Option<ReadPlace> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(ReadPlace { reader: self.clone(), _place: place })
    }

    /// What has been done so far.
    pub fn status(&self) -> ReadStatus {
        ReadStatus {
            running: self.capacity - self.places.available_permits(),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            resumed: self.counts.resumed.load(Ordering::Relaxed),
            broken: self.counts.broken.load(Ordering::Relaxed),
        }
    }
}

impl ReadPlace {
    /// The bytes of `object` at the positions `range`, which have to lie in it; all of them without one. When this
    /// returns, the store has begun to answer.
    ///
    /// # Errors
    /// When the store does not answer, or has another object.
    pub async fn open(
        &self,
        object: &PinnedObject,
        range: Option<RangeInclusive<u64>>,
    ) -> Result<ObjectPieces, ReadError> {
        let (next, end) = range.map_or((0, object.size), |range| (*range.start(), range.end() + 1));
        let mut read = Read { reader: self.reader.clone(), object: object.clone(), next, end };
        let opened = self.reader.store.on_main(ObjectBody::OPERATION, async move {
            let body = read.body().await?;
            let (pieces, receiver) = mpsc::channel(PIECES);
            let missing = read.end - read.next;
            // Not this task, which counts as a request under way until it ends.
            let runtime = read.reader.runtime.clone();
            runtime.spawn(read.hand_on(body, pieces));
            Ok(ObjectPieces { pieces: receiver, missing })
        });
        opened.await?
    }
}

/// The pieces of one read. Dropping it ends the read.
#[derive(Debug)]
pub struct ObjectPieces {
    pieces: mpsc::Receiver<Result<Bytes, ReadError>>,
    missing: u64,
}

impl ObjectPieces {
    /// The next piece; `None` after the last byte and not before.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        match self.pieces.recv().await {
            Some(Ok(piece)) => {
                self.missing = self.missing.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                Some(Ok(piece))
            }
            // The read was given up because nothing was taken in time, or the service stops.
            None if self.missing > 0 => Some(Err(broke_off())),
            ended => ended,
        }
    }
}

/// A read under way: what is still to come is `next..end`.
struct Read {
    reader: ObjectReader,
    object: PinnedObject,
    next: u64,
    end: u64,
}

impl Read {
    /// Asks for what is still to come.
    async fn body(&mut self) -> Result<ByteStream, ReadError> {
        let Self { reader, object, next, end } = self;
        let store = &reader.store;
        let mut request = store.downloads_client().get_object().bucket(store.bucket()).key(object.key.as_str());
        request = request.if_match(format!("\"{}\"", object.etag)).set_version_id(object.version_id.clone());
        let range = *next..*end;
        if !object.is_all(&range) {
            request = request.range(format!("bytes={next}-{}", *end - 1));
        }
        let answer = time::timeout(reader.stall_timeout, request.send()).await.map_err(|_| stalled())?;
        let answer = unless(CHANGED, ObjectBody::OPERATION, answer)?.ok_or(ReadError::Changed)?;
        object.expect(&range, &answer)?;
        Ok(answer.body)
    }

    async fn hand_on(mut self, mut body: ByteStream, pieces: mpsc::Sender<Result<Bytes, ReadError>>) {
        let mut resumptions = 0;
        while self.next < self.end {
            let broken = tokio::select! {
                biased;
                () = pieces.closed() => return self.broke(),
                piece = time::timeout(self.reader.stall_timeout, body.next()) => match piece {
                    Ok(Some(Ok(piece))) => match self.hand_on_piece(piece, &pieces).await {
                        Ok(()) => continue,
                        Err(NobodyTakes) => return self.broke(),
                    },
                    Ok(Some(Err(_)) | None) => broke_off(),
                    Err(_) => stalled(),
                },
            };
            // Its connection ends here, before there is another.
            drop(body);
            body = tokio::select! {
                biased;
                () = pieces.closed() => return self.broke(),
                resumed = self.resumed(broken, &mut resumptions) => match resumed {
                    Ok(body) => body,
                    Err(error) => {
                        log::warn!("a download broke off at byte {} of {}: {error}", self.next, self.object.size);
                        let _ = time::timeout(self.reader.stall_timeout, pieces.send(Err(error))).await;
                        return self.broke();
                    }
                },
            };
        }
    }

    async fn hand_on_piece(
        &mut self,
        mut piece: Bytes,
        pieces: &mpsc::Sender<Result<Bytes, ReadError>>,
    ) -> Result<(), NobodyTakes> {
        let missing = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        piece.truncate(missing);
        let length = u64::try_from(piece.len()).unwrap_or_default();
        let taken = time::timeout(self.reader.stall_timeout, pieces.send(Ok(piece))).await;
        taken.map_err(|_| NobodyTakes)?.map_err(|_| NobodyTakes)?;
        self.next += length;
        self.reader.counts.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// The body from the first byte that has not been handed on, after the store has failed with `failure`.
    async fn resumed(&mut self, mut failure: ReadError, resumptions: &mut u32) -> Result<ByteStream, ReadError> {
        while *resumptions < RESUMPTIONS {
            time::sleep(FIRST_PAUSE * 2_u32.pow(*resumptions)).await;
            *resumptions += 1;
            failure = match self.body().await {
                Ok(body) => {
                    self.reader.counts.resumed.fetch_add(1, Ordering::Relaxed);
                    return Ok(body);
                }
                Err(ReadError::Store(error @ S3Error::Unavailable { .. })) => error.into(),
                Err(error) => return Err(error),
            };
        }
        Err(failure)
    }

    fn broke(&self) {
        self.reader.counts.broken.fetch_add(1, Ordering::Relaxed);
    }
}

/// The client is gone, or takes nothing.
struct NobodyTakes;

fn stalled() -> ReadError {
    S3Error::Unavailable { operation: ObjectBody::OPERATION, reason: "nothing came in time".to_owned() }.into()
}

fn broke_off() -> ReadError {
    S3Error::Unavailable { operation: ObjectBody::OPERATION, reason: "the object broke off".to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_other_bytes_is_refused() {
        let object = PinnedObject {
            key: ObjectKey::parse("a").unwrap(),
            etag: ETag::parse("\"v1\"").unwrap(),
            version_id: None,
            size: 10,
        };
        let answer = |etag: &str, range: Option<&str>, length: i64| {
            let answer = GetObjectOutput::builder().e_tag(etag).set_content_range(range.map(str::to_owned));
            answer.content_length(length).build()
        };
        for (range, answer, is_right) in [
            (0..10, answer("\"v1\"", None, 10), true),
            (0..10, answer("\"v2\"", None, 10), false),
            (0..10, answer("\"v1\"", None, 9), false),
            (4..10, answer("\"v1\"", Some("bytes 4-9/10"), 6), true),
            (4..10, answer("\"v2\"", Some("bytes 4-9/10"), 6), false),
            // The range was not heeded, or another.
            (4..10, answer("\"v1\"", None, 10), false),
            (4..10, answer("\"v1\"", None, 6), false),
            (4..10, answer("\"v1\"", Some("bytes 0-5/10"), 6), false),
            (4..10, answer("\"v1\"", Some("bytes 4-9/11"), 6), false),
            (4..10, answer("\"v1\"", Some("bytes 4-8/10"), 5), false),
        ] {
            assert_eq!(object.expect(&range, &answer).is_ok(), is_right, "{range:?} {answer:?}");
        }
        let no_tag = GetObjectOutput::builder().content_length(10).build();
        assert!(object.expect(&(0..10), &no_tag).is_err());
    }
}
