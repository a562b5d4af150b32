//! Uploads: issue, list, show, renew, complete, abort.

use std::{collections::BTreeMap, fmt, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, ClientAddress, DEFAULT_POLICY, JsonBody, Object, OptionalJsonBody, Query, UploadId},
    form_return::form_return,
    issued::issued,
    list::{Paging, broken},
    parts::{ClaimedPartBody, PARTS_BODY},
    timestamp,
};
use crate::{
    db::{UploadIntent, idempotency::IdempotencyKey, uploads::Page},
    domain::{Claim, Confirmer, IssueRequest},
    model::{ContentType, ETag, FileName, IntentId, IntentState, Invalid, Metadata, Sha256Digest, UploadMethod},
};

/// Uploads in one page of a list, unless the client asks for fewer.
const DEFAULT_PAGE: usize = 50;
const LARGEST_PAGE: usize = 100;

/// `POST /api/v1/uploads`
pub(super) async fn issue(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    request: HttpRequest,
    body: JsonBody<IssueUploadBody>,
) -> Result<HttpResponse, ApiError> {
    let idempotency_key = idempotency_key(&request, &body.bytes)?;
    let upload = state.service.issue_upload(user.at(address), body.value.validate(&state)?, idempotency_key).await?;
    issued(&state, StatusCode::CREATED, &upload)
}

/// `GET /api/v1/uploads`
pub(super) async fn list(state: web::Data<State>, user: Authenticated, query: Query) -> Result<HttpResponse, ApiError> {
    let (mut page, mut of_state) = (Paging::new(DEFAULT_PAGE, LARGEST_PAGE), None);
    let errors = broken(&query.0, |name, text| match name {
        "state" => {
            of_state = Some(text.parse::<IntentState>().map_err(|error| error.rule)?);
            Ok(())
        }
        _ => page.read(name, text, "state, "),
    });
    if !errors.is_empty() {
        return Err(ApiError::fields(ErrorCode::InvalidRequest, errors));
    }
    let asked = Page { state: of_state, before: page.before, limit: page.rows() };
    let mut uploads = state.service.database.uploads_of(&user.0, &asked).await?;
    let next_cursor = page.cut(&mut uploads, |last| last.id);
    let uploads = uploads.iter().map(UploadView::from).collect();
    Ok(HttpResponse::Ok().json(UploadListView { uploads, next_cursor }))
}

/// `GET /api/v1/uploads/{id}`
pub(super) async fn show(state: web::Data<State>, user: Authenticated, id: UploadId) -> Result<HttpResponse, ApiError> {
    let upload = state.service.owned_upload(&user.0, id.0).await?;
    Ok(HttpResponse::Ok().json(UploadView::from(&upload)))
}

/// `POST /api/v1/uploads/{id}/renew`
pub(super) async fn renew(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    id: UploadId,
    body: OptionalJsonBody<RenewBody>,
) -> Result<HttpResponse, ApiError> {
    let form_return = form_return(&state, body.0.success_action_redirect.as_deref())?;
    let upload = state.service.renew_upload(user.at(address), id.0, form_return.as_ref()).await?;
    issued(&state, StatusCode::OK, &upload)
}

/// `POST /api/v1/uploads/{id}/complete`, the callback.
pub(super) async fn complete(
    state: web::Data<State>,
    id: UploadId,
    request: HttpRequest,
    body: OptionalJsonBody<CompleteBody, PARTS_BODY>,
) -> Result<HttpResponse, ApiError> {
    let CompleteBody { token, etag, parts } = body.0;
    let etag = match etag.as_deref().map(ETag::parse).transpose() {
        Ok(etag) => etag,
        Err(invalid) => return Err(invalid_field("etag", invalid)),
    };
    let parts: Vec<_> = parts.unwrap_or_default().into_iter().map(|Object(part)| part).collect();
    let parts = ClaimedPartBody::validate(&parts)?;
    let claim = Claim { etag: etag.as_ref(), parts: &parts };
    let header = request.headers().get("x-callback-token").map(|value| value.to_str().unwrap_or_default().to_owned());
    // A client that has the callback token may well send a JWT that has run out along with it.
    let upload = if let Some(token) = token.or(header) {
        state.service.confirm_upload(id.0, Confirmer::Token(&token), claim).await?
    } else {
        let user = <Authenticated as actix_web::FromRequest>::extract(&request).await?;
        state.service.confirm_upload(id.0, Confirmer::Owner(&user.0), claim).await?
    };
    Ok(confirmed(&upload))
}

