//! The contract of Companion, which Uppy speaks: `companionEndpoint` of `@uppy/aws-s3` 6, `endpoint` of 5.
//!
//! Uppy asks with the name and the type of a file and not with its size, so the promise is a limit: what the policy
//! allows at most. The answers are read at <https://github.com/transloadit/uppy>, `packages/@uppy/aws-s3/src` and
//! `packages/@uppy/companion/src/server/controllers/s3.js`.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{JsonBody, Object, Query, UploadId, Uploader},
    parts::{ClaimedPartBody, PARTS_BODY},
    uploads::{checked, checked_metadata},
};
use crate::{
    db::UploadIntent,
    domain::{Claim, Confirmer, DomainError, IssueRequest, PartsRequest, SignedPart, UploadTarget},
    model::{ContentType, FileName, IntentId, Metadata, PartNumber, UploadMethod},
};

/// What a part's URL should live at least: the client may have other files to send before it begins. Where the policy
/// gives less than twice that, half of what it gives.
const LEAST_LIFE: Duration = Duration::from_mins(1);

/// `GET /s3/params?filename=&type=&metadata[…]=`: a form, because Uppy sends one whatever it is told.
pub(super) async fn params(
    state: web::Data<State>,
    uploader: Uploader,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let request = asked(&uploader, query.0)?;
    let request = IssueRequest { method: Some(UploadMethod::Post), ..request };
    let issued = state.service.issue_upload(uploader.caller(), request, None).await?;
    let Some(UploadTarget::Post(form)) = &issued.target else {
        return Err(ApiError::with_detail(ErrorCode::Internal, "a form was asked for, and something else issued"));
    };
    let fields = RawValue::from_string(form.fields_json());
    let fields = fields.map_err(|error| ApiError::with_detail(ErrorCode::Internal, error.to_string()))?;
    let expires = (form.expires_at - state.service.clock.now()).num_seconds();
    Ok(HttpResponse::Ok().json(ParamsView { method: "POST", url: &form.url, fields: &fields, expires }))
}

