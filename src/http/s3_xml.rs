//! The XML of Amazon S3, as far as Uppy speaks it: what it would tell the store about a multipart upload, it tells this
//! service.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, dev::Payload, http::header, web};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, FieldError, State,
    companion::{PartBody, begin, complete_parts, described, metadata_of},
    extract::{Query, UploadId, Uploader, read_body},
    parts::PARTS_BODY,
    uploads::FileSize,
};
use crate::domain::IssueRequest;

/// The media type, spelt exactly as clients compare it.
const CONTENT_TYPE: &str = "application/xml";

/// `POST /u/{capability}/xml?uploads&file_name=`: `CreateMultipartUpload`.
pub(super) async fn create(
    state: web::Data<State>,
    uploader: Uploader,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let mut query = query.0;
    let file_size = query
        .remove("size")
        .map(|size| FileSize::parse(&size))
        .transpose()
        .map_err(|rule| ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new("size", rule)]))?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let name = query.remove("file_name").unwrap_or_default();
    let described = described(&uploader, name, content_type.map(str::to_owned), metadata_of(query).collect())?;
    let file_size = file_size.map(|size| size.0);
    let issued = begin(&state, &uploader, IssueRequest { file_size, ..described }).await?;
    Ok(body(
        HttpResponse::Ok(),
        &Initiated { bucket: &issued.bucket, key: issued.object_key.as_str(), upload_id: issued.id.to_string() },
    ))
}

/// `GET /u/{capability}/xml/{id}`: `ListParts`, all of them at once.
pub(super) async fn list(state: web::Data<State>, uploader: Uploader, id: UploadId) -> Result<HttpResponse, ApiError> {
    let stored = state.service.uploaded_parts(&uploader.principal, id.0).await?;
    let parts = stored.parts.iter().map(|part| ListedPart {
        part_number: part.number.get(),
        etag: format!("\"{}\"", part.etag),
        size: part.size,
    });
    let listed = Listed { upload_id: id.0.to_string(), is_truncated: false, parts: parts.collect() };
    Ok(body(HttpResponse::Ok(), &listed))
}

/// `POST /u/{capability}/xml/{id}`: `CompleteMultipartUpload`.
pub(super) async fn complete(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let parts = claimed(&request, payload.into_inner()).await?;
    let upload = complete_parts(&state, &uploader, id.0, parts).await?;
    Ok(body(
        HttpResponse::Ok(),
        &Completed {
            location: format!("{}/api/v1/uploads/{}", state.base_url, upload.id),
            bucket: &upload.bucket,
            key: upload.object_key.as_str(),
            etag: upload.etag.as_ref().map(|etag| format!("\"{etag}\"")),
        },
    ))
}

/// `DELETE /u/{capability}/xml/{id}`: `AbortMultipartUpload`.
pub(super) async fn abort(state: web::Data<State>, uploader: Uploader, id: UploadId) -> Result<HttpResponse, ApiError> {
    state.service.abort_upload(&uploader.principal, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn claimed(request: &HttpRequest, payload: Payload) -> Result<Vec<PartBody>, ApiError> {
    let bytes = read_body(request, payload, PARTS_BODY).await?;
    let read: Result<CompleteBody, _> = quick_xml::de::from_reader(&*bytes);
    read.map(|body| body.parts).map_err(|error| ApiError::with_detail(ErrorCode::InvalidXml, error.to_string()))
}

/// `value` as the body of `response`.
pub(super) fn body(mut response: HttpResponseBuilder, value: &impl Serialize) -> HttpResponse {
    match quick_xml::se::to_string(value) {
        Ok(xml) => {
            response.content_type(CONTENT_TYPE).body(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{xml}"))
        }
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

#[derive(Debug, Deserialize)]
struct CompleteBody {
    #[serde(default, rename = "Part")]
    parts: Vec<PartBody>,
}

/// A failure, as S3 tells it.
#[derive(Debug, Serialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
pub(super) struct Error<'a> {
    pub code: &'a str,
    pub message: &'a str,
    pub request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename = "InitiateMultipartUploadResult", rename_all = "PascalCase")]
struct Initiated<'a> {
    bucket: &'a str,
    key: &'a str,
    upload_id: String,
}

#[derive(Serialize)]
#[serde(rename = "ListPartsResult", rename_all = "PascalCase")]
struct Listed {
    upload_id: String,
    is_truncated: bool,
    #[serde(rename = "Part")]
    parts: Vec<ListedPart>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPart {
    part_number: u16,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename = "CompleteMultipartUploadResult", rename_all = "PascalCase")]
struct Completed<'a> {
    location: String,
    bucket: &'a str,
    key: &'a str,
    #[serde(rename = "ETag", skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}
