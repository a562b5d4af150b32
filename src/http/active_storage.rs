//! The contract of Active Storage's direct uploads, which `@rails/activestorage` speaks.
//!
//! The client tells size and MD5, so the promise is exact and the store checks the bytes. It calls nobody when it is
//! through: the page submits `signed_id`, with which the application's backend confirms.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, State,
    extract::{JsonBody, Object, Uploader},
    issued::Headers,
    uploads::{FileSize, checked},
};
use crate::{
    domain::{IssueRequest, IssuedUpload, UploadTarget},
    model::{ContentType, FileName, IntentId, Md5Digest, Metadata, UploadMethod},
};

/// `POST /rails/active_storage/direct_uploads`
pub(super) async fn issue(
    state: web::Data<State>,
    uploader: Uploader,
    body: JsonBody<DirectUploadBody>,
) -> Result<HttpResponse, ApiError> {
    let Object(blob) = body.value.blob;
    let checksum = blob.checksum.clone();
    let issued = state.service.issue_upload(uploader.caller(), blob.validate(&uploader)?, None).await?;
    let (Some(UploadTarget::Put(put)), Some(token)) = (&issued.target, &issued.callback_token) else {
        return Err(ApiError::with_detail(ErrorCode::Internal, "a PUT was asked for, and something else issued"));
    };
    let IssuedUpload { intent, .. } = &issued;
    Ok(HttpResponse::Ok().json(BlobView {
        id: intent.id,
        key: intent.object_key.as_str(),
        filename: intent.original_file_name.as_str(),
        content_type: intent.content_type.as_str(),
        metadata: &intent.metadata,
        service_name: "presignd",
        byte_size: intent.file_size.bytes(),
        checksum: &checksum,
        created_at: intent.created_at,
        // What the backend needs to confirm, and nothing that opens anything.
        signed_id: format!("{}.{}", intent.id, token.expose_secret()),
        direct_upload: DirectUploadView { url: put.url(), headers: Headers(&put.headers) },
    }))
}

/// The body that the client sends. Fields that it does not send are not looked at, as Rails does.
#[derive(Debug, Deserialize)]
pub(super) struct DirectUploadBody {
    blob: Object<BlobBody>,
}

#[derive(Debug, Deserialize)]
struct BlobBody {
    filename: String,
    content_type: Option<String>,
    byte_size: FileSize,
    /// Base64 of the MD5.
    checksum: String,
}

impl BlobBody {
    fn validate(self, uploader: &Uploader) -> Result<IssueRequest, ApiError> {
        let mut errors = Vec::new();
        let original_file_name = checked(&mut errors, "blob.filename", self.filename, FileName::parse);
        let content_type = self.content_type.filter(|text| !text.is_empty());
        let content_type =
            content_type.and_then(|text| checked(&mut errors, "blob.content_type", text, str::parse::<ContentType>));
        let content_md5 = checked(&mut errors, "blob.checksum", self.checksum, Md5Digest::from_base64);
        match original_file_name {
            Some(original_file_name) if errors.is_empty() => Ok(IssueRequest {
                original_file_name,
                file_size: Some(self.byte_size.0),
                content_type,
                policy: uploader.policy.clone(),
                // The client knows no other.
                method: Some(UploadMethod::Put),
                checksum_sha256: None,
                part_checksums: false,
                free_parts: false,
                content_md5,
                metadata: Metadata::default(),
                expires_in: None,
                form_return: None,
            }),
            _ => Err(ApiError::fields(ErrorCode::InvalidRequest, errors)),
        }
    }
}

#[derive(Serialize)]
struct BlobView<'a> {
    id: IntentId,
    key: &'a str,
    filename: &'a str,
    content_type: &'a str,
    metadata: &'a Metadata,
    service_name: &'static str,
    byte_size: u64,
    checksum: &'a str,
    created_at: DateTime<Utc>,
    signed_id: String,
    direct_upload: DirectUploadView<'a>,
}

#[derive(Serialize)]
struct DirectUploadView<'a> {
    url: &'a str,
    headers: Headers<'a>,
}
