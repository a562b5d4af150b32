//! Capabilities: for clients that can send no `Authorization` header.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, State,
    extract::{Authenticated, ClientAddress, DEFAULT_POLICY, OptionalJsonBody, UploadId, Uploader},
    uploads::{checked_life, confirmed},
};
use crate::{
    domain::{Claim, Confirmer},
    model::ClientNetwork,
};

/// `POST /api/v1/capabilities`
pub(super) async fn grant(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    body: OptionalJsonBody<GrantBody>,
) -> Result<HttpResponse, ApiError> {
    let GrantBody { policy, expires_in } = body.0;
    let mut errors = Vec::new();
    let expires_in = checked_life(&mut errors, "expires_in", expires_in);
    if !errors.is_empty() {
        return Err(ApiError::fields(ErrorCode::InvalidRequest, errors));
    }
    let policy = policy.unwrap_or_else(|| DEFAULT_POLICY.to_owned());
    let granted = state.service.grant_capability(user.at(address), policy, None, expires_in)?;
    Ok(HttpResponse::Created().json(GrantedView {
        url: format!("{}/u/{}", state.base_url, granted.token.expose_secret()),
        policy: &granted.capability.policy,
        client_network: granted.capability.network,
        expires_at: granted.capability.principal.authenticated_until,
    }))
}

/// `POST /u/{capability}/uploads/{id}/complete`: the callback, for a page that has nothing but a capability.
pub(super) async fn complete(
    state: web::Data<State>,
    uploader: Uploader,
    id: UploadId,
) -> Result<HttpResponse, ApiError> {
    let upload = state.service.confirm_upload(id.0, Confirmer::Owner(&uploader.principal), Claim::default()).await?;
    Ok(confirmed(&upload))
}

/// The body of a request for a capability.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    policy: Option<String>,
    expires_in: Option<u32>,
}

#[derive(Serialize)]
struct GrantedView<'a> {
    url: String,
    policy: &'a str,
    client_network: Option<ClientNetwork>,
    expires_at: DateTime<Utc>,
}
