//! Issuing many uploads at once.

use actix_web::{HttpRequest, HttpResponse, http::header::ContentType, web};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, ClientAddress, JsonBody, parse},
    issued::issued_json,
    json_object::JsonObject,
    request::RequestId,
    uploads::{IssueUploadBody, idempotency_key},
};
use crate::domain::{IssueRequest, IssuedUpload, MAX_BATCH};

/// What a body may have at least, in bytes: 100 files with the longest names and metadata.
const BATCH_BODY: usize = 1 << 20;

/// What is expected of one result in an answer, in bytes: a form with the token of a session.
const RESULT_SIZE: usize = 8192;

/// `POST /api/v1/uploads/batch`
pub(super) async fn issue(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    request: HttpRequest,
    body: JsonBody<BatchBody, BATCH_BODY>,
) -> Result<HttpResponse, ApiError> {
    let idempotency_key = idempotency_key(&request, &body.bytes)?;
    let requests = body.value.validate(&state)?;
    let results = state.service.issue_uploads(user.at(address), requests, idempotency_key).await?;
    let request_id = RequestId::of(&request);
    let mut body = Vec::with_capacity(RESULT_SIZE * results.len());
    let mut separator: &[u8] = b"{\"results\":[";
    for result in &results {
        body.extend_from_slice(separator);
        separator = b",";
        body.extend_from_slice(&result_json(&state, result, &request_id)?);
    }
    body.extend_from_slice(b"]}");
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// What a request of its own would have been answered.
fn result_json(state: &State, result: &Result<IssuedUpload, ApiError>, request_id: &str) -> Result<Vec<u8>, ApiError> {
    let mut object = JsonObject::new(RESULT_SIZE);
    match result {
        Ok(upload) => object.member("status", &201)?.raw("upload", &issued_json(state, upload)?),
        Err(error) => {
            let status = error.code().status().as_u16();
            object.member("status", &status)?.member("problem", &error.problem(&state.base_url, request_id))?
        }
    };
    Ok(object.finish())
}

/// The body of a batch. Each upload is read on its own, so that one that cannot be read leaves the others alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody {
    uploads: Vec<Box<RawValue>>,
}

impl BatchBody {
    fn validate(self, state: &State) -> Result<Vec<Result<IssueRequest, ApiError>>, ApiError> {
        if !(1..=MAX_BATCH).contains(&self.uploads.len()) {
            let rule = format!("must hold 1 to {MAX_BATCH} uploads");
            let error = FieldError::new("uploads", rule).with_received(format!("{} uploads", self.uploads.len()));
            return Err(ApiError::fields(ErrorCode::InvalidRequest, vec![error]));
        }
        let read = |upload: &RawValue| parse::<IssueUploadBody>(upload.get().as_bytes())?.validate(state);
        Ok(self.uploads.iter().map(|upload| read(upload)).collect())
    }
}
