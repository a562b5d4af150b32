//! Revocations, for administrators.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, ClientAddress, JsonBody, Object, Query},
    list::{Paging, broken},
};
use crate::{
    db::revocations::{Revocation, RevocationFilter},
    domain::{RevocationRequest, RevocationSubject},
    model::{IntentId, NAME_RULE, is_name},
};

/// Revocations in one page, unless the client asks for fewer.
const DEFAULT_PAGE: usize = 50;
const LARGEST_PAGE: usize = 100;

/// `POST /api/v1/admin/revocations`
pub(super) async fn revoke(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    body: JsonBody<RevocationBody>,
) -> Result<HttpResponse, ApiError> {
    let revoked = state.service.revoke(user.at(address), body.value.validate()?).await?;
    Ok(HttpResponse::Ok().json(RevokedView {
        revocation: RevocationView::from(&revoked.revocation),
        urls_live_until: revoked.urls_live_until,
    }))
}

/// `GET /api/v1/admin/revocations`
pub(super) async fn list(state: web::Data<State>, user: Authenticated, query: Query) -> Result<HttpResponse, ApiError> {
    let mut page = Paging::new(DEFAULT_PAGE, LARGEST_PAGE);
    let errors = broken(&query.0, |name, text| page.read(name, text, ""));
    if !errors.is_empty() {
        return Err(ApiError::fields(ErrorCode::InvalidRequest, errors));
    }
    let filter = RevocationFilter { before: page.before, limit: page.rows(), ..RevocationFilter::default() };
    let mut revocations = state.service.revocations(&user.0, filter).await?;
    let next_cursor = page.cut(&mut revocations, |last| last.id);
    let revocations = revocations.iter().map(RevocationView::from).collect();
    Ok(HttpResponse::Ok().json(RevocationListView { revocations, next_cursor }))
}

/// The body of a revocation: at most one of `user`, `tenant` and `upload_id`; without them, `issued_before` for everything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationBody {
    user: Option<Object<UserBody>>,
    tenant: Option<Object<TenantBody>>,
    upload_id: Option<String>,
    issued_before: Option<DateTime<Utc>>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    issuer: String,
    subject: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantBody {
    issuer: String,
    tenant: String,
}

impl RevocationBody {
    fn validate(self) -> Result<RevocationRequest, ApiError> {
        let Self { user, tenant, upload_id, issued_before, reason } = self;
        let (user, tenant) = (user.map(|Object(user)| user), tenant.map(|Object(tenant)| tenant));
        let mut errors = Vec::new();
        let mut check = |field: &str, text: &str| {
            if !is_name(text) {
                errors.push(FieldError::new(field, NAME_RULE).with_received(text));
            }
        };
        if let Some(UserBody { issuer, subject }) = &user {
            check("user.issuer", issuer);
            check("user.subject", subject);
        }
        if let Some(TenantBody { issuer, tenant }) = &tenant {
            check("tenant.issuer", issuer);
            check("tenant.tenant", tenant);
        }
        // Told in the same places, and bound by the same rule.
        if let Some(reason) = &reason {
            check("reason", reason);
        }
        let subject = match (user, tenant, upload_id, issued_before) {
            (Some(user), None, None, _) => RevocationSubject::User(user.issuer, user.subject),
            (None, Some(tenant), None, _) => RevocationSubject::Tenant(tenant.issuer, tenant.tenant),
            // An id that this service cannot have given out is nobody's upload, as in a path.
            (None, None, Some(id), _) => {
                RevocationSubject::Upload(id.parse().map_err(|_| ApiError::new(ErrorCode::NotFound))?)
            }
            (None, None, None, Some(_)) => RevocationSubject::All,
            (None, None, None, None) => {
                // Everything is too much to stop by an empty body.
                let rule = "must be given where neither user, tenant nor upload_id is: it stops everything";
                errors.push(FieldError::new("issued_before", rule));
                RevocationSubject::All
            }
            _ => {
                let rule = "must be the only one of user, tenant and upload_id";
                errors.push(FieldError::new("user", rule));
                RevocationSubject::All
            }
        };
        if errors.is_empty() {
            return Ok(RevocationRequest { subject, issued_before, reason });
        }
        Err(ApiError::fields(ErrorCode::InvalidRequest, errors))
    }
}

#[derive(Debug, Serialize)]
struct RevokedView<'a> {
    #[serde(flatten)]
    revocation: RevocationView<'a>,
    urls_live_until: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize)]
struct RevocationListView<'a> {
    revocations: Vec<RevocationView<'a>>,
    next_cursor: Option<String>,
}

/// A revocation as administrators see it.
#[derive(Debug, Serialize)]
struct RevocationView<'a> {
    id: IntentId,
    issuer: Option<&'a str>,
    subject: Option<&'a str>,
    tenant: Option<&'a str>,
    upload_id: Option<IntentId>,
    issued_before: DateTime<Utc>,
    reason: Option<&'a str>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: ActorView<'a>,
}

#[derive(Debug, Serialize)]
struct ActorView<'a> {
    issuer: &'a str,
    subject: &'a str,
}

impl<'a> From<&'a Revocation> for RevocationView<'a> {
    fn from(revocation: &'a Revocation) -> Self {
        Self {
            id: revocation.id,
            issuer: revocation.issuer.as_deref(),
            subject: revocation.subject.as_deref(),
            tenant: revocation.tenant.as_deref(),
            upload_id: revocation.upload_id,
            issued_before: revocation.issued_before,
            reason: revocation.reason.as_deref(),
            revoked_at: revocation.id.issued_at(),
            revoked_by: ActorView { issuer: &revocation.actor_issuer, subject: &revocation.actor_subject },
        }
    }
}
