//! The operations of S3 that uploads and downloads need.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt as _, stream};
use hyper::{
    HeaderMap,
    header::{ETAG, HeaderValue, LAST_MODIFIED, LOCATION},
};
use s3s::{
    S3, S3Error, S3Request, S3Response, S3Result,
    crypto::{Checksum as _, Md5},
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketLocationConstraint, ChecksumMode,
        ChecksumType, CommonPrefix, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, CreateBucketInput, CreateBucketOutput,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput,
        DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, EncodingType,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
        ListPartsOutput, MetadataDirective, MultipartUpload as UploadListed, Object as ObjectListed,
        Part as PartListed, PostObjectInput, PostObjectOutput, PutObjectInput, PutObjectOutput, Range, StreamingBlob,
        Timestamp, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    runtime::Handle,
};

use super::{
    checksum::{ChecksumAlgorithm, Declared, Received, StoredChecksum, checksum_fields, receive},
    sts::timestamp,
    volume::{Attributes, MultipartUpload, Object, Part, Precondition, Segment, Volume, precondition_failed},
};

/// The most entries on one page of a listing, whatever the request says.
const MAX_PAGE: i32 = 1000;

/// The smallest part but for the last: 5 MiB.
const MIN_PART_BYTES: u64 = 5 << 20;

/// The highest part number.
const MAX_PART_NUMBER: i32 = 10_000;

/// How much of a file is in memory per response.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// What S3 stores as the type of an object that came without one.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The S3 operations on a [`Volume`].
#[derive(Debug)]
pub(super) struct Operations {
    volume: Arc<Volume>,
    region: String,
    runtime: Handle,
}

impl Operations {
    pub(super) fn new(volume: Arc<Volume>, region: String, runtime: Handle) -> Self {
        Self { volume, region, runtime }
    }

    /// Runs `work`, which writes, where waiting for the disk holds up no other request.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Volume) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let volume = Arc::clone(&self.volume);
        self.runtime.spawn_blocking(move || work(&volume)).await.map_err(S3Error::internal_error)?
    }

    async fn put(
        &self,
        bucket: String,
        key: String,
        attributes: Attributes,
        received: Received,
        condition: Precondition,
    ) -> S3Result<Arc<Object>> {
        let object = Object {
            key,
            etag: received.etag,
            size: received.size,
            last_modified: self.volume.now(),
            attributes,
            checksum: Some(received.checksum),
            segments: vec![Segment { blob: Arc::new(received.blob), size: received.size }],
        };
        self.on_disk(move |volume| volume.publish(&bucket, object, &condition)).await
    }
}

/// The stored headers that `$input` sets.
macro_rules! attributes {
    ($input:expr) => {
        Attributes {
            content_type: $input.content_type.take(),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input.content_encoding.take().and_then(|encoding| stored_encoding(&encoding)),
            content_language: $input.content_language.take(),
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
        }
    };
}

