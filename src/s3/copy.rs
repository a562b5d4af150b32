//! Copying within the bucket: the store does it, no byte passes through this service.

use std::time::Duration;

use aws_sdk_s3::{
    config::{Builder, timeout::TimeoutConfig},
    types::{CompletedMultipartUpload, CompletedPart, MetadataDirective},
};

use super::{
    ObjectAttributes, ObjectHead, ObjectStore, S3Error,
    error::{CHANGED, unless},
};
use crate::{
    model::{ETag, ObjectKey},
    signing,
};

/// How objects are copied. The default is S3's bounds.
#[derive(Debug, Clone, Copy)]
pub struct CopyLimits {
    /// Largest object copied by one request: 5 GiB
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>).
    pub largest_single: u64,
    /// Size of a part of a larger one.
    pub part_size: u64,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { largest_single: 5 << 30, part_size: 1 << 30 }
    }
}

/// Longest wait for a copy of one object or part. A store that has to move the bytes takes its time, and says nothing
/// before it is done.
const TIME_LIMIT: Duration = Duration::from_mins(10);

impl ObjectStore {
    /// Copies what lies under `from` and was seen as `seen` to `to`, with `attributes`, whatever headers it was written
    /// with. `false` when `from` no longer holds that object.
    ///
    /// # Errors
    /// When the store does not answer, breaks off, or refuses.
    pub async fn copy(
        &self,
        from: &ObjectKey,
        seen: &ObjectHead,
        to: &ObjectKey,
        attributes: ObjectAttributes,
    ) -> Result<bool, S3Error> {
        let source = Source { path: signing::copy_source(self.bucket(), from), etag: seen.etag.clone() };
        if seen.size <= self.copy_limits().largest_single {
            return self.copy_at_once(source, to, attributes).await;
        }
        self.copy_in_parts(source, seen.size, to, attributes).await
    }

    async fn copy_at_once(
        &self,
        source: Source,
        to: &ObjectKey,
        attributes: ObjectAttributes,
    ) -> Result<bool, S3Error> {
        const OPERATION: &str = "CopyObject";
        let request = self
            .client()
            .copy_object()
            .bucket(self.bucket())
            .key(to.as_str())
            .copy_source(source.path)
            .copy_source_if_match(format!("\"{}\"", source.etag))
            .metadata_directive(MetadataDirective::Replace)
            .content_type(attributes.content_type)
            .set_metadata(Some(attributes.metadata.into_iter().collect()))
            .customize()
            .config_override(patient());
        unless(CHANGED, OPERATION, self.on_main(OPERATION, request.send()).await?).map(|copied| copied.is_some())
    }

    async fn copy_in_parts(
        &self,
        source: Source,
        size: u64,
        to: &ObjectKey,
        attributes: ObjectAttributes,
    ) -> Result<bool, S3Error> {
        let upload_id = self.begin_multipart(to, attributes, false).await?;
        let copied = self.copy_parts(&source, size, to, &upload_id).await;
        if !matches!(copied, Ok(true)) {
            // Best effort: the sweeper finds what stays.
            if let Err(error) = self.abort_multipart(to.as_str(), &upload_id).await {
                log::warn!("{error}");
            }
        }
        copied
    }

    async fn copy_parts(&self, source: &Source, size: u64, to: &ObjectKey, upload_id: &str) -> Result<bool, S3Error> {
        const PART: &str = "UploadPartCopy";
        const COMPLETE: &str = "CompleteMultipartUpload";
        let part_size = self.copy_limits().part_size;
        let mut parts = Vec::new();
        let mut start = 0;
        for number in 1.. {
            if start >= size {
                break;
            }
            let end = start.saturating_add(part_size).min(size);
            let request = self
                .client()
                .upload_part_copy()
                .bucket(self.bucket())
                .key(to.as_str())
                .upload_id(upload_id)
                .part_number(number)
                .copy_source(&source.path)
                .copy_source_if_match(format!("\"{}\"", source.etag))
                .copy_source_range(format!("bytes={start}-{}", end - 1))
                .customize()
                // A PUT without a body, of which Ceph RGW wants to be told that it has none.
                .mutate_request(|request| {
                    request.headers_mut().insert("content-length", "0");
                })
                .config_override(patient());
            let Some(part) = unless(CHANGED, PART, self.on_main(PART, request.send()).await?)? else {
                return Ok(false);
            };
            let etag = part.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(etag).build());
            start = end;
        }
        let request = self
            .client()
            .complete_multipart_upload()
            .bucket(self.bucket())
            .key(to.as_str())
            .upload_id(upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .customize()
            .config_override(patient());
        let completed = self.on_main(COMPLETE, request.send()).await?;
        completed.map(|_| true).map_err(|error| S3Error::from_sdk(COMPLETE, &error))
    }
}

/// The object to copy.
struct Source {
    /// `bucket/key`, percent-encoded.
    path: String,
    etag: ETag,
}

/// For requests that the store answers only when it has moved bytes.
pub(super) fn patient() -> Builder {
    let limits = TimeoutConfig::builder().operation_attempt_timeout(TIME_LIMIT).operation_timeout(TIME_LIMIT).build();
    Builder::new().timeout_config(limits)
}