/// The answer to whoever confirmed `upload`.
pub(super) fn confirmed(upload: &UploadIntent) -> HttpResponse {
    // Accepted: verified, and a scanner has yet to say that it is clean.
    let status = if upload.state == IntentState::Inspecting { StatusCode::ACCEPTED } else { StatusCode::OK };
    HttpResponse::build(status).json(UploadView::from(upload))
}

/// `DELETE /api/v1/uploads/{id}`
pub(super) async fn abort(
    state: web::Data<State>,
    user: Authenticated,
    id: UploadId,
) -> Result<HttpResponse, ApiError> {
    let upload = state.service.abort_upload(&user.0, id.0).await?;
    Ok(HttpResponse::Ok().json(UploadView::from(&upload)))
}

/// The body of an issue request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueUploadBody {
    original_file_name: String,
    file_size: FileSize,
    file_type: Option<String>,
    policy: Option<String>,
    method: Option<String>,
    checksum_sha256: Option<String>,
    part_checksums: Option<bool>,
    metadata: Option<BTreeMap<String, String>>,
    expires_in: Option<u32>,
    success_action_redirect: Option<String>,
}

/// The body of a request for a fresh URL.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewBody {
    success_action_redirect: Option<String>,
}

/// The body of the callback.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteBody {
    token: Option<String>,
    etag: Option<String>,
    parts: Option<Vec<Object<ClaimedPartBody>>>,
}

impl IssueUploadBody {
    /// Checks every field, and reports all that break a rule at once.
    pub(super) fn validate(self, state: &State) -> Result<IssueRequest, ApiError> {
        let mut errors = Vec::new();
        let original_file_name = checked(&mut errors, "original_file_name", self.original_file_name, FileName::parse);
        let expires_in = checked_life(&mut errors, "expires_in", self.expires_in);
        // Browsers say "" for a file whose type they do not know.
        let content_type = self
            .file_type
            .filter(|text| !text.is_empty())
            .and_then(|text| checked(&mut errors, "file_type", text, str::parse::<ContentType>));
        let method = self.method.and_then(|text| checked(&mut errors, "method", text, str::parse::<UploadMethod>));
        let checksum_sha256 = self
            .checksum_sha256
            .and_then(|text| checked(&mut errors, "checksum_sha256", text, Sha256Digest::from_base64));
        let metadata = self.metadata.unwrap_or_default();
        let metadata = checked_metadata(&mut errors, metadata, |name| format!("metadata.{name}"));
        let form_return = form_return(state, self.success_action_redirect.as_deref()).unwrap_or_else(|error| {
            errors.extend(error.into_fields());
            None
        });
        match original_file_name {
            Some(original_file_name) if errors.is_empty() => Ok(IssueRequest {
                original_file_name,
                file_size: Some(self.file_size.0),
                content_type,
                policy: self.policy.unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
                method,
                checksum_sha256,
                part_checksums: self.part_checksums.unwrap_or_default(),
                free_parts: false,
                content_md5: None,
                metadata,
                expires_in,
                form_return,
            }),
            _ => Err(ApiError::fields(ErrorCode::InvalidRequest, errors)),
        }
    }
}

pub(super) fn checked<T>(
    errors: &mut Vec<FieldError>,
    field: &str,
    text: String,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Option<T> {
    match parse(&text) {
        Ok(value) => Some(value),
        Err(invalid) => {
            errors.push(FieldError::new(field, invalid).with_received(text));
            None
        }
    }
}

/// A life that was asked for, in seconds.
pub(super) fn checked_life(errors: &mut Vec<FieldError>, field: &str, seconds: Option<u32>) -> Option<Duration> {
    if seconds == Some(0) {
        errors.push(FieldError::new(field, "must be at least 1 second").with_received(0));
    }
    seconds.map(|seconds| Duration::from_secs(seconds.into()))
}

/// `entries` as metadata; `field` names the one at fault.
pub(super) fn checked_metadata(
    errors: &mut Vec<FieldError>,
    entries: BTreeMap<String, String>,
    field: impl FnOnce(&str) -> String,
) -> Metadata {
    Metadata::parse(entries).unwrap_or_else(|(name, invalid)| {
        errors.push(FieldError::new(field(&name), invalid));
        Metadata::default()
    })
}

fn invalid_field(field: &str, invalid: Invalid) -> ApiError {
    ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new(field, invalid)])
}

/// A size in bytes: a JSON number, or its decimal digits in a string, which is what HTML forms and many older
/// clients send.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSize(pub(super) u64);

