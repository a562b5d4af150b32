//! Multipart uploads: begun, looked at, put together and given up, with the service's own credentials.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata as _, SdkError},
    operation::complete_multipart_upload::CompleteMultipartUploadError,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Part},
};
use chrono::{DateTime, Utc};

use super::{
    ObjectAttributes, ObjectStore, S3Error,
    copy::patient,
    error::{GONE, status, unless},
    sdk::instant,
};
use crate::model::{ETag, ObjectKey, PartNumber, Sha256Digest};

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Which one.
    pub number: PartNumber,
    /// Length in bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// SHA-256 of its bytes, where the store keeps it.
    pub checksum_sha256: Option<Sha256Digest>,
    /// When it was written, by the store's clock.
    pub last_modified: Option<DateTime<Utc>>,
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone)]
pub struct OpenMultipart {
    /// Key that it would write. Not an [`ObjectKey`]: others may use the bucket as well.
    pub key: String,
    /// The store's id of it.
    pub upload_id: String,
    /// When it was begun, by the store's clock.
    pub initiated: DateTime<Utc>,
}

/// Where a listing of multipart uploads goes on.
#[derive(Debug, Clone)]
pub struct MultipartMarker {
    key: String,
    upload_id: Option<String>,
}

impl ObjectStore {
    /// Begins a multipart upload to `key`, whose object will have `attributes`. `has_checksums` says whether every part
    /// comes with its SHA-256: S3 takes none with the parts of an upload that was begun without. Gives the store's id of
    /// it.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn begin_multipart(
        &self,
        key: &ObjectKey,
        ObjectAttributes { content_type, metadata }: ObjectAttributes,
        has_checksums: bool,
    ) -> Result<String, S3Error> {
        const OPERATION: &str = "CreateMultipartUpload";
        let request = self.client().create_multipart_upload().bucket(self.bucket()).key(key.as_str());
        let has_checksums = has_checksums && self.declares_part_checksums();
        let request = request
            .content_type(content_type)
            .set_metadata(Some(metadata.into_iter().collect()))
            .set_checksum_algorithm(has_checksums.then_some(ChecksumAlgorithm::Sha256));
        let begun = self.on_main(OPERATION, request.send()).await?;
        let begun = begun.map_err(|error| S3Error::from_sdk(OPERATION, &error))?;
        let upload_id = begun.upload_id().filter(|id| !id.is_empty()).map(str::to_owned);
        let reason = "the answer has no upload id".to_owned();
        upload_id.ok_or(S3Error::Refused { operation: OPERATION, reason })
    }

    /// The parts that the store has of a multipart upload, by number; `None` when it is completed or given up. Of a part
    /// that was sent again some stores list every copy, in any order.
    ///
    /// # Errors
    /// When the store does not answer or refuses, or lists a part without `ETag` or size.
    pub async fn parts(&self, key: &ObjectKey, upload_id: &str) -> Result<Option<Vec<StoredPart>>, S3Error> {
        const OPERATION: &str = "ListParts";
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let request = self.client().list_parts().bucket(self.bucket()).key(key.as_str()).upload_id(upload_id);
            let request = request.set_part_number_marker(marker.map(|marker: u64| marker.to_string()));
            let Some(page) = unless(GONE, OPERATION, self.on_main(OPERATION, request.send()).await?)? else {
                return Ok(None);
            };
            for part in page.parts() {
                let reason = || "a part has no usable number, size or ETag".to_owned();
                let part = stored_part(part);
                parts.push(part.ok_or_else(|| S3Error::Refused { operation: OPERATION, reason: reason() })?);
            }
            let next = page.next_part_number_marker().and_then(|next| next.parse().ok());
            // Where a marker does not get ahead, neither would the listing.
            marker = next.filter(|next| page.is_truncated() == Some(true) && Some(*next) > marker);
            if marker.is_none() {
                parts.sort_by_key(|part| part.number);
                return Ok(Some(parts));
            }
        }
    }

    /// Puts an object together from `parts`, which has to be all of them in order, unless something is there already.
    /// `false` when it is not to be had: completed or given up before, another object is there, or a part became
    /// another.
    ///
    /// # Errors
    /// When the store does not answer, breaks off, or refuses.
    pub async fn complete_multipart(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        parts: &[StoredPart],
    ) -> Result<bool, S3Error> {
        const OPERATION: &str = "CompleteMultipartUpload";
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number.get().into())
                .e_tag(format!("\"{}\"", part.etag))
                .set_checksum_sha256(part.checksum_sha256.map(Sha256Digest::to_base64))
                .build()
        });
        let request = self
            .client()
            .complete_multipart_upload()
            .bucket(self.bucket())
            .key(key.as_str())
            .upload_id(upload_id)
            .if_none_match("*")
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build())
            .customize()
            .config_override(patient());
        match self.on_main(OPERATION, request.send()).await? {
            Ok(_) => Ok(true),
            Err(error) if is_outdated(&error) => Ok(false),
            Err(error) => Err(S3Error::from_sdk(OPERATION, &error)),
        }
    }

    /// A page of the multipart uploads in the bucket, and where the next one begins.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn open_multiparts(
        &self,
        after: Option<MultipartMarker>,
    ) -> Result<(Vec<OpenMultipart>, Option<MultipartMarker>), S3Error> {
        const OPERATION: &str = "ListMultipartUploads";
        let (key, upload_id) = after.map_or((None, None), |marker| (Some(marker.key), marker.upload_id));
        let request = self.client().list_multipart_uploads().bucket(self.bucket());
        let request = request.set_key_marker(key).set_upload_id_marker(upload_id);
        let page = self.on_main(OPERATION, request.send()).await?;
        let page = page.map_err(|error| S3Error::from_sdk(OPERATION, &error))?;
        let uploads = page.uploads().iter().filter_map(|upload| {
            Some(OpenMultipart {
                key: upload.key()?.to_owned(),
                upload_id: upload.upload_id()?.to_owned(),
                initiated: instant(upload.initiated()?)?,
            })
        });
        let next = page.next_key_marker().filter(|key| page.is_truncated() == Some(true) && !key.is_empty());
        let next = next.map(|key| MultipartMarker {
            key: key.to_owned(),
            upload_id: page.next_upload_id_marker().filter(|id| !id.is_empty()).map(str::to_owned),
        });
        Ok((uploads.collect(), next))
    }

    /// Gives up a multipart upload and frees its parts. `false` when there was none.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn abort_multipart(&self, key: &str, upload_id: &str) -> Result<bool, S3Error> {
        const OPERATION: &str = "AbortMultipartUpload";
        let request = self.client().abort_multipart_upload().bucket(self.bucket()).key(key).upload_id(upload_id);
        Ok(unless(GONE, OPERATION, self.on_main(OPERATION, request.send()).await?)?.is_some())
    }
}

fn stored_part(part: &Part) -> Option<StoredPart> {
    Some(StoredPart {
        number: PartNumber::new(part.part_number()?.try_into().ok()?)?,
        size: part.size()?.try_into().ok()?,
        etag: ETag::parse(part.e_tag()?).ok()?,
        checksum_sha256: part.checksum_sha256().and_then(|text| Sha256Digest::from_base64(text).ok()),
        last_modified: part.last_modified().and_then(instant),
    })
}

/// Whether the refusal says that the upload, its parts or its key are not as the request has them. 409 is for whom
/// another is ahead of at this moment.
fn is_outdated(error: &SdkError<CompleteMultipartUploadError>) -> bool {
    matches!(status(error), Some(404 | 409 | 412)) || matches!(error.code(), Some("InvalidPart" | "NoSuchUpload"))
}
