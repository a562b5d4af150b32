//! Questions about objects, asked with the service's own credentials.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest;
use aws_sdk_s3::{error::ProvideErrorMetadata, operation::head_object::HeadObjectError, types::ChecksumMode};
use chrono::{DateTime, Utc};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, Semaphore},
    task::{AbortHandle, JoinHandle},
};

use super::{
    CopyLimits, ObjectBody, S3Error, Sdk,
    error::{GONE, status, unless},
    pace::Pace,
    sdk::instant,
};
use crate::model::{ContentType, ETag, Metadata, ObjectKey, Sha256Digest};

/// What a HEAD says of an object.
#[derive(Debug, Clone)]
pub struct ObjectHead {
    /// Size in bytes.
    pub size: u64,
    /// Media type as stored.
    pub content_type: Option<String>,
    /// Entity tag.
    pub etag: ETag,
    /// Version, where the bucket is versioned.
    pub version_id: Option<String>,
    /// What was done to its bytes, as whoever wrote it says and as whoever reads it is told.
    pub content_encoding: Option<String>,
    /// Where it is kept, if not in the class that is meant by saying none.
    pub storage_class: Option<String>,
    /// SHA-256 of the whole object, where the store keeps it.
    pub checksum_sha256: Option<Sha256Digest>,
    /// When it was written, by the store's clock, in whole seconds.
    pub last_modified: Option<DateTime<Utc>>,
}

/// What an object is stored with beside its bytes.
#[derive(Debug, Clone)]
pub struct ObjectAttributes {
    /// Media type.
    pub content_type: String,
    /// User metadata without its prefix.
    pub metadata: BTreeMap<String, String>,
}

impl ObjectAttributes {
    /// What was promised of an object.
    pub fn new(content_type: &ContentType, metadata: &Metadata) -> Self {
        let metadata = metadata.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { content_type: content_type.as_str().to_owned(), metadata }
    }
}

/// One bucket.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    sdk: Sdk,
    bucket: String,
    runtime: Handle,
    reads: Arc<Semaphore>,
    copy_limits: CopyLimits,
    versioned: Arc<OnceCell<bool>>,
    pace: Option<Arc<Pace>>,
    under_way: Arc<AtomicUsize>,
}

/// Objects read back at once, over all requests: each costs the store and the network as much as a download.
const READS_AT_ONCE: usize = 4;

