//! The contract of `signRequest` of `@uppy/aws-s3` 6: the page hands on what Uppy wants to send, and gets a URL for it.
//!
//! Only the bytes go to the store. What Uppy would tell the store about a multipart upload it tells this service, which
//! speaks the same XML: so nobody but the service can begin, list, complete or abort one.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    ApiError, ErrorCode, FieldError, State,
    companion::sign_parts,
    extract::{JsonBody, Uploader},
    issued::{CallbackView, Headers},
    uploads::{FileSize, checked, checked_life, checked_metadata},
};
use crate::{
    domain::{DomainError, IssueRequest, IssuedUpload, UploadTarget},
    model::{ContentType, FileName, IntentId, UploadMethod},
    policy::Refusal,
};

/// The life of an address at which this service speaks XML. Uppy asks for a fresh one before every request.
const SPOKEN_LIFE: Duration = Duration::from_mins(5);

/// `POST /api/v1/sign`
pub(super) async fn sign(
    state: web::Data<State>,
    uploader: Uploader,
    body: JsonBody<SignBody>,
) -> Result<HttpResponse, ApiError> {
    let body = body.value;
    let upload =
        body.upload_id.as_deref().map(|id| id.parse::<IntentId>().map_err(|_| ApiError::new(ErrorCode::NotFound)));
    match (body.method.as_str(), upload.transpose()?, body.part_number) {
        ("PUT", None, None) => object(&state, &issue(&state, &uploader, body.object(&uploader)?).await?),
        ("PUT", Some(id), Some(number)) => {
            let parts = sign_parts(&state, &uploader, id, vec![number]).await?;
            let part = parts.first().ok_or_else(|| ApiError::with_detail(ErrorCode::Internal, "no part was signed"))?;
            Ok(signed(part.url.url(), part.url.expires_at))
        }
        ("POST", None, None) => beginning(&state, &uploader, &body.object(&uploader)?),
        ("GET" | "POST" | "DELETE", Some(id), None) => continuing(&state, &uploader, id).await,
        (received, ..) => {
            let rule =
                "must be what Uppy's uploader sends: PUT, POST without partNumber, or with uploadId GET or DELETE";
            let field = FieldError::new("method", rule).with_received(received);
            Err(ApiError::fields(ErrorCode::InvalidRequest, vec![field]))
        }
    }
}

/// Issues a PUT where the size is known and the policy has PUTs, and a form otherwise.
async fn issue(state: &State, uploader: &Uploader, request: IssueRequest) -> Result<IssuedUpload, ApiError> {
    if request.file_size.is_none() {
        // What can hold it to a limit in one request is for the policy to say.
        return Ok(state.service.issue_upload(uploader.caller(), request, None).await?);
    }
    let put = IssueRequest { method: Some(UploadMethod::Put), ..request.clone() };
    match state.service.issue_upload(uploader.caller(), put, None).await {
        Err(DomainError::Refused(Refusal::MethodNotAllowed { .. })) => {
            let form = IssueRequest { method: Some(UploadMethod::Post), ..request };
            Ok(state.service.issue_upload(uploader.caller(), form, None).await?)
        }
        issued => Ok(issued?),
    }
}

/// The address at which an upload in parts is begun, in the XML that Uppy expects of the store.
fn beginning(state: &State, uploader: &Uploader, request: &IssueRequest) -> Result<HttpResponse, ApiError> {
    let (base, expires_at) = spoken(state, uploader, request.policy.clone(), None)?;
    let mut url = Url::parse(&base).map_err(|error| ApiError::with_detail(ErrorCode::Internal, error.to_string()))?;
    url.query_pairs_mut().append_pair("uploads", "").append_pair("file_name", request.original_file_name.as_str());
    if let Some(size) = request.file_size {
        url.query_pairs_mut().append_pair("size", &size.to_string());
    }
    for (name, value) in request.metadata.iter() {
        url.query_pairs_mut().append_pair(&format!("metadata[{name}]"), value);
    }
    Ok(signed(url.as_str(), expires_at))
}

/// The address at which an upload in parts is listed, completed and aborted.
async fn continuing(state: &State, uploader: &Uploader, id: IntentId) -> Result<HttpResponse, ApiError> {
    let policy = state.service.owned_upload(&uploader.principal, id).await?.policy;
    let (base, expires_at) = spoken(state, uploader, policy, Some(id))?;
    Ok(signed(&format!("{base}/{id}"), expires_at))
}

/// Where this service speaks XML with the uploader, and until when.
fn spoken(
    state: &State,
    uploader: &Uploader,
    policy: String,
    upload: Option<IntentId>,
) -> Result<(String, DateTime<Utc>), ApiError> {
    let granted = state.service.grant_capability(uploader.caller(), policy, upload, Some(SPOKEN_LIFE))?;
    let base = format!("{}/u/{}/xml", state.base_url, granted.token.expose_secret());
    Ok((base, granted.capability.principal.authenticated_until))
}