/// `POST /s3/multipart`
pub(super) async fn create(
    state: web::Data<State>,
    uploader: Uploader,
    body: JsonBody<CreateBody>,
) -> Result<HttpResponse, ApiError> {
    let CreateBody { filename, r#type, metadata } = body.value;
    let metadata = metadata.into_iter().map(|(name, value)| match value {
        serde_json::Value::String(text) => (name, text),
        other => (name, other.to_string()),
    });
    let metadata = metadata.filter_map(carried).collect();
    let begun = begin(&state, &uploader, described(&uploader, filename, r#type, metadata)?).await?;
    let (key, upload_id) = (begun.object_key.as_str(), begun.id);
    Ok(HttpResponse::Ok().json(CreatedView { key, upload_id, bucket: &begun.bucket }))
}

/// `GET /s3/multipart/{id}?key=`
pub(super) async fn list(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    known(&state, &uploader, id.0, query.get("key")).await?;
    let stored = state.service.uploaded_parts(&uploader.principal, id.0).await?;
    let parts = stored.parts.iter().map(|part| PartView {
        part_number: part.number,
        etag: format!("\"{}\"", part.etag),
        size: part.size,
    });
    Ok(HttpResponse::Ok().json(parts.collect::<Vec<_>>()))
}

/// `GET /s3/multipart/{id}/{part}?key=`
pub(super) async fn sign_part(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    known(&state, &uploader, id.0, query.get("key")).await?;
    let numbers = part_numbers(request.match_info().get("part").unwrap_or_default())?;
    let signed = sign_parts(&state, &uploader, id.0, numbers).await?;
    let part = signed.first().ok_or_else(|| ApiError::with_detail(ErrorCode::Internal, "no part was signed"))?;
    let expires = (part.url.expires_at - state.service.clock.now()).num_seconds();
    Ok(HttpResponse::Ok().json(SignedPartView { url: part.url.url(), expires }))
}

/// `GET /s3/multipart/{id}/batch?key=&partNumbers=1,2`
pub(super) async fn sign_batch(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    known(&state, &uploader, id.0, query.get("key")).await?;
    let signed = sign_parts(&state, &uploader, id.0, part_numbers(query.get("partNumbers"))?).await?;
    let presigned_urls = signed.iter().map(|part| (part.number.get(), part.url.url())).collect();
    Ok(HttpResponse::Ok().json(SignedBatchView { presigned_urls }))
}

/// `POST /s3/multipart/{id}/complete?key=`
pub(super) async fn complete(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
    query: Query,
    body: JsonBody<CompleteBody, PARTS_BODY>,
) -> Result<HttpResponse, ApiError> {
    known(&state, &uploader, id.0, query.get("key")).await?;
    let parts = body.value.parts.into_iter().map(|Object(part)| part).collect();
    let upload = complete_parts(&state, &uploader, id.0, parts).await?;
    let location = format!("{}/api/v1/uploads/{}", state.base_url, upload.id);
    Ok(HttpResponse::Ok().json(CompletedView { location, key: upload.object_key.as_str(), bucket: &upload.bucket }))
}

/// `DELETE /s3/multipart/{id}?key=`
pub(super) async fn abort(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    known(&state, &uploader, id.0, query.get("key")).await?;
    state.service.abort_upload(&uploader.principal, id.0).await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({})))
}

/// Begins an upload in parts that the client cuts as it likes.
pub(super) async fn begin(
    state: &State,
    uploader: &Uploader,
    request: IssueRequest,
) -> Result<Box<UploadIntent>, ApiError> {
    let request = IssueRequest { method: Some(UploadMethod::Multipart), ..request };
    Ok(state.service.issue_upload(uploader.caller(), request, None).await?.intent)
}

/// Signs parts, and renews the upload before that where it has to be or soon would: these clients know of no renewing.
pub(super) async fn sign_parts(
    state: &State,
    uploader: &Uploader,
    id: IntentId,
    part_numbers: Vec<u64>,
) -> Result<Vec<SignedPart>, ApiError> {
    let request = PartsRequest { part_numbers, checksums_sha256: BTreeMap::new() };
    let now = state.service.clock.now();
    let document = state.service.policies.current();
    let life = document.policy(&uploader.policy, now).map_or(LEAST_LIFE, |rules| rules.upload_expires_in);
    let least = LEAST_LIFE.min(life / 2);
    let is_good = |part: &SignedPart| (part.url.expires_at - now).to_std().is_ok_and(|left| left >= least);
    match state.service.sign_parts(uploader.caller(), id, &request).await {
        Ok(parts) if parts.iter().all(is_good) => Ok(parts),
        Ok(_) | Err(DomainError::NetworkChanged | DomainError::RenewRequired) => {
            state.service.renew_upload(uploader.caller(), id, None).await?;
            Ok(state.service.sign_parts(uploader.caller(), id, &request).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts the upload together from `parts` and confirms it.
pub(super) async fn complete_parts(
    state: &State,
    uploader: &Uploader,
    id: IntentId,
    parts: Vec<PartBody>,
) -> Result<UploadIntent, ApiError> {
    let parts: Vec<_> =
        parts.into_iter().map(|part| ClaimedPartBody { part_number: part.number, etag: part.etag }).collect();
    let parts = ClaimedPartBody::validate(&parts)?;
    let claim = Claim { etag: None, parts: &parts };
    Ok(state.service.confirm_upload(id, Confirmer::Owner(&uploader.principal), claim).await?)
}

/// Refuses an id that is not the uploader's, or not of this key: Companion's clients name both.
async fn known(state: &State, uploader: &Uploader, id: IntentId, key: &str) -> Result<(), ApiError> {
    let upload = state.service.owned_upload(&uploader.principal, id).await?;
    if upload.object_key.as_str() == key { Ok(()) } else { Err(ApiError::new(ErrorCode::NotFound)) }
}

/// Numbers with commas between them.
fn part_numbers(text: &str) -> Result<Vec<u64>, ApiError> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(str::parse).collect();
    numbers.map_err(|_| {
        let field = FieldError::new("partNumbers", "must be numbers of parts, with commas between them");
        ApiError::fields(ErrorCode::InvalidRequest, vec![field.with_received(text)])
    })
}

/// The body of [`create`]. Fields that are not known are not looked at, as Companion does.
#[derive(Debug, Deserialize)]
pub(super) struct CreateBody {
    filename: String,
    r#type: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
}

/// The body of [`complete`].
#[derive(Debug, Deserialize)]
pub(super) struct CompleteBody {
    parts: Vec<Object<PartBody>>,
}

/// A part that was sent, as S3 spells it.
#[derive(Debug, Deserialize)]
pub(super) struct PartBody {
    #[serde(rename = "PartNumber")]
    number: u64,
    #[serde(rename = "ETag")]
    etag: String,
}

/// `GET /s3/sts`, which this service does not do: the contract names no file, and credentials are given for recorded
/// uploads alone.
pub(super) async fn sts(_uploader: Uploader) -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(ErrorCode::CredentialsNotGiven))
}

/// What the query of [`params`] asks for.
fn asked(uploader: &Uploader, mut query: BTreeMap<String, String>) -> Result<IssueRequest, ApiError> {
    let (filename, r#type) = (query.remove("filename"), query.remove("type"));
    let metadata = metadata_of(query).filter_map(carried).collect();
    described(uploader, filename.unwrap_or_default(), r#type, metadata)
}

/// The entries `metadata[<name>]` of a query.
pub(super) fn metadata_of(query: BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    query.into_iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("metadata[")?.strip_suffix(']')?.to_owned();
        Some((name, value))
    })
}

/// An upload of a file of unknown size, as Uppy describes it.
pub(super) fn described(
    uploader: &Uploader,
    filename: String,
    r#type: Option<String>,
    metadata: BTreeMap<String, String>,
) -> Result<IssueRequest, ApiError> {
    let mut errors = Vec::new();
    let original_file_name = checked(&mut errors, "filename", filename, FileName::parse);
    let r#type = r#type.filter(|text| !text.is_empty());
    let content_type = r#type.and_then(|text| checked(&mut errors, "type", text, str::parse::<ContentType>));
    let metadata = checked_metadata(&mut errors, metadata, |name| format!("metadata[{name}]"));
    match original_file_name {
        Some(original_file_name) if errors.is_empty() => Ok(IssueRequest {
            original_file_name,
            file_size: None,
            content_type,
            policy: uploader.policy.clone(),
            method: None,
            checksum_sha256: None,
            part_checksums: false,
            free_parts: true,
            content_md5: None,
            metadata,
            expires_in: None,
            form_return: None,
        }),
        _ => Err(ApiError::fields(ErrorCode::InvalidRequest, errors)),
    }
}

/// An entry of Uppy's metadata as a header can carry it. Uppy sends the whole `meta` of a file unless it is told not to:
/// name and type, which the upload records anyway, and entries without a value.
fn carried((name, value): (String, String)) -> Option<(String, String)> {
    if matches!(name.as_str(), "name" | "type") || matches!(value.as_str(), "" | "null" | "undefined") {
        return None;
    }
    // RFC 2047, as Companion does.
    let value = if Metadata::carries(&value) { value } else { format!("=?UTF-8?B?{}?=", STANDARD.encode(value)) };
    // Names of headers have no case, and stores give them back in lower case.
    Some((name.to_ascii_lowercase(), value))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedView<'a> {
    key: &'a str,
    upload_id: IntentId,
    bucket: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PartView {
    part_number: PartNumber,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

#[derive(Serialize)]
struct SignedPartView<'a> {
    url: &'a str,
    expires: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedBatchView<'a> {
    presigned_urls: BTreeMap<u16, &'a str>,
}

#[derive(Serialize)]
struct CompletedView<'a> {
    location: String,
    key: &'a str,
    bucket: &'a str,
}

#[derive(Serialize)]
struct ParamsView<'a> {
    method: &'static str,
    url: &'a str,
    fields: &'a RawValue,
    expires: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_made_fit_for_headers_or_left_out() {
        let carried = |name: &str, value: &str| carried((name.to_owned(), value.to_owned()));
        let entry = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(carried("caption", "a b"), entry("caption", "a b"));
        assert_eq!(carried("albumId", "7"), entry("albumid", "7"));
        assert_eq!(carried("caption", "\u{e9}"), entry("caption", "=?UTF-8?B?w6k=?="));
        assert_eq!(carried("caption", "a  b"), entry("caption", "=?UTF-8?B?YSAgYg==?="));
        for (name, value) in [("name", "a.txt"), ("type", "text/plain"), ("relativePath", "null"), ("caption", "")] {
            assert_eq!(carried(name, value), None, "{name}");
        }
    }
}