impl ObjectStore {
    /// The bucket `bucket`. Its connections live on `runtime`, the main one, because an actix worker that asked
    /// first would own them for everybody.
    pub fn new(sdk: Sdk, bucket: impl Into<String>, runtime: Handle) -> Self {
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE));
        Self {
            sdk,
            bucket: bucket.into(),
            runtime,
            reads,
            copy_limits: CopyLimits::default(),
            versioned: Arc::default(),
            pace: None,
            under_way: Arc::default(),
        }
    }

    /// The same, asked at most `requests_per_second` times in a second. Attempts that the SDK repeats are not counted.
    #[must_use]
    pub fn paced(self, requests_per_second: usize) -> Self {
        Self { pace: Some(Arc::new(Pace::new(requests_per_second))), ..self }
    }

    pub(super) fn versioned(&self) -> &OnceCell<bool> {
        &self.versioned
    }

    /// Requests to the store that have begun and not ended, of this value and its clones.
    pub fn requests_under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// The same with other bounds for copies: nobody can wait for a test of S3's own, which are 5 GiB.
    #[must_use]
    pub fn with_copy_limits(self, copy_limits: CopyLimits) -> Self {
        Self { copy_limits, ..self }
    }

    pub(super) fn copy_limits(&self) -> CopyLimits {
        self.copy_limits
    }

    pub(super) fn client(&self) -> &aws_sdk_s3::Client {
        &self.sdk.s3
    }

    /// For what is handed on to clients.
    pub(super) fn downloads_client(&self) -> &aws_sdk_s3::Client {
        &self.sdk.downloads
    }

    pub(super) fn declares_part_checksums(&self) -> bool {
        self.sdk.declares_part_checksums
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the store knows of the object under `key`; `None` when there is none.
    ///
    /// # Errors
    /// When the store does not answer, or answers without an `ETag` or a size, or will not without a key.
    pub async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectHead>, S3Error> {
        const OPERATION: &str = "HeadObject";
        let request =
            self.sdk.s3.head_object().bucket(&self.bucket).key(key.as_str()).checksum_mode(ChecksumMode::Enabled);
        let head = match self.on_main(OPERATION, request.send()).await? {
            Ok(head) => head,
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => return Ok(None),
            Err(error) if status(&error) == Some(400) && self.needs_key(key, None).await? => {
                return Err(S3Error::KeyRequired { operation: OPERATION });
            }
            Err(error) => return Err(S3Error::from_sdk(OPERATION, &error)),
        };
        let unusable =
            |what: &str| S3Error::Refused { operation: OPERATION, reason: format!("the answer has no usable {what}") };
        Ok(Some(ObjectHead {
            size: head.content_length().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| unusable("size"))?,
            content_type: head.content_type().map(str::to_owned),
            etag: head.e_tag().and_then(|etag| ETag::parse(etag).ok()).ok_or_else(|| unusable("ETag"))?,
            content_encoding: head.content_encoding().map(str::to_owned),
            storage_class: head.storage_class().map(|class| class.as_str().to_owned()),
            // Unversioned buckets answer "null" on some stores.
            version_id: head.version_id().filter(|version| *version != "null").map(str::to_owned),
            // A composite checksum ("…-3") is not the digest of the object; it does not parse and so does not count.
            checksum_sha256: head.checksum_sha256().and_then(|text| Sha256Digest::from_base64(text).ok()),
            last_modified: head.last_modified().and_then(instant),
        }))
    }

    /// Whether there is no object under `key` by the store's own word. The 404 of a HEAD is not enough where something
    /// follows from it that cannot be undone: without a body it may be about the bucket, or a proxy's.
    ///
    /// # Errors
    /// When the store does not answer, or something else does.
    pub async fn is_surely_absent(&self, key: &ObjectKey) -> Result<bool, S3Error> {
        let request = self.sdk.s3.get_object().bucket(&self.bucket).key(key.as_str()).range("bytes=0-0");
        match self.on_main(ObjectBody::OPERATION, request.send()).await? {
            // It is there, and empty.
            Err(error) if status(&error) == Some(416) => Ok(false),
            answer => Ok(unless(GONE, ObjectBody::OPERATION, answer)?.is_none()),
        }
    }

    /// Whether it is for want of a key that the store will not show the object under `key`: a HEAD is refused without
    /// a reason, and other reasons may be gone tomorrow.
    pub(super) async fn needs_key(&self, key: &ObjectKey, version: Option<&str>) -> Result<bool, S3Error> {
        let request = self.sdk.s3.get_object().bucket(&self.bucket).key(key.as_str()).range("bytes=0-0");
        let request = request.set_version_id(version.map(str::to_owned));
        let Err(error) = self.on_main(ObjectBody::OPERATION, request.send()).await? else { return Ok(false) };
        Ok(error.as_service_error().and_then(ProvideErrorMetadata::message).is_some_and(asks_for_key))
    }

    /// The SHA-256 of the object's bytes, read back from the store; `None` when the object is gone or is no longer
    /// the one with `etag`. Reads in pieces, in constant memory.
    ///
    /// # Errors
    /// When the store does not answer or breaks off.
    pub async fn sha256(&self, key: &ObjectKey, etag: &ETag) -> Result<Option<Sha256Digest>, S3Error> {
        let request = self.sdk.s3.get_object().bucket(&self.bucket).key(key.as_str()).if_match(format!("\"{etag}\""));
        let reads = Arc::clone(&self.reads);
        let read = async move {
            // Closed never, so this only waits.
            let _turn = reads.acquire().await;
            let Some(mut body) = ObjectBody::of(request.send().await)? else { return Ok(None) };
            let mut context = digest::Context::new(&digest::SHA256);
            while let Some(piece) = body.next().await {
                context.update(&piece?);
            }
            Ok(context.finish().as_ref().try_into().ok().map(Sha256Digest::from_bytes))
        };
        self.on_main_while_wanted(ObjectBody::OPERATION, read).await?
    }

    /// The first `length` bytes of the object, fewer when it is shorter; `None` when the object is gone or is no longer
    /// the one with `etag`. It must not be empty: nothing has no range.
    ///
    /// # Errors
    /// When the store does not answer or breaks off.
    pub async fn beginning(&self, key: &ObjectKey, etag: &ETag, length: u64) -> Result<Option<Vec<u8>>, S3Error> {
        let request = self.sdk.s3.get_object().bucket(&self.bucket).key(key.as_str()).if_match(format!("\"{etag}\""));
        let request = request.range(format!("bytes=0-{}", length.saturating_sub(1)));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let read = async move {
            let Some(mut body) = ObjectBody::of(request.send().await)? else { return Ok(None) };
            let mut bytes = Vec::new();
            // A store that knows no ranges sends everything, of which no more is taken than was asked for.
            while bytes.len() < length
                && let Some(piece) = body.next().await
            {
                bytes.extend_from_slice(&piece?);
            }
            bytes.truncate(length);
            Ok(Some(bytes))
        };
        self.on_main_while_wanted(ObjectBody::OPERATION, read).await?
    }

    /// The object's bytes, to be read on the main runtime; `None` when the object is gone or is no longer the one with
    /// `etag`. In a versioned bucket `version` is read.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read(
        &self,
        key: &ObjectKey,
        etag: &ETag,
        version: Option<&str>,
    ) -> Result<Option<ObjectBody>, S3Error> {
        let request = self.sdk.s3.get_object().bucket(&self.bucket).key(key.as_str()).if_match(format!("\"{etag}\""));
        let request = request.set_version_id(version.map(str::to_owned));
        self.on_main(ObjectBody::OPERATION, async move { ObjectBody::of(request.send().await) }).await?
    }

    /// Removes the object; that there is none is success.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), S3Error> {
        self.delete_version(key, None).await
    }

    /// The same for one version of it.
    pub(super) async fn delete_version(&self, key: &ObjectKey, version: Option<&str>) -> Result<(), S3Error> {
        const OPERATION: &str = "DeleteObject";
        let request = self.sdk.s3.delete_object().bucket(&self.bucket).key(key.as_str());
        let request = request.set_version_id(version.map(str::to_owned));
        unless(GONE, OPERATION, self.on_main(OPERATION, request.send()).await?)?;
        Ok(())
    }

    /// Whether the store answers and the bucket is there for these credentials.
    ///
    /// # Errors
    /// Says why not.
    pub async fn ping(&self) -> Result<(), S3Error> {
        const OPERATION: &str = "HeadBucket";
        let request = self.sdk.s3.head_bucket().bucket(&self.bucket);
        let answer = self.on_main(OPERATION, request.send()).await?;
        answer.map(|_| ()).map_err(|error| S3Error::from_sdk(OPERATION, &error))
    }

    /// Does `work` on the main runtime, whoever still waits for it.
    pub(super) async fn on_main<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, S3Error> {
        joined(operation, self.spawn(work)).await
    }

    /// The same for what is of use only to who waits: it ends when nobody does, as when the service stops.
    async fn on_main_while_wanted<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, S3Error> {
        let task = self.spawn(work);
        let _ends = AbortOnDrop(task.abort_handle());
        joined(operation, task).await
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let (pace, counted) = (self.pace.clone(), UnderWay::begin(&self.under_way));
        // A task of its own goes on when nobody waits for it any more, and is under way until it ends.
        let paced = async move {
            if let Some(pace) = pace {
                pace.turn().await;
            }
            let done = work.await;
            drop(counted);
            done
        };
        self.runtime.spawn(paced)
    }
}

/// Whether a store's refusal is for want of a client's key. Its code says that of other things as well; and what is said
/// of keys of the store itself is for the operator to mend.
fn asks_for_key(message: &str) -> bool {
    message.contains("Server Side Encryption") && !message.contains("KMS")
}

async fn joined<T>(operation: &'static str, task: JoinHandle<T>) -> Result<T, S3Error> {
    task.await.map_err(|_| S3Error::stopping(operation))
}

/// Ends a task with whoever waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts one request for as long as it lives.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_key_is_told_from_the_store_s() {
        for (message, expected) in [
            (
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to \
                 retrieve the object.",
                true,
            ),
            (
                "Requests specifying Server Side Encryption with Customer provided keys must provide the customer key.",
                true,
            ),
            (
                "Requests specifying Server Side Encryption with AWS KMS managed keys require AWS Signature Version 4.",
                false,
            ),
            ("The provided token has expired.", false),
        ] {
            assert_eq!(asks_for_key(message), expected, "{message}");
        }
    }
}