/// What `GetObject` and `HeadObject` say of an object alike, apart from its length.
macro_rules! describe {
    ($output:ident, $object:expr, $with_checksum:expr) => {{
        let attributes = &$object.attributes;
        let checksum = $object.checksum.as_ref().filter(|_| $with_checksum).map(StoredChecksum::to_fields);
        let checksum = checksum.unwrap_or_default();
        $output {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: attributes.cache_control.clone(),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            content_disposition: attributes.content_disposition.clone(),
            content_encoding: attributes.content_encoding.clone(),
            content_language: attributes.content_language.clone(),
            content_type: Some(attributes.content_type.clone().unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())),
            e_tag: Some(ETag::Strong($object.etag.clone())),
            last_modified: Some(timestamp($object.last_modified)),
            metadata: Some(attributes.metadata.clone().into_iter().collect()),
            ..$output::default()
        }
    }};
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let name = req.input.bucket;
        let location = format!("/{name}");
        let created = self.on_disk(move |volume| volume.create_bucket(&name).map_err(S3Error::internal_error)).await?;
        if !created {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        Ok(S3Response::new(CreateBucketOutput { location: Some(location) }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.volume.require_bucket(&req.input.bucket)?;
        let region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region: region, ..HeadBucketOutput::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.volume.require_bucket(&req.input.bucket)?;
        // The oldest region is the one without a name here.
        let location = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: location }))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self
            .volume
            .buckets()
            .into_iter()
            .map(|(name, created)| Bucket {
                name: Some(name),
                creation_date: Some(timestamp(created)),
                ..Bucket::default()
            })
            .collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = req.input;
        self.volume.require_bucket(&input.bucket)?;
        let declared = Declared {
            length: Some(required_length(input.content_length)?),
            content_md5: input.content_md5.take(),
            checksum: checksum_fields!(input),
            algorithm: input.checksum_algorithm.take(),
            trailers: req.trailing_headers,
        };
        let received = receive(&self.volume, input.body.take(), declared).await?;
        let condition = Precondition { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
        let attributes = attributes!(input);
        let object = self.put(input.bucket, input.key, attributes, received, condition).await?;
        let checksum = object.checksum.as_ref().map(StoredChecksum::to_fields).unwrap_or_default();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            ..PutObjectOutput::default()
        }))
    }

    async fn post_object(&self, req: S3Request<PostObjectInput>) -> S3Result<S3Response<PostObjectOutput>> {
        let mut input = req.input;
        self.volume.require_bucket(&input.bucket)?;
        let declared = Declared {
            content_md5: input.content_md5.take(),
            checksum: checksum_fields!(input),
            algorithm: input.checksum_algorithm.take(),
            ..Declared::default()
        };
        let received = receive(&self.volume, input.body.take(), declared).await?;
        let attributes = attributes!(input);
        let location = format!("/{}/{}", input.bucket, percent_encode(&input.key));
        let object = self.put(input.bucket, input.key, attributes, received, Precondition::default()).await?;
        // This entity tag goes into XML and a query as it is, where S3 has it in quotes.
        let etag = format!("\"{}\"", object.etag);
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::try_from(&etag).map_err(S3Error::internal_error)?);
        // A redirect has a Location of its own.
        if input.success_action_redirect.is_none() {
            headers.insert(LOCATION, HeaderValue::try_from(location).map_err(S3Error::internal_error)?);
        }
        let output = PostObjectOutput { e_tag: Some(ETag::Strong(etag)), ..PostObjectOutput::default() };
        Ok(S3Response::with_headers(output, headers))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        refuse_versions_and_parts(input.version_id.as_deref(), input.part_number)?;
        let object = self.volume.object(&input.bucket, &input.key)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        if conditions.check(&object)? == Read::NotModified {
            return Err(not_modified(&object)?);
        }
        let mut output = describe!(GetObjectOutput, object, wants_checksum(input.checksum_mode.as_ref()));
        let range = ByteRange::of(input.range, object.size)?;
        output.content_length = i64::try_from(range.length).ok();
        if range.is_partial {
            output.content_range = Some(range.content_range(object.size));
            // The checksum is that of the whole object, which the client does not get.
            (output.checksum_crc32, output.checksum_crc32c, output.checksum_crc64nvme) = (None, None, None);
            (output.checksum_sha1, output.checksum_sha256, output.checksum_type) = (None, None, None);
        }
        output.body = Some(StreamingBlob::wrap(read(object, range.start, range.length)));
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        refuse_versions_and_parts(input.version_id.as_deref(), input.part_number)?;
        let object = self.volume.object(&input.bucket, &input.key)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        if conditions.check(&object)? == Read::NotModified {
            return Err(not_modified(&object)?);
        }
        let mut output = describe!(HeadObjectOutput, object, wants_checksum(input.checksum_mode.as_ref()));
        let range = ByteRange::of(input.range, object.size)?;
        output.content_length = i64::try_from(range.length).ok();
        output.content_range = range.is_partial.then(|| range.content_range(object.size));
        Ok(S3Response::new(output))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, version_id, .. } = req.input;
        refuse_versions_and_parts(version_id.as_deref(), None)?;
        self.on_disk(move |volume| volume.delete(&bucket, &key)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        let quiet = delete.quiet.unwrap_or_default();
        let deleted = self
            .on_disk(move |volume| {
                delete
                    .objects
                    .into_iter()
                    .map(|object| {
                        volume.delete(&bucket, &object.key)?;
                        Ok(DeletedObject { key: Some(object.key), ..DeletedObject::default() })
                    })
                    .collect::<S3Result<Vec<_>>>()
            })
            .await?;
        let output = DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), ..DeleteObjectsOutput::default() };
        Ok(S3Response::new(output))
    }

    /// A copy shares the bytes of its source and has its entity tag, also where S3 would make a new one because the
    /// source was uploaded in parts.
    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let mut input = req.input;
        let CopySource::Bucket { bucket: source_bucket, key: source_key, version_id } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "a copy source is a bucket and a key here"));
        };
        refuse_versions_and_parts(version_id.as_deref(), None)?;
        let replaces =
            input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        if !replaces && **source_bucket == *input.bucket && **source_key == *input.key {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the \
                 object's metadata."
            ));
        }
        let source = self.volume.object(source_bucket, source_key)?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        if conditions.check(&source)? == Read::NotModified {
            return Err(precondition_failed());
        }
        let copy = Object {
            attributes: if replaces { attributes!(input) } else { source.attributes.clone() },
            key: input.key,
            last_modified: self.volume.now(),
            ..Object::clone(&source)
        };
        let condition = write_condition(&req.headers)?;
        let bucket = input.bucket;
        let copy = self.on_disk(move |volume| volume.publish(&bucket, copy, &condition)).await?;
        let checksum = copy.checksum.as_ref().map(StoredChecksum::to_fields).unwrap_or_default();
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(copy.etag.clone())),
            last_modified: Some(timestamp(copy.last_modified)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
        };
        let output = CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let limit = page_size(input.max_keys)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = match &input.continuation_token {
            Some(token) => Some(continuation_key(token)?),
            None => input.start_after.clone(),
        };
        let page = self.volume.list(
            &input.bucket,
            &prefix,
            input.delimiter.as_deref(),
            after.as_deref(),
            usize::try_from(limit).unwrap_or_default(),
        )?;
        let encode = |text: &str| match input.encoding_type.as_ref().map(EncodingType::as_str) {
            Some(EncodingType::URL) => percent_encode(text),
            _ => text.to_owned(),
        };
        let contents: Vec<_> = page
            .objects
            .iter()
            .map(|object| ObjectListed {
                key: Some(encode(&object.key)),
                e_tag: Some(ETag::Strong(object.etag.clone())),
                size: i64::try_from(object.size).ok(),
                last_modified: Some(timestamp(object.last_modified)),
                ..ObjectListed::default()
            })
            .collect();
        let common_prefixes: Vec<_> =
            page.common_prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encode(prefix)) }).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            is_truncated: Some(page.next_after.is_some()),
            next_continuation_token: page.next_after.map(hex::encode),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            max_keys: Some(limit),
            prefix: Some(encode(&prefix)),
            delimiter: input.delimiter.as_deref().map(encode),
            start_after: input.start_after.as_deref().map(encode),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type.clone(),
            name: Some(input.bucket),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let mut input = req.input;
        let algorithm = input.checksum_algorithm.as_ref().map(|name| ChecksumAlgorithm::parse(name.as_str()));
        let algorithm = algorithm.transpose()?;
        if input.checksum_type.as_ref().is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT) {
            return Err(s3_error!(NotImplemented, "full-object checksums of multipart uploads"));
        }
        let attributes = attributes!(input);
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let upload = self.on_disk(move |volume| volume.create_upload(&bucket, &key, attributes, algorithm)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.id),
            checksum_algorithm: input.checksum_algorithm,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let mut input = req.input;
        if !(1..=MAX_PART_NUMBER).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
        }
        // Before the body, so that a client with a stale id does not send it for nothing.
        let upload = self.volume.upload(&input.bucket, &input.key, &input.upload_id)?;
        let declared = Declared {
            length: Some(required_length(input.content_length)?),
            content_md5: input.content_md5.take(),
            checksum: checksum_fields!(input),
            algorithm: input.checksum_algorithm.take(),
            trailers: req.trailing_headers,
        };
        let received = receive(&self.volume, input.body.take(), declared).await?;
        let declared = Some(received.checksum.algorithm).filter(|_| received.checksum_declared);
        if declared != upload.checksum_algorithm {
            return Err(s3_error!(
                InvalidRequest,
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                upload.checksum_algorithm.map_or("null", ChecksumAlgorithm::name),
                declared.map_or("null", ChecksumAlgorithm::name)
            ));
        }
        let part = Part {
            number: input.part_number,
            etag: received.etag.clone(),
            size: received.size,
            last_modified: self.volume.now(),
            checksum: Some(received.checksum.clone()),
            blob: Arc::new(received.blob),
        };
        let (bucket, key, upload_id) = (input.bucket, input.key, input.upload_id);
        self.on_disk(move |volume| volume.put_part(&bucket, &key, &upload_id, part)).await?;
        let checksum = received.checksum.to_fields();
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(received.etag)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..UploadPartOutput::default()
        }))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let limit = page_size(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or_default();
        let upload = self.volume.upload(&input.bucket, &input.key, &input.upload_id)?;
        let mut following = upload.parts.values().filter(|part| part.number > after);
        let parts: Vec<_> = following.by_ref().take(usize::try_from(limit).unwrap_or_default()).collect();
        let is_truncated = following.next().is_some();
        let listed = parts.iter().map(|part| {
            let declared = upload.checksum_algorithm.and(part.checksum.as_ref());
            let checksum = declared.map(StoredChecksum::to_fields).unwrap_or_default();
            PartListed {
                part_number: Some(part.number),
                e_tag: Some(ETag::Strong(part.etag.clone())),
                size: i64::try_from(part.size).ok(),
                last_modified: Some(timestamp(part.last_modified)),
                checksum_crc32: checksum.checksum_crc32,
                checksum_crc32c: checksum.checksum_crc32c,
                checksum_crc64nvme: checksum.checksum_crc64nvme,
                checksum_sha1: checksum.checksum_sha1,
                checksum_sha256: checksum.checksum_sha256,
            }
        });
        Ok(S3Response::new(ListPartsOutput {
            next_part_number_marker: parts.last().map(|part| part.number),
            parts: Some(listed.collect()),
            is_truncated: Some(is_truncated),
            max_parts: Some(limit),
            part_number_marker: Some(after),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            ..ListPartsOutput::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "delimiter"));
        }
        let limit = page_size(input.max_uploads)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let marker = input.key_marker.clone().map(|key| (key, input.upload_id_marker.clone()));
        let uploads = self.volume.uploads(&input.bucket)?;
        let mut following = uploads.iter().filter(|upload| {
            let is_after = marker.as_ref().is_none_or(|(key, id)| match id {
                Some(id) => (&upload.key, &upload.id) > (key, id),
                None => upload.key > *key,
            });
            is_after && upload.key.starts_with(&prefix)
        });
        let page: Vec<_> = following.by_ref().take(usize::try_from(limit).unwrap_or_default()).collect();
        let is_truncated = following.next().is_some();
        let next = page.last().filter(|_| is_truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            next_key_marker: next.map(|upload| upload.key.clone()),
            next_upload_id_marker: next.map(|upload| upload.id.clone()),
            uploads: Some(
                page.iter()
                    .map(|upload| UploadListed {
                        key: Some(upload.key.clone()),
                        upload_id: Some(upload.id.clone()),
                        initiated: Some(timestamp(upload.initiated)),
                        ..UploadListed::default()
                    })
                    .collect(),
            ),
            is_truncated: Some(is_truncated),
            max_uploads: Some(limit),
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            prefix: input.prefix,
            bucket: Some(input.bucket),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let mut input = req.input;
        let declared = checksum_fields!(input);
        let parts = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
        let object_size = input.mpu_object_size;
        let condition = Precondition { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
        let (bucket, key, upload_id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
        let now = self.volume.now();
        let object = self
            .on_disk(move |volume| {
                volume.complete(&bucket, &key, &upload_id, &condition, |upload| {
                    let object = assemble(upload, parts, now)?;
                    if object_size.is_some_and(|size| u64::try_from(size) != Ok(object.size)) {
                        return Err(s3_error!(
                            InvalidRequest,
                            "The provided 'x-amz-mp-object-size' header does not match the size of the parts"
                        ));
                    }
                    if object.checksum.as_ref().is_some_and(|checksum| checksum.contradicts(&declared)) {
                        return Err(s3_error!(BadDigest, "The checksum did not match that of the parts."));
                    }
                    Ok(object)
                })
            })
            .await?;
        let checksum = object.checksum.as_ref().map(StoredChecksum::to_fields).unwrap_or_default();
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, percent_encode(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput { bucket, key, upload_id, .. } = req.input;
        self.on_disk(move |volume| volume.abort(&bucket, &key, &upload_id)).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

/// The object that the listed parts make, if they are the parts that were uploaded.
fn assemble(upload: &MultipartUpload, listed: Vec<CompletedPart>, now: DateTime<Utc>) -> S3Result<Object> {
    let invalid_part = || {
        s3_error!(
            InvalidPart,
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
             specified entity tag may not match the part's entity tag."
        )
    };
    let mut parts: Vec<Arc<Part>> = Vec::with_capacity(listed.len());
    for mut listed in listed {
        let number = listed.part_number.unwrap_or_default();
        if parts.last().is_some_and(|before| before.number >= number) {
            return Err(s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. The parts list must be specified in order by part \
                 number."
            ));
        }
        let part = upload.parts.get(&number).ok_or_else(invalid_part)?;
        if listed.e_tag.as_ref().map(ETag::value) != Some(&part.etag) {
            return Err(invalid_part());
        }
        if let Some(checksum) = &part.checksum {
            let declared = checksum_fields!(listed);
            if checksum.contradicts(&declared) {
                return Err(invalid_part());
            }
            if let Some(algorithm) = upload.checksum_algorithm.filter(|_| !checksum.is_declared_in(&declared)) {
                return Err(s3_error!(
                    InvalidRequest,
                    "The upload was created using a {} checksum. The complete request must include the checksum for \
                     each part. It was missing for part {number} in the request.",
                    algorithm.name().to_ascii_lowercase()
                ));
            }
        }
        parts.push(Arc::clone(part));
    }
    let Some((_, all_but_last)) = parts.split_last() else {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    };
    if all_but_last.iter().any(|part| part.size < MIN_PART_BYTES) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed object size."));
    }
    let mut md5 = Md5::new();
    for part in &parts {
        md5.update(&hex::decode(&part.etag).map_err(S3Error::internal_error)?);
    }
    let checksums: Vec<_> = parts.iter().filter_map(|part| part.checksum.as_ref()).collect();
    Ok(Object {
        key: upload.key.clone(),
        etag: format!("{}-{}", hex::encode(md5.finalize()), parts.len()),
        size: parts.iter().map(|part| part.size).sum(),
        last_modified: now,
        attributes: upload.attributes.clone(),
        checksum: upload.checksum_algorithm.and_then(|algorithm| algorithm.composite(&checksums)),
        segments: parts.iter().map(|part| Segment { blob: Arc::clone(&part.blob), size: part.size }).collect(),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Modified,
    NotModified,
}

/// The conditions of a read.
#[expect(clippy::struct_field_names, reason = "the names of the headers")]
struct ReadConditions<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    /// In the order of RFC 9110, section 13.2.2: an entity tag, where there is one, decides over a date.
    fn check(&self, object: &Object) -> S3Result<Read> {
        let etag = ETag::Strong(object.etag.clone());
        let modified = timestamp(object.last_modified);
        let expected = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => condition.as_etag().is_none_or(|wanted| wanted.strong_cmp(&etag)),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !expected {
            return Err(precondition_failed());
        }
        let known = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => condition.as_etag().is_none_or(|known| known.weak_cmp(&etag)),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        Ok(if known { Read::NotModified } else { Read::Modified })
    }
}

/// The answer to who has the object already: its entity tag again, and no body.
fn not_modified(object: &Object) -> S3Result<S3Error> {
    let etag = HeaderValue::try_from(format!("\"{}\"", object.etag)).map_err(S3Error::internal_error)?;
    let modified = object.last_modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let modified = HeaderValue::try_from(modified).map_err(S3Error::internal_error)?;
    let mut answer = s3_error!(NotModified);
    answer.set_headers([(ETAG, etag), (LAST_MODIFIED, modified)].into_iter().collect());
    Ok(answer)
}

/// The stretch of an object that a response carries.
struct ByteRange {
    start: u64,
    length: u64,
    is_partial: bool,
}

impl ByteRange {
    fn of(range: Option<Range>, size: u64) -> S3Result<Self> {
        let Some(range) = range else { return Ok(Self { start: 0, length: size, is_partial: false }) };
        let range = range.check(size).map_err(|_| s3_error!(InvalidRange, "The requested range is not satisfiable"))?;
        Ok(Self { start: range.start, length: range.end.saturating_sub(range.start), is_partial: true })
    }

    fn content_range(&self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, (self.start + self.length).saturating_sub(1))
    }
}

/// Reads `length` bytes from `start` on, across the blobs of an object. The object is held meanwhile, so that its
/// bytes stay readable when it is replaced or deleted.
fn read(object: Arc<Object>, start: u64, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let mut skip = start;
    let mut remaining = length;
    let mut stretches = Vec::new();
    for segment in &object.segments {
        let skipped = skip.min(segment.size);
        let taken = (segment.size - skipped).min(remaining);
        if taken > 0 {
            stretches.push((segment.blob.path().to_owned(), skipped, taken));
        }
        skip -= skipped;
        remaining -= taken;
    }
    stream::iter(stretches.into_iter().map(io::Result::Ok))
        .and_then(move |(path, from, length)| {
            let held = Arc::clone(&object);
            async move {
                let mut file = File::open(path).await?;
                file.seek(io::SeekFrom::Start(from)).await?;
                Ok(stream::try_unfold((file, length, held), read_chunk))
            }
        })
        .try_flatten()
}

type Reading = (File, u64, Arc<Object>);

async fn read_chunk((mut file, remaining, held): Reading) -> io::Result<Option<(Bytes, Reading)>> {
    if remaining == 0 {
        return Ok(None);
    }
    let wanted = usize::try_from(remaining).unwrap_or(usize::MAX).min(READ_CHUNK_BYTES);
    let mut chunk = BytesMut::with_capacity(wanted);
    let read = (&mut file).take(remaining).read_buf(&mut chunk).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let remaining = remaining - u64::try_from(read).unwrap_or(remaining);
    Ok(Some((chunk.freeze(), (file, remaining, held))))
}

fn required_length(content_length: Option<i64>) -> S3Result<u64> {
    content_length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header."))
}

/// `aws-chunked` is how the body travelled, and not what the object is encoded in.
fn stored_encoding(encoding: &str) -> Option<String> {
    let kept: Vec<_> = encoding.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked").collect();
    Some(kept.join(",")).filter(|encoding| !encoding.is_empty())
}

/// The write conditions of `CopyObject`, which its input type does not have.
fn write_condition(headers: &HeaderMap) -> S3Result<Precondition> {
    let condition = |name: &str| -> S3Result<Option<ETagCondition>> {
        headers
            .get(name)
            .map(|value| ETagCondition::parse_http_header(value.as_bytes()))
            .transpose()
            .map_err(|_| s3_error!(InvalidArgument, "{name} is neither * nor an entity tag"))
    };
    Ok(Precondition { if_match: condition("if-match")?, if_none_match: condition("if-none-match")? })
}

fn wants_checksum(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// There is one version of everything, which S3 calls `null`, and no reading by part.
fn refuse_versions_and_parts(version_id: Option<&str>, part_number: Option<i32>) -> S3Result<()> {
    if version_id.is_some_and(|version| version != "null") {
        return Err(s3_error!(NoSuchVersion, "The specified version does not exist."));
    }
    if part_number.is_some() {
        return Err(s3_error!(NotImplemented, "partNumber"));
    }
    Ok(())
}

fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        None => Ok(MAX_PAGE),
        Some(asked) if asked < 0 => Err(s3_error!(InvalidArgument, "A page has at least 0 entries")),
        Some(asked) => Ok(asked.min(MAX_PAGE)),
    }
}

fn continuation_key(token: &str) -> S3Result<String> {
    hex::decode(token)
        .ok()
        .and_then(|key| String::from_utf8(key).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

/// Encodes all but unreserved characters and slashes, as `encoding-type=url` does.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(byte.into()),
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}
