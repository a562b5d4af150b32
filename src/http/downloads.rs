//! Downloads as JSON: who may read a confirmed upload, and where.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, State,
    extract::{Authenticated, ClientAddress, JsonBody},
    files::{self, Wishes},
};
use crate::{
    domain::{Disposition, DownloadRequest, HandOver, Permit},
    model::{ClientNetwork, Delivery, IntentId},
    signing::Method,
};

/// `POST /api/v1/downloads`
///
/// What only a request for the file itself can be answered with, such as a redirect, is found at the URL that this
/// answers. That is authorized and recorded like any other: it is no secret and opens nothing.
pub(super) async fn issue(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    body: JsonBody<IssueDownloadBody>,
) -> Result<HttpResponse, ApiError> {
    let expires_in = body.value.expires_in;
    let permit = state.service.authorize_download(user.at(address), &body.value.validate()?).await?;
    if let Some(uses) = permit.uses {
        let ticket = state.service.issue_ticket(&permit, uses).await?;
        let url = format!("{}/t/{}", state.base_url, ticket.expose_secret());
        return Ok(HttpResponse::Created().json(DownloadView::of_ticket(&permit, &url)));
    }
    let url = match permit.intent.delivery {
        Delivery::Url | Delivery::Cdn => match state.service.hand_out(&permit, Method::Get).await? {
            HandOver::Url(url) | HandOver::Cdn(url) => url.into_url(),
            _ => files::url(&state.base_url, &permit, expires_in),
        },
        Delivery::Redirect | Delivery::Stream | Delivery::Accel => files::url(&state.base_url, &permit, expires_in),
    };
    Ok(HttpResponse::Created().json(DownloadView::new(&permit, &url)))
}

/// The body of an issue request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueDownloadBody {
    upload_id: String,
    disposition: Option<Disposition>,
    file_name: Option<String>,
    expires_in: Option<u32>,
    delivery: Option<Delivery>,
}

impl IssueDownloadBody {
    fn validate(self) -> Result<DownloadRequest, ApiError> {
        // An id that this service cannot have given out is nobody's upload, as in a path.
        let upload_id: IntentId = self.upload_id.parse().map_err(|_| ApiError::new(ErrorCode::NotFound))?;
        let Self { disposition, file_name, expires_in, delivery, .. } = self;
        Wishes { disposition, file_name, expires_in, delivery }.validate(upload_id)
    }
}

/// A download in JSON.
#[derive(Serialize)]
pub(super) struct DownloadView<'a> {
    id: IntentId,
    upload_id: IntentId,
    delivery: Delivery,
    method: &'static str,
    url: &'a str,
    expires_at: DateTime<Utc>,
    client_network: Option<ClientNetwork>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u16>,
}

impl<'a> DownloadView<'a> {
    /// The download that `permit` allows, at `url`.
    pub(super) fn new(permit: &Permit, url: &'a str) -> Self {
        let intent = &permit.intent;
        Self {
            id: intent.id,
            upload_id: intent.upload_id,
            delivery: intent.delivery,
            method: "GET",
            url,
            expires_at: permit.until,
            client_network: intent.client_network,
            uses: None,
        }
    }

    /// The ticket at `url`, which is good until the end of the intent.
    fn of_ticket(permit: &Permit, url: &'a str) -> Self {
        Self { expires_at: permit.intent.expires_at, uses: permit.uses, ..Self::new(permit, url) }
    }
}
