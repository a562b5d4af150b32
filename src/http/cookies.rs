//! Cookies for the content delivery network, for administrators.

use std::net::IpAddr;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, ClientAddress, DEFAULT_POLICY, JsonBody},
    uploads::{checked, checked_life},
};
use crate::{
    domain::CookieRequest,
    model::{ClientNetwork, IntentId, Invalid, ObjectKey},
    signing::cloudfront::{CookieScope, SameSite},
};

/// `POST /api/v1/admin/cdn-cookies`
pub(super) async fn issue(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    body: JsonBody<CookiesBody>,
) -> Result<HttpResponse, ApiError> {
    let body = body.value;
    let (request, scope) = body.validate()?;
    let issued = state.service.issue_cookies(user.at(address), &request, scope).await?;
    Ok(HttpResponse::Created().json(CookiesView {
        id: issued.id,
        prefix: request.prefix.as_str(),
        policy: &request.policy,
        client_network: issued.network,
        expires_at: issued.cookies.expires_at,
        set_cookie: issued.cookies.set_cookie_headers(),
    }))
}

/// The body of a request for cookies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CookiesBody {
    prefix: String,
    policy: Option<String>,
    client_address: Option<String>,
    expires_in: Option<u32>,
    domain: Option<String>,
    #[serde(default)]
    same_site: SameSite,
}

impl CookiesBody {
    fn validate(&self) -> Result<(CookieRequest, CookieScope<'_>), ApiError> {
        let mut errors = Vec::new();
        let prefix = checked(&mut errors, "prefix", self.prefix.clone(), |text| {
            // A folder is often written with a slash at its end.
            ObjectKey::parse(text.strip_suffix('/').unwrap_or(text))
        });
        let client_address = self.client_address.clone().and_then(|text| {
            checked(&mut errors, "client_address", text, |text| {
                text.parse::<IpAddr>().map_err(|_| Invalid::new("must be an address"))
            })
        });
        let expires_in = checked_life(&mut errors, "expires_in", self.expires_in);
        let domain = self.domain.as_deref();
        let scope = CookieScope::new(domain, self.same_site).map_err(|invalid| {
            errors.push(FieldError::new("domain", invalid).with_received(domain.unwrap_or_default()));
        });
        match (prefix, scope) {
            (Some(prefix), Ok(scope)) if errors.is_empty() => {
                let policy = self.policy.clone().unwrap_or_else(|| DEFAULT_POLICY.to_owned());
                Ok((CookieRequest { prefix, policy, client_address, expires_in }, scope))
            }
            _ => Err(ApiError::fields(ErrorCode::InvalidRequest, errors)),
        }
    }
}

#[derive(Serialize)]
struct CookiesView<'a> {
    id: IntentId,
    prefix: &'a str,
    policy: &'a str,
    client_network: Option<ClientNetwork>,
    expires_at: DateTime<Utc>,
    set_cookie: &'a [String],
}
