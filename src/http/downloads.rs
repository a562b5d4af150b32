//! Downloads: a URL to read a confirmed upload.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, ClientAddress, JsonBody},
};
use crate::{
    domain::{Disposition, DownloadRequest},
    model::{ClientNetwork, FileName, IntentId},
};

/// `POST /api/v1/downloads`
pub(super) async fn issue(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    body: JsonBody<IssueDownloadBody>,
) -> Result<HttpResponse, ApiError> {
    let download = state.service.issue_download(user.at(address), &body.value.validate()?).await?;
    Ok(HttpResponse::Created().json(DownloadView {
        id: download.intent.id,
        upload_id: download.intent.upload_id,
        method: "GET",
        url: download.url.url(),
        expires_at: download.intent.expires_at,
        client_network: download.intent.client_network,
    }))
}

/// The body of an issue request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueDownloadBody {
    upload_id: String,
    disposition: Option<Disposition>,
    file_name: Option<String>,
    expires_in: Option<u32>,
}

impl IssueDownloadBody {
    fn validate(self) -> Result<DownloadRequest, ApiError> {
        // An id that this service cannot have given out is nobody's upload, as in a path.
        let upload_id: IntentId = self.upload_id.parse().map_err(|_| ApiError::new(ErrorCode::NotFound))?;
        let invalid =
            |field: &str, rule: String| ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new(field, rule)]);
        let file_name = self.file_name.as_deref().map(FileName::parse).transpose();
        if self.expires_in == Some(0) {
            return Err(invalid("expires_in", "must be at least 1 second".to_owned()));
        }
        Ok(DownloadRequest {
            upload_id,
            disposition: self.disposition.unwrap_or_default(),
            file_name: file_name.map_err(|error| invalid("file_name", error.rule))?,
            expires_in: self.expires_in.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

#[derive(Serialize)]
struct DownloadView<'a> {
    id: IntentId,
    upload_id: IntentId,
    method: &'static str,
    url: &'a str,
    expires_at: DateTime<Utc>,
    client_network: Option<ClientNetwork>,
}
