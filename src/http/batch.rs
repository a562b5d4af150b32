//! Issuing many uploads at once.

use actix_web::{HttpRequest, HttpResponse, http::header::ContentType, web};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    ApiError, ErrorCode, FieldError, State,
    error::Problem,
    extract::{Authenticated, ClientAddress, JsonBody, parse},
    issued::{Issued, json_body},
    request::RequestId,
    uploads::{IssueUploadBody, idempotency_key},
};
use crate::domain::{IssueRequest, MAX_BATCH};

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
    let results: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(upload) => ResultView::Issued { status: 201, upload: Issued { state: &state, upload } },
            Err(error) => ResultView::Refused {
                status: error.code().status().as_u16(),
                problem: error.problem(&state.base_url, &request_id),
            },
        })
        .collect();
    let size = RESULT_SIZE * results.len();
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(json_body(&BatchView { results }, size)?))
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

#[derive(Serialize)]
struct BatchView<'a> {
    results: Vec<ResultView<'a>>,
}

/// What a request of its own would have been answered.
#[derive(Serialize)]
#[serde(untagged)]
enum ResultView<'a> {
    Issued { status: u16, upload: Issued<'a> },
    Refused { status: u16, problem: Problem<'a> },
}
