//! Files themselves, in whichever way the policy delivers them.

mod accel;
mod conditional;
mod headers;
mod range;
mod stream;

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use reqwest::Url;

use conditional::Verdict;
use range::Wanted;

use super::{
    ApiError, ErrorCode, FieldError, State,
    downloads::DownloadView,
    extract::{Authenticated, ClientAddress, Query, UploadId},
};
use crate::{
    domain::{Disposition, DownloadRequest, FileFacts, HandOver, Permit},
    model::{Delivery, FileName, IntentId},
    signing::Method,
};

/// `GET` and `HEAD /api/v1/files/{id}`
///
/// A HEAD is authorized and recorded like a GET. It tells that the file is there, its size and its digest, which is
/// already reading; and as a redirect it carries a URL of the store, which does not exist without a row.
pub(super) async fn deliver(
    state: web::Data<State>,
    user: Authenticated,
    address: ClientAddress,
    id: UploadId,
    query: Query,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let wishes = Wishes::from_query(&query.0)?.validate(id.0)?;
    let permit = state.service.authorize_download(user.at(address), &wishes).await?;
    hand_out(&state, &permit, &request, UrlAs::Json).await
}

/// How the delivery `url` tells its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlAs {
    Json,
    Redirect,
}

/// Answers `request` with what `permit` allows.
pub(super) async fn hand_out(
    state: &State,
    permit: &Permit,
    request: &HttpRequest,
    url_as: UrlAs,
) -> Result<HttpResponse, ApiError> {
    let method = if *request.method() == actix_web::http::Method::HEAD { Method::Head } else { Method::Get };
    Ok(match state.service.hand_out(permit, method).await? {
        HandOver::Url(url) if url_as == UrlAs::Json => HttpResponse::Ok().json(DownloadView::new(permit, url.url())),
        // Found (RFC 9110 section 15.4.3): the next request for the file has to come here again.
        HandOver::Url(url) | HandOver::Redirect(url) | HandOver::Cdn(url) => {
            HttpResponse::Found().insert_header((header::LOCATION, url.url())).finish()
        }
        HandOver::Stream(file) => match wanted(request, &file.facts)? {
            Some(wanted) => stream::answer(state, request, *file, wanted).await?,
            None => headers::not_modified(&file.facts),
        },
        HandOver::Accel(file) => match wanted(request, &file.facts)? {
            Some(wanted) => accel::answer(state, request, &file, &wanted)?,
            None => headers::not_modified(&file.facts),
        },
    })
}

/// What `request` asks for of the file; `None` where the client has it already.
fn wanted(request: &HttpRequest, file: &FileFacts) -> Result<Option<Wanted>, ApiError> {
    match conditional::judge(request, file) {
        Verdict::NotModified => Ok(None),
        Verdict::PreconditionFailed => Err(ApiError::new(ErrorCode::PreconditionFailed)),
        Verdict::Send { ranges: true } => Ok(Some(range::wanted(request, file.size))),
        Verdict::Send { ranges: false } => Ok(Some(Wanted::Whole)),
    }
}

/// Where the file of `permit` is delivered as it was asked for. `expires_in` is for a redirect's URL, in seconds.
pub(super) fn url(base_url: &str, permit: &Permit, expires_in: Option<u32>) -> String {
    let Permit { intent, disposition, file_name, .. } = permit;
    let mut url = format!("{base_url}/api/v1/files/{}?delivery={}", intent.upload_id, intent.delivery);
    if *disposition == Disposition::Inline {
        url.push_str("&disposition=inline");
    }
    if let Some(expires_in) = expires_in {
        url.push_str("&expires_in=");
        url.push_str(&expires_in.to_string());
    }
    // The base URL of the settings is one, so it always parses.
    match (file_name, Url::parse(&url)) {
        (Some(name), Ok(mut url)) => {
            url.query_pairs_mut().append_pair("file_name", name.as_str());
            url.into()
        }
        _ => url,
    }
}

/// What a client may wish of a download. The policy has the last word.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) disposition: Option<Disposition>,
    pub(super) file_name: Option<String>,
    /// In seconds.
    pub(super) expires_in: Option<u32>,
    pub(super) delivery: Option<Delivery>,
}

impl Wishes {
    fn from_query(query: &BTreeMap<String, String>) -> Result<Self, ApiError> {
        let mut wishes = Self::default();
        let mut errors = Vec::new();
        for (name, value) in query {
            let rule = match name.as_str() {
                "disposition" => {
                    value.parse().map(|disposition| wishes.disposition = Some(disposition)).err().map(|e| e.rule)
                }
                "delivery" => value.parse().map(|delivery| wishes.delivery = Some(delivery)).err().map(|e| e.rule),
                "expires_in" => {
                    let seconds = value.parse().map(|seconds| wishes.expires_in = Some(seconds));
                    seconds.err().map(|_| "must be a number of seconds".to_owned())
                }
                "file_name" => {
                    wishes.file_name = Some(value.clone());
                    None
                }
                _ => Some("is not a parameter of a file: disposition, file_name, expires_in, delivery".to_owned()),
            };
            errors.extend(rule.map(|rule| FieldError::new(name.as_str(), rule).with_received(value.as_str())));
        }
        if errors.is_empty() { Ok(wishes) } else { Err(ApiError::fields(ErrorCode::InvalidRequest, errors)) }
    }

    /// The request for the upload `upload_id`.
    pub(super) fn validate(self, upload_id: IntentId) -> Result<DownloadRequest, ApiError> {
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
            delivery: self.delivery,
        })
    }
}
