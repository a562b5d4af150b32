//! Tickets: downloads that whoever has the address may redeem, without a token.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, Header as _},
    web,
};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    ApiError, ErrorCode, State,
    extract::{Authenticated, ClientAddress, UploadId},
    files::{self, UrlAs},
};
use crate::model::IntentId;

/// `GET /t/{ticket}`: uses the ticket once, and hands the file out as its policy says.
pub(super) async fn redeem(
    state: web::Data<State>,
    address: ClientAddress,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    if is_prefetch(&request) {
        return Err(ApiError::new(ErrorCode::PrefetchRefused));
    }
    let permit = state.service.open_ticket(ticket(&request), address.0).await?;
    // A link is mostly followed, by a browser or a program that wants the file, so JSON is for those who ask for it.
    let url_as = if accepts_json(&request) { UrlAs::Json } else { UrlAs::Redirect };
    let response = files::hand_out(&state, &permit, &request, url_as).await?;
    state.service.use_ticket(ticket(&request), address.0).await?;
    Ok(response)
}

/// `HEAD /t/{ticket}`: tells whether a GET would be answered, and uses nothing. What the file is like stays with whoever
/// redeems the ticket.
pub(super) async fn probe(
    state: web::Data<State>,
    address: ClientAddress,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    state.service.check_ticket(ticket(&request), address.0).await?;
    Ok(HttpResponse::Ok().finish())
}

/// `DELETE /api/v1/downloads/{id}`
pub(super) async fn revoke(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    id: UploadId,
) -> Result<HttpResponse, ApiError> {
    let revoked = state.service.revoke_download(user.at(address), id.0).await?;
    let (id, upload_id, revoked_at) = (revoked.id, revoked.upload_id, revoked.revoked_at);
    Ok(HttpResponse::Ok().json(RevokedView { id, upload_id, revoked_at }))
}

fn ticket(request: &HttpRequest) -> &str {
    request.match_info().get("ticket").unwrap_or_default()
}

/// Whether `Accept` (RFC 9110 section 12.5.1) names JSON itself: `*/*` wants the file.
fn accepts_json(request: &HttpRequest) -> bool {
    let accepts = header::Accept::parse(request).map(|accept| accept.0).unwrap_or_default();
    accepts.iter().any(|range| range.item.essence_str() == "application/json" && range.quality > header::Quality::ZERO)
}

/// Whether a browser only thinks that somebody may go there
/// (<https://fetch.spec.whatwg.org/#sec-purpose-header>; the others say the same in older words).
fn is_prefetch(request: &HttpRequest) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].into_iter().any(|name| {
        let values = request.headers().get_all(header::HeaderName::from_static(name));
        values.filter_map(|value| value.to_str().ok()).any(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("prefetch") || value.contains("prerender") || value.contains("preview")
        })
    })
}

#[derive(Serialize)]
struct RevokedView {
    id: IntentId,
    upload_id: IntentId,
    revoked_at: DateTime<Utc>,
}