impl FileSize {
    /// Decimal digits, and nothing that `parse` would take beside them, such as a sign.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let bytes = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        bytes.map(Self).ok_or_else(|| Invalid::new("must be a whole number of bytes"))
    }
}

impl<'de> Deserialize<'de> for FileSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = FileSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of bytes, as a JSON number or as decimal digits in a string")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<FileSize, E> {
                Ok(FileSize(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FileSize, E> {
                FileSize::parse(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The header as the IETF draft has it, in effect: 1 to 255 of the characters that a header may have and
/// that are ASCII: the visible ones, spaces and tabs.
pub(super) fn idempotency_key(request: &HttpRequest, body: &[u8]) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => {
            // The same JSON in another order or with other spaces is the same request.
            let canonical =
                serde_json::from_slice::<serde_json::Value>(body).and_then(|json| serde_json::to_vec(&json));
            let digest = digest::digest(&digest::SHA256, canonical.as_deref().unwrap_or(body));
            let request_sha256 = digest.as_ref().try_into().unwrap_or_default();
            Ok(Some(IdempotencyKey { key: key.to_owned(), request_sha256 }))
        }
        _ => {
            let rule = "must be 1 to 255 visible ASCII characters";
            Err(ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new("Idempotency-Key", rule)]))
        }
    }
}

/// An upload as clients see it.
#[derive(Debug, Serialize)]
pub(super) struct UploadView<'a> {
    id: IntentId,
    original_file_name: &'a str,
    file_name: &'a str,
    file_size: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    file_size_is_limit: bool,
    file_type: &'a str,
    upload_to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_sha256: Option<String>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: &'a Metadata,
    #[serde(serialize_with = "timestamp::serialize")]
    created_at: DateTime<Utc>,
    created_by: &'a str,
    state: IntentState,
    policy: &'a str,
    policy_version: &'a str,
    method: UploadMethod,
    client_network: Option<crate::model::ClientNetwork>,
    #[serde(serialize_with = "timestamp::serialize")]
    expires_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    confirm_until: DateTime<Utc>,
    #[serde(flatten)]
    settlement: Option<SettlementView<'a>>,
}

/// What is known of an upload that has left `issued`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum SettlementView<'a> {
    Inspecting {
        etag: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        warnings: Option<&'a serde_json::Value>,
    },
    Confirmed {
        etag: Option<&'a str>,
        confirmed_at: Option<DateTime<Utc>>,
        confirmed_via: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        warnings: Option<&'a serde_json::Value>,
    },
    Rejected {
        rejected_at: Option<DateTime<Utc>>,
        mismatches: Option<&'a serde_json::Value>,
    },
    Ended {
        ended_at: Option<DateTime<Utc>>,
    },
}

#[derive(Debug, Serialize)]
struct UploadListView<'a> {
    uploads: Vec<UploadView<'a>>,
    next_cursor: Option<String>,
}

impl<'a> From<&'a UploadIntent> for UploadView<'a> {
    fn from(intent: &'a UploadIntent) -> Self {
        let settlement = match intent.state {
            IntentState::Issued => None,
            IntentState::Inspecting => Some(SettlementView::Inspecting {
                etag: intent.etag.as_ref().map(ETag::as_str),
                warnings: intent.mismatches.as_ref(),
            }),
            IntentState::Confirmed => Some(SettlementView::Confirmed {
                etag: intent.etag.as_ref().map(ETag::as_str),
                confirmed_at: intent.settled_at,
                confirmed_via: intent.settled_via.as_deref(),
                warnings: intent.mismatches.as_ref(),
            }),
            IntentState::Rejected => Some(SettlementView::Rejected {
                rejected_at: intent.settled_at,
                mismatches: intent.mismatches.as_ref(),
            }),
            IntentState::Aborted | IntentState::Expired => Some(SettlementView::Ended { ended_at: intent.settled_at }),
        };
        Self {
            id: intent.id,
            original_file_name: intent.original_file_name.as_str(),
            file_name: intent.object_key.file_name(),
            file_size: intent.file_size.bytes(),
            file_size_is_limit: intent.file_size_is_limit,
            file_type: intent.content_type.as_str(),
            upload_to: &intent.upload_to,
            checksum_sha256: intent.checksum_sha256.map(Sha256Digest::to_base64),
            metadata: &intent.metadata,
            created_at: intent.created_at,
            created_by: &intent.subject,
            state: intent.state,
            policy: &intent.policy,
            policy_version: &intent.policy_version,
            method: intent.method,
            client_network: intent.client_network,
            expires_at: intent.expires_at,
            confirm_until: intent.confirm_until,
            settlement,
        }
    }
}
