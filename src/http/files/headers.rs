//! What is said about a file, whichever way it goes.

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::header::{self, HttpDate, LastModified},
};

use super::conditional::second;
use crate::{
    domain::FileFacts,
    http::{ApiError, ErrorCode},
};

/// Nobody else's cache may keep it, and the reader's own has to ask here again, where permission may have ended.
pub(super) const CACHE_CONTROL: &str = "private, no-cache";

/// Of files that a browser would run, should they ever be shown: no scripts, no requests, no origin.
pub(super) const SANDBOX: &str = "sandbox; default-src 'none'";

/// Puts into `response` what does not depend on who sends the bytes.
pub(super) fn describe(response: &mut HttpResponseBuilder, file: &FileFacts) {
    identify(response, file)
        .insert_header((header::CONTENT_TYPE, file.content_type.as_str()))
        .insert_header((header::CONTENT_DISPOSITION, file.content_disposition.as_str()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if file.is_active {
        response.insert_header((header::CONTENT_SECURITY_POLICY, SANDBOX));
    }
}

/// The entity tag as the header has it.
pub(super) fn etag(file: &FileFacts) -> String {
    format!("\"{}\"", file.etag)
}

/// When the file was last changed.
pub(super) fn last_modified(file: &FileFacts) -> HttpDate {
    HttpDate::from(second(file.last_modified))
}

fn identify<'r>(response: &'r mut HttpResponseBuilder, file: &FileFacts) -> &'r mut HttpResponseBuilder {
    response
        .insert_header((header::ETAG, etag(file)))
        .insert_header(LastModified(last_modified(file)))
        .insert_header((header::CACHE_CONTROL, CACHE_CONTROL))
}

/// The client has it already (RFC 9110 section 15.4.5).
pub(super) fn not_modified(file: &FileFacts) -> HttpResponse {
    identify(&mut HttpResponse::NotModified(), file).finish()
}

/// The file has nothing of what was asked for (section 15.5.17).
pub(super) fn not_satisfiable(file: &FileFacts) -> HttpResponse {
    let mut response = HttpResponse::from_error(ApiError::new(ErrorCode::RangeNotSatisfiable));
    if let Ok(size) = format!("bytes */{}", file.size).parse() {
        response.headers_mut().insert(header::CONTENT_RANGE, size);
    }
    response
}
