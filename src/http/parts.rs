//! The parts of multipart uploads: sign, list.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::header::ContentType, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, ClientAddress, JsonBody, UploadId},
    issued::{Headers, json_body},
};
use crate::{
    domain::{ClaimedPart, MOST_BROKEN_RULES, PartsRequest, SignedPart, UploadedParts},
    model::{ETag, PartNumber, Sha256Digest},
    s3::StoredPart,
};

/// What bodies that name every part may have at least, in bytes: 10,000 digests with their numbers, and room for spaces.
pub(super) const PARTS_BODY: usize = 2 << 20;

/// `POST /api/v1/uploads/{id}/parts`
pub(super) async fn sign(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    id: UploadId,
    body: JsonBody<SignPartsBody, PARTS_BODY>,
) -> Result<HttpResponse, ApiError> {
    let parts = state.service.sign_parts(user.at(address), id.0, &body.value.validate()?).await?;
    let urls: usize = parts.iter().map(|part| part.url.url().len()).sum();
    let view = SignedPartsView { parts: parts.iter().map(SignedPartView::from).collect() };
    let body = json_body(&view, urls + 160 * parts.len())?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// `GET /api/v1/uploads/{id}/parts`
pub(super) async fn list(state: web::Data<State>, user: Authenticated, id: UploadId) -> Result<HttpResponse, ApiError> {
    let uploaded = state.service.uploaded_parts(&user.0, id.0).await?;
    Ok(HttpResponse::Ok().json(UploadedPartsView::from(&uploaded)))
}

/// The body of a request for URLs of parts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignPartsBody {
    part_numbers: Vec<u64>,
    checksums_sha256: Option<BTreeMap<String, String>>,
}

impl SignPartsBody {
    fn validate(self) -> Result<PartsRequest, ApiError> {
        let mut errors = Vec::new();
        let mut checksums_sha256 = BTreeMap::new();
        for (number, checksum) in self.checksums_sha256.unwrap_or_default() {
            let field = || format!("checksums_sha256.{number}");
            match (number.parse(), Sha256Digest::from_base64(&checksum)) {
                (Ok(number), Ok(checksum)) => drop(checksums_sha256.insert(number, checksum)),
                (Ok(_), Err(invalid)) => errors.push(FieldError::new(field(), invalid).with_received(checksum)),
                (Err(_), _) => errors.push(FieldError::new(field(), "must be named by the number of a part")),
            }
            if errors.len() == MOST_BROKEN_RULES {
                break;
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::fields(ErrorCode::InvalidRequest, errors));
        }
        Ok(PartsRequest { part_numbers: self.part_numbers, checksums_sha256 })
    }
}

/// A part that a client says it has sent, in the body of the callback.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimedPartBody {
    pub(super) part_number: u64,
    pub(super) etag: String,
}

impl ClaimedPartBody {
    /// Checks every part, and reports the first that break a rule.
    pub(super) fn validate(parts: &[Self]) -> Result<Vec<ClaimedPart>, ApiError> {
        let mut errors = Vec::new();
        if parts.len() > usize::from(PartNumber::MAX) {
            errors.push(FieldError::new("parts", format!("must be at most {}", PartNumber::MAX)));
        }
        let mut claimed = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            match (PartNumber::new(part.part_number), ETag::parse(&part.etag)) {
                (Some(number), Ok(etag)) => claimed.push(ClaimedPart { number, etag }),
                (None, _) => {
                    let rule = format!("must be 1 to {}", PartNumber::MAX);
                    let field = FieldError::new(format!("parts[{at}].part_number"), rule);
                    errors.push(field.with_received(part.part_number));
                }
                (_, Err(invalid)) => errors.push(FieldError::new(format!("parts[{at}].etag"), invalid)),
            }
            if errors.len() == MOST_BROKEN_RULES {
                break;
            }
        }
        if errors.is_empty() { Ok(claimed) } else { Err(ApiError::fields(ErrorCode::InvalidRequest, errors)) }
    }
}

#[derive(Serialize)]
struct SignedPartsView<'a> {
    parts: Vec<SignedPartView<'a>>,
}

#[derive(Serialize)]
struct SignedPartView<'a> {
    part_number: PartNumber,
    url: &'a str,
    headers: Headers<'a>,
    expires_at: DateTime<Utc>,
}

impl<'a> From<&'a SignedPart> for SignedPartView<'a> {
    fn from(part: &'a SignedPart) -> Self {
        Self {
            part_number: part.number,
            url: part.url.url(),
            headers: Headers(&part.url.headers),
            expires_at: part.url.expires_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct UploadedPartsView<'a> {
    part_size: Option<u64>,
    part_count: Option<u16>,
    parts: Vec<UploadedPartView<'a>>,
}

#[derive(Debug, Serialize)]
struct UploadedPartView<'a> {
    part_number: PartNumber,
    size: u64,
    etag: &'a str,
}

impl<'a> From<&'a UploadedParts> for UploadedPartsView<'a> {
    fn from(uploaded: &'a UploadedParts) -> Self {
        let view = |part: &'a StoredPart| UploadedPartView {
            part_number: part.number,
            size: part.size,
            etag: part.etag.as_str(),
        };
        Self {
            part_size: uploaded.plan.map(|plan| plan.part_size()),
            part_count: uploaded.plan.map(|plan| plan.part_count()),
            parts: uploaded.parts.iter().map(view).collect(),
        }
    }
}