fn signed(url: &str, expires_at: DateTime<Utc>) -> HttpResponse {
    HttpResponse::Ok().json(SignedView { url, expires_at })
}

/// What Uppy hands to `signRequest`, and what a page may add that knows more. Pages pass on what they are given, so a
/// field that a later Uppy adds is no mistake of anybody.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignBody {
    method: String,
    key: String,
    content_type: Option<String>,
    upload_id: Option<String>,
    part_number: Option<u64>,
    expires_in: Option<u32>,
    /// The exact size of the file, without which the promise is a limit.
    size: Option<FileSize>,
    /// The name of the file, which is guessed from `key` otherwise.
    file_name: Option<String>,
    policy: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

impl SignBody {
    /// The upload that a `PutObject` asks for.
    fn object(self, uploader: &Uploader) -> Result<IssueRequest, ApiError> {
        let mut errors = Vec::new();
        let name = self.file_name.unwrap_or_else(|| proposed_name(&self.key).to_owned());
        let original_file_name = checked(&mut errors, "key", name, FileName::parse);
        let expires_in = checked_life(&mut errors, "expiresIn", self.expires_in);
        let content_type = self.content_type.filter(|text| !text.is_empty());
        let content_type =
            content_type.and_then(|text| checked(&mut errors, "contentType", text, str::parse::<ContentType>));
        let metadata =
            checked_metadata(&mut errors, self.metadata.unwrap_or_default(), |name| format!("metadata.{name}"));
        match original_file_name {
            Some(original_file_name) if errors.is_empty() => Ok(IssueRequest {
                original_file_name,
                file_size: self.size.map(|size| size.0),
                content_type,
                policy: self.policy.unwrap_or_else(|| uploader.policy.clone()),
                method: None,
                checksum_sha256: None,
                part_checksums: false,
                free_parts: false,
                content_md5: None,
                metadata,
                expires_in,
                form_return: None,
            }),
            _ => Err(ApiError::fields(ErrorCode::InvalidRequest, errors)),
        }
    }
}

/// The name in the key that Uppy proposes: `<UUID>-<name>`, unless the page makes keys of its own.
fn proposed_name(key: &str) -> &str {
    let last = key.rsplit('/').next().unwrap_or_default();
    let uuid = last.get(..36).filter(|uuid| Uuid::try_parse(uuid).is_ok());
    let name = uuid.and_then(|_| last.get(36..)?.strip_prefix('-'));
    name.filter(|name| !name.is_empty()).unwrap_or(last)
}

fn object(state: &State, issued: &IssuedUpload) -> Result<HttpResponse, ApiError> {
    let fields;
    let (url, form, headers, expires_at) = match &issued.target {
        Some(UploadTarget::Put(put)) => (put.url(), None, Some(Headers(&put.headers)), put.expires_at),
        Some(UploadTarget::Post(form)) => {
            fields = RawValue::from_string(form.fields_json())
                .map_err(|error| ApiError::with_detail(ErrorCode::Internal, error.to_string()))?;
            (form.url.as_str(), Some(&*fields), None, form.expires_at)
        }
        Some(UploadTarget::Multipart { .. } | UploadTarget::Credentials(_)) | None => {
            return Err(ApiError::with_detail(
                ErrorCode::Internal,
                "one request was asked for, and something else issued",
            ));
        }
    };
    Ok(HttpResponse::Ok().json(SignedObjectView {
        url,
        key: issued.intent.object_key.as_str(),
        fields: form,
        headers,
        id: issued.intent.id,
        method: issued.intent.method,
        expires_at,
        callback: CallbackView::of(state, issued),
    }))
}

/// What Uppy reads of anything else.
#[derive(Serialize)]
struct SignedView<'a> {
    url: &'a str,
    expires_at: DateTime<Utc>,
}

/// What Uppy reads of an object, and what a page may keep to confirm the upload.
#[derive(Serialize)]
struct SignedObjectView<'a> {
    url: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Headers<'a>>,
    id: IntentId,
    method: UploadMethod,
    expires_at: DateTime<Utc>,
    callback: Option<CallbackView<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_what_follows_the_uuid_of_a_proposed_key() {
        let uuid = "6f1e7f0a-0f0b-4b52-9d0b-3c9b1a6b0e11";
        for (key, name) in [
            (format!("{uuid}-report.pdf"), "report.pdf"),
            (format!("folder/{uuid}-\u{e9}.txt"), "\u{e9}.txt"),
            ("folder/report.pdf".to_owned(), "report.pdf"),
            (format!("{uuid}-"), &format!("{uuid}-")),
            (uuid.to_owned(), uuid),
            ("\u{e9}".repeat(20), &"\u{e9}".repeat(20)),
        ] {
            assert_eq!(proposed_name(&key), name);
        }
    }
}
